"""`tapefs ls`."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from collections.abc import Iterator

import click

from catalog.ids import EntryNo, SetNumber
from catalog.index.model import Entry, EntryFlag
from catalog.index.reader import IndexReader
from tapefs.cli.output import Json, iso_time, name_for_people, named, print_json, print_lines, short_time
from tapefs.cli.place import Catalog, Place, catalog_of, sidecar_of, split_target
from tapefs.vfs.archive import Found
from tapefs.vfs.inodes import directory_inode, entry_inode
from tapefs.vfs.nodes import KIND_NAMES, first_name
from tapefs.vfs.residency import pieces_of

_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")


@click.command("ls")
@click.argument("target", metavar="SET[:PATH]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ls_command(place: Place, target: str, as_json: bool) -> None:
    """List a directory of a set; nothing is fetched from tape.

    SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME as in the mount.
    """
    name, path = split_target(target)
    if not place.is_here:
        from tapefs.cli.elsewhere import list_set

        with sidecar_of(place) as client:
            list_set(client, name, path, as_json)
        return
    with catalog_of(place) as catalog:
        backup_set = catalog.archive.find_set(name)
        reader = catalog.archive.index(backup_set.set_id)
        listed = _listed(catalog, reader, path)
        if as_json:
            print_json([_json(reader, backup_set.number, each) for each in listed])
        else:
            print_lines(_line(reader, each) for each in listed)


def _listed(catalog: Catalog, reader: IndexReader, path: bytes) -> Iterator[Found]:
    """Return what is in the directory at `path`, or what is there when that is no directory."""
    found = catalog.archive.resolve(reader, path)
    return iter([found]) if found.directory is None else catalog.archive.children(reader, found)


def _line(reader: IndexReader, found: Found) -> bytes:
    name, _, entry = _named(reader, found)
    target = b" -> " + name_for_people(entry.target) if stat.S_ISLNK(entry.mode) else b""
    mark = "+" if any(each in _ACLS for each, _ in _xattrs(reader, found)) else " "
    owner = f"{entry.uid}:{entry.gid}"
    size = "{}, {}".format(*_device(entry)) if _is_device(entry) else f"{entry.size:,}"
    facts = f"{stat.filemode(entry.mode)}{mark}{owner:>11} {size:>14} {short_time(entry.mtime_ns)} "
    return facts.encode() + name_for_people(name) + target


def _json(reader: IndexReader, set_number: SetNumber, found: Found) -> Json:
    name, number, entry = _named(reader, found)
    if found.directory is None:
        inode = entry_inode(set_number, number)
    else:
        inode = directory_inode(set_number, found.directory.number)
    result: Json = {
        **named("name", name),
        "type": KIND_NAMES.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": iso_time(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
        "ctime_ns": entry.ctime_ns,
        "inode": inode,
        "nlink": entry.nlink,
        "changed": bool(entry.flags & EntryFlag.CHANGED),
        "unreadable": bool(entry.flags & EntryFlag.UNREADABLE),
        "xattrs": [_xattr_json(*xattr) for xattr in _xattrs(reader, found)],
    }
    if stat.S_ISLNK(entry.mode):
        result |= named("target", entry.target)
    if _is_device(entry):
        result["device"] = list(_device(entry))
    if stat.S_ISREG(entry.mode):
        result |= {"blocks": entry.blocks, "sparse": bool(entry.flags & EntryFlag.SPARSE)}
        result["parts"] = [
            {
                "file_offset": piece.file_offset,
                "length": piece.length,
                "segment_id": piece.segment_id,
                "offset": piece.offset,
            }
            for piece in pieces_of(reader, number, entry)
        ]
    return result


def _named(reader: IndexReader, found: Found) -> tuple[bytes, EntryNo, Entry]:
    """Return the name that was found, and number and entry of the file: those of its first name."""
    if found.entry is None or found.number is None:
        raise AssertionError("only the root has no entry, and it is in no listing")
    return found.entry.name, *first_name(reader, found.number, found.entry)


def _xattrs(reader: IndexReader, found: Found) -> list[tuple[bytes, bytes]]:
    if found.directory is not None:
        return reader.directory_xattrs(found.directory.number)
    _, number, entry = _named(reader, found)
    return reader.xattrs(number) if entry.flags & EntryFlag.XATTRS else []


def _xattr_json(name: bytes, value: bytes) -> Json:
    return {**named("name", name), "value_b64": b64encode(value).decode()}


def _is_device(entry: Entry) -> bool:
    return stat.S_ISCHR(entry.mode) or stat.S_ISBLK(entry.mode)


def _device(entry: Entry) -> tuple[int, int]:
    return os.major(entry.rdev), os.minor(entry.rdev)
