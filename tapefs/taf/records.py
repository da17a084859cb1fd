"""A member of an archive, as readers of all kinds of archives give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """A file, directory, link or node; it has what `tapefs.restore.attributes.Attributes` wants."""

    #: As it stands in the archive: not checked, and possibly hostile.
    path: bytes
    #: As st_mode, with the type.
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    #: Bytes of its content; 0 for all but regular files.
    size_bytes: int
    #: What a symbolic link points to, or the path of the member that a hard link is another name of.
    target: bytes
    #: Another name of an earlier member.
    is_link: bool
    #: Of a device node.
    rdev: int
    #: Returns the next piece of the content, at most that many bytes; b"" at its end. Until the next member is asked
    #: for. Raises BadStructure.
    read: Callable[[int], bytes]


def no_content(size: int) -> bytes:
    """Read from what has no content."""
    return b""
