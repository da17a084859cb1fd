"""A source tree with everything in it that a file system can have, archived, and mounted once per module."""

from __future__ import annotations

import os
import random
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from catalog.records import BackupSet
from tapefs.staging.area import StagingArea
from tests.mount.fake_sidecar import FakeSidecar
from tests.mount.mount_process import Mounted, mounted
from tests.vfs.shelf import Shelf

#: Every byte but those that a name cannot have.
ODD_NAME = bytes(byte for byte in range(1, 256) if byte != ord("/"))
SEGMENT_BYTES = 300_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        skip = pytest.mark.skip(reason="/dev/fuse is missing or may not be opened: load the fuse module")
        for item in items:
            if "fuse" in item.keywords:
                item.add_marker(skip)


@dataclass
class Rig:
    """A mounted archive of `source`."""

    shelf: Shelf
    sidecar: FakeSidecar
    mount: Mounted
    source: Path
    backup_set: BackupSet

    @property
    def root(self) -> Path:
        """The source tree as it is mounted."""
        return self.mount.path / "jobs/docs/latest" / str(self.source).lstrip("/")

    def segment_of(self, path: Path) -> str:
        return os.getxattr(path, "user.tapefs.segment").decode()


def make_source(source: Path) -> None:
    chance = random.Random(7)
    (source / "deep/er/and/deeper").mkdir(parents=True)
    (source / "empty-dir").mkdir(mode=0o750)
    (source / "small").mkdir()
    for number in range(300):
        (source / "small" / f"file-{number:03}").write_bytes(chance.randbytes(chance.randrange(1, 3000)))
    (source / "wide").mkdir()
    for number in range(2500):
        (source / "wide" / f"{'n' * (number % 60)}{number}").touch()
    (source / "empty").touch()
    (source / "large.bin").write_bytes(chance.randbytes(1_000_001))
    (source / "medium.bin").write_bytes(chance.randbytes(200_000))
    (source / "text").write_text("hello\n")
    os.chmod(source / "text", 0o640)
    (source / "unreadable").write_text("nobody read this")
    with open(os.fsencode(source) + b"/" + ODD_NAME, "wb") as file:
        file.write(b"odd")
    (source / ("n" * 255)).write_text("long")
    os.link(source / "text", source / "hardlink")
    os.symlink("small/file-001", source / "link")
    os.symlink(b"\xff\n dangling", os.fsencode(source) + b"/deep/broken")
    os.mkfifo(source / "fifo", 0o600)
    os.mknod(source / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)) if os.geteuid() == 0 else None
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(source / "socket"))
    os.chmod(source / "medium.bin", 0o4755)
    if os.geteuid() == 0:
        os.chown(source / "small/file-002", 1234, 4321)
    os.utime(source / "text", ns=(1, 981_173_106_123_456_789))
    os.utime(source / "empty", ns=(1, -5_000_000_001))


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    # pytest's folders are closed to others, and the archive would show them so.
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield from _rig(Path(name))


def _rig(folder: Path) -> Iterator[Rig]:
    source = folder / "source"
    make_source(source)
    shelf = Shelf(folder / "home")
    sidecar = FakeSidecar(shelf).start()
    try:
        backup_set = shelf.add_set(source, segment_bytes=SEGMENT_BYTES, unreadable={b"unreadable"})
        with mounted(shelf.home.path, folder / "mnt", folder / "log") as mount:
            yield Rig(shelf, sidecar, mount, source, backup_set)
    finally:
        sidecar.stop()
        shelf.close()


@pytest.fixture
def evicted(rig: Rig) -> Iterator[Rig]:
    """The rig with nothing staged and a sidecar in its usual mood."""
    StagingArea(rig.shelf.home.staging).evict_all()
    rig.sidecar.waiters.clear()
    rig.sidecar.cancelled.clear()
    yield rig
    rig.sidecar.delay_s = 0.05
    rig.sidecar.failure = None
    rig.sidecar.refusal = None
    rig.sidecar.silent = False
