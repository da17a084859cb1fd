"""A folder that looks like a mounted LTFS volume, for the contract suite and the other tests."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.ltfs.drive import LtfsDrive
from drivers.ltfs.volume import Room

MIB = 1024 * 1024
UUID = "8b4f0b5e-6d7c-4a5e-9a35-1f6f2f0a4c11"
BARCODE = "TL0001L9"
ATTRIBUTES = {
    "volumeUUID": UUID,
    "volumeName": "friends of tape",
    "volumeSerial": "TL0001",
    "mamBarcode": BARCODE,
    "volumeBlocksize": "524288",
    "indexGeneration": "7",
    "labelCreator": "IBM LTFS 2.4.5 - Linux - mkltfs",
    "volumeLockState": "0x00000000",
    "mediaPool.name": "archive",
}


def make_volume(mount: Path, **changes: str) -> Path:
    """Make a folder whose attributes are those of a volume's root."""
    mount.mkdir()
    for name, value in (ATTRIBUTES | changes).items():
        os.setxattr(mount, f"user.ltfs.{name}", value.encode())
    return mount


def bytes_below(folder: Path) -> int:
    """Return the bytes of all tape files."""
    return sum(each.stat().st_size for each in folder.glob("tapefs/[0-9]*") if each.suffix != ".blocks")


@dataclass
class LtfsBench:
    """One place with a volume of 24 MiB, of which 2 MiB are for the index."""

    folder: Path
    any_filesystem: bool = False
    total_bytes: int = 24 * MIB
    read_only: bool = False
    mount: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        self.mount = self.folder / "mnt"
        if self.any_filesystem:
            (self.mount / "tapefs").mkdir(parents=True)
            (self.mount / "tapefs" / "name").write_text("DISK01\n")
        else:
            make_volume(self.mount)

    def room(self, descriptor: int) -> Room:
        return Room(max(0, self.total_bytes - bytes_below(self.mount)), self.read_only)

    def open(self) -> LtfsDrive:
        return LtfsDrive(self.folder / "state", 0, self.mount, any_filesystem=self.any_filesystem, room=self.room)

    def loaded(self) -> LtfsDrive:
        drive = self.open()
        drive.load()
        return drive

    def take_out(self) -> None:
        """What an unmounted place looks like: an empty folder."""
        self.mount.rename(self.folder / "shelf")
        self.mount.mkdir()

    def protect(self) -> None:
        self.read_only = True

    def make_worm(self) -> None:
        pytest.skip("LTFS cannot be on a tape that is written once")

    def put_in(self) -> None:
        shutil.rmtree(self.mount)
        (self.folder / "shelf").rename(self.mount)
