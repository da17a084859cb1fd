"""Compressed JSON lines: round trips, damage, and hostile streams."""

from __future__ import annotations

import io
import json
import subprocess
import tracemalloc
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tapefs.errors import BadStructure, UsageError
from tapefs.format import lines as lines_module
from tapefs.format.lines import MAX_LINE_BYTES, LineWriter, read_lines
from tapefs.format.records import DirectoryLeft, End, IndexLine, Member, TrailerLine, name_of
from tests.format import examples


def _stream(lines: list[Any]) -> bytes:
    out = io.BytesIO()
    writer = LineWriter(out.write)
    writer.write_many(lines)
    writer.close()
    return out.getvalue()


def _zstd(text: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(text)


NUMBERS = {
    field: 0 for field in ("d", "mode", "uid", "gid", "size", "mtime", "ctime", "nlink", "dev", "ino", "blocks", "at")
}
SMALL = _stream([DirectoryLeft(n=number) for number in range(3)])


@given(st.lists(examples.index_lines, max_size=8), st.integers(1, 50))
@settings(max_examples=60)
def test_lines_come_back(lines: list[Any], piece: int) -> None:
    stream = _stream(lines)
    assert list(read_lines(io.BytesIO(stream), IndexLine)) == lines
    pieces = [stream[start : start + piece] for start in range(0, len(stream), piece)]
    assert list(read_lines(pieces, IndexLine)) == lines


def test_many_lines_written_either_way_are_plain_json_lines_for_others() -> None:
    lines = [DirectoryLeft(n=number, here=[(number, 7)]) for number in range(20_000)]
    out = io.BytesIO()
    writer = LineWriter(out.write)
    for line in lines[:10_000]:
        writer.write(line)
    writer.write_many(lines[10_000:])
    writer.close()
    writer.close()
    plain = subprocess.run(["zstd", "-dc"], input=out.getvalue(), capture_output=True, check=True).stdout
    assert [json.loads(line)["n"] for line in plain.splitlines()] == list(range(20_000))
    assert (writer.lines, writer.plain_bytes) == (20_000, len(plain))
    assert list(read_lines([out.getvalue()], TrailerLine)) == lines


def test_streams_joined_end_to_end_are_a_stream() -> None:
    assert [line.n for line in read_lines([SMALL + SMALL], TrailerLine)] == [0, 1, 2, 0, 1, 2]


def test_reading_is_lazy() -> None:
    """A reader of the head of an index must not need the rest of it."""
    lines = [DirectoryLeft(n=number, here=[(number * 7919 % 10_007, 1)]) for number in range(100_000)]
    stream = _stream(lines)
    assert next(read_lines([stream[: len(stream) // 2]], TrailerLine)) == lines[0]


def test_any_changed_byte_is_noticed() -> None:
    for place in range(len(SMALL)):
        for change in (1, 0x10, 0x80):
            damaged = bytearray(SMALL)
            damaged[place] ^= change
            try:
                assert list(read_lines([bytes(damaged)], TrailerLine)) == list(read_lines([SMALL], TrailerLine))
            except BadStructure:
                continue
            # A bit of zstd's frame header that its decoders must ignore, and the window it would have needed at least.
            assert place in (4, 5)


def test_cut_streams_are_refused_at_every_byte() -> None:
    for length in range(len(SMALL)):
        with pytest.raises(BadStructure):
            list(read_lines([SMALL[:length]], TrailerLine))


@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_raise_declared_errors_only(octets: bytes, compressed: bool) -> None:
    try:
        list(read_lines([_zstd(octets) if compressed else octets], TrailerLine))
    except BadStructure:
        return
    # Blank lines say nothing and are nothing.
    assert compressed
    assert not octets.strip(b"\n\r\t ")


@pytest.mark.parametrize(
    "line",
    [
        b'{"t":"x"}',
        b'{"t":"l"}',
        b'{"t":"l","n":-1}',
        b'{"t":"l","n":9223372036854775808}',
        b'{"t":"l","n":1,"new":' + b"[" * 100_000 + b"}",
        b'{"t":"l","n":1,"elsewhere":[{"name":"x","segment":"../../etc/passwd","at":1}]}',
        b'{"t":"b","at":0,"stored":1,"plain":1,"sum":"AAAA"}',
        b'{"t":"l","n":1}\n{"t":"l","n"',
        b'{"t":"index_end","index":"5f1b2f62-9f0e-4d52-8d5b-6f3f0c1a7e21","lines":1}',
    ],
)
def test_lines_that_are_not_what_they_should_be_are_refused(line: bytes) -> None:
    with pytest.raises(BadStructure):
        list(read_lines([_zstd(line + b"\n")], TrailerLine))


def test_a_line_without_its_newline_is_cut_short() -> None:
    with pytest.raises(BadStructure, match="cut short"):
        list(read_lines([_zstd(b'{"t":"l","n":1}')], TrailerLine))


def test_unknown_keys_are_ignored() -> None:
    assert list(read_lines([_zstd(b'{"t":"l","new":[{}],"n":1}\n')], TrailerLine)) == [DirectoryLeft(n=1)]


@pytest.mark.parametrize("filling", [b"\0", b" \n", b'{"t":"l","n":1}\n'])
def test_bombs_stay_small(filling: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few KiB that are 128 MiB of zeros, of blank lines, or of lines: refused, and never held at once."""
    monkeypatch.setattr(lines_module, "_FREE_BYTES", 1 << 20)
    bomb = zstandard.ZstdCompressor(level=3).compressobj()
    piece = filling * ((1 << 20) // len(filling))
    stream = b"".join([bomb.compress(piece) for _ in range(128)] + [bomb.flush()])
    tracemalloc.start()
    try:
        with pytest.raises(BadStructure):
            for _ in read_lines([stream], TrailerLine):
                pass
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_large_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    wide = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    stream = wide.compress(b'{"t":"l","n":1}\n') + wide.flush()
    with pytest.raises(BadStructure, match="memory"):
        list(read_lines([stream], TrailerLine))


def test_a_line_over_the_limit_is_neither_written_nor_read() -> None:
    long = DirectoryLeft(n=1, directories=[1_000_000] * (MAX_LINE_BYTES // 8))
    writer = LineWriter(lambda _: None)
    with pytest.raises(UsageError):
        writer.write(long)
    with pytest.raises(UsageError):
        writer.write_many([long])
    assert writer.lines == 0
    text = msgspec.json.encode(long) * 2 + b"\n"
    with pytest.raises(BadStructure, match="longer"):
        list(read_lines([_zstd(text)], TrailerLine))


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0", "x" * 256])
def test_names_that_climb_are_refused(name: str) -> None:
    line = msgspec.convert(
        {"t": "m", "name": name} | NUMBERS,
        Member,
    )
    with pytest.raises(BadStructure):
        name_of(line)


@given(examples.members | examples.directories)
def test_plain_names_come_back(line: Any) -> None:
    assert name_of(line) == (line.name_b64 or line.name.encode())


def test_the_end_is_a_line_of_its_own_kind() -> None:
    with pytest.raises(BadStructure):
        list(read_lines([SMALL], End))
