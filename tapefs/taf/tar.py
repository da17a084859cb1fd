"""Members of `.tar`, `.tar.gz` and `.tar.zst`, as TAF's `tarfile` and GNU tar write them. Blocking; one thread.

`tarfile` of the standard library reads them as a stream. By itself it takes a damaged header, or a file that ends
between two members, for the end of the archive, and any amount of memory for names; here all of that is damage.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import BinaryIO, Self, cast

from tapefs.errors import BadStructure
from tapefs.taf.records import Member, no_content
from tapefs.taf.streams import DAMAGE, STREAMS, Stream

_PIECE_BYTES = 1024 * 1024
#: Names and attributes of one member.
_HEADER_BYTES = 16 * 1024 * 1024
_NS_PER_S = 1_000_000_000
_LEAST_NS, _MOST_NS = -(1 << 63), (1 << 63) - 1
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_KINDS = {
    tarfile.DIRTYPE: stat.S_IFDIR,
    tarfile.SYMTYPE: stat.S_IFLNK,
    tarfile.FIFOTYPE: stat.S_IFIFO,
    tarfile.CHRTYPE: stat.S_IFCHR,
    tarfile.BLKTYPE: stat.S_IFBLK,
}
#: ValueError and the like are what `tarfile` makes of senseless numbers in headers.
_DAMAGE: tuple[type[BaseException], ...] = (tarfile.TarError, *DAMAGE, ValueError, OverflowError, KeyError, IndexError)


class _Header(tarfile.TarInfo):
    """A header that does not pass damage over."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read one header. Raises ReadError for damage, what `tarfile` expects at the end of the archive."""
        if buf.count(0) == tarfile.BLOCKSIZE:
            return super().frombuf(buf, encoding, errors)
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"a header is damaged, or the archive is cut short ({error})") from error
        if header.type in _EXTENSIONS and header.size > _HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {header.size} bytes is over the limit of {_HEADER_BYTES}")
        if header.size < 0:
            raise tarfile.ReadError("a member has less than no bytes")
        return header


def members_of_tar(file: BinaryIO, suffix: str) -> Iterator[Member]:
    """Yield the members of the archive. Raises BadStructure, OSError."""
    return members_of_stream(STREAMS[suffix](file))


def members_of_stream(stream: Stream) -> Iterator[Member]:
    """Yield the members of a decompressed tar archive. Raises BadStructure, OSError."""
    try:
        with tarfile.open(
            fileobj=cast(BinaryIO, stream),
            mode="r|",
            bufsize=_PIECE_BYTES,
            tarinfo=_Header,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            while (header := archive.next()) is not None:
                yield _member(archive, header)
                # It would keep them all.
                archive.members = []  # type: ignore[attr-defined]
            _drain(stream)
    except _DAMAGE as error:
        raise BadStructure(f"the archive is damaged: {_reason(error)}") from error


def _drain(stream: Stream) -> None:
    """Read to the end, where compressed streams have their checksum."""
    while stream.read(_PIECE_BYTES):
        pass


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _member(archive: tarfile.TarFile, header: tarfile.TarInfo) -> Member:
    is_file = header.isreg()
    data = _data(header) if is_file else None
    if not (is_file or header.islnk() or header.type in _KINDS):
        raise tarfile.ReadError(f"{header.name!r} is of the unknown kind {header.type!r}")
    return Member(
        path=os.fsencode(header.name),
        mode=stat.S_IMODE(header.mode) | _KINDS.get(header.type, stat.S_IFREG),
        uid=header.uid,
        gid=header.gid,
        mtime_ns=_time_ns(header),
        size_bytes=header.size if is_file else 0,
        target=os.fsencode(header.linkname),
        is_link=header.islnk(),
        rdev=os.makedev(header.devmajor, header.devminor) if header.isdev() else 0,
        read=_reader(archive, header) if is_file else no_content,
        offset=header.offset_data,
        data=data,
        read_stored=None if data is None else _stored_reader(archive, header, sum(length for _, length in data)),
    )


def _data(header: tarfile.TarInfo) -> tuple[tuple[int, int], ...] | None:
    """Return where a file with holes has data; None for one without. Raises ReadError when that makes no sense."""
    # The stubs have it otherwise.
    told = cast("list[tuple[int, int]] | None", header.sparse)
    if told is None:
        return None
    runs, end = [], 0
    for place, length in told:
        if not length:
            continue  # The end of the file is told so, and what is unused of a map is zeros.
        if place < end or length < 0 or place + length > header.size:
            raise tarfile.ReadError(f"the data of {header.name!r} does not ascend, or reaches beyond it")
        end = place + length
        runs.append((place, length))
    return tuple(runs)


def _time_ns(header: tarfile.TarInfo) -> int:
    """Return the time exactly: `tarfile` makes a float of it, which has no room for nanoseconds."""
    seconds, _, fraction = header.pax_headers.get("mtime", "").partition(".")
    if seconds.removeprefix("-").isdigit() and (not fraction or fraction.isdigit()):
        part = int(fraction[:9].ljust(9, "0") or "0")
        time_ns = int(seconds) * _NS_PER_S + (-part if seconds.startswith("-") else part)
    else:
        time_ns = int(header.mtime * _NS_PER_S)
    if not _LEAST_NS <= time_ns <= _MOST_NS:
        raise tarfile.ReadError(f"{header.name!r} has a time that does not exist")
    return time_ns


def _stored_reader(archive: tarfile.TarFile, header: tarfile.TarInfo, stored_bytes: int) -> Callable[[int], bytes]:
    """Return what reads the data of a file with holes, without them: a hole may be larger than any disk."""
    stream, left = cast(BinaryIO, archive.fileobj), stored_bytes

    def read(size: int) -> bytes:
        nonlocal left
        try:
            stream.seek(header.offset_data + stored_bytes - left)
            piece = stream.read(min(size, left))
        except _DAMAGE as error:
            raise BadStructure(f"the archive is damaged: {_reason(error)}") from error
        left -= len(piece)
        return piece

    return read


def _reader(archive: tarfile.TarFile, header: tarfile.TarInfo) -> Callable[[int], bytes]:
    content = archive.extractfile(header)
    if content is None:
        raise tarfile.ReadError(f"{header.name!r} has no content")

    def read(size: int) -> bytes:
        try:
            return content.read(size)
        except _DAMAGE as error:
            raise BadStructure(f"the archive is damaged: {_reason(error)}") from error

    return read
