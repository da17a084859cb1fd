"""The place where the archive is mounted: what is there before, and whether the mount is what it must be. Blocking."""

from __future__ import annotations

import errno
import os
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog

from tapefs.errors import HomeError, UsageError

DEVICE = Path("/dev/fuse")
#: Without these a user of the mount could do more than he could on the machine that was backed up.
REQUIRED = frozenset({"ro", "nosuid", "nodev"})
_TYPE = "fuse.tapefs"

_ESCAPE = re.compile(r"\\([0-7]{3})")

log = structlog.get_logger("tapefs.mount")


@dataclass(frozen=True, slots=True)
class MountEntry:
    """A line of /proc/self/mountinfo."""

    #: Minor number of the device: FUSE's name for the connection.
    minor: int
    path: Path
    options: frozenset[str]
    type: str


def parse_mountinfo(text: str) -> list[MountEntry]:
    """Return the mounts in the order they were made."""
    entries = []
    for line in text.splitlines():
        before, _, behind = line.partition(" - ")
        fields = before.split(" ")
        path = _ESCAPE.sub(lambda found: chr(int(found[1], 8)), fields[4])
        # The text was read as Latin-1, so every byte is one character.
        path = os.fsdecode(path.encode("latin-1"))
        minor = int(fields[2].partition(":")[2])
        entries.append(MountEntry(minor, Path(path), frozenset(fields[5].split(",")), behind.split(" ")[0]))
    return entries


def find_mount(path: Path) -> MountEntry | None:
    """Return what is mounted at `path` itself, the uppermost if there are several."""
    found = [each for each in parse_mountinfo(_mountinfo()) if each.path == path]
    return found[-1] if found else None


def is_archive_at(path: Path) -> bool:
    """Is an archive mounted at `path` whose process lives? May hang if that does not answer."""
    # Unlike resolve() it passes over what a dead mount answers.
    real = Path(os.path.realpath(path))
    found = find_mount(real)
    return found is not None and found.type == _TYPE and not is_stale(real)


def _mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text(encoding="latin-1")


def prepare(directory: Path) -> Path:
    """Check that the archive can be mounted at `directory`, and return its canonical path.

    Takes away a mount whose process has died. Raises UsageError, HomeError.
    """
    if not DEVICE.exists():
        raise HomeError(
            f"{DEVICE} is missing: load the kernel's module with `modprobe fuse`, or start the container with it"
        )
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        raise HomeError(f"{DEVICE} may not be opened: run as root, or let your user into its group")
    # Not resolve(): its last step would ask a mount whose process has died.
    path = directory.absolute().parent.resolve() / directory.name
    clear_stale(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UsageError(f"{directory} does not exist: make it first with `mkdir {directory}`") from None
    except OSError as error:
        raise UsageError(f"{directory} cannot be used: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise UsageError(f"{directory} is not a directory")
    path = path.resolve()
    there = find_mount(path)
    if there is not None and there.type == _TYPE:
        raise UsageError(f"an archive is mounted at {directory} already: unmount it with `umount {directory}`")
    if _has_names(path):
        log.warning("the mount point is not empty: what is there is hidden until the unmount", directory=str(path))
    return path


def _has_names(path: Path) -> bool:
    try:
        with os.scandir(path) as names:
            return next(names, None) is not None
    except PermissionError:  # To mount there is allowed all the same.
        return False


def clear_stale(path: Path) -> None:
    """Take away what a mount process that was killed has left at `path`. Raises HomeError if that fails."""
    while is_stale(path):
        log.warning("a mount process was killed here; cleaning up", directory=str(path))
        if not _unmounted(["fusermount3", "-u", "-z", str(path)]) and not _unmounted(["umount", "-l", str(path)]):
            raise HomeError(
                f"{path} is a mount whose process has died, and it cannot be taken away: try `umount -l {path}`"
            )


def is_stale(path: Path) -> bool:
    """Is a mount at `path` whose process has died?"""
    try:
        # Not stat(), which the kernel may answer from what it remembers.
        os.statvfs(path)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def _unmounted(command: list[str]) -> bool:
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def verify(path: Path) -> MountEntry:
    """Return the archive's mount at `path`. Raises HomeError if it lacks an option that protects."""
    found = find_mount(path)
    if found is None:
        raise HomeError(f"nothing is mounted at {path}")
    missing = REQUIRED - found.options
    if missing:
        raise HomeError(f"the kernel has mounted {path} without {', '.join(sorted(missing))}: it is unmounted again")
    return found
