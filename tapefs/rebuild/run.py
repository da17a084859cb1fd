"""`tapefs rebuild` and `tapefs import`: reading tapes one after the other, then entering what they say. Blocking.

The caller owns the state folder: no sidecar runs meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from catalog.ids import InstallationId, VolumeId
from catalog.ledger import Ledger
from catalog.records import Adoption, BackupSet, SetState, VolumeState
from drivers.errors import DeviceGone, DriveError
from drivers.interface import Drive, HoldsFiles
from tapefs.errors import KeyMissing, KeyUnfit, NoTape, NotBlank, NotNow, TapeError, WrongPassphrase
from tapefs.home import Home
from tapefs.rebuild.known import Known, begun_anew, fitted, known_of, leave_out_contradictions
from tapefs.rebuild.labels import Blank
from tapefs.rebuild.payloads import members_file
from tapefs.rebuild.plan import Plan, adoption_of, installation_of, plan_of
from tapefs.rebuild.records import Method, Survey
from tapefs.rebuild.scribe import Outcome, enter
from tapefs.rebuild.store import SurveyStore
from tapefs.rebuild.walk import survey_tape

log = structlog.get_logger(__name__)

Tell = Callable[[str, int, int], None]


class Tapes(Protocol):
    """Who puts tapes into the drive; see `tapefs.rebuild.loading`."""

    drive: Drive

    def tapes(self) -> list[str]:
        """Return the labels of the tapes that are here."""
        ...

    def put_in(self, label: str) -> None:
        """Have the tape in the drive and threaded. Raises NoTape, drive errors."""
        ...

    def unlock(self, fingerprint: str) -> bool:
        """Have a key unlocked; False when that cannot be. Raises WrongPassphrase, HomeError."""
        ...


@dataclass(slots=True)
class Report:
    """What a rebuild or an import has done."""

    surveys: Sequence[Survey]
    outcome: Outcome
    #: By tape: what is new on it, what keeps it from being written to.
    notes: dict[VolumeId, str] = field(default_factory=dict)
    #: Tapes without anything for a catalog, and why: foreign, blank, unreadable.
    passed_over: dict[str, str] = field(default_factory=dict)
    #: Sentences for people: what of the tapes does not count, and what they do not know.
    ignored: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    #: It goes on with the next one: something is missing that other tapes may have, or a tape could not be read.
    is_open: bool = False


def rebuild(home: Home, ledger: Ledger, tapes: Tapes, method: Method, wanted: Sequence[str], tell: Tell) -> Report:
    """Make the catalog of the tapes; of all that are here, or of those that are `wanted` by label.

    One that was interrupted, or that lacked a tape, goes on. Where the ledger has sets of its own, what it lacks of the
    wanted tapes is taken in. Raises NotNow when it has and none is named, DeviceGone, StorageFailed, Conflict.
    """
    store = SurveyStore(home.rebuild)
    if not store.is_there and ledger.backup_sets():
        if wanted:
            return import_tapes(home, ledger, tapes, method, wanted, tell)
        raise NotNow(
            f"the catalog of {home.path} has sets already: `tapefs rebuild TAPE...` takes in what it lacks of a tape; "
            f"to make it anew from all tapes, move {home.ledger} away"
        )
    passed_over, is_unread, _ = _read_all(home, tapes, store, method, wanted, tell)
    surveys = store.surveys()
    if not ledger.backup_sets() and (found := installation_of(surveys)) is not None:
        ledger.take_identity(found)
    report = _enter(home, ledger, store, surveys, ledger.installation().installation_id, passed_over, tell)
    report.is_open |= is_unread
    if not report.is_open:
        store.forget()
    return report


def import_tapes(home: Home, ledger: Ledger, tapes: Tapes, method: Method, wanted: Sequence[str], tell: Tell) -> Report:
    """Take in what the catalog lacks of tapes: of another installation, or ours, and it is an old copy.

    Raises as `rebuild`.
    """
    store = SurveyStore(home.path / "import")
    passed_over, _, read = _read_all(home, tapes, store, method, wanted, tell)
    whole = {each.set_id for each in ledger.backup_sets() if each.state is SetState.COMPLETE}
    report = _enter(home, ledger, store, store.surveys(), ledger.installation().installation_id, passed_over, tell)
    report.outcome.complete = [each for each in report.outcome.complete if each.set_id not in whole]
    # What tapes said before of sets that go on on these is needed, but nobody asked for them now.
    report.surveys = [survey for survey in report.surveys if survey.tape.volume_id in read]
    if not report.is_open:
        store.forget()
    return report


def _enter(
    home: Home,
    ledger: Ledger,
    store: SurveyStore,
    surveys: Sequence[Survey],
    installation_id: InstallationId,
    passed_over: dict[str, str],
    tell: Tell,
) -> Report:
    known = known_of(ledger, surveys)
    gone = begun_anew(surveys, known)
    taken = {
        volume.label: volume.volume_id for volume in known.volumes.values() if volume.end_block and volume not in gone
    }
    plan = plan_of(surveys, installation_id, taken, known.names())
    wrong = leave_out_contradictions(plan, known)
    adoption = fitted(adoption_of(plan, time.time_ns()), plan, known, wrong)
    lost = {volume.label: ledger.lost_sets(volume.volume_id) for volume in gone}
    outcome = enter(home, ledger, plan, adoption, store.folder, tell)
    outcome.remarks += _losses(ledger, lost)
    ignored = [f"tape {survey.tape.label}: {sentence}" for survey in surveys for sentence in survey.ignored]
    return Report(
        surveys=surveys,
        outcome=outcome,
        notes={survey.tape.volume_id: _note(ledger, known, adoption, survey) for survey in surveys},
        passed_over=passed_over,
        ignored=ignored + plan.ignored,
        unsettled=list(dict.fromkeys(plan.unsettled)),
        is_open=any(_may_come(ledger, plan, backup_set) for backup_set, _ in outcome.incomplete),
    )


def _losses(ledger: Ledger, lost: Mapping[str, Sequence[BackupSet]]) -> Iterator[str]:
    """Say which sets lay on tapes that were begun anew since, and nowhere else."""
    for label, sets in lost.items():
        yield f"tape {label} was begun anew since the catalog knew it: what lay on it is forgotten"
        for each in sets:
            gone = sum(not ledger.copies(segment.segment_id) for segment in ledger.segments(each.set_id))
            if gone:
                yield (
                    f"set {each.number} ({each.name}): {gone} of its {each.segments} segments lay there and nowhere "
                    f"else; it had expired, or was given up: `tapefs expire {each.set_id[:8]}` lets it go"
                )


def _note(ledger: Ledger, known: Known, adoption: Adoption, survey: Survey) -> str:
    """Say what of a tape is new, and why nothing may be appended to it."""
    volume = ledger.volume(survey.tape.volume_id)
    if volume.state is VolumeState.SUSPECT:
        return volume.reason
    if survey.end_block < volume.end_block:
        return f"it ends at block {survey.end_block}, but the catalog knows data up to block {volume.end_block}"
    is_full = volume.state is VolumeState.FULL and volume.installation_id == known.installation_id
    said = ["full"] if is_full else []
    if volume.volume_id in known.volumes:
        new = sum(copy.volume_id == volume.volume_id for copy in adoption.copies)
        said.insert(0, f"{new} of them new" if new else "nothing new")
    return ", ".join(said)


def _may_come(ledger: Ledger, plan: Plan, backup_set: BackupSet) -> bool:
    """May another tape have what a set lacks?"""
    found = plan.sets[backup_set.set_id]
    numbers = [segment.number for segment in ledger.segments(backup_set.set_id)]
    lacks_parent = found.parent_id is not None and found.parent_id not in plan.sets
    return found.goes_on or lacks_parent or bool(found.lacks(numbers))


def _read_all(
    home: Home, tapes: Tapes, store: SurveyStore, method: Method, wanted: Sequence[str], tell: Tell
) -> tuple[dict[str, str], bool, set[VolumeId]]:
    """Read the tapes that were not read yet.

    Returns those that have nothing for us, and why, if any could not be read, and which ones were.
    """
    kept = [survey.tape for survey in store.surveys() if _has_trailers(home, store, survey)]
    read = {tape.volume_id: tape.barcode or tape.label for tape in kept}
    known = set(read.values())
    passed_over: dict[str, str] = {}
    is_unread = False
    fresh: set[VolumeId] = set()
    for label in wanted or tapes.tapes():
        if label in known and label not in wanted:
            continue
        try:
            tell(label, 0, 0)
            tapes.put_in(label)
            survey = _survey(home, tapes, store, method, tell)
        except Blank:
            passed_over[label] = _blank(tapes.drive)
        except DeviceGone:
            raise
        except (TapeError, DriveError, NoTape, KeyMissing, KeyUnfit, WrongPassphrase) as error:
            log.warning("a tape is passed over", tape=label, error=str(error))
            passed_over[label] = str(error)
            is_unread |= not isinstance(error, NotBlank)
        else:
            twin = read.get(survey.tape.volume_id, label)
            if twin != label:
                passed_over[label] = f"it says that it is tape {survey.tape.label}, as {twin} does, which counts"
                continue
            read[survey.tape.volume_id] = label
            store.keep(survey)
            fresh.add(survey.tape.volume_id)
    return passed_over, is_unread, fresh


def _blank(drive: Drive) -> str:
    if isinstance(drive, HoldsFiles):
        return "nothing of tapefs is on it; archives of TAF that it may have are taken in by `tapefs taf import`"
    return "it is blank"


def _survey(home: Home, tapes: Tapes, store: SurveyStore, method: Method, tell: Tell) -> Survey:
    """Read the threaded tape; when it is encrypted with a key that is locked, have that unlocked."""
    try:
        return survey_tape(home, tapes.drive, method, tell, store.folder)
    except KeyMissing as error:
        if not tapes.unlock(error.fingerprint):
            raise
    return survey_tape(home, tapes.drive, method, tell, store.folder)


def _has_trailers(home: Home, store: SurveyStore, survey: Survey) -> bool:
    """Is there what was found in its segments?"""
    return all(
        home.trailer(segment.segment).exists()
        or (segment.is_from_payload and members_file(store.folder, segment.segment).exists())
        for segment in survey.segments
    )
