"""The contract of codecs; every codec of the table must keep it."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tapefs.codecs import CODECS, MAX_FRAME_BYTES, Codec, codec
from tapefs.errors import BadStructure, UsageError

plains = st.binary(max_size=3000) | st.binary(min_size=1, max_size=40).map(lambda b: b * 500)


@pytest.fixture(params=list(CODECS), scope="module")
def a_codec(request: pytest.FixtureRequest) -> Codec:
    return codec(request.param)


def _payload(a_codec: Codec, plains: list[bytes]) -> bytes:
    encode = a_codec.encoder(3)
    frames = [(encode(plain), len(plain)) for plain in plains]
    closing = a_codec.closing([(len(stored), length) for stored, length in frames])
    return b"".join(stored for stored, _ in frames) + closing


@given(plain=plains, level=st.integers(1, 9))
def test_frames_come_back(a_codec: Codec, plain: bytes, level: int) -> None:
    stored = a_codec.encoder(level)(memoryview(plain))
    assert a_codec.decode(stored, len(plain)) == plain
    assert a_codec.decode(memoryview(stored), len(plain)) == plain


@given(pieces=st.lists(plains.filter(bool), max_size=5))
def test_the_shell_command_unpacks_what_frames_and_closing_make(a_codec: Codec, pieces: list[bytes]) -> None:
    done = subprocess.run(
        a_codec.unpack_command, shell=True, input=_payload(a_codec, pieces), capture_output=True, check=True
    )
    assert (done.stdout, done.stderr) == (b"".join(pieces), b"")


def test_any_changed_byte_gives_an_error_or_the_same(a_codec: Codec) -> None:
    plain = b"".join(b"%d " % number for number in range(300))
    stored = a_codec.encoder(3)(plain)
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
    # Bits that a decoder must ignore.
    assert same <= 1


def test_cut_lengthened_and_doubled_frames_are_refused(a_codec: Codec) -> None:
    plain = b"tape" * 100
    stored = a_codec.encoder(3)(plain)
    for wrong in [stored[:length] for length in range(len(stored))] + [stored + b"\0", stored + stored, b"\0" + stored]:
        with pytest.raises(BadStructure):
            a_codec.decode(wrong, len(plain))


def test_a_frame_of_another_length_is_refused(a_codec: Codec) -> None:
    stored = a_codec.encoder(3)(b"tape" * 100)
    for plain_bytes in (0, 1, 399, 401, 2**20, MAX_FRAME_BYTES + 1, 2**63, -1):
        with pytest.raises(BadStructure):
            a_codec.decode(stored, plain_bytes)


@given(stored=st.binary(max_size=200), plain_bytes=st.integers(0, 1000))
def test_random_bytes_raise_declared_errors_only(a_codec: Codec, stored: bytes, plain_bytes: int) -> None:
    with pytest.raises(BadStructure):
        a_codec.decode(stored, plain_bytes)


def test_levels_are_checked(a_codec: Codec) -> None:
    a_codec.check_level(3)
    for level in (0, -1, 1000):
        with pytest.raises(UsageError):
            a_codec.check_level(level)
        with pytest.raises(UsageError):
            a_codec.encoder(level)


def test_frames_over_the_limit_are_not_made(a_codec: Codec) -> None:
    """What no reader takes must not be written."""
    encode = a_codec.encoder(1)
    with pytest.raises(ValueError, match="limit"):
        encode(bytes(MAX_FRAME_BYTES + 1))


def test_threads_decode_beside_each_other(a_codec: Codec) -> None:
    plains = [bytes([number]) * 100_000 for number in range(4)]
    stored = [a_codec.encoder(3)(plain) for plain in plains]
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
    assert codec(a_codec.name) is a_codec
    assert a_codec.suffix.startswith(".tar")


def test_there_is_no_other_codec() -> None:
    with pytest.raises(UsageError, match="zstd"):
        codec("rot13")


BOMBS = """
import resource, struct, sys
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
sys.exit(0 if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10 else "took too much memory")
"""


def test_zstd_bombs_stay_small() -> None:
    """1 GiB of zeros in 32 KiB, frames that claim less or more than they hold, or nothing: all refused, cheaply."""
    done = subprocess.run([sys.executable, "-c", BOMBS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
