"""A drive that counts the seconds spent in writing calls. Used by the threads that may use the drive, one at a time."""

from __future__ import annotations

import time

from drivers.errors import NotSupported
from drivers.interface import BlockNo, Drive, DriveKey, DriveStatus, Encryption, Encrypts, NextBlock, Position


class MeteredDrive:
    """A `drivers.interface.Drive` around another; see there for what the calls do and raise."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        #: Seconds spent in writing, and bytes of the blocks written.
        self.write_s = 0.0
        self.written_bytes = 0

    def load(self, *, compress: bool | None = None) -> None:
        """See `Drive.load`."""
        self._drive.load(compress=compress)

    def unload(self) -> None:
        """See `Drive.unload`."""
        self._drive.unload()

    def status(self) -> DriveStatus:
        """See `Drive.status`."""
        return self._drive.status()

    def position(self) -> Position:
        """See `Drive.position`."""
        return self._drive.position()

    def rewind(self) -> None:
        """See `Drive.rewind`."""
        self._drive.rewind()

    def locate(self, block: BlockNo) -> None:
        """See `Drive.locate`."""
        self._drive.locate(block)

    def space_filemarks(self, count: int) -> None:
        """See `Drive.space_filemarks`."""
        self._drive.space_filemarks(count)

    def seek_end(self) -> None:
        """See `Drive.seek_end`."""
        self._drive.seek_end()

    def read_into(self, buffer: memoryview) -> int:
        """See `Drive.read_into`."""
        return self._drive.read_into(buffer)

    def write_block(self, block: bytes | memoryview) -> bool:
        """See `Drive.write_block`."""
        before_s = time.perf_counter()
        try:
            return self._drive.write_block(block)
        finally:
            self.write_s += time.perf_counter() - before_s
            self.written_bytes += len(block)

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """See `Drive.write_filemarks`."""
        before_s = time.perf_counter()
        try:
            self._drive.write_filemarks(count, sync=sync)
        finally:
            self.write_s += time.perf_counter() - before_s

    def erase(self, *, long: bool) -> None:
        """See `Drive.erase`."""
        self._drive.erase(long=long)

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """See `Encrypts.set_key`."""
        if isinstance(self._drive, Encrypts):
            self._drive.set_key(key, writes=writes)
        elif key is not None:
            raise NotSupported("this drive cannot encrypt")

    def encryption(self) -> Encryption | None:
        """See `Encrypts.encryption`."""
        return self._drive.encryption() if isinstance(self._drive, Encrypts) else None

    def next_block(self) -> NextBlock:
        """See `Encrypts.next_block`."""
        return self._drive.next_block() if isinstance(self._drive, Encrypts) else NextBlock.UNKNOWN

    def close(self) -> None:
        """See `Drive.close`."""
        self._drive.close()
