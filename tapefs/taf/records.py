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
    #: Where its stored content begins in the decompressed stream of the archive.
    offset: int = 0
    #: Of a file with holes: its data, as place in the file and length, ascending; it lies run behind run from `offset`.
    data: tuple[tuple[int, int], ...] | None = None
    #: As `read`, but of a file with holes only the data. Either of the two is used.
    read_stored: Callable[[int], bytes] | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of its content in the stream: of a file with holes only the data."""
        return self.size_bytes if self.data is None else sum(length for _, length in self.data)


def no_content(size: int) -> bytes:
    """Read from what has no content."""
    return b""
