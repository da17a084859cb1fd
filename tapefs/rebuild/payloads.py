"""The members of a payload, read as the tar archive that it is, for segments whose TRAILER is gone. Drive's thread.

Exactly what docs/format.md says is read; anything else is damage. What was found goes to a file, because only all
segments of a set together tell in which directory each member is (`assembly.py`).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from catalog.errors import StorageFailed
from tapefs.durable import sync_folder
from tapefs.errors import BadStructure
from tapefs.format.acl import ACL_KEYWORDS, acl_value
from tapefs.format.lines import LineWriter
from tapefs.format.records import AGE, End, FrameLine, Header
from tapefs.format.tar import PART_KEYWORD, XATTR_KEYWORD, read_part_extra
from tapefs.home import Home
from tapefs.keys.reading import open_file, preamble_of
from tapefs.rebuild.plain import PlainStream

_BLOCK = 512
_NS = 10**9
#: Records of one member, and long names: format.md bounds the attributes to 960 KiB.
_MOST_EXTRA_BYTES = 4 << 20
_MOST_RUNS = 1 << 20
_KINDS = {
    b"0": stat.S_IFREG,
    b"1": 0,
    b"2": stat.S_IFLNK,
    b"3": stat.S_IFCHR,
    b"4": stat.S_IFBLK,
    b"5": stat.S_IFDIR,
    b"6": stat.S_IFIFO,
}
_ACLS = {keyword: name for name, keyword in ACL_KEYWORDS.items()}


class RawMember(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="t", tag="r"):
    """A member as the archive says it; of a part of a file the path is that of the whole."""

    #: Without a slash at its end.
    path: bytes
    #: With the type bits; 0: another name of `link`.
    mode: int
    uid: int = 0
    gid: int = 0
    #: Of the content, holes included; of a part its length.
    size: int = 0
    mtime: int = 0
    rdev: int = 0
    #: Where the content begins in the plain stream.
    at: int
    sha256: bytes = b""
    #: Of a symbolic link.
    target: bytes = b""
    #: Path of an earlier member.
    link: bytes = b""
    xattrs: list[tuple[bytes, bytes]] = []
    #: Runs of data; None: no holes.
    data: list[tuple[int, int]] | None = None
    #: Index and place of a part; -1: the file is whole.
    part: int = -1
    part_offset: int = 0


RawLine = RawMember | FrameLine | End


def members_file(folder: Path, segment_id: str) -> Path:
    """Return the file of what was found in a segment's payload."""
    return folder / f"{segment_id}.members"


def take_payload(home: Home, folder: Path, header: Header, blocks: Iterable[bytes | memoryview]) -> End:
    """Keep what a payload that is being read holds; return what a trailer's last line would say.

    Raises BadStructure, KeyMissing, StorageFailed, and what reading raises.
    """
    path = members_file(folder, header.segment)
    part = path.with_suffix(".part")
    stream = PlainStream(header.codec, blocks, lambda pieces: open_file(home, pieces))
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with part.open("wb") as file:
            end = _write(file, header, stream)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        sync_folder(folder)
    except OSError as error:
        raise StorageFailed(f"cannot write {path}: {error.strerror}", retryable=False) from error
    finally:
        part.unlink(missing_ok=True)
    return end


def _write(file: BinaryIO, header: Header, stream: PlainStream) -> End:
    writer = LineWriter(file.write)
    members = 0
    for member in _members(_Bytes(stream.chunks())):
        members += member.mode == 0 or not stat.S_ISDIR(member.mode)
        writer.write(member)
        writer.write_many(stream.frames)
        stream.frames.clear()
    writer.write_many(stream.frames)
    end = End(
        segment=header.segment,
        number=header.number,
        payload_sha256=stream.sha256(),
        payload_bytes=stream.stored_bytes,
        payload_blocks=stream.blocks,
        plain_bytes=stream.plain_bytes,
        members=members,
        frames=stream.frame_count,
        key_fingerprint=header.key_fingerprint if header.encryption == AGE else None,
        preamble=preamble_of(stream.first) if header.encryption == AGE else b"",
    )
    writer.write(end)
    writer.close()
    return end


class _Bytes:
    """A stream of chunks, read by the byte."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self.at = 0

    def read(self, count: int) -> bytes:
        """Return so many bytes. Raises BadStructure when the stream ends before."""
        pieces, missing = [], count
        while missing:
            piece = self.some(missing)
            if not piece:
                raise BadStructure("the archive is cut short")
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def some(self, most: int) -> bytes:
        """Return some bytes, at most so many; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        piece, self._rest = self._rest[:most], self._rest[most:]
        self.at += len(piece)
        return piece


def _members(data: _Bytes) -> Iterator[RawMember]:
    """Yield the members up to the end of the archive, all of which is read. Raises BadStructure."""
    while True:
        extra: dict[bytes, bytes] = {}
        while True:
            header = data.read(_BLOCK)
            if not any(header):
                while data.some(1 << 20):
                    pass
                return
            _check_sum(header)
            kind = header[156:157]
            if kind not in (b"L", b"K", b"x"):
                break
            content = _content(data, _number(header[124:136]), _MOST_EXTRA_BYTES)
            if kind == b"x":
                extra.update(_records(content))
            else:
                extra[b"path" if kind == b"L" else b"linkpath"] = content.rstrip(b"\0")
        yield _member(data, header, extra)


def _check_sum(header: bytes) -> None:
    said = _number(header[148:156])
    if said != sum(header[:148]) + sum(header[156:]) + 8 * 0x20 or header[257:263] != b"ustar\0":
        raise BadStructure("the header of a member is damaged")


def _number(field: bytes) -> int:
    text = field.rstrip(b"\0 ").lstrip(b" ")
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise BadStructure("a number in the header of a member is damaged") from None


def _content(data: _Bytes, size: int, most: int) -> bytes:
    if size > most:
        raise BadStructure(f"a member has {size} bytes of names and attributes")
    content = data.read(size)
    data.read(-size % _BLOCK)
    return content


def _records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        length, _, _ = content[at : at + 20].partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(content) - at:
            raise BadStructure("a record of a member is damaged")
        record = content[at + len(length) + 1 : at + int(length)]
        keyword, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise BadStructure("a record of a member is damaged")
        yield keyword, value[:-1]
        at += int(length)


def _member(data: _Bytes, header: bytes, extra: dict[bytes, bytes]) -> RawMember:
    kind = _KINDS.get(header[156:157])
    if kind is None:
        raise BadStructure(f"a member is of the unknown type {header[156:157]!r}")
    size = int(extra.get(b"size", b"%d" % _number(header[124:136])))
    is_sparse = b"GNU.sparse.major" in extra
    path = _path(header, extra)
    target = extra.get(b"linkpath") or header[157:257].rstrip(b"\0")
    part, part_offset = -1, 0
    if PART_KEYWORD in extra:
        name, part, part_offset = read_part_extra(extra[PART_KEYWORD])
        path = b"/".join(filter(None, (path.rpartition(b"/")[0], name)))
    runs, sha256, at = None, b"", data.at
    if kind == stat.S_IFREG:
        runs, at, sha256, size = _regular(data, size, extra, is_sparse=is_sparse)
    elif size:
        raise BadStructure(f"{path[:80]!r} is no file, but has content")
    major = int(extra.get(b"SCHILY.devmajor", b"%d" % _number(header[329:337])))
    minor = int(extra.get(b"SCHILY.devminor", b"%d" % _number(header[337:345])))
    return RawMember(
        path=path.rstrip(b"/"),
        mode=kind | _number(header[100:108]) & 0o7777 if kind else 0,
        uid=int(extra.get(b"uid", b"%d" % _number(header[108:116]))),
        gid=int(extra.get(b"gid", b"%d" % _number(header[116:124]))),
        size=len(target) if kind == stat.S_IFLNK else size,
        mtime=_nanoseconds(extra.get(b"mtime", b"%d" % _number(header[136:148]))),
        rdev=os.makedev(major, minor) if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0,
        at=at,
        sha256=sha256,
        target=target if kind == stat.S_IFLNK else b"",
        link=b"" if kind else target.rstrip(b"/"),
        xattrs=sorted(_xattrs(extra)),
        data=runs,
        part=part,
        part_offset=part_offset,
    )


def _path(header: bytes, extra: dict[bytes, bytes]) -> bytes:
    if b"GNU.sparse.name" in extra:
        return extra[b"GNU.sparse.name"]
    if b"path" in extra:
        return extra[b"path"]
    prefix = header[345:500].rstrip(b"\0")
    return b"/".join(filter(None, (prefix, header[:100].rstrip(b"\0"))))


def _regular(
    data: _Bytes, stored: int, extra: dict[bytes, bytes], *, is_sparse: bool
) -> tuple[list[tuple[int, int]] | None, int, bytes, int]:
    """Read a regular member: return its runs of data, where they begin, their SHA-256, and the file's length."""
    runs = None
    size, rest = stored, stored
    if is_sparse:
        begin = data.at
        runs = _runs(data)
        rest = stored - (data.at - begin)
        size = int(extra.get(b"GNU.sparse.realsize", b"0"))
        if sum(length for _, length in runs) != rest:
            raise BadStructure("the map of a file with holes is not as long as its data")
        runs = [run for run in runs if run[1]]
    at, sha256 = data.at, hashlib.sha256()
    padding = -rest % _BLOCK
    while rest:
        piece = data.some(min(rest, 1 << 20))
        if not piece:
            raise BadStructure("the archive is cut short")
        sha256.update(piece)
        rest -= len(piece)
    data.read(padding)
    return runs, at, sha256.digest(), size


def _runs(data: _Bytes) -> list[tuple[int, int]]:
    """Read the map before the data of a file with holes."""
    numbers: list[int] = []
    text, wanted = b"", 1
    while len(numbers) < wanted:
        while b"\n" not in text:
            text += data.read(_BLOCK)
        word, _, text = text.partition(b"\n")
        if not word.isdigit() or len(word) > 20:
            raise BadStructure("the map of a file with holes is damaged")
        if wanted == 1 and not numbers:
            if int(word) > _MOST_RUNS:
                raise BadStructure("the map of a file with holes is longer than any")
            wanted = 2 * int(word) + 1
        numbers.append(int(word))
    return list(zip(numbers[1::2], numbers[2::2], strict=True))


def _nanoseconds(text: bytes) -> int:
    """Return seconds with decimals as nanoseconds."""
    is_negative = text.startswith(b"-")
    seconds, _, decimals = text.lstrip(b"-").partition(b".")
    if not seconds.isdigit() or (decimals and not decimals.isdigit()):
        raise BadStructure("the time of a member is damaged")
    value = int(seconds) * _NS + int(decimals.ljust(9, b"0")[:9] or b"0")
    return -value if is_negative else value


def _xattrs(extra: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    for keyword, value in extra.items():
        if keyword in _ACLS:
            yield _ACLS[keyword], acl_value(value)
        elif keyword.startswith(XATTR_KEYWORD):
            name = keyword.removeprefix(XATTR_KEYWORD)
            yield name.replace(b"%3D", b"=").replace(b"%25", b"%"), value
