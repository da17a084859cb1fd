"""Tapes, places and tasks as JSON shows them. Blocking where a ledger is asked; any thread."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import structs

from catalog.ledger import Ledger
from catalog.records import Volume, VolumeState
from drivers.interface import Element, ElementKind
from drivers.registry import drive_name
from sidecar.answers import moment
from sidecar.tape_tasks import TapeTask
from tapefs.condition.known import condition_now
from tapefs.mover.messages import Progress
from tapefs.retention.living import verdicts_on
from tapefs.tape.barcodes import is_cleaning, is_worm

#: So many mountings are shown of each tape, the newest.
_SHOWN_MOUNTINGS = 20


def task_view(task: TapeTask) -> dict[str, object]:
    """Return a task."""
    return {
        "number": task.number,
        "task": task.kind,
        "tape": task.tape,
        "state": task.state,
        "error_kind": task.error_kind,
        "error": task.error,
        "found": task.found,
        "progress": None if task.progress is None else _progress(task.progress),
        "reclaimed": None if task.reclaimed is None else structs.asdict(task.reclaimed),
        "imported": task.imported,
        "started_at": moment(task.started_at_ns),
        "finished_at": moment(task.finished_at_ns),
    }


def _progress(progress: Progress) -> dict[str, object]:
    return {"stage": progress.stage, "tape": progress.tape, "bytes": progress.stored_bytes}


def tape_view(ledger: Ledger, volume: Volume, place: Element | None, now_ns: int) -> dict[str, object]:
    """Return all that is known of a tape, with the live sets on it and what becomes of them."""
    live = ledger.live_sets(volume.volume_id)
    lost = {each.set_id for each in ledger.lost_sets(volume.volume_id)}
    return {
        **_tape(volume),
        "volume_id": volume.volume_id,
        "installation_id": volume.installation_id,
        "place": place_of(place) if place is not None else None,
        "is_worm": is_worm(volume.code),
        "capacity_bytes": volume.capacity_bytes,
        "used_bytes": volume.used_bytes,
        "block_size": volume.block_size,
        "end_file": volume.end_file,
        "end_block": volume.end_block,
        **_condition_view(ledger, volume, now_ns),
        "segments": len(ledger.copies_on(volume.volume_id)),
        "is_given_up": bool(volume.overwrites),
        "known_since": moment(volume.created_at_ns),
        "identified_at": moment(volume.identified_at_ns),
        "labelled_at": moment(volume.labelled_at_ns),
        "written_at": moment(volume.written_at_ns),
        "sets": [
            {
                "set_id": verdict.backup_set.set_id,
                "name": verdict.backup_set.name,
                "state": verdict.backup_set.state,
                "started_at": moment(verdict.backup_set.started_at_ns),
                "goes": verdict.goes,
                "reason": verdict.reason,
                "is_only_here": verdict.backup_set.set_id in lost,
            }
            for verdict in verdicts_on(ledger, live, now_ns)
        ],
    }


def _condition_view(ledger: Ledger, volume: Volume, now_ns: int) -> dict[str, object]:
    """Return how a tape is, its life, and its newest mountings."""
    condition, life = condition_now(ledger, volume, now_ns), ledger.life(volume.code)
    return {
        "condition": {
            "score": condition.score,
            "reasons": [{"points": each.points, "sentence": each.sentence} for each in condition.reasons],
            "warning": condition.warning,
        },
        "life": {
            "mountings": life.mountings,
            "written_bytes": life.written_bytes,
            "read_bytes": life.read_bytes,
            "write_failures": life.write_failures,
            "read_failures": life.read_failures,
            "erased_at": moment(life.erased_at_ns),
            "medium": None if life.medium is None else msgspec.to_builtins(life.medium),
        },
        "mountings": [
            {
                "drive": each.drive,
                "loaded_at": moment(each.loaded_at_ns),
                "unloaded_at": moment(each.unloaded_at_ns),
                "purposes": each.purposes,
                "written_bytes": each.written_bytes,
                "read_bytes": each.read_bytes,
                "write_failures": each.write_failures,
                "read_failures": each.read_failures,
                "alerts": each.alerts,
                "temperature_c": each.temperature_c,
                "mishaps": [mishap.message for mishap in each.mishaps],
            }
            for each in ledger.mountings(volume.code)[:_SHOWN_MOUNTINGS]
        ],
    }


def inventory_view(elements: Iterable[Element], volumes: Iterable[Volume]) -> dict[str, object]:
    """Return every place with what is there, and the tapes that are in none."""
    by_code = {volume.code: volume for volume in volumes}
    places = list(elements)
    here = {element.barcode for element in places if element.full}
    return {
        "places": [
            {
                "place": place_of(element),
                "kind": element.kind.value,
                "number": element.number,
                "full": element.full,
                "barcode": element.barcode,
                "tape": _tape_in(element, by_code),
                "is_cleaning": bool(element.barcode and is_cleaning(element.barcode)),
            }
            for element in places
        ],
        "elsewhere": [_tape(volume) for code, volume in by_code.items() if code not in here],
    }


def place_of(element: Element) -> str:
    """Name a place for people."""
    if element.kind is ElementKind.DRIVE:
        return drive_name(element.number)
    return f"{element.kind.value} {element.number}"


def _tape_in(element: Element, by_code: dict[str, Volume]) -> dict[str, object] | None:
    volume = by_code.get(element.barcode or "") if element.full else None
    return None if volume is None else _tape(volume)


def _tape(volume: Volume) -> dict[str, object]:
    return {
        "label": volume.label,
        "barcode": volume.code,
        "pool": volume.pool,
        "state": volume.state,
        "reason": volume.reason,
        "generation": volume.generation,
        "location": volume.location,
        # Nobody has looked at it yet: it counts as blank by its barcode only.
        "is_unknown": volume.state is VolumeState.BLANK and not volume.overwrites and not volume.identified_at_ns,
    }
