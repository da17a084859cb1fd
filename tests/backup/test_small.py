"""Small files are taken in a shorter way than others: what comes of it is the same, to the byte."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ids import DirectoryNo, SetId
from catalog.index.model import EntryFlag
from tapefs.backup import base
from tapefs.backup.draft import PLAIN_LINE, Draft
from tapefs.backup.small import SmallFiles
from tapefs.format.lines import read_lines
from tapefs.format.records import DirectoryEntered, DirectoryLeft, End, FrameLine, Member, TrailerLine
from tests.backup.rig import Rig
from tests.backup.trees import extract, random_files, snapshot

_NUMBERS = st.integers(0, 2**63 - 1)


@given(
    name=st.text(st.characters(min_codepoint=1, max_codepoint=127, exclude_characters="/"), min_size=1, max_size=255),
    numbers=st.lists(_NUMBERS, min_size=9, max_size=9),
    times=st.lists(st.integers(-(2**62), 2**65), min_size=2, max_size=2),
    flags=st.integers(0, 1).map(lambda bit: bit * EntryFlag.FRESH),
    sum_=st.binary(min_size=32, max_size=32),
)
def test_a_line_made_by_hand(name: str, numbers: list[int], times: list[int], flags: int, sum_: bytes) -> None:
    """It is the one that the record gives."""
    mode, inode, device, uid, gid, size, blocks, directory, at = numbers
    status = os.stat_result(
        (mode, inode, device, 1, uid, gid, size, 0, 0, 0),
        {"st_mtime_ns": times[0], "st_ctime_ns": times[1], "st_blocks": blocks, "st_rdev": 0},
    )
    draft = Draft(DirectoryNo(directory), name.encode(), status, flags, at)
    by_hand = PLAIN_LINE % (
        directory, msgspec.json.encode(name), mode, uid, gid, size, *times, device, inode, blocks,
        b'"flags":%d,' % flags if flags else b"", at, b64encode(sum_),
    )  # fmt: skip
    assert by_hand == msgspec.json.encode(draft.line(sum_)) + b"\n"


def trailer_of(rig: Rig, set_id: SetId) -> list[object]:
    """Return what the trailers say that does not depend on the run."""
    lines: list[object] = []
    for segment in rig.ledger.segments(set_id):
        with rig.home.trailer(segment.segment_id).open("rb") as file:
            found = list(read_lines(file, TrailerLine))
        lines += [_timeless(line) for line in found if not isinstance(line, End)]
    return lines


def _timeless(line: object) -> object:
    """Return the line without the names of segments, and without what becomes of the directories above the tree."""
    if isinstance(line, DirectoryEntered):
        return line.n, line.name, line.again
    if isinstance(line, FrameLine):
        return line.plain
    if not isinstance(line, DirectoryLeft):
        return line
    places = [msgspec.structs.replace(place, segment="") for place in line.elsewhere]
    return msgspec.structs.replace(line, elsewhere=places)


def mixed(tree: Path) -> Path:
    """Small files and others, in turns."""
    random_files(tree, 300, 1000)
    random_files(tree / "sizes", 40, 0)
    for number, path in enumerate(sorted(tree.iterdir())):
        if path.is_dir():
            continue
        if number % 7 == 1:
            path.write_bytes(os.urandom(40_000 * (number % 5)))
        elif number % 11 == 2:
            os.setxattr(path, "user.a", b"b")
        elif number % 13 == 3:
            os.link(path, tree / f"zz-{number}")
        elif number % 17 == 4:
            os.truncate(path, 100_000)
        elif number % 19 == 5:
            os.rename(path, bytes(tree) + b"/\xff%d" % number)
        elif number % 23 == 6:
            (tree / f"{path.name}-link").symlink_to(path.name)
    (tree / "empty").mkdir()
    (tree / ("long" * 50)).mkdir()
    random_files(tree / ("long" * 50) / "below", 5, 10)
    (tree / 'quoted "\\\n').write_bytes(b"x")
    return tree


@pytest.mark.parametrize("settings", ["frame_bytes = 65536", "segment_members = 100", "segment_bytes = 1048576", ""])
def test_both_ways_give_the_same(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    """Frames, members, lines and sums are the same, wherever frames and segments end."""
    tree = mixed(tmp_path / "tree")
    monkeypatch.setattr(base, "FRESH_NS", 0)
    rig = make_rig(backup_settings=settings)
    taken: list[int] = []
    real = SmallFiles.take

    def counted(self: SmallFiles, directory: object, *arguments: object) -> object:
        before = directory.next_file  # type: ignore[attr-defined]
        found = real(self, directory, *arguments)  # type: ignore[arg-type]
        taken.append(directory.next_file - before)  # type: ignore[attr-defined]
        return found

    monkeypatch.setattr(SmallFiles, "take", counted)
    first = rig.backup(tree)
    assert sum(taken) > 150
    monkeypatch.setattr(SmallFiles, "take", lambda *_: None)
    second = rig.backup(tree)
    one, other = trailer_of(rig, first), trailer_of(rig, second)
    assert len([line for line in one if isinstance(line, Member)]) > 300
    assert one == other
    assert rig.ledger.backup_set(first).bytes == rig.ledger.backup_set(second).bytes
    if not settings:
        assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
