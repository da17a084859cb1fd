"""How members lie in the plain stream: as a tar archive, or as nothing but their contents. For one thread."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from tapefs.codecs import Codec
from tapefs.format.tar import (
    END_OF_ARCHIVE,
    PlainOwner,
    TarKind,
    TarNames,
    member_header,
    padding,
    plain_header,
    plain_owner,
)

#: What a 7z says of a member beside its name, and with it: UTF-16 takes at most two bytes for each of UTF-8, %XX six.
_COLUMNS_BYTES = 40
_BYTES_PER_NAME_BYTE = 6
_OWNERS_KEPT = 4096


class Layout(Protocol):
    """What stands before, between and behind the contents."""

    #: What ends the stream.
    end: bytes
    #: Are holes left out, with a map of the data in front?
    keeps_holes: bool

    def header(
        self,
        path: bytes,
        status: os.stat_result,
        size: int,
        kind: TarKind,
        *,
        target: bytes,
        rdev: int,
        sparse_bytes: int,
        extra: Sequence[tuple[bytes, bytes]],
    ) -> bytes:
        """Return what comes before a member's content; the arguments are those of `member_header`."""
        ...

    def plain_header(self, path: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int) -> bytes:
        """Return the same of a regular file that has nothing special about it."""
        ...

    def content_of_link(self, target: bytes) -> bytes:
        """Return the content of a symbolic link."""
        ...

    def padding(self, size: int) -> int:
        """Return how many zeros follow `size` bytes of content."""
        ...

    def beside_bytes(self, path: bytes) -> int:
        """Return what a member takes in the payload beside the stream, at most."""
        ...


class TarLayout:
    """A tar archive."""

    end = END_OF_ARCHIVE
    keeps_holes = True

    def __init__(self) -> None:
        self._names = TarNames()
        #: By mode, uid and gid.
        self._owners: dict[tuple[int, int, int], PlainOwner] = {}

    def header(
        self,
        path: bytes,
        status: os.stat_result,
        size: int,
        kind: TarKind,
        *,
        target: bytes,
        rdev: int,
        sparse_bytes: int,
        extra: Sequence[tuple[bytes, bytes]],
    ) -> bytes:
        """Return the pax header and what belongs to it."""
        return member_header(
            path,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            size,
            status.st_mtime_ns,
            kind=kind,
            target=target,
            uname=self._names.user(status.st_uid),
            gname=self._names.group(status.st_gid),
            rdev=rdev,
            sparse_bytes=sparse_bytes,
            extra=extra,
        )

    def plain_header(self, path: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int) -> bytes:
        """Return the pax header and what belongs to it: 3 us less than the other way."""
        owner = self._owners.get((mode, uid, gid))
        if owner is None:
            owner = plain_owner(mode, uid, gid, self._names.user(uid), self._names.group(gid))
            if len(self._owners) == _OWNERS_KEPT:
                self._owners.clear()
            self._owners[mode, uid, gid] = owner
        return plain_header(path, size, mtime_ns, owner)

    def content_of_link(self, target: bytes) -> bytes:
        """Return nothing: the header has it."""
        return b""

    #: Called three times a file: without a function around it.
    padding = staticmethod(padding)

    def beside_bytes(self, path: bytes) -> int:
        """Return 0: all of it is in the stream."""
        return 0


class ContentsLayout:
    """Contents one behind the other; what else there is to say stands elsewhere in the archive."""

    end = b""
    keeps_holes = False

    def header(
        self,
        path: bytes,
        status: os.stat_result,
        size: int,
        kind: TarKind,
        *,
        target: bytes,
        rdev: int,
        sparse_bytes: int,
        extra: Sequence[tuple[bytes, bytes]],
    ) -> bytes:
        """Return nothing."""
        return b""

    def plain_header(self, path: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int) -> bytes:
        """Return nothing."""
        return b""

    def content_of_link(self, target: bytes) -> bytes:
        """Return the target: a symbolic link is a file with another mode."""
        return target

    def padding(self, size: int) -> int:
        """Return 0."""
        return 0

    def beside_bytes(self, path: bytes) -> int:
        """Return the room for name, times and so on in the end header."""
        return _BYTES_PER_NAME_BYTE * len(path) + _COLUMNS_BYTES


def layout_of(codec: Codec) -> Layout:
    """Return the layout of a codec's plain stream."""
    return TarLayout() if codec.is_tar else ContentsLayout()
