"""What the real backup has written, through the mount: each set of a chain is what the source was at its time."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.records import Job
from tapefs.backup import base
from tests.backup.rig import Rig
from tests.compare.every_kind import every_kind
from tests.compare.ways_back import bring_back
from tests.mount.mount_process import Mounted, mounted

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these files"),
]


def _neighbour_changes(source: Path) -> None:
    """The names in `one` are recorded anew beside it; those in `two` stay where they are."""
    (source / "links/one/neighbour").write_text("changed")


def _another_name(source: Path) -> None:
    (source / "links/three").mkdir()
    os.link(source / "links/one/a", source / "links/three/late")


def _first_name_goes(source: Path) -> None:
    (source / "links/one/a").unlink()


def _attributes_change(source: Path) -> None:
    subprocess.run(["setfacl", "-m", "u:4242:rw", str(source / "links/two/plain")], check=True)
    os.setxattr(source / "links/two", "user.folder", b"new")
    os.setxattr(source / "links/one/neighbour", "user.file", b"new")


def _nothing(source: Path) -> None:
    pass


def _holes_move(source: Path) -> None:
    with (source / "links/two/holes").open("r+b") as file:
        os.pwrite(file.fileno(), b"y" * 4096, 600_000)


def _directory_moves(source: Path) -> None:
    (source / "links/two").rename(source / "links/other")


#: What happens to the source before each set.
CHANGES: list[Callable[[Path], None]] = [
    _nothing,
    _neighbour_changes,
    _another_name,
    _first_name_goes,
    _attributes_change,
    _nothing,
    _holes_move,
    _directory_moves,
]


@dataclass
class Chain:
    """A source that was backed up again and again, with copies of what it was."""

    mount: Mounted
    source: Path
    rig: Rig
    copies: list[Path]

    def root(self, number: int) -> Path:
        """Return the mounted source of one of the sets, the oldest first."""
        names = sorted(set(os.listdir(self.mount.path / "jobs/chain")) - {"latest"}, key=_in_order)
        return self.mount.path / "jobs/chain" / names[number] / str(self.source)[1:]


def _in_order(name: str) -> tuple[str, int]:
    """Order the names of sets that began within one second."""
    time, _, number = name.partition("Z")
    return time, int(number[1:] or 1)


def _make(source: Path) -> None:
    every_kind(source, sockets=False)
    for name in ("one", "two"):
        (source / "links" / name).mkdir(parents=True)
    (source / "links/one/a").write_text("several names")
    (source / "links/one/neighbour").write_text("one name")
    os.link(source / "links/one/a", source / "links/one/b")
    os.link(source / "links/one/a", source / "links/two/c")
    (source / "links/two/plain").write_text("plain")
    with (source / "links/two/holes").open("wb") as file:
        file.truncate(1_000_000)
        os.pwrite(file.fileno(), b"x" * 4096, 300_000)
    os.link(source / "links/two/holes", source / "links/one/holes-too")


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        _make(source)
        rig = Rig(folder)
        with pytest.MonkeyPatch.context() as patch:
            # What was changed just before it was read is not trusted; here nothing changes meanwhile.
            patch.setattr(base, "FRESH_NS", 0)
            copies = list(_backups(rig, folder, source))
        with closing(rig), mounted(rig.home.path, folder / "mnt", folder / "log") as mount:
            yield Chain(mount, source, rig, copies)


def _backups(rig: Rig, folder: Path, source: Path) -> Iterator[Path]:
    """Change, copy and back up the source again and again; yield the copies."""
    job: Job | None = None
    for number, change in enumerate(CHANGES):
        change(source)
        copy = folder / f"copy{number}"
        subprocess.run(["cp", "-a", f"{source}/.", str(copy)], check=True)
        if job is None:
            job = rig.queued(source, name="chain")
            rig.run(job)
        else:
            rig.again(job, type="incremental")
        yield copy


def _difference(one: Path, other: Path, *options: str) -> str:
    command = ["rsync", "-aHAXni", *options, "--delete", f"{one}/", f"{other}/"]
    return subprocess.run(command, capture_output=True, text=True, check=True, errors="surrogateescape").stdout


def _link_groups(root: Path) -> set[frozenset[bytes]]:
    """The names of every file that has several."""
    found: dict[int, list[bytes]] = defaultdict(list)
    for folder, _, names in os.walk(os.fsencode(root)):
        for name in names:
            path = os.path.join(folder, name)
            found[os.lstat(path).st_ino].append(os.path.relpath(path, os.fsencode(root)))
    return {frozenset(names) for names in found.values() if len(names) > 1}


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_each_set_is_what_the_source_was(chain: Chain, number: int) -> None:
    root, copy = chain.root(number), chain.copies[number]
    assert _difference(copy, root) == ""
    assert _difference(root, copy) == ""
    assert _link_groups(root) == _link_groups(copy)
    assert len(_link_groups(copy)) >= 3


@pytest.mark.parametrize("number", [1, 3, 7])
def test_each_set_is_restored_as_the_source_was(chain: Chain, tmp_path: Path, number: int) -> None:
    set_id = chain.rig.ledger.backup_sets()[number].set_id
    report = bring_back(chain.rig, set_id, tmp_path / "target")
    assert report.is_complete, report
    root = tmp_path / "target" / str(chain.source)[1:]
    assert _difference(chain.copies[number], root, "-c") == ""
    assert _link_groups(root) == _link_groups(chain.copies[number])


def test_change_times_are_those_of_the_source(chain: Chain) -> None:
    """Of the newest set, whose source is still there."""
    top = os.fsencode(chain.source)
    for folder, directories, names in os.walk(top):
        for name in directories + names:
            path = os.path.join(folder, name)
            wanted = os.lstat(path)
            found = os.lstat(os.path.join(os.fsencode(chain.root(-1)), os.path.relpath(path, top)))
            for key in ("st_mode", "st_size", "st_ctime_ns", "st_mtime_ns", "st_rdev", "st_nlink"):
                assert getattr(found, key) == getattr(wanted, key), (path, key)
