"""Which files a backup takes: sources, their ancestors, and filesystems that hold no files.

Pure apart from `check_sources` and `pseudo_devices`, which look at the system once.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tapefs.errors import SourceError

#: Filesystems made by the kernel on the fly, and our own mounts: a backup of them would not be one of files.
OWN_FILESYSTEM = "fuse.tapefs"
PSEUDO_FILESYSTEMS = frozenset(
    {"autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"}
    | {"fusectl", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs", "tracefs"}
    | {OWN_FILESYSTEM}
)
#: Of these, the ones that can hold files somebody put there: left out of a walk, but not when they are named.
_HOLD_FILES = frozenset({"devtmpfs"})


@dataclass(slots=True)
class Branch:
    """A node on the way from the root to the sources; `whole` means: everything below is wanted."""

    whole: bool = False
    children: dict[bytes, Branch] = field(default_factory=dict)


def branches(sources: Iterable[bytes]) -> Branch:
    """Return the tree of absolute, normalised sources; one inside another adds nothing."""
    root = Branch()
    for source in sources:
        node = root
        for part in filter(None, source.split(b"/")):
            if node.whole:
                break
            node = node.children.setdefault(part, Branch())
        node.whole = True
        node.children.clear()
    return root


def check_sources(sources: Sequence[bytes]) -> list[bytes]:
    """Return the sources normalised. Raises SourceError for one that is missing, unreadable or on a tapefs mount."""
    if not sources:
        raise SourceError("there is nothing to back up: name at least one source")
    pseudo = devices_of(PSEUDO_FILESYSTEMS - _HOLD_FILES)
    return [_checked(source, pseudo) for source in sources]


def _checked(source: bytes, pseudo_devices: frozenset[int]) -> bytes:
    shown = os.fsdecode(source)
    if not source.startswith(b"/"):
        raise SourceError(f"{shown} is not an absolute path")
    # Symbolic links above the source are followed once, here, so that the walk meets none on its way down.
    parent, name = os.path.split(os.path.normpath(source))
    path = os.path.join(os.path.realpath(parent), name) if name else b"/"
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
        elif stat.S_ISREG(status.st_mode):
            os.close(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK))
    except OSError as error:
        raise SourceError(f"source {shown}: {error.strerror}") from error
    if status.st_dev in pseudo_devices:
        raise SourceError(f"source {shown} is on a filesystem of the kernel's own, or a tapefs mount: name real files")
    return path


def devices_of(kinds: Iterable[str], mountinfo: Path = Path("/proc/self/mountinfo")) -> frozenset[int]:
    """Return the device numbers (st_dev) of all mounted filesystems of these kinds."""
    wanted = frozenset(kinds)
    found = set()
    for line in mountinfo.read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        if after.split(b" ", 1)[0].decode() in wanted:
            major, minor = before.split(b" ")[2].split(b":")
            found.add(os.makedev(int(major), int(minor)))
    return frozenset(found)
