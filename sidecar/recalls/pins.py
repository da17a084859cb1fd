"""Pins: frames that people, or programs, want to keep staged for a time. One trio run; threads write the ledger.

A pin is a record in the ledger, so it survives the sidecar. It keeps frames from being evicted, whether they are staged
already or come later. All pins together take at most a share of the staging area: the rest is for whoever reads.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import structlog
import trio

from catalog.errors import CatalogError, NotFound
from catalog.ids import FrameNo, PinId, SegmentId, new_uuid
from catalog.ledger import Ledger
from catalog.records import PinnedFrames, StagePin
from tapefs.errors import NoRoom, NoSuchThing
from tapefs.mover.messages import FrameRange
from tapefs.spans import Spans
from tapefs.staging.area import Runs
from tapefs.staging.pinned import FrameLengths, united

#: How often the sidecar looks whether a pin has run out.
LOOK_S = 10.0
_NS_PER_S = 1_000_000_000

log = structlog.get_logger(__name__)


class Pins:
    """All pins, and what they hold together."""

    def __init__(self, ledger: Ledger, limit_bytes: int) -> None:
        """`limit_bytes`: what all of them together may hold. Reads the ledger: blocking."""
        self._ledger = ledger
        self.limit_bytes = limit_bytes
        self._pins = {pin.pin_id: pin for pin in ledger.pins()}
        self._lengths = FrameLengths(ledger)
        self._held: dict[SegmentId, tuple[tuple[int, int], ...]] = {}
        self._adding = trio.Lock()
        self._count()

    # -- asking ------------------------------------------------------------------------------------------------------

    def all(self) -> list[StagePin]:
        """Return the pins that have not run out, oldest first."""
        now_ns = time.time_ns()
        pins = [pin for pin in self._pins.values() if pin.expires_at_ns > now_ns]
        return sorted(pins, key=lambda pin: (pin.created_at_ns, pin.pin_id))

    def pin(self, pin_id: str) -> StagePin:
        """Return one. Raises NoSuchThing."""
        pin = self._pins.get(PinId(pin_id))
        if pin is None or pin.expires_at_ns <= time.time_ns():
            raise NoSuchThing(f"there is no pin {pin_id}; it may have run out")
        return pin

    def held(self) -> Runs:
        """Return what the pins hold, by segment, as a snapshot for other threads."""
        return dict(self._held)

    def bytes_of(self, pin: StagePin) -> int:
        """Return about how many plain bytes a pin holds."""
        return self._lengths.of(pin.frames)

    def used_bytes(self) -> int:
        """Return about how many plain bytes all pins hold together; what two of them hold counts once."""
        return self._lengths.of(PinnedFrames(*held) for held in self._held.items())

    def ranges(self, pins: Iterable[StagePin]) -> list[FrameRange]:
        """Return the frames of pins, to order them."""
        return [
            FrameRange(segment_id, FrameNo(first), FrameNo(last))
            for pin in pins
            for segment_id, runs in pin.frames
            for first, last in runs
        ]

    # -- changing ----------------------------------------------------------------------------------------------------

    async def add(
        self, ranges: Sequence[FrameRange], *, owner: str, reason: str, lifetime_s: float, pin_id: str | None = None
    ) -> StagePin:
        """Pin frames, or have a known pin hold more, or for longer. Raises NotFound, NoRoom, Conflict."""
        now_ns = time.time_ns()
        async with self._adding:
            pin = StagePin(
                pin_id=PinId(pin_id or new_uuid()),
                owner=owner,
                reason=reason,
                frames=_by_segment(ranges),
                created_at_ns=now_ns,
                expires_at_ns=now_ns + int(lifetime_s * _NS_PER_S),
            )
            self._check(ranges)
            pin = await trio.to_thread.run_sync(self._ledger.put_pin, pin)
            self._pins[pin.pin_id] = pin
            self._count()
        log.info("pinned", pin=pin.pin_id, owner=pin.owner, bytes=self.bytes_of(pin), lifetime_s=lifetime_s)
        return pin

    def _check(self, ranges: Sequence[FrameRange]) -> None:
        """Raise NotFound for frames that there are not, NoRoom when they are too much."""
        for frames in ranges:
            count = self._ledger.segment(frames.segment_id).frames
            if frames.last >= count:
                raise NotFound(f"segment {frames.segment_id} has only {count} frames")
        more_bytes = self._lengths.of(self._not_held(frames) for frames in _by_segment(ranges))
        used_bytes = self.used_bytes()
        if more_bytes and used_bytes + more_bytes > self.limit_bytes:
            raise NoRoom(
                f"pins may hold {self.limit_bytes:,} bytes of the staging area; {used_bytes:,} are pinned already and "
                f"{more_bytes:,} more are asked for: `tapefs unpin` something, or wait until a pin has run out"
            )

    def _not_held(self, frames: PinnedFrames) -> PinnedFrames:
        spans = _spans(frames.runs)
        for held in self._held.get(frames.segment_id, ()):
            spans.remove(*held)
        return PinnedFrames(frames.segment_id, tuple(spans))

    async def drop(self, pin_id: str) -> None:
        """End a pin; its frames stay staged until the room is needed. Raises NoSuchThing."""
        self.pin(pin_id)
        await self._forget(PinId(pin_id))

    async def run(self) -> None:
        """End pins that have run out, for ever."""
        while True:
            now_ns = time.time_ns()
            for pin in [pin for pin in self._pins.values() if pin.expires_at_ns <= now_ns]:
                try:
                    await self._forget(pin.pin_id)
                except CatalogError as error:
                    # It is over all the same, for whoever asks; its frames are kept until the ledger can be written.
                    log.error("a pin that has run out cannot be removed", pin=pin.pin_id, error=str(error))
                else:
                    log.info("pin has run out", pin=pin.pin_id, owner=pin.owner)
            await trio.sleep(LOOK_S)

    async def _forget(self, pin_id: PinId) -> None:
        async with self._adding:
            await trio.to_thread.run_sync(self._ledger.drop_pin, pin_id, time.time_ns())
            self._pins.pop(pin_id, None)
            self._count()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _count(self) -> None:
        self._held = dict(united(self._pins.values()))


def _by_segment(ranges: Iterable[FrameRange]) -> tuple[PinnedFrames, ...]:
    found: dict[SegmentId, list[tuple[int, int]]] = {}
    for frames in ranges:
        found.setdefault(frames.segment_id, []).append((frames.first, frames.last))
    return tuple(PinnedFrames(segment_id, tuple(_spans(runs))) for segment_id, runs in found.items())


def _spans(runs: Iterable[tuple[int, int]]) -> Spans:
    spans = Spans()
    for run in runs:
        spans.add(*run)
    return spans
