"""`tapefs taf import` as a whole: a mounted volume, TAF's catalog, our catalog. Blocking; one thread.

Whoever calls it has the state folder, or is a mover of the sidecar that has it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from catalog.ledger import Ledger
from tapefs.home import Home
from tapefs.taf.catalog import read_catalog
from tapefs.taf.entering import Entered, Entering, Tell
from tapefs.taf.identity import identify
from tapefs.taf.views import Imported, ImportedSet
from tapefs.taf.volume import open_volume

#: Sentences of one kind that are told of a set.
_TOLD = 20


def import_volume(
    home: Home,
    ledger: Ledger,
    root: Path,
    sets: Sequence[str],
    *,
    label: str | None,
    url: str | None,
    again: bool,
    tell: Tell,
) -> Imported:
    """Take the sets on a volume into the catalog, or those named; `url` is TAF's own catalog.

    Raises UsageError, NoSuchThing, StorageFailed, Conflict, CodecFailed, and what `tell` raises.
    """
    volume = open_volume(root)
    archives = volume.of_sets(tuple(sets))
    identity = identify(volume, label)
    told = read_catalog(url) if url else None
    home.indexes.mkdir(mode=0o700, exist_ok=True)
    entered = Entering(home, ledger, volume, identity, again=again, now_ns=time.time_ns()).run(archives, told, tell)
    there = {archive.set_id for archive in volume.archives}
    absent = [] if told is None else told.absent(identity.label, there)
    return _imported(identity.label, entered, absent)


def _imported(tape: str, entered: Sequence[Entered], absent: Sequence[str]) -> Imported:
    """Return the view of what was entered."""
    return Imported(tape=tape, sets=[_set(each) for each in entered], absent=[_plain(each) for each in absent])


def _set(entered: Entered) -> ImportedSet:
    chosen, planted = entered.backup_set, entered.planted
    return ImportedSet(
        taf_set=_text(entered.taf_id),
        set_id=None if chosen is None else chosen.set_id,
        number=None if chosen is None else chosen.number,
        name=None if chosen is None else chosen.name,
        started_at_ns=0 if chosen is None else chosen.started_at_ns,
        files=0 if chosen is None else chosen.files,
        bytes=0 if chosen is None else chosen.bytes,
        known=entered.is_known,
        expired=entered.is_expired,
        partial=(chosen.partial or None) if chosen is not None else None,
        problems=[f"{_text(path)}: {_plain(problem)}" for path, problem in entered.problems],
        refused=planted.refused_count,
        renamed=planted.renamed_count,
        remarks=_remarks(entered),
        differences=[_plain(each) for each in entered.differences],
    )


def _remarks(entered: Entered) -> list[str]:
    planted = entered.planted
    told = [f"{_text(path)} is not shown: {_plain(reason)}" for path, reason in planted.refused[:_TOLD]]
    if planted.refused_count > _TOLD:
        told.append(f"and {planted.refused_count - _TOLD:,} more are not shown")
    for path, name in planted.renamed[:_TOLD]:
        told.append(f"{_text(path)} is there twice; another is shown as {_text(name)}")
    if planted.renamed_count > _TOLD:
        told.append(f"and {planted.renamed_count - _TOLD:,} more have another name")
    return told


def _text(name: bytes) -> str:
    return _plain(os.fsdecode(name))


def _plain(text: str) -> str:
    """Return text that can be told everywhere: bytes that are no UTF-8 become escapes."""
    return text.encode(errors="backslashreplace").decode()
