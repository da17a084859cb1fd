"""Is a rebuilt catalog the one that there was? Everything is compared but what no tape can know."""

from __future__ import annotations

import stat
from pathlib import Path

import lmdb
import msgspec

from catalog.ids import DirectoryNo
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import SetState
from drivers.registry import open_drive
from tapefs.home import Home
from tests.backup.rig import LocalWatcher, Rig

Records = dict[str, object]
Rows = dict[bytes, dict[bytes, bytes]]


def index_rows(path: Path) -> Rows:
    """Return everything that an index holds, database by database."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=64) as env, env.begin() as tx:
        names = [bytes(key) for key, _ in tx.cursor()]
        rows: Rows = {}
        for name in names:
            database = env.open_db(name, txn=tx, create=False)
            rows[name] = {bytes(key): bytes(value) for key, value in tx.cursor(db=database)}
        return rows


def records(ledger: Ledger) -> Records:
    """Return what a ledger says, without what tapes do not tell: when things were noted, claims, readings back."""
    found: Records = {}
    for volume in ledger.volumes():
        if volume.end_block:
            found[f"volume {volume.label}"] = msgspec.structs.replace(
                volume, created_at_ns=0, written_at_ns=0, claim=0, labelled_at_ns=0, identified_at_ns=0
            )
        for copy in ledger.copies_on(volume.volume_id):
            plain = msgspec.structs.replace(copy, verified_at_ns=0)
            found[f"copy {copy.segment_id} on {volume.label}"] = plain
    for job in ledger.jobs():
        found[f"job {job.number}"] = msgspec.structs.replace(
            job, runs=0, created_at_ns=0, queued_at_ns=0, started_at_ns=0, finished_at_ns=0
        )
    for each in ledger.backup_sets():
        if each.state is SetState.COMPLETE:
            found[f"set {each.number}"] = msgspec.structs.replace(each, finished_at_ns=0, is_adopted=False)
            for segment in ledger.segments(each.set_id):
                found[f"segment {segment.segment_id}"] = segment
            for index in ledger.index_copies(each.set_id):
                found[f"index {index.index_id}"] = index
    return found


class Before:
    """A catalog as it was, put aside."""

    def __init__(self, home: Home, ledger: Ledger, aside: Path) -> None:
        """Note what there is, and take it away: ledger, indexes, trailers."""
        self.home = home
        self.records = records(ledger)
        self.installation = ledger.installation().installation_id
        ledger.close()
        aside.mkdir()
        for folder in (home.ledger, home.indexes, home.trailers):
            folder.rename(aside / folder.name)
        home.indexes.mkdir()
        home.trailers.mkdir()
        self.aside = aside

    def indexes(self) -> dict[str, Rows]:
        return {path.name: index_rows(path) for path in sorted((self.aside / "index").glob("*.lmdb"))}

    def trailers(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.aside / "trailers").iterdir())}


def now_indexes(home: Home) -> dict[str, Rows]:
    return {path.name: index_rows(path) for path in sorted(home.indexes.glob("*.lmdb"))}


def now_trailers(home: Home) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(home.trailers.iterdir())}


def reopened(rig: Rig) -> None:
    """Have the rig use the new ledger."""
    rig.ledger = LmdbLedger.open(rig.home.ledger)
    rig.drive = open_drive(rig.home.library_config, 0)
    rig.watcher = LocalWatcher(rig.home, rig.ledger, rig.drive)


def shown(path: Path) -> dict[bytes, tuple[object, ...]]:
    """Return by path what an index shows that an archive holds, too, with numbers, places, attributes and checksums."""
    found: dict[bytes, tuple[object, ...]] = {}
    with IndexReader(path) as reader:
        waiting = [(b"", reader.directory(DirectoryNo(0)))]
        while waiting:
            above, directory = waiting.pop()
            attributes = reader.directory_xattrs(directory.number) if directory.flags else []
            found[above + b"/"] = (
                directory.number,
                *((directory.mode, directory.uid, directory.gid, directory.mtime_ns) if above else ()),
                directory.files_count,
                directory.directories_count,
                attributes,
            )
            for _, number, entry in reader.list_from(directory, 0):
                name = above + b"/" + entry.name
                if stat.S_ISDIR(entry.mode):
                    waiting.append((name, reader.directory(DirectoryNo(entry.offset))))
                    found[name] = (number,)
                    continue
                flags = entry.flags & int(EntryFlag.SPLIT | EntryFlag.SPARSE | EntryFlag.XATTRS)
                found[name] = (
                    number, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime_ns, entry.rdev, entry.target,
                    entry.segment, entry.offset, flags, reader.first_name(number),
                    reader.xattrs(number) if flags & int(EntryFlag.XATTRS) else (),
                    reader.extents(number) if flags & int(EntryFlag.SPLIT | EntryFlag.SPARSE) else (),
                )  # fmt: skip
    return found
