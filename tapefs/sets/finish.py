"""From SEALED to COMPLETE: the namespace index is put in place. Needs no tape; harmless to repeat."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from catalog.errors import CatalogError, NotFound
from catalog.ids import SetId
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState
from tapefs.errors import TapeError
from tapefs.home import Home
from tapefs.search.names import write_names
from tapefs.sets.build import Promised, build_index


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
        _build(home, backup_set, trailers)
    ledger.complete_set(set_id, now_ns)
    if not home.names(set_id).exists():
        write_names(home, set_id)


def _build(home: Home, backup_set: BackupSet, trailers: list[Path]) -> None:
    with ExitStack() as stack:
        parent_id = backup_set.parent_id
        base = None if parent_id is None else stack.enter_context(IndexReader(home.index(parent_id)))
        build_index(
            home.index(backup_set.set_id), backup_set.set_id, trailers, base, check=promised_by(backup_set).check
        )


def promised_by(backup_set: BackupSet) -> Promised:
    """Return what a SEALED set says that it shows."""
    return Promised(backup_set.files, backup_set.directories, backup_set.bytes)


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
