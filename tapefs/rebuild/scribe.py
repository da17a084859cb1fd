"""Entering what was found into the catalog: ledger, then one namespace index after the other, parents first.

Everything is idempotent: a rebuild that was killed is run again and goes on. Blocking; needs no tape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from catalog.crash import crash_point
from catalog.errors import CatalogError, NotFound, StorageFailed
from catalog.ids import SegmentId, SetId
from catalog.index.model import Totals
from catalog.index.reader import IndexReader
from catalog.ledger import Ledger
from catalog.records import Adoption, BackupSet, Segment, SetState
from tapefs.errors import TapeError
from tapefs.home import Home
from tapefs.rebuild.assembly import assemble
from tapefs.rebuild.plan import FoundSet, Plan, set_record
from tapefs.search.names import write_names
from tapefs.sets.build import build_index
from tapefs.sets.finish import finish_set, promised_by

log = structlog.get_logger(__name__)

_before_adopt = crash_point("rebuild.adopt.before")
_after_adopt = crash_point("rebuild.adopt.after")
_after_index = crash_point("rebuild.index.after")
_after_set = crash_point("rebuild.set.after")


@dataclass(slots=True)
class Outcome:
    """What has become of the sets."""

    #: Those that are shown now.
    complete: list[BackupSet] = field(default_factory=list)
    #: Of these, sets whose index was built without a final SET INDEX, or from payloads.
    remarks: list[str] = field(default_factory=list)
    #: The others, and why.
    incomplete: list[tuple[BackupSet, str]] = field(default_factory=list)


def enter(
    home: Home, ledger: Ledger, plan: Plan, adoption: Adoption, folder: Path, tell: Callable[[str, int, int], None]
) -> Outcome:
    """Take everything in and build the indexes; `tell` hears the set at hand, its place and how many there are.

    `adoption` is what the ledger lacks of the plan; `folder` has what was found in payloads.

    Raises Conflict, StorageFailed, other errors of the ledger.
    """
    _before_adopt()
    ledger.adopt(adoption, time.time_ns())
    _after_adopt()
    outcome = Outcome()
    order = list(_parents_first(plan))
    for place, found in enumerate(order):
        backup_set = ledger.backup_set(found.set_id)
        tell(f"set {backup_set.number} ({backup_set.name})", place, len(order))
        why = _finish(home, ledger, plan, folder, found, outcome)
        backup_set = ledger.backup_set(found.set_id)
        if why:
            outcome.incomplete.append((backup_set, why))
        elif backup_set.state is SetState.COMPLETE:
            outcome.complete.append(backup_set)
        _after_set()
    return outcome


def _parents_first(plan: Plan) -> Iterator[FoundSet]:
    """Yield the sets so that each comes behind the one that it builds on."""
    done: set[SetId] = set()
    for found in sorted(plan.sets.values(), key=lambda each: (each.told.set_started_ns, each.set_id)):
        chain: list[FoundSet] = []
        at: FoundSet | None = found
        while at is not None and at.set_id not in done:
            done.add(at.set_id)
            chain.append(at)
            at = plan.sets.get(at.parent_id) if at.parent_id is not None else None
        yield from reversed(chain)


def _finish(home: Home, ledger: Ledger, plan: Plan, folder: Path, found: FoundSet, outcome: Outcome) -> str:
    """Have the set COMPLETE; return why that cannot be."""
    known = ledger.backup_set(found.set_id)
    if known.state is SetState.COMPLETE:
        return ""
    if known.state is SetState.SEALED:
        return _finish_sealed(home, ledger, known)
    if known.state is SetState.EXPIRED:
        _forget_trailers(home, ledger, known)
        return ""
    if known.state is not SetState.FAILED:
        return f"the catalog knows it as {known.state.value}"
    if not known.is_adopted and found.final is None:
        return ""  # It failed here, and the tapes say nothing else.
    segments = ledger.segments(found.set_id)
    why = found.lacks([segment.number for segment in segments]) or _lacks_parent(ledger, found)
    totals = None
    if not why:
        try:
            totals = _build(home, folder, segments, set_record(plan, found), found)
        except (TapeError, CatalogError) as error:
            log.warning("the index of a set cannot be built", set=found.set_id, error=str(error))
            why = str(error)
            if found.goes_on:
                why = f"it goes on on another tape, which was not read ({why})"
    if totals is None:
        _note(ledger, plan, found, why)
        return why
    sealed = msgspec.structs.replace(
        set_record(plan, found),
        state=SetState.SEALED,
        error="",
        files=totals.files,
        directories=totals.directories,
        bytes=totals.bytes,
        stored_bytes=sum(segment.stored_bytes for segment in segments),
    )
    _after_index()
    ledger.adopt(Adoption(sets=(sealed,)), time.time_ns())
    finish_set(home, ledger, found.set_id, sealed.finished_at_ns)
    if found.final is None:
        outcome.remarks.append(f"set {known.number} ({known.name}): no final SET INDEX, its tree is whole all the same")
    if any(segment.is_from_payload for segment in found.segments.values()):
        outcome.remarks.append(
            f"set {known.number} ({known.name}): rebuilt from payloads, which know no ctime, inode or unread file"
            + (", and no deletions since the set that it builds on" if found.parent_id is not None else "")
        )
    return ""


def _finish_sealed(home: Home, ledger: Ledger, backup_set: BackupSet) -> str:
    """A set that the ledger knows to be whole on tape; return why it cannot be shown yet: other tapes may help."""
    try:
        finish_set(home, ledger, backup_set.set_id, backup_set.finished_at_ns)
    except (TapeError, CatalogError) as error:
        log.warning("the index of a set cannot be built", set=backup_set.set_id, error=str(error))
        return str(error)
    return ""


def _forget_trailers(home: Home, ledger: Ledger, backup_set: BackupSet) -> None:
    """What was read of a set that nobody shows any more is not needed."""
    for segment in ledger.segments(backup_set.set_id):
        home.trailer(segment.segment_id).unlink(missing_ok=True)


def _note(ledger: Ledger, plan: Plan, found: FoundSet, why: str) -> None:
    """Have the ledger say why a set is not shown."""
    noted = msgspec.structs.replace(set_record(plan, found), error=why)
    ledger.adopt(Adoption(sets=(noted,)), time.time_ns())


def _lacks_parent(ledger: Ledger, found: FoundSet) -> str:
    if found.parent_id is None:
        return ""
    try:
        parent = ledger.backup_set(found.parent_id)
    except NotFound:
        return f"it builds on set {found.parent_id}, which is on none of the tapes"
    if parent.state is not SetState.COMPLETE:
        return f"it builds on set {parent.number} ({parent.set_id[:8]}), which is {parent.state.value}"
    return ""


def _build(home: Home, folder: Path, segments: Sequence[Segment], backup_set: BackupSet, found: FoundSet) -> Totals:
    """Build the namespace index, and return what it shows. Raises BadStructure, StorageFailed, Damaged."""
    set_id = backup_set.set_id
    from_payload = {each.segment for each in found.segments.values() if each.is_from_payload}
    with ExitStack() as stack:
        base = None if found.parent_id is None else stack.enter_context(IndexReader(home.index(found.parent_id)))
        if from_payload:
            missing = [(each.segment_id, each.segment_id in from_payload) for each in segments]
            _assemble(home, folder, missing, base)
        home.names(set_id).unlink(missing_ok=True)
        trailers = [home.trailer(each.segment_id) for each in segments]
        # What could not be read has a line in a TRAILER only.
        is_exact = found.final is not None and not from_payload
        check = promised_by(backup_set).check if is_exact else _anything
        totals = build_index(home.index(set_id), set_id, trailers, base, check=check)
    write_names(home, set_id)
    return totals


def _assemble(home: Home, folder: Path, segments: Sequence[tuple[SegmentId, bool]], base: IndexReader | None) -> None:
    try:
        assemble(home, folder, segments, base)
    except OSError as error:
        raise StorageFailed(f"cannot read what was found in payloads: {error}", retryable=False) from error


def _anything(_: Totals) -> None:
    """Nothing was promised."""
