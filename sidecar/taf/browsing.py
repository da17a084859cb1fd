"""What is in a set, as TAF's recovery calls show it: page by page, and only what the caller may see.

Blocking; each look opens the set's index for itself, so any thread may. Names are seen as in the archive's tree over
HTTP (`sidecar.view`): who stands for no user of this system sees all names, others those of folders that were theirs
to list.
"""

from __future__ import annotations

import base64
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from catalog.ids import DirectoryNo, EntryNo, SegmentNo
from catalog.index.model import Directory, Entry, EntryFlag
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState
from sidecar.http.answers import moment, shown
from sidecar.http.callers import Caller
from sidecar.http.statuses import Forbidden
from sidecar.view.access import ACL_NAME, READ, SEARCH, Rights, may
from tapefs.codecs import CODECS
from tapefs.errors import NoSuchThing
from tapefs.home import Home

_ROOT = DirectoryNo(0)
_XATTRS = int(EntryFlag.XATTRS)
_KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file, or whatever else is no folder."""

    #: Its number in the set.
    id: int
    file_path: str
    file_name: str
    directory_path: str
    display_name: str
    file_type: str
    file_size: int
    #: Null: files are compressed together.
    compressed_size: int | None
    #: Octal.
    file_permissions: str
    #: Of the inode: Unix notes no other.
    created_time: datetime | None
    modified_time: datetime | None
    accessed_time: datetime | None
    compressed: bool
    #: SHA-256; null where there is no content.
    checksum: str | None
    backup_time: datetime | None
    #: Which segment of the set has it.
    chunk_number: int | None
    #: The path's bytes in base64, where they are not UTF-8; more than TAF's.
    path_base64: str | None


class ItemRow(msgspec.Struct, frozen=True, kw_only=True):
    """A file or folder in a folder."""

    name: str
    type: str
    path: str
    #: Null for folders.
    file: FileRow | None
    has_children: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """A page."""

    rows: list[FileRow]
    has_more: bool


def set_called(ledger: Ledger, name: str) -> BackupSet:
    """Return the complete set of this UUID, number or name in TAF's catalog. Raises NoSuchThing."""
    number = int(name) if re.fullmatch(r"[0-9]{1,18}", name) else -1
    for backup_set in reversed(ledger.backup_sets()):
        names = (backup_set.set_id, backup_set.foreign_name or None)
        if backup_set.state is SetState.COMPLETE and (name in names or backup_set.number == number):
            return backup_set
    raise NoSuchThing(f"there is no complete set {name}: see GET /api/recovery/sets")


def files(home: Home, backup_set: BackupSet, caller: Caller, limit: int, offset: int) -> Listing:
    """Return some files of a set, folder by folder. Raises CatalogError."""
    with IndexReader(home.index(backup_set.set_id)) as reader:
        look = _Look(reader, backup_set, caller)
        rows: list[FileRow] = []
        for row in look.files_from(offset):
            if len(rows) == limit:
                return Listing(rows, True)
            rows.append(row)
        return Listing(rows, False)


def items(home: Home, backup_set: BackupSet, caller: Caller, path: bytes, limit: int, offset: int) -> list[ItemRow]:
    """Return some of what is in a folder of a set. Raises NoSuchThing, Forbidden, CatalogError."""
    with IndexReader(home.index(backup_set.set_id)) as reader:
        return _Look(reader, backup_set, caller).items(path, limit, offset)


class _Look:
    """One look into a set."""

    def __init__(self, reader: IndexReader, backup_set: BackupSet, caller: Caller) -> None:
        self._reader = reader
        self._set = backup_set
        self._caller = caller
        self._is_compressed = backup_set.codec in CODECS and CODECS[backup_set.codec].is_compressed
        self._backup_time = moment(backup_set.started_at_ns)

    def files_from(self, offset: int) -> Iterator[FileRow]:
        """Yield all that are no folders, from the front of the tree; whole folders are skipped by their counts."""
        waiting = [(self._reader.directory(_ROOT), b"")]
        while waiting:
            directory, path = waiting.pop()
            if not self._may_list(directory):
                continue
            skipped = min(offset, directory.files_count)
            offset -= skipped
            folders = []
            for _, number, entry in self._reader.list_from(directory, skipped):
                if stat.S_ISDIR(entry.mode):
                    folders.append((self._reader.directory(DirectoryNo(entry.offset)), _join(path, entry.name)))
                else:
                    yield self._row(path, number, entry)
            waiting.extend(reversed(folders))

    def items(self, path: bytes, limit: int, offset: int) -> list[ItemRow]:
        """Return some of what is in a folder."""
        directory, above = self._reader.directory(_ROOT), b""
        for name in [each for each in path.split(b"/") if each not in (b"", b".")]:
            self._require(directory, above)
            found = self._reader.lookup(directory, name)
            above = _join(above, name)
            if found is None or not stat.S_ISDIR(found[1].mode):
                raise NoSuchThing(f"the set has no folder {shown(above)}")
            directory = self._reader.directory(DirectoryNo(found[1].offset))
        self._require(directory, above)
        rows: list[ItemRow] = []
        for _, number, entry in self._reader.list_from(directory, offset):
            if len(rows) == limit:
                break
            rows.append(self._item(above, number, entry))
        return rows

    def _item(self, above: bytes, number: EntryNo, entry: Entry) -> ItemRow:
        path, is_folder = _join(above, entry.name), stat.S_ISDIR(entry.mode)
        inner = self._reader.directory(DirectoryNo(entry.offset)) if is_folder else None
        return ItemRow(
            name=shown(entry.name),
            type="directory" if is_folder else "file",
            path=shown(path),
            file=None if is_folder else self._row(above, number, entry),
            has_children=inner is not None and bool(inner.files_count + inner.directories_count),
        )

    def _row(self, above: bytes, number: EntryNo, entry: Entry) -> FileRow:
        path, name = _join(above, entry.name), shown(entry.name)
        has_content = stat.S_ISREG(entry.mode) and bool(entry.size) and not entry.flags & int(EntryFlag.UNREADABLE)
        checksum = self._reader.sha256(SegmentNo(entry.segment), entry.offset) if has_content else None
        return FileRow(
            id=number,
            file_path=shown(path),
            file_name=name,
            directory_path=shown(above) or "/",
            display_name=name,
            file_type=_KINDS.get(stat.S_IFMT(entry.mode), "other"),
            file_size=entry.size,
            compressed_size=None,
            file_permissions=f"{stat.S_IMODE(entry.mode):o}",
            created_time=_time(entry.ctime_ns),
            modified_time=_time(entry.mtime_ns),
            accessed_time=None,
            compressed=self._is_compressed and has_content,
            checksum=checksum.hex() if checksum else None,
            backup_time=self._backup_time,
            chunk_number=entry.segment if has_content else None,
            path_base64=None if _is_text(path) else base64.b64encode(path).decode(),
        )

    # -- who may see it --------------------------------------------------------------------------------------------

    def _require(self, directory: Directory, path: bytes) -> None:
        if not self._may_list(directory):
            raise Forbidden(f"{self._caller.name} may not list {shown(path) or '/'}")

    def _may_list(self, directory: Directory) -> bool:
        if self._caller.uid is None:
            return True
        found = self._reader.directory_xattrs(directory.number) if directory.flags & _XATTRS else []
        acl = next((value for name, value in found if name == ACL_NAME), b"")
        rights = Rights(directory.mode, directory.uid, directory.gid, acl)
        return may(self._caller, rights, READ | SEARCH, is_imported=self._set.is_imported)


def path_of(text: str) -> bytes:
    """Return the path that a text names."""
    return os.fsencode(text)


def _join(above: bytes, name: bytes) -> bytes:
    return above + b"/" + name


def _time(at_ns: int) -> datetime | None:
    """Return a file's time; None for one that no calendar has."""
    try:
        return moment(at_ns)
    except (OverflowError, ValueError, OSError):
        return None


def _is_text(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True
