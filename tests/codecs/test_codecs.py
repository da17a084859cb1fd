"""The contract of codecs; every codec of the table must keep it."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tapefs.codecs import AUTO_LEVEL, CODECS, MAX_FRAME_BYTES, Codec, check_level, codec, codec_of_format, is_open
from tapefs.errors import BadStructure, UsageError
from tapefs.format.frames import frame_checksum
from tests.codecs.archives import archive

plains = st.binary(max_size=3000) | st.binary(min_size=1, max_size=40).map(lambda b: b * 500)


#: Every codec of the table, and the engines that write the same format.
WRITERS = {**CODECS, "pgzip by pgzip": codec("pgzip", "pgzip")}
#: What others read payloads with; each makes the plain stream of it.
FOREIGN = {
    "zstd": ("zstd -dc",),
    "gzip": ("gzip -dc", "7z x -si -so -tgzip", "pigz -dc" if shutil.which("pigz") else "gzip -dc"),
    "tar": ("cat",),
    "7z": ("cat >payload.7z && 7z x -so payload.7z",),
}
#: Codecs whose frames carry a check of their own, and how many of the changes tried decoders pass over: to a gzip
#: header (times, system, pgzip's index) and a bit of a zstd one.
CHECKED = {"zstd": 1, "gzip": 60}


@pytest.fixture(params=list(WRITERS), scope="module")
def a_codec(request: pytest.FixtureRequest) -> Codec:
    return WRITERS[request.param]


def _levels(a_codec: Codec) -> list[int]:
    return [a_codec.levels[0], a_codec.default_level, a_codec.levels[-1]]


def _payload(a_codec: Codec, plains: list[bytes]) -> bytes:
    """Return a whole payload of these frames; each is a member of its own where the format has members."""
    encode = a_codec.encoder(a_codec.default_level)
    if a_codec.format == "7z":
        return archive([(b"%05d" % number, 0o100644, plain) for number, plain in enumerate(plains)], encode)
    frames = [(encode(plain), len(plain)) for plain in plains]
    closing = a_codec.closing([(len(stored), length) for stored, length in frames])
    return b"".join(stored for stored, _ in frames) + closing


@settings(max_examples=40)
@given(plain=plains, data=st.data())
def test_frames_come_back(a_codec: Codec, plain: bytes, data: st.DataObject) -> None:
    stored = a_codec.encoder(data.draw(st.sampled_from(a_codec.levels)))(memoryview(plain))
    assert a_codec.decode(stored, len(plain)) == plain
    assert a_codec.decode(memoryview(stored), len(plain)) == plain


@settings(max_examples=20)
@given(pieces=st.lists(plains.filter(bool), min_size=1, max_size=5))
def test_the_shell_command_unpacks_what_frames_and_closing_make(a_codec: Codec, pieces: list[bytes]) -> None:
    command = a_codec.unpack_command or "cat"
    done = subprocess.run(command, shell=True, input=_payload(a_codec, pieces), capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"".join(pieces), b"")


def test_other_programs_unpack_it(a_codec: Codec, tmp_path: Path) -> None:
    pieces = [random.Random(number).randbytes(30_000) + bytes(200_000) for number in range(4)]
    for command in FOREIGN[a_codec.format]:
        payload = _payload(a_codec, pieces)
        done = subprocess.run(command, shell=True, input=payload, cwd=tmp_path, capture_output=True, check=True)
        assert done.stdout == b"".join(pieces), command


def test_bsdtar_reads_a_whole_payload(a_codec: Codec, tmp_path: Path) -> None:
    """libarchive finds out by itself how the payload is compressed."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name * 50_000)
    plain = subprocess.run(["tar", "-cf", "-", "-C", tmp_path, "one", "two"], capture_output=True, check=True).stdout
    if a_codec.format == "7z":
        plain = b"two" * 50_000
    payload = _payload(a_codec, [plain[start : start + 65_536] for start in range(0, len(plain), 65_536)])
    (tmp_path / "payload").write_bytes(payload)
    wanted = [] if a_codec.format == "7z" else ["two"]
    done = subprocess.run(["bsdtar", "-xOf", tmp_path / "payload", *wanted], capture_output=True, check=True)
    assert done.stdout == b"two" * 50_000


def test_frames_do_not_need_each_other(a_codec: Codec) -> None:
    """The same encoder makes the same plain bytes into frames that decode alone, in any order."""
    text = b"the same words in every frame " * 2000
    encode = a_codec.encoder(a_codec.default_level)
    plains = [text + bytes([number]) for number in range(5)]
    frames = [encode(plain) for plain in plains]
    for number in (4, 0, 2, 3, 1):
        assert a_codec.decode(frames[number], len(plains[number])) == plains[number]


def test_small_levels_are_not_larger(a_codec: Codec) -> None:
    words = random.Random(1).choices([b"tape ", b"frame ", b"drive ", b"block ", b"%d " % 7], k=60_000)
    sizes = [len(a_codec.encoder(level)(b"".join(words))) for level in (a_codec.levels[0], a_codec.levels[-1])]
    assert sizes[0] >= sizes[1]
    assert a_codec.is_compressed is (sizes[1] < len(b"".join(words)) // 2)


def test_any_changed_byte_breaks_the_checksum_of_the_frame(a_codec: Codec) -> None:
    """What a codec cannot see itself is seen before it is asked."""
    plain = b"".join(b"%d " % number for number in range(300))
    stored = a_codec.encoder(a_codec.default_level)(plain)
    checksum = frame_checksum(stored)
    for place in range(len(stored)):
        damaged = bytearray(stored)
        damaged[place] ^= 1
        assert frame_checksum(damaged) != checksum


def test_any_changed_byte_gives_an_error_or_the_same(a_codec: Codec) -> None:
    plain = b"".join(b"%d " % number for number in range(300))
    stored = a_codec.encoder(a_codec.default_level)(plain)
    if a_codec.format not in CHECKED:
        return
    same = 0
    for place in range(len(stored)):
        for change in (1, 0x10, 0x80):
            damaged = bytearray(stored)
            damaged[place] ^= change
            try:
                assert a_codec.decode(bytes(damaged), len(plain)) == plain
                same += 1
            except BadStructure:
                continue
    assert same <= CHECKED[a_codec.format]


def test_cut_lengthened_and_doubled_frames_are_refused(a_codec: Codec) -> None:
    plain = b"tape" * 100
    stored = a_codec.encoder(a_codec.default_level)(plain)
    # The last frame of a block of a 7z has that byte behind it.
    longer = stored + (b"\0\0" if a_codec.format == "7z" else b"\0")
    for wrong in [stored[:length] for length in range(len(stored))] + [longer, stored + stored, b"\0" + stored]:
        with pytest.raises(BadStructure):
            a_codec.decode(wrong, len(plain))


def test_a_frame_of_another_length_is_refused(a_codec: Codec) -> None:
    stored = a_codec.encoder(a_codec.default_level)(b"tape" * 100)
    for plain_bytes in (0, 1, 399, 401, 2**20, MAX_FRAME_BYTES + 1, 2**63, -1):
        with pytest.raises(BadStructure):
            a_codec.decode(stored, plain_bytes)


@given(stored=st.binary(max_size=200), plain_bytes=st.integers(0, 1000))
def test_random_bytes_raise_declared_errors_only(a_codec: Codec, stored: bytes, plain_bytes: int) -> None:
    try:
        plain = a_codec.decode(stored, plain_bytes)
    except BadStructure:
        return
    assert a_codec.format not in CHECKED
    assert len(plain) == plain_bytes


def test_levels_are_checked(a_codec: Codec) -> None:
    assert a_codec.default_level in a_codec.levels or is_open(a_codec, a_codec.default_level)
    for level in (*a_codec.levels, *a_codec.auto_levels, a_codec.default_level):
        check_level(a_codec, level)
    for level in (-7, a_codec.levels[-1] + 1, 1000):
        with pytest.raises(UsageError, match=rf"{a_codec.name}.* level {level}: "):
            check_level(a_codec, level)
        with pytest.raises(UsageError):
            a_codec.encoder(level)


def test_only_codecs_with_levels_to_choose_from_take_auto(a_codec: Codec) -> None:
    """Where the run chooses, the seam's encoder is that of the highest level; elsewhere `auto` is refused."""
    assert a_codec.auto_levels or not is_open(a_codec, AUTO_LEVEL)
    if is_open(a_codec, AUTO_LEVEL):
        assert set(a_codec.auto_levels) <= set(a_codec.levels)
        plain = b"tape and tape again " * 1000
        assert a_codec.encoder(AUTO_LEVEL)(plain) == a_codec.encoder(a_codec.auto_levels[-1])(plain)
    else:
        with pytest.raises(UsageError, match="choose"):
            a_codec.encoder(AUTO_LEVEL)


def test_frames_over_the_limit_are_not_made(a_codec: Codec) -> None:
    """What no reader takes must not be written."""
    encode = a_codec.encoder(a_codec.levels[0])
    with pytest.raises(ValueError, match="limit"):
        encode(bytes(MAX_FRAME_BYTES + 1))


def test_threads_decode_beside_each_other(a_codec: Codec) -> None:
    plains = [bytes([number]) * 100_000 for number in range(4)]
    stored = [a_codec.encoder(a_codec.default_level)(plain) for plain in plains]
    wrong = []

    def work(number: int) -> None:
        for _ in range(50):
            if a_codec.decode(stored[number], 100_000) != plains[number]:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_name_is_the_one_in_the_table(a_codec: Codec) -> None:
    assert codec(a_codec.name).name == a_codec.name
    assert codec_of_format(a_codec.format).format == a_codec.format
    assert a_codec.suffix.startswith((".tar", ".7z"))


def test_there_is_no_other_codec() -> None:
    with pytest.raises(UsageError, match="zstd"):
        codec("rot13")
    with pytest.raises(UsageError, match="zstd"):
        codec_of_format("pgzip")
    with pytest.raises(UsageError, match="pgzip"):
        codec("pgzip", "rot13")


BOMBS = """
import lzma, resource, struct, sys, zlib
import zstandard
from tapefs.codecs import codec
from tapefs.errors import BadStructure

sized = zstandard.ZstdCompressor(level=3).compressobj(size=1 << 30)
stored = b"".join([sized.compress(bytes(1 << 20)) for _ in range(1024)] + [sized.flush()])
lying = bytearray(stored)
assert lying[:4] == bytes.fromhex("28b52ffd") and lying[4] & 0xC0 == 0x80
lying[6:10] = struct.pack("<I", 4096)
unsized = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(1 << 24))
claiming = bytes.fromhex("28b52ffd") + bytes([0xE0]) + struct.pack("<Q", 1 << 40) + bytes.fromhex("010000")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for frame, length in (
    (stored, 4096), (stored, 1 << 30), (bytes(lying), 4096), (unsized, 4096), (unsized, 1 << 24),
    (claiming, 1 << 40), (claiming, 4096),
):
    try:
        codec("zstd").decode(frame, length)
    except BadStructure:
        continue
    sys.exit(f"decoded {len(frame)} bytes that claim too much")
bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
bomb = b"".join([bomb.compress(bytes(1 << 20)) for _ in range(256)] + [bomb.flush()])
for frame, length in ((bomb, 4096), (bomb, 1 << 20), (bomb[:-1000], 4096), (bomb, 1 << 28)):
    try:
        codec("pgzip").decode(frame, length)
    except BadStructure:
        continue
    sys.exit(f"decoded {len(frame)} bytes that claim too much")
bomb = lzma.compress(bytes(1 << 28), lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}])[:-1]
for frame, length in ((bomb, 4096), (bomb, 1 << 20), (bomb[:-1000], 4096), (bomb, 1 << 28)):
    try:
        codec("py7zr").decode(frame, length)
    except BadStructure:
        continue
    sys.exit(f"decoded {len(frame)} bytes that claim too much")
sys.exit(0 if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10 else "took too much memory")
"""


def test_bombs_stay_small() -> None:
    """1 GiB of zeros in 32 KiB, frames that claim less or more than they hold, or nothing: all refused, cheaply."""
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
