"""What is damaged on a tape costs only the files in it, and they are named."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.index.reader import IndexReader
from tests.backup.rig import Rig, rigs
from tests.backup.trees import entries, random_files
from tests.compare.look import Tree, look
from tests.untape.runs import Run, cartridges, flip, tape_files, untape

#: Several segments, and several files in most frames.
SMALL = "frame_bytes = 65536\nsegment_bytes = 2097152\nthreads = 2"


class Made:
    """A set of several segments on one tape, a copy of which can be damaged."""

    def __init__(self, rig: Rig, folder: Path, **options: object) -> None:
        self.rig, self._folder = rig, folder
        self.source = random_files(folder / "tree", 100, 20_000)
        random_files(self.source / "large", 4, 900_000)
        (self.source / "large/again").hardlink_to(self.source / "large/file-00001")
        self.set_id: SetId = rig.backup(self.source, **options)
        (self.cartridge,) = cartridges(rig)
        self.before = look(self.source)

    def tape_files(self, number: int) -> list[Path]:
        return tape_files(self.rig, self.set_id, number)

    def restore(self, *more: Path) -> tuple[Run, Tree]:
        out = self._folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        done = untape("restore", self.set_id, self.cartridge, *more, "--to", out)
        return done, look(Path(f"{out}{self.source}"))

    def lost(self, done: Run) -> set[bytes]:
        """Return the paths that it names as lost."""
        words = [line.split(": ")[1] for line in done.told.splitlines() if line.startswith("lost: ")]
        return {os.fsencode(os.path.relpath(path, self.source)) for path in words}

    def wrong(self, found: Tree) -> set[bytes]:
        """Return the paths that are missing or have another content, mode, owner or time."""
        return {path for path, seen in self.before.items() if path not in found or _but_names(found[path], seen)}

    def files_at(self, number: int, place: int) -> set[bytes]:
        """Return the files with content in the frame at a place of a payload."""
        reader = IndexReader(self.rig.home.index(self.set_id))
        try:
            (row,) = (
                frame.row
                for frame in reader.frames(number)
                if frame.row.offset <= place < frame.row.offset + frame.row.stored_bytes
            )
            return {
                os.path.relpath(b"/" + path, bytes(self.source))
                for path, entry in entries(reader).items()
                if entry.segment == number and entry.mode & 0o170000 == 0o100000
                if entry.offset < row.plain_offset + row.plain_bytes and row.plain_offset < entry.offset + entry.size
            }
        finally:
            reader.close()


def _but_names(one: object, other: object) -> bool:
    return any(getattr(one, name) != getattr(other, name) for name in ("kind", "mode", "owner", "mtime_ns", "sha256"))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    making = rigs(tmp_path)
    make_rig = next(making)

    def made(**options: object) -> Made:
        return Made(make_rig(backup_settings=SMALL), tmp_path, **options)

    yield made
    making.close()


@pytest.mark.parametrize("codec", ["zstd", "pgzip", "tar", "py7zr"])
def test_a_flipped_bit_costs_the_files_of_its_frame(make: Callable[..., Made], codec: str) -> None:
    """Of a plain tar, where frames have no checksum, only the file with the bit."""
    made = make(codec=codec, level=0 if codec in ("tar", "py7zr") else 1)
    place = 700_000
    flip(made.tape_files(0)[1], place)
    done, found = made.restore()
    lost = made.lost(done)
    assert done.code == 1
    assert lost
    assert made.wrong(found) == lost
    assert lost <= made.files_at(0, place)
    if codec == "zstd":
        assert lost == made.files_at(0, place)
    checked = untape("check", made.cartridge)
    assert checked.code == 1
    assert {line.split("lost: ")[1].split(": ")[0] for line in checked.told.splitlines() if "lost: " in line} == {
        f"{made.source}/{os.fsdecode(path)}" for path in lost
    }


def test_bits_anywhere(make: Callable[..., Made]) -> None:
    """Wherever one byte of the tape is another, what is wrong is named, or nothing is."""
    made = make()
    chance = random.Random(7)
    files = sorted(made.cartridge.glob("?????"))
    for _ in range(25):
        path = chance.choice(files)
        content = path.read_bytes()
        flip(path, chance.randrange(len(content)))
        done, found = made.restore()
        assert made.wrong(found) == made.lost(done)
        path.write_bytes(content)
    assert made.restore()[0].code == 0


@pytest.mark.parametrize("which", [0, 2])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
def test_a_trailer_or_header_is_lost(make: Callable[..., Made], which: int, how: str) -> None:
    """The SET INDEX says the same, so everything comes back, and the damage is told."""
    made = make()
    path = made.tape_files(1)[which]
    if how == "flipped":
        flip(path, path.stat().st_size // 2)
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    else:
        path.unlink()
    done, found = made.restore()
    assert made.lost(done) == made.wrong(found) == set()
    assert untape("check", made.cartridge).code == 1


def test_the_index_is_lost(make: Callable[..., Made]) -> None:
    """All is there, but nobody knows that the set ends there."""
    made = make()
    sorted(made.cartridge.glob("?????"))[-1].unlink()
    done, found = made.restore()
    assert (done.code, made.wrong(found)) == (1, set())
    assert f"missing: the end of set {made.set_id}" in done.told


def test_trailer_and_index_are_lost(make: Callable[..., Made]) -> None:
    """Then nobody knows what is in a segment but by its archive; the other segments name what they know of."""
    made = make()
    index = sorted(made.cartridge.glob("?????"))[-1]
    os.truncate(index, index.stat().st_size - 1)
    trailer = made.tape_files(1)[2]
    os.truncate(trailer, trailer.stat().st_size - 1)
    done, found = made.restore()
    assert done.code == 1
    assert "no TRAILER or SET INDEX tells what is in it" in done.told
    assert "TRAILER cannot be read" in done.told
    lost = made.lost(done)
    assert lost
    assert made.wrong(found) == lost


def test_the_tape_ends_in_a_payload(make: Callable[..., Made]) -> None:
    made = make()
    _, payload, trailer = made.tape_files(2)
    for path in sorted(made.cartridge.glob("?????")):
        if path >= trailer:
            path.unlink()
    os.truncate(payload, 100_000)
    done, found = made.restore()
    assert done.code == 1
    assert "missing: segment 2" in done.told
    reader = IndexReader(made.rig.home.index(made.set_id))
    kept = {
        os.path.relpath(b"/" + path, bytes(made.source))
        for path, entry in entries(reader).items()
        if entry.segment < 2 and path.startswith(bytes(made.source)[1:] + b"/") and entry.mode & 0o170000 == 0o100000
    }
    reader.close()
    assert kept
    assert kept <= found.keys()
    assert not made.wrong(found) & kept
    assert untape("check", made.cartridge).code == 1


def test_another_copy_helps(make: Callable[..., Made], tmp_path: Path) -> None:
    """Two copies of a tape with damage at different places make one that is whole."""
    made = make()
    copy = tmp_path / "copy"
    shutil.copytree(made.cartridge, copy)
    flip(made.tape_files(0)[1], 700_000)
    other = copy / made.tape_files(0)[1].name
    flip(other, 1_000_000)
    flip(copy / made.tape_files(1)[2].name, 100)
    # The same tape is known by its UUID: the copy must be another one.
    for name in ("00000", "00001"):
        (copy / name).unlink()
    for path in copy.glob("?????"):
        _relabel(path, b"0" * 8)
    done, found = made.restore(copy)
    assert (made.lost(done), made.wrong(found)) == (set(), set())


def _relabel(path: Path, start: bytes) -> None:
    """Change the volume that a HEADER names, and its checksum."""
    content = path.read_bytes()
    if content.startswith(b"TAPEFS HEADER"):
        content = re.sub(rb'"volume":"[0-9a-f]{8}', b'"volume":"' + start, content)
        body = content[: content.rindex(b"blake2b-128 ")]
        path.write_bytes(body + b"blake2b-128 " + hashlib.blake2b(body, digest_size=16).hexdigest().encode() + b"\n")


def test_a_run_that_left_a_tape_in_the_middle_of_a_segment(make: Callable[..., Made], tmp_path: Path) -> None:
    """The torn segment on the tape that is read first has the number of the one that was written again."""
    made = make()
    left = tmp_path / "left"
    left.mkdir()
    header = made.tape_files(1)[0].read_bytes()
    header = re.sub(rb'"segment":"[0-9a-f]{8}', b'"segment":"' + b"0" * 8, header)
    (left / "00002").write_bytes(header)
    _relabel(left / "00002", b"1" * 8)
    assert f"segment {1} of set {made.set_id}" in untape("list", left).out
    out = tmp_path / "out"
    done = untape("restore", made.set_id, left, made.cartridge, "--to", out)
    assert (done.code, done.told.count("missing")) == (0, 0)
    assert made.wrong(look(Path(f"{out}{made.source}"))) == set()
