"""A mounted volume: found, held, asked whether it still is the one, synced. Blocking; one thread.

What is opened stays open: the system then refuses to unmount the volume, and nothing is ever written through a path
that leads elsewhere meanwhile. A volume that went away nevertheless (a lazy unmount, LTFS's program killed, a disk
unplugged) is noticed by `check`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from drivers.errors import DeviceFailed, DeviceGone, DriveInUse, NoSuchFile, NotReady
from drivers.health import DriveHealth
from drivers.ltfs.attributes import ask_for_index, read_facts, read_health

#: Everything of ours lies in this folder of a volume.
FOLDER = "tapefs"
#: A file in it with the name of the volume, where its label is not wanted, or it has none.
NAME_FILE = "name"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class Room:
    """What a file system says of its space."""

    free_bytes: int
    read_only: bool


def room_of(descriptor: int) -> Room:
    """Ask the file system of an open directory. Raises OSError."""
    found = os.statvfs(descriptor)
    return Room(found.f_bavail * found.f_frsize, bool(found.f_flag & os.ST_RDONLY))


#: Asks for the space of the file system that an open directory is on.
RoomOf = Callable[[int], Room]


class Volume:
    """A volume that is mounted at a path. `close` lets go of it, so that it can be unmounted."""

    def __init__(self, mount: Path, *, any_filesystem: bool = False, room: RoomOf = room_of) -> None:
        """Open what is mounted there.

        Raises NotReady when nothing is, with what to do; DeviceGone when it does not answer.
        """
        self.mount = mount
        self._room = room
        self._folder = -1
        self._root = _open_root(mount)
        try:
            self.facts = read_facts(self._root)
            self._seen = _identity(os.fstat(self._root))
            self._open_folder()
            if not self.facts.is_ltfs:
                self._check_foreign(any_filesystem)
            self.name = self._find_name()
        except OSError as error:
            self.close()
            raise self.failure(error) from error
        except BaseException:
            self.close()
            raise

    def _check_foreign(self, any_filesystem: bool) -> None:
        """Raise NotReady unless this file system may be a medium."""
        if not any_filesystem:
            raise NotReady(
                f"{self.mount} is no LTFS volume: mount one there, or say any_filesystem = true in tapefs.toml if a "
                "disk is to be the medium"
            )
        # An empty directory is what a disk that is not mounted looks like.
        if self._folder < 0:
            raise NotReady(
                f"there is no folder {FOLDER} in {self.mount}: mount the disk; on a new one, make that folder"
            )

    def _open_folder(self) -> None:
        try:
            self._folder = os.open(FOLDER, _FOLDER_FLAGS, dir_fd=self._root)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise NotReady(f"{self.mount}/{FOLDER} is no folder: it is somebody else's") from None
            raise

    def _find_name(self) -> str:
        """Return what the volume is called: by our file, else by LTFS."""
        written = self._written_name()
        if written is not None:
            if not _NAME.fullmatch(written):
                raise NotReady(
                    f"{self.mount}/{FOLDER}/{NAME_FILE} has {written!r}: write a name of up to 32 letters, digits, "
                    "dots, hyphens and underscores"
                )
            return written
        known = (self.facts.barcode, self.facts.serial, self.facts.name)
        fitting = [each for each in known if _NAME.fullmatch(each)]
        if fitting:
            return fitting[0]
        if self.facts.is_ltfs:
            return f"LTFS-{self.facts.uuid[:8].upper()}"
        raise NotReady(f"the disk at {self.mount} has no name: write one into {self.mount}/{FOLDER}/{NAME_FILE}")

    def _written_name(self) -> str | None:
        if self._folder < 0:
            return None
        try:
            descriptor = os.open(NAME_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self._folder)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(4096).decode(errors="replace").strip()

    # -- while it is open --------------------------------------------------------------------------------------------

    @property
    def folder(self) -> int:
        """Descriptor of our folder; -1 when the volume has none yet."""
        return self._folder

    def make_folder(self) -> int:
        """Return the descriptor of our folder; make it where it is missing. Raises OSError."""
        if self._folder < 0:
            os.mkdir(FOLDER, 0o755, dir_fd=self._root)
            self._folder = os.open(FOLDER, _FOLDER_FLAGS, dir_fd=self._root)
        return self._folder

    def open_file(self, path: bytes) -> int:
        """Return a descriptor of a regular file of anybody's. Raises NoSuchFile when there is none, DeviceFailed."""
        held: list[int] = []
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            *folders, name = path.split(b"/")
            for each in folders:
                held.append(os.open(each, flags | os.O_DIRECTORY, dir_fd=held[-1] if held else self._root))
            descriptor = os.open(name, flags, dir_fd=held[-1] if held else self._root)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG):
                raise NoSuchFile(f"{os.fsdecode(path)} is not on volume {self.name}") from None
            raise self.failure(error) from error
        finally:
            for opened in held:
                os.close(opened)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NoSuchFile(f"{os.fsdecode(path)} on volume {self.name} is no regular file")
        return descriptor

    def lock(self) -> None:
        """Keep other drives from this volume until `close`. Raises DriveInUse."""
        try:
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DriveInUse(f"the volume at {self.mount} is in use by another process") from None

    def health(self) -> DriveHealth:
        """Tell what LTFS says of the cartridge; of a disk there is nothing to say. Raises OSError."""
        return read_health(self._root) if self.facts.is_ltfs else DriveHealth()

    def check(self) -> None:
        """Make sure that the volume is still mounted here, and the same. Raises DeviceGone."""
        gone = f"volume {self.name} is not at {self.mount} any more: mount it again, then load it anew"
        try:
            if _identity(os.stat(self.mount)) != self._seen or read_facts(self.mount).uuid != self.facts.uuid:
                raise DeviceGone(gone)
        except OSError as error:
            raise DeviceGone(f"{gone} ({error.strerror})") from error

    def room(self) -> Room:
        """Return what space there is. Raises DeviceFailed."""
        try:
            return self._room(self._root)
        except OSError as error:
            raise self.failure(error) from error

    @property
    def write_protected(self) -> bool:
        """Is it mounted read-only, or locked? Raises DeviceFailed."""
        return self.facts.locked or self.room().read_only

    def sync(self) -> None:
        """Have the names on the medium, and LTFS's index; content was synced before. Raises OSError."""
        if self._folder >= 0:
            os.fsync(self._folder)
        os.fsync(self._root)
        if self.facts.is_ltfs and not ask_for_index(self._root):
            raise OSError(errno.EOPNOTSUPP, "this LTFS does not write its index when it is asked to (ltfs.sync)")

    def failure(self, error: OSError) -> DeviceFailed:
        """Return what an error of the file system means where no block is concerned."""
        if error.errno in (errno.ENOTCONN, errno.ENODEV, errno.ESTALE, errno.ESHUTDOWN):
            return DeviceGone(f"the volume at {self.mount} has gone ({error.strerror}): mount it again")
        return DeviceFailed(f"the volume at {self.mount}: {error.strerror}")

    def close(self) -> None:
        """Let go. Harmless twice."""
        for descriptor in (self._folder, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._folder = self._root = -1


def _open_root(mount: Path) -> int:
    try:
        return os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        raise NotReady(f"there is no folder {mount}: mount a volume there") from None
    except OSError as error:
        if error.errno in (errno.ENOTCONN, errno.EIO):
            raise DeviceGone(f"the volume at {mount} does not answer ({error.strerror}): mount it again") from error
        raise DeviceFailed(f"cannot open {mount}: {error.strerror}") from error


def _identity(found: os.stat_result) -> tuple[int, int]:
    if not stat.S_ISDIR(found.st_mode):
        return (0, 0)
    return found.st_dev, found.st_ino
