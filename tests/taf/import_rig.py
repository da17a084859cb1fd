"""A volume of TAF's archives, a state folder whose drive it is in, and what the import makes of it, in one process."""

from __future__ import annotations

import hashlib
import json
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from catalog.ids import DirectoryNo, EntryNo, FrameNo, SegmentId
from catalog.index.model import Directory, Entry
from catalog.index.reader import IndexReader
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import BackupSet, SegmentCopy, SetState
from drivers.registry import open_drive
from tapefs.cli import group
from tapefs.errors import SetDamaged
from tapefs.home import Home, open_home
from tapefs.recall.stager import Loss, Stager
from tapefs.restore.contents import contents_of
from tapefs.settings.library import LibrarySettings
from tapefs.setup_home import NewHome, create_home
from tapefs.staging.stage import SegmentStage
from tapefs.tape.label import check_label
from tapefs.verify.copy import Finding, verify_copy


class Imports:
    """Imports a volume, reads back what came of it."""

    def __init__(self, folder: Path, root: Path) -> None:
        path = folder / "home"
        create_home(NewHome(path=path, real=LibrarySettings(driver="ltfs", drives=(str(root),))), time.time_ns())
        self.home: Home = open_home(path)
        self.root = root
        #: Frames that a recall has told of: segment, frame.
        self.arrivals: list[tuple[SegmentId, int]] = []
        self.failures: list[str] = []

    def run(self, *arguments: object) -> Result:
        """`tapefs taf import`."""
        words = ["--home", str(self.home.path), "taf", "import", str(self.root), *map(str, arguments)]
        return CliRunner().invoke(group, words, catch_exceptions=True)

    def told(self, *arguments: object, code: int = 0) -> dict[str, Any]:
        """The same, and return what its JSON says."""
        result = self.run("--json", *arguments)
        assert result.exit_code == code or isinstance(result.exception, SetDamaged), repr(result.exception)
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    @contextmanager
    def ledger(self) -> Iterator[LmdbLedger]:
        with LmdbLedger.open(self.home.ledger) as ledger:
            yield ledger

    def sets(self) -> list[BackupSet]:
        """Return the sets that are shown, by number."""
        with self.ledger() as ledger:
            return [each for each in ledger.backup_sets() if each.state is SetState.COMPLETE]

    def tree(self, backup_set: BackupSet) -> dict[str, Entry]:
        """Return what a set shows, by path."""
        with IndexReader(self.home.index(backup_set.set_id)) as index:
            return {path: entry for path, _, entry in walk(index)}

    def contents(self, backup_set: BackupSet) -> dict[str, bytes]:
        """Recall all of a set from its volume in the drive, and return its files, each checked by its SHA-256."""
        with self.ledger() as ledger, self._loaded(ledger, backup_set) as (stager, _):
            segments = ledger.segments(backup_set.set_id)
            for segment in segments:
                if segment.frames:
                    stager.fetch(segment.segment_id, FrameNo(0), FrameNo(segment.frames - 1))
            assert not self.failures, self.failures
            return self._read(backup_set)

    def fetch(self, backup_set: BackupSet, first: int, last: int, segment: int = 0) -> None:
        """Recall frames of one archive."""
        with self.ledger() as ledger, self._loaded(ledger, backup_set) as (stager, _):
            chosen = ledger.segments(backup_set.set_id)[segment]
            stager.fetch(chosen.segment_id, FrameNo(first), FrameNo(last))

    def verify(self, backup_set: BackupSet) -> list[Finding]:
        """Read all of a set's archives back."""
        with self.ledger() as ledger, self._loaded(ledger, backup_set) as (_, drive):
            return [
                verify_copy(self.home, ledger, drive, copy, Watcher())
                for segment in ledger.segments(backup_set.set_id)
                for copy in ledger.copies(segment.segment_id)
            ]

    @contextmanager
    def _loaded(self, ledger: LmdbLedger, backup_set: BackupSet) -> Iterator[tuple[Stager, Any]]:
        (copy,) = ledger.copies(ledger.segments(backup_set.set_id)[0].segment_id)
        with closing(open_drive(self.home.library_config, 0)) as drive:
            drive.load()
            check_label(drive, ledger.volume(copy.volume_id))
            with closing(Stager(self.home, ledger, drive, copy.volume_id, self)) as stager:
                yield stager, drive

    def _read(self, backup_set: BackupSet) -> dict[str, bytes]:
        found = {}
        with IndexReader(self.home.index(backup_set.set_id)) as index:
            ids = {row.number: row.segment_id for row in index.segments()}
            for path, number, entry in walk(index):
                if not stat.S_ISREG(entry.mode):
                    continue
                content = bytearray(entry.size)
                for each in contents_of(index, index.first_name(number), entry):
                    stage = SegmentStage.open(self.home.staging, ids[each.segment])
                    assert stage is not None
                    with closing(stage):
                        data = stage.read(each.offset, each.length)
                    assert data is not None, path
                    assert hashlib.sha256(data).digest() == index.sha256(each.segment, each.offset), path
                    at = 0
                    for place, length in each.runs:
                        content[place : place + length] = data[at : at + length]
                        at += length
                found[path] = bytes(content)
        return found

    # -- a Listener --------------------------------------------------------------------------------------------------

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        self.arrivals += [(segment_id, number) for number in range(first, last + 1)]

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str, error: Loss) -> None:
        self.failures.append(message)


class Watcher:
    """Follows a verification."""

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None: ...

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None: ...

    def check_cancelled(self) -> None: ...


def walk(index: IndexReader) -> Iterator[tuple[str, EntryNo, Entry]]:
    """Yield all entries with their paths."""
    stack: list[tuple[str, Directory]] = [("", index.directory(DirectoryNo(0)))]
    while stack:
        path, directory = stack.pop()
        for _, number, entry in index.list_from(directory, 0):
            below = path + entry.name.decode(errors="surrogateescape")
            yield below, number, entry
            if stat.S_ISDIR(entry.mode):
                stack.append((below + "/", index.directory(DirectoryNo(entry.offset))))
