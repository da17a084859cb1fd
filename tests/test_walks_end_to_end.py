"""`cp -r`, `tar c` and `rsync -a` of cold sets through the mount, on the counters of a virtual LTO-9 drive."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tapefs.bench import walks
from tapefs.home import Home
from tapefs.staging.area import StagingArea
from tests.backup.trees import snapshot
from tests.test_end_to_end import wait_until

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]

MIB = 1024**2
SEGMENT_BYTES, FRAME_BYTES = 8 * MIB, 256 * 1024
WALKERS = pytest.mark.parametrize("walker", walks.WALKERS.values(), ids=["cp", "tar", "rsync"])


@dataclass
class Shelf:
    """A full set and two that build on it, with edits all over and renamed folders."""

    home: Home
    tree: Path
    full: str
    newest: str
    look: object

    def limit(self, limit_bytes: int) -> None:
        """Set the room for staging of sidecars that start from now on; 0 for plenty."""
        toml = self.home.path / "tapefs.toml"
        toml.write_text(
            re.sub(r"\[staging\]\n(limit_bytes.*\n)?", f"[staging]\nlimit_bytes = {limit_bytes}\n", toml.read_text())
        )

    def mounted(self, mount: Path, set_id: str) -> Path:
        return mount / "sets" / set_id / str(self.tree).lstrip("/")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    folder = tmp_path_factory.mktemp("walks")
    home = walks.small_home(folder / "home", SEGMENT_BYTES, FRAME_BYTES)
    tree = walks.make_tree(folder / "tree", 30, 100_000)
    full = walks.back_up(home, tree, "full")
    for number in (1, 2):
        walks.change_tree(tree, number)
        newest = walks.back_up(home, tree, "incremental")
    return Shelf(home, tree, full, newest, snapshot(tree))


@pytest.fixture
def shelf(made: Shelf) -> Iterator[Shelf]:
    made.limit(0)
    yield made
    made.limit(0)


@WALKERS
def test_a_walk_is_one_pass_over_the_tape(shelf: Shelf, walker: walks.Walker) -> None:
    """No more locates than segments and two, at nine tenths of the drive's rate; every byte as it was."""
    cold = walks.needs(shelf.home, shelf.newest, shelf.tree)
    assert cold.segments > 6
    walked = walks.walk(shelf.home, shelf.newest, shelf.tree, walker)
    assert walked.locates <= cold.segments + walks.MORE_LOCATES
    assert walked.rate_share >= walks.GOAL
    # What the newest set does not show any more lies between, and is read over; nothing is read twice.
    assert walked.bytes_read < 2 * cold.bytes


def test_a_full_set_streams_and_nothing_else_is_read(shelf: Shelf) -> None:
    cold = walks.needs(shelf.home, shelf.full, shelf.tree)
    walked = walks.walk(shelf.home, shelf.full, shelf.tree, walks.copying)
    assert walked.locates <= cold.segments + walks.MORE_LOCATES
    assert walked.share(cold) >= walks.GOAL


def test_room_for_a_third_of_the_set_is_enough(shelf: Shelf) -> None:
    """A full set streams all the same, and the copy is right."""
    cold = walks.needs(shelf.home, shelf.full, shelf.tree)
    shelf.limit(cold.bytes // 3)
    walked = walks.walk(shelf.home, shelf.full, shelf.tree, walks.copying)
    assert walked.locates <= cold.segments + walks.MORE_LOCATES
    assert walked.share(cold) >= walks.GOAL


def test_an_incremental_set_larger_than_the_room_comes_back_right(shelf: Shelf, tmp_path: Path) -> None:
    cold = walks.needs(shelf.home, shelf.newest, shelf.tree)
    shelf.limit(cold.bytes // 3)
    with walks.serving(shelf.home) as mount:
        subprocess.run(["cp", "-a", shelf.mounted(mount, shelf.newest), tmp_path / "copy"], check=True)
    assert snapshot(tmp_path / "copy") == shelf.look


def test_two_walks_at_once(shelf: Shelf, tmp_path: Path) -> None:
    """One over the whole set, one over a part of it: both right, together little more than one."""
    cold = walks.needs(shelf.home, shelf.newest, shelf.tree)
    part = sorted(each.name for each in shelf.tree.iterdir())[3]
    with walks.serving(shelf.home) as mount:
        source = shelf.mounted(mount, shelf.newest)
        before = walks.counters(shelf.home)
        copies = [
            subprocess.Popen(["cp", "-a", source, tmp_path / "all"]),
            subprocess.Popen(["cp", "-a", source / part, tmp_path / "part"]),
        ]
        assert [copy.wait() for copy in copies] == [0, 0]
        walked = walks.difference(before, walks.counters(shelf.home), 0.0)
    assert walked.locates <= cold.segments + 2 * walks.MORE_LOCATES
    assert snapshot(tmp_path / "all") == shelf.look
    assert snapshot(tmp_path / "part") == snapshot(shelf.tree / part)


def test_who_reads_here_and_there_gets_little_more(shelf: Shelf) -> None:
    """Listed by the same process, and files of six folders read in no order: no walk."""
    limit_bytes = 16 * MIB
    shelf.limit(limit_bytes)
    script = (
        "import os, sys\n"
        "paths = sorted(os.path.join(at, name) for at, _, names in os.walk(sys.argv[1]) for name in names)\n"
        "for place in (500, 77, 650, 301, 12, 410): open(paths[place], 'rb').read()\n"
    )
    with walks.serving(shelf.home) as mount:
        subprocess.run([sys.executable, "-c", script, shelf.mounted(mount, shelf.full)], check=True)
        walks.counters(shelf.home)
        staged = StagingArea(shelf.home.staging).used_bytes()
    # A frame or two each, and what is read on behind: an eighth of the room at most.
    assert 0 < staged <= 6 * (limit_bytes // 8 + 3 * FRAME_BYTES)


def test_a_walker_that_is_killed_hurts_nobody(shelf: Shelf, tmp_path: Path) -> None:
    with walks.serving(shelf.home) as mount:
        source = shelf.mounted(mount, shelf.newest)
        victim = subprocess.Popen(["cp", "-a", source, tmp_path / "half"])
        first = tmp_path / "half" / min(each.name for each in shelf.tree.iterdir())
        wait_until(first.exists, "the copy")
        victim.kill()
        victim.wait()
        subprocess.run(["cp", "-a", source, tmp_path / "copy"], check=True)
    assert snapshot(tmp_path / "copy") == shelf.look
