"""From SEALED to COMPLETE: the namespace index is put in place. Needs no tape; harmless to repeat."""

from __future__ import annotations

from pathlib import Path

from catalog.errors import CatalogError, NotFound
from catalog.ids import SetId
from catalog.index.model import Totals
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState
from tapefs.errors import BadStructure, TapeError
from tapefs.home import Home
from tapefs.search.names import write_names
from tapefs.sets.build import build_index


def finish_set(home: Home, ledger: Ledger, set_id: SetId, now_ns: int) -> None:
    """Build the index of a SEALED set from its local trailers, make the set COMPLETE, and write its names file.

    Raises NotFound when a trailer or the index of its base is missing, BadStructure when the trailers do not give what
    the set says of itself.
    """
    backup_set = ledger.backup_set(set_id)
    if backup_set.state is SetState.COMPLETE:
        return
    path = home.index(set_id)
    if not path.exists():
        trailers = [home.trailer(segment.segment_id) for segment in ledger.segments(set_id)]
        for trailer in trailers:
            if not trailer.exists():
                raise NotFound(f"{trailer} is missing: set {set_id} cannot be completed from this folder")
        totals = _build(home, backup_set, trailers)
        if (totals.files, totals.directories, totals.bytes) != _promised(backup_set):
            path.unlink()
            raise BadStructure(f"the trailers of set {set_id} hold {totals}, but the set says {_promised(backup_set)}")
    ledger.complete_set(set_id, now_ns)
    write_names(home, set_id)


def _build(home: Home, backup_set: BackupSet, trailers: list[Path]) -> Totals:
    path = home.index(backup_set.set_id)
    if backup_set.parent_id is None:
        return build_index(path, backup_set.set_id, trailers)
    with IndexReader(home.index(backup_set.parent_id)) as base:
        return build_index(path, backup_set.set_id, trailers, base)


def finish_all(home: Home, ledger: Ledger, now_ns: int) -> None:
    """Finish every SEALED set; used after a start. One that cannot be finished does not keep the others from it.

    Raises, at the end, what `finish_set` raised first.
    """
    failures: list[Exception] = []
    for backup_set in ledger.backup_sets():
        if backup_set.state is SetState.SEALED:
            try:
                finish_set(home, ledger, backup_set.set_id, now_ns)
            except (CatalogError, TapeError) as error:
                failures.append(error)
    if failures:
        raise failures[0]


def _promised(backup_set: BackupSet) -> tuple[int, int, int]:
    return backup_set.files, backup_set.directories, backup_set.bytes
