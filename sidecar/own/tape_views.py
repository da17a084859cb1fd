"""Tapes, places and tasks as JSON shows them. Blocking where a ledger is asked; any thread."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import msgspec
from msgspec import structs

from catalog.ids import SetId, VolumeId
from catalog.ledger import Ledger
from catalog.life_records import MediumFacts, Mounting
from catalog.records import SetState, Volume, VolumeState
from catalog.task_records import TaskState
from drivers.interface import Element, ElementKind
from drivers.registry import drive_name
from sidecar.http.answers import moment
from sidecar.tapes.tasks import TapeTask
from tapefs.client.tapes import ConditionView, MovedData, ReasonView, ReclaimProgress
from tapefs.condition.known import condition_now
from tapefs.mover.messages import FoundTape, Progress
from tapefs.retention.living import verdicts_on
from tapefs.taf.views import Imported
from tapefs.tape.barcodes import is_cleaning, is_worm

#: So many mountings are shown of each tape, the newest.
_SHOWN_MOUNTINGS = 20


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done with a tape."""

    number: int
    #: `identify`, `label`, `relabel`, `erase`, `reclaim`, `import` or `unload`.
    task: str
    tape: str
    state: TaskState
    error_kind: str
    error: str
    #: What is on the tape, or was before.
    found: FoundTape | None
    #: Of a reclaim: how far it is, and what it has moved.
    progress: ReclaimProgress | None
    reclaimed: MovedData | None
    #: Of an import: what it has taken in.
    imported: Imported | None
    started_at: datetime | None
    finished_at: datetime | None


class TapeLine(msgspec.Struct, frozen=True, kw_only=True):
    """A tape of the ledger."""

    label: str
    barcode: str
    pool: str
    state: VolumeState
    reason: str
    generation: int
    #: Where people have put it; empty: nowhere.
    location: str
    #: Nobody has looked at it yet: it counts as blank by its barcode only.
    is_unknown: bool


class TapeLife(msgspec.Struct, frozen=True, kw_only=True):
    """What a cartridge has been through."""

    mountings: int
    written_bytes: int
    read_bytes: int
    write_failures: int
    read_failures: int
    erased_at: datetime | None
    medium: MediumFacts | None


class MountingLine(msgspec.Struct, frozen=True, kw_only=True):
    """One time that it was in a drive."""

    drive: str
    loaded_at: datetime | None
    unloaded_at: datetime | None
    purposes: list[str]
    written_bytes: int
    read_bytes: int
    write_failures: int
    read_failures: int
    alerts: list[int]
    temperature_c: int | None
    mishaps: list[str]


class LiveSet(msgspec.Struct, frozen=True, kw_only=True):
    """A live set on a tape."""

    set_id: SetId
    name: str
    state: SetState
    started_at: datetime | None
    #: May it expire, and why, or why not?
    goes: bool
    reason: str
    #: Something of it lies on this tape alone.
    is_only_here: bool


class TapeView(TapeLine, frozen=True, kw_only=True):
    """All that is known of a tape."""

    volume_id: VolumeId
    installation_id: str
    #: Where in the library it is; null: not there.
    place: str | None
    is_worm: bool
    capacity_bytes: int
    used_bytes: int
    block_size: int
    end_file: int
    end_block: int
    condition: ConditionView
    life: TapeLife
    #: The newest.
    mountings: list[MountingLine]
    segments: int
    #: What is on it may be overwritten.
    is_given_up: bool
    known_since: datetime | None
    identified_at: datetime | None
    labelled_at: datetime | None
    written_at: datetime | None
    sets: list[LiveSet]


class PlaceView(msgspec.Struct, frozen=True, kw_only=True):
    """A drive, a slot or a port."""

    place: str
    kind: str
    number: int
    full: bool
    barcode: str | None
    tape: TapeLine | None
    is_cleaning: bool


class InventoryView(msgspec.Struct, frozen=True, kw_only=True):
    """What lies where."""

    places: list[PlaceView]
    #: Tapes that are not in the library.
    elsewhere: list[TapeLine]


def task_view(task: TapeTask) -> TaskView:
    """Return a task."""
    return TaskView(
        number=task.number,
        task=task.kind,
        tape=task.tape,
        state=task.state,
        error_kind=task.error_kind,
        error=task.error,
        found=task.found,
        progress=None if task.progress is None else _progress(task.progress),
        reclaimed=None if task.reclaimed is None else MovedData(**structs.asdict(task.reclaimed)),
        imported=task.imported,
        started_at=moment(task.started_at_ns),
        finished_at=moment(task.finished_at_ns),
    )


def _progress(progress: Progress) -> ReclaimProgress:
    return ReclaimProgress(stage=progress.stage, tape=progress.tape, bytes=progress.stored_bytes)


def tape_view(ledger: Ledger, volume: Volume, place: Element | None, now_ns: int) -> TapeView:
    """Return all that is known of a tape, with the live sets on it and what becomes of them."""
    live = ledger.live_sets(volume.volume_id)
    lost = {each.set_id for each in ledger.lost_sets(volume.volume_id)}
    return TapeView(
        **structs.asdict(_tape(volume)),
        volume_id=volume.volume_id,
        installation_id=volume.installation_id,
        place=place_of(place) if place is not None else None,
        is_worm=is_worm(volume.code),
        capacity_bytes=volume.capacity_bytes,
        used_bytes=volume.used_bytes,
        block_size=volume.block_size,
        end_file=volume.end_file,
        end_block=volume.end_block,
        condition=_condition(ledger, volume, now_ns),
        life=_life(ledger, volume),
        mountings=[_mounting(each) for each in ledger.mountings(volume.code)[:_SHOWN_MOUNTINGS]],
        segments=len(ledger.copies_on(volume.volume_id)),
        is_given_up=bool(volume.overwrites),
        known_since=moment(volume.created_at_ns),
        identified_at=moment(volume.identified_at_ns),
        labelled_at=moment(volume.labelled_at_ns),
        written_at=moment(volume.written_at_ns),
        sets=[
            LiveSet(
                set_id=verdict.backup_set.set_id,
                name=verdict.backup_set.name,
                state=verdict.backup_set.state,
                started_at=moment(verdict.backup_set.started_at_ns),
                goes=verdict.goes,
                reason=verdict.reason,
                is_only_here=verdict.backup_set.set_id in lost,
            )
            for verdict in verdicts_on(ledger, live, now_ns)
        ],
    )


def _condition(ledger: Ledger, volume: Volume, now_ns: int) -> ConditionView:
    condition = condition_now(ledger, volume, now_ns)
    return ConditionView(
        score=condition.score,
        reasons=[ReasonView(points=each.points, sentence=each.sentence) for each in condition.reasons],
        warning=condition.warning,
    )


def _life(ledger: Ledger, volume: Volume) -> TapeLife:
    life = ledger.life(volume.code)
    return TapeLife(
        mountings=life.mountings,
        written_bytes=life.written_bytes,
        read_bytes=life.read_bytes,
        write_failures=life.write_failures,
        read_failures=life.read_failures,
        erased_at=moment(life.erased_at_ns),
        medium=life.medium,
    )


def _mounting(each: Mounting) -> MountingLine:
    return MountingLine(
        drive=each.drive,
        loaded_at=moment(each.loaded_at_ns),
        unloaded_at=moment(each.unloaded_at_ns),
        purposes=list(each.purposes),
        written_bytes=each.written_bytes,
        read_bytes=each.read_bytes,
        write_failures=each.write_failures,
        read_failures=each.read_failures,
        alerts=list(each.alerts),
        temperature_c=each.temperature_c,
        mishaps=[mishap.message for mishap in each.mishaps],
    )


def inventory_view(elements: Iterable[Element], volumes: Iterable[Volume]) -> InventoryView:
    """Return every place with what is there, and the tapes that are in none."""
    by_code = {volume.code: volume for volume in volumes}
    places = list(elements)
    here = {element.barcode for element in places if element.full}
    return InventoryView(
        places=[
            PlaceView(
                place=place_of(element),
                kind=element.kind.value,
                number=element.number,
                full=element.full,
                barcode=element.barcode,
                tape=_tape_in(element, by_code),
                is_cleaning=bool(element.barcode and is_cleaning(element.barcode)),
            )
            for element in places
        ],
        elsewhere=[_tape(volume) for code, volume in by_code.items() if code not in here],
    )


def place_of(element: Element) -> str:
    """Name a place for people."""
    if element.kind is ElementKind.DRIVE:
        return drive_name(element.number)
    return f"{element.kind.value} {element.number}"


def _tape_in(element: Element, by_code: dict[str, Volume]) -> TapeLine | None:
    volume = by_code.get(element.barcode or "") if element.full else None
    return None if volume is None else _tape(volume)


def _tape(volume: Volume) -> TapeLine:
    return TapeLine(
        label=volume.label,
        barcode=volume.code,
        pool=volume.pool,
        state=volume.state,
        reason=volume.reason,
        generation=volume.generation,
        location=volume.location,
        is_unknown=volume.state is VolumeState.BLANK and not volume.overwrites and not volume.identified_at_ns,
    )
