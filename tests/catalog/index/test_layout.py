"""The stored bytes are those that docs/index.md describes: a reader of another time depends on them."""

from __future__ import annotations

from struct import pack
from zlib import crc32

from catalog.ids import DirectoryNo, EntryNo, SegmentNo, SetId
from catalog.index import attributes, layout
from catalog.index.model import Base, Extent, FrameRow, Meta, SegmentRow, Totals
from tests.catalog.index.trees import make_directory, make_entry, segment_id


def _sealed(key: bytes, body: bytes) -> tuple[bytes, bytes]:
    return key, body + pack("<I", crc32(key + body))


def test_an_entry_block() -> None:
    entries = [
        make_entry(b"a", mode=0o100644, uid=1, gid=2, size=3, mtime_ns=-1, ctime_ns=5, nlink=6, rdev=7, dev=8, ino=9,
                   blocks=10, flags=11, segment=12, offset=13),
        make_entry(b"lnk", mode=0o120777, mtime_ns=2**64 + 1, target=b"to"),
    ]  # fmt: skip
    body = (
        pack("<HH", 2, 2)
        + pack("<IIIIQQHIii", 0o100644, 1, 2, 6, 7, 8, 11, 12, -1, 0)
        + pack("<IIIIQQHIii", 0o120777, 0, 0, 1, 0, 1, 0, 0, 1, 0)
        + pack("<BHQQQQQQ", 0, 1, 3, 2**64 - 1, 5, 9, 10, 13)
        + pack("<BHQQQQQQ", 1, 7, 0, 1, 0, 2, 0, 0)
        + b"alnk\0to"
    )
    assert layout.encode_entries(77, entries, last=True) == ([_sealed(pack(">Q", 77), body)], 2)


def test_the_records_of_directories_and_split_files() -> None:
    directory = make_directory(
        5, parent=1, mode=2, uid=3, gid=4, size=5, mtime_ns=-1, ctime_ns=2**65, nlink=6, dev=7, ino=8, blocks=9,
        files_first=10, files_count=11, directories_first=12, directories_count=13, files_bytes=2**64 + 14, flags=32,
    )  # fmt: skip
    body = pack("<QIIIQiQiQIQQQQQQQQIH", 1, 2, 3, 4, 5, -1, 2**64 - 1, 2, 0, 6, 7, 8, 9, 10, 11, 12, 13, 14, 1, 32)
    assert layout.encode_directory(directory) == _sealed(pack(">Q", 5), body)
    assert layout.decode_directory(DirectoryNo(5), body) == directory


def test_the_records_of_extents_links_and_attributes() -> None:
    extents = [Extent(1, 2, SegmentNo(3), 4), Extent(5, 6, SegmentNo(7), 8)]
    assert layout.encode_extents(EntryNo(9), extents) == _sealed(
        pack(">Q", 9), pack("<QQIQQQIQ", 1, 2, 3, 4, 5, 6, 7, 8)
    )
    assert layout.encode_extents(EntryNo(9), []) == _sealed(pack(">Q", 9), b"")
    assert layout.encode_link(9, 4) == _sealed(pack(">Q", 9), pack("<Q", 4))
    xattrs = [(b"user.a", b""), (b"user.b", b"\0\1")]
    body = pack("<HI", 6, 0) + b"user.a" + pack("<HI", 6, 2) + b"user.b\0\1"
    assert attributes.encode_xattrs(xattrs) == body
    assert attributes.encode_directory_xattrs(9, body) == _sealed(pack(">Q", 9), body)
    rows = [(0, 1), (5, 0), (2**32 - 1, 1)]
    chunk = pack("<HH", 3, 2) + pack("<IHIHIH", 0, 1, 5, 0, 2**32 - 1, 1) + pack("<II", 20, 23)
    other = attributes.encode_entry_xattrs(70, rows, [b"x" * 20, b"abc"])
    assert other == _sealed(pack(">Q", 70), chunk + b"x" * 20 + b"abc")


def test_the_records_of_segments() -> None:
    name = segment_id(1)
    row = SegmentRow(SegmentNo(4), name, 5, 6, 7)
    assert layout.encode_segment(row) == _sealed(pack(">I", 4), pack("<QQIH", 5, 6, 7, 36) + name.encode())
    frames = [FrameRow(100, 10, 0, 5, b"x" * 16), FrameRow(110, 20, 5, 9, b"y" * 16)]
    body = pack("<I", 41) + pack("<QQQQ16s", 100, 10, 0, 5, b"x" * 16) + pack("<QQQQ16s", 110, 20, 5, 9, b"y" * 16)
    chunk, ordinal = layout.encode_frames(3, 41, frames)
    assert chunk == _sealed(pack(">IQ", 3, 100), body)
    assert ordinal == _sealed(pack(">II", 3, 41), pack("<Q", 100))
    hashes = [(7, b"a" * 32), (9, b"b" * 32)]
    assert layout.encode_hashes(3, hashes) == _sealed(pack(">IQ", 3, 7), pack("<QQ", 7, 9) + b"a" * 32 + b"b" * 32)


def test_the_records_of_the_set() -> None:
    totals = Totals(2, 3, 4, 2**64 + 5)
    meta = Meta(SetId("set"), totals, EntryNo(6), EntryNo(7), SegmentNo(8), SegmentNo(9), 10)
    body = b"tapefs index" + pack("<IQQQQQQQQQIH", 3, 2, 3, 4, 5, 1, 6, 7, 8, 9, 10, 3) + b"set"
    assert layout.encode_meta(meta) == _sealed(b"index", body)
    bases = [Base(SetId("one"), EntryNo(0), SegmentNo(0)), Base(SetId("two22"), EntryNo(5), SegmentNo(6))]
    body = pack("<QQH", 0, 0, 3) + b"one" + pack("<QQH", 5, 6, 5) + b"two22"
    assert layout.encode_bases(bases) == _sealed(b"bases", body)


def test_the_sizes_that_the_page_states() -> None:
    assert (layout.VALUE_BYTES, layout.FRAMES_PER_CHUNK, layout.HASHES_PER_CHUNK) == (2016, 41, 50)
    assert layout.NUMBERS == 2**39
