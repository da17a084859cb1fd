"""Long listings: they say what they must, and memory does not hold them as lines."""

from __future__ import annotations

import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from catalog.ids import DirectoryNo, SegmentId, new_uuid
from catalog.index.reader import IndexReader
from tapefs.backup.body import SegmentBody
from tapefs.backup.elsewhere import Elsewheres, ListingPiece
from tapefs.backup.frames import Frame
from tapefs.backup.payload import StreamedPayload
from tapefs.codecs import codec as codec_named
from tapefs.format.records import DirectoryPart, Elsewhere
from tapefs.sets.build import _batches
from tests.backup.rig import Rig
from tests.backup.trees import entries

FIRST, SECOND = SegmentId(new_uuid()), SegmentId(new_uuid())


def three() -> Elsewheres:
    found = Elsewheres()
    found.add(b"a", FIRST, 512)
    found.add(b"\xff", FIRST, 2**40)
    found.add(b"z", SECOND, 0)
    return found


def test_lines_are_what_was_added() -> None:
    first, odd, last = three().lines()
    assert first == Elsewhere(name="a", segment=FIRST, at=512)
    assert odd == Elsewhere(name_b64=b"\xff", segment=FIRST, at=2**40)
    assert last == Elsewhere(name="z", segment=SECOND, at=0)


def test_a_piece_is_a_copy_and_what_is_cut_off_is_gone() -> None:
    whole = three()
    piece = whole.piece(1, 3)
    whole.truncate(1)
    whole.add(b"b", SECOND, 1)
    assert [line.name for line in whole.lines()] == ["a", "b"]
    assert [line.segment for line in whole.lines()] == [FIRST, SECOND]
    assert piece.lines() == three().lines()[1:]
    assert (len(whole), len(piece)) == (2, 2)


def test_a_name_takes_little_memory() -> None:
    """The name itself is the walk's."""
    name, found = b"a name", Elsewheres()
    tracemalloc.start()
    try:
        for place in range(100_000):
            found.add(name, FIRST, place + 2**30)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < 100_000 * 30
    assert sys.getsizeof(found.lines()[0]) > 30


def test_a_long_listing_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """A hundred pieces in one frame, as of a directory with a million files."""
    found = Elsewheres()
    for number in range(2_000):
        found.add(b"a name of some length", FIRST, number)
    frame, codec = Frame(65536), codec_named("zstd")
    frame.drafts += [ListingPiece(DirectoryNo(0), found, []) for _ in range(100)]
    body = SegmentBody(tmp_path / "trailer", StreamedPayload(_Nowhere(), codec))
    tracemalloc.start()
    try:
        body.add(frame)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        body.discard()
    # A piece takes 0.5 MB as objects and 0.2 MB as text.
    assert most < 5_000_000


def test_a_piece_is_the_last_of_its_batch() -> None:
    """The builder of an index would else have two thousand of them in memory."""
    lines = [DirectoryPart(n=DirectoryNo(number)) for number in range(3)]
    assert list(_batches(iter(lines))) == [[line] for line in lines]


def test_a_long_directory_over_several_segments(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """The builder compares the listing with the members, name by name."""
    tree = tmp_path / "tree"
    tree.mkdir()
    names = {f"file-{number:05}".encode() + b"\xff" * (number % 3 == 0) for number in range(25_000)}
    for name in names:
        os.close(os.open(os.path.join(bytes(tree), name), os.O_CREAT | os.O_WRONLY))
    rig = make_rig(backup_settings="segment_members = 9000")
    set_id = rig.backup(tree)
    assert len(rig.ledger.segments(set_id)) >= 3
    found = entries(IndexReader(rig.home.index(set_id)))
    assert {path.rpartition(b"/")[2] for path in found if b"/file-" in path} == names


class _Nowhere:
    bytes = 0

    def write(self, data: bytes) -> None:  # type: ignore[valid-type]
        raise AssertionError("there is no content")
