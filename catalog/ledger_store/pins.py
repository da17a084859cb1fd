"""Operations on pins of staged frames: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from catalog.errors import Conflict
from catalog.ids import PinId, SegmentId
from catalog.ledger_store import unreadable
from catalog.ledger_store.tables import PINS, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text
from catalog.records import PinnedFrames, StagePin


def oldest_first(tx: Reader) -> list[StagePin]:
    """Return all pins."""
    return sorted((pin for _, pin in unreadable.readable(tx, PINS)), key=lambda pin: (pin.created_at_ns, pin.pin_id))


def put(tx: Writer, pin: StagePin) -> StagePin:
    """Record a pin, or have a known one hold these frames, too, until the later of both ends. Raises Conflict."""
    known = tx.find(PINS, text_key(pin.pin_id))
    if known is not None and known.owner != plain_text(pin.owner):
        raise Conflict(f"pin {pin.pin_id} is {known.owner}'s")
    wanted = msgspec.structs.replace(
        known or pin,
        owner=plain_text(pin.owner),
        reason=plain_text(pin.reason),
        frames=_united([*(known.frames if known is not None else ()), *pin.frames]),
        expires_at_ns=max(pin.expires_at_ns, known.expires_at_ns if known is not None else 0),
    )
    if wanted != known:
        tx.put(PINS, text_key(pin.pin_id), wanted)
        tx.tell("pin.changed" if known is not None else "pin.added", pin.pin_id, wanted.owner, pin.created_at_ns)
    return wanted


def drop(tx: Writer, pin_id: PinId, now_ns: int) -> None:
    """Forget a pin, if it is there."""
    known = tx.find(PINS, text_key(pin_id))
    if known is not None:
        tx.delete(PINS, text_key(pin_id))
        tx.tell("pin.ended", pin_id, known.owner, now_ns)


def _united(frames: Iterable[PinnedFrames]) -> tuple[PinnedFrames, ...]:
    runs: dict[SegmentId, list[tuple[int, int]]] = {}
    for segment_id, some in frames:
        runs.setdefault(segment_id, []).extend(some)
    return tuple(PinnedFrames(segment_id, _joined(runs[segment_id])) for segment_id in sorted(runs))


def _joined(runs: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for first, last in sorted(runs):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return tuple(joined)
