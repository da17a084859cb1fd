"""`tapefs ls`."""

from __future__ import annotations

import stat
from collections.abc import Iterator

import click

from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from tapefs.cli.output import Json, iso_time, name_for_people, named, print_json, print_lines, short_time
from tapefs.cli.place import Catalog, Place, catalog_of, split_target
from tapefs.vfs.archive import Found
from tapefs.vfs.residency import pieces_of

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@click.command("ls")
@click.argument("target", metavar="SET[:PATH]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def ls_command(place: Place, target: str, as_json: bool) -> None:
    """List a directory of a set; nothing is fetched from tape.

    SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME as in the mount.
    """
    name, path = split_target(target)
    with catalog_of(place) as catalog:
        reader = catalog.archive.index(catalog.archive.find_set(name).set_id)
        listed = _listed(catalog, reader, path)
        if as_json:
            print_json([_json(reader, each) for each in listed])
        else:
            print_lines(_line(each) for each in listed)


def _listed(catalog: Catalog, reader: IndexReader, path: bytes) -> Iterator[Found]:
    """Return what is in the directory at `path`, or what is there when that is no directory."""
    found = catalog.archive.resolve(reader, path)
    return iter([found]) if found.directory is None else catalog.archive.children(reader, found)


def _line(found: Found) -> bytes:
    entry = found.entry
    if entry is None:
        raise AssertionError("only the root has no entry, and it is in no listing")
    target = b" -> " + name_for_people(entry.target) if stat.S_ISLNK(entry.mode) else b""
    owner = f"{entry.uid}:{entry.gid}"
    facts = f"{stat.filemode(entry.mode)} {owner:>11} {entry.size:>14,} {short_time(entry.mtime_ns)} "
    return facts.encode() + name_for_people(entry.name) + target


def _json(reader: IndexReader, found: Found) -> Json:
    entry = found.entry
    if entry is None or found.number is None:
        raise AssertionError("only the root has no entry, and it is in no listing")
    result: Json = {
        **named("name", entry.name),
        "type": KINDS.get(stat.S_IFMT(entry.mode), "unknown"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": iso_time(entry.mtime_ns),
        "mtime_ns": entry.mtime_ns,
        "ctime_ns": entry.ctime_ns,
        "nlink": entry.nlink,
        "changed": bool(entry.flags & EntryFlag.CHANGED),
        "unreadable": bool(entry.flags & EntryFlag.UNREADABLE),
    }
    if stat.S_ISLNK(entry.mode):
        result |= named("target", entry.target)
    if stat.S_ISREG(entry.mode):
        result["parts"] = [
            {
                "file_offset": piece.file_offset,
                "length": piece.length,
                "segment_id": piece.segment_id,
                "offset": piece.offset,
            }
            for piece in pieces_of(reader, found.number, entry)
        ]
    return result
