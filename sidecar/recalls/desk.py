"""Where readers are received: who may have bytes fetched, who must ask, who has had enough; and what became of them.

One trio run. It keeps the books and says who is to be refused; the queue, and telling the mounts, is `recalling`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import structlog
import trio

from catalog.ids import SegmentId, VolumeId
from sidecar.recalls.allowances import Allowances, Limits
from sidecar.recalls.guard import Action, Guard, Mode, Reader, Verdict
from sidecar.recalls.log import Entry, RecallLog
from sidecar.recalls.queue import Stretch
from sidecar.recalls.readings import Outcome, Reading, Readings, Wait
from tapefs.errors import HomeError, NoSuchThing
from tapefs.home import Home

#: How often what is over is written down.
WRITE_S = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a waiting read stands in the plan."""

    tape: str
    #: Stretches of that tape that are fetched before its own.
    ahead: int
    #: When its own will be there, if nothing else wants the drive.
    eta_s: float


@dataclass(frozen=True, slots=True)
class Choice:
    """Which readings are wanted: all that is given must fit; `command` and `path` as parts."""

    uid: int | None = None
    command: str | None = None
    path: str | None = None
    outcome: str | None = None

    def fits(self, entry: Entry) -> bool:
        """Is it one of them?"""
        return (
            (self.uid is None or entry.uid == self.uid)
            and (self.command is None or self.command in entry.command)
            and (self.path is None or self.path in entry.path)
            and (self.outcome is None or self.outcome in entry.outcomes)
        )


class Desk:
    """The books on readers. Raises HomeError when settings or files make no sense."""

    def __init__(self, home: Home) -> None:
        settings = home.settings.recall
        self.guard = Guard(home)
        self.allowances = Allowances(
            Limits(settings.user_hourly_bytes, settings.user_hourly_tapes, settings.limit_root)
        )
        self._log = RecallLog(home)
        try:
            self._past = self._log.last()
        except OSError as error:
            raise HomeError(f"cannot read {home.recall_log}: {error.strerror}") from error
        self._readings = Readings(max((entry.id for entry in self._past), default=0) + 1)

    # -- one read ----------------------------------------------------------------------------------------------------

    def receive(self, reader: Reader, wait: Wait, frame_bytes: int) -> Verdict:
        """Note a read that has to wait, and return what becomes of it. `frame_bytes` is the mean plain size."""
        reading = self._readings.of(reader, wait.since_s, time.time_ns())
        verdict = self._judge(reading)
        is_held = verdict.action is Action.ASK
        noted = Wait(wait.waiter_id, wait.frames, wait.since_s, wait.deadline_s, is_held)
        self._readings.note(reading, noted, frame_bytes)
        if is_held and len(reading.waits) == 1:
            log.info("a reader asks for a recall", id=reading.number, **_who(reader))
        return verdict

    def _judge(self, reading: Reading) -> Verdict:
        verdict = self.guard.judge(reading.reader)
        if reading.word is None or self.guard.mode is Mode.OFF:
            return verdict
        if reading.word:
            return Verdict(Action.ALLOW, "")
        return Verdict(Action.DENY, "an operator has denied it")

    def may_read_ahead(self, reader: Reader) -> bool:
        """May be fetched what this reader has not asked for yet? Only if nothing that he asks for would be refused."""
        return self.guard.allows_all(reader) and not self.allowances.limits.hold_for(reader.uid)

    def is_known(self, waiter_id: str) -> bool:
        """Does this read wait already?"""
        return self._readings.wait(waiter_id) is not None

    def over(self, waiter_id: str, outcome: Outcome, reason: str = "") -> None:
        """Note that a wait is over; one that is not known does no harm."""
        self._readings.over(waiter_id, outcome, trio.current_time(), reason)

    def segment_of(self, waiter_id: str) -> list[SegmentId]:
        """Return the segment that a read waits for; nothing when it is not known."""
        wait = self._readings.wait(waiter_id)
        return [] if wait is None else [wait.frames.segment_id]

    def take_back(self, wait: Wait) -> Wait:
        """Forget a wait, to receive it anew; return it."""
        self._readings.forget(wait.waiter_id)
        return wait

    def take_late(self) -> None:
        """Let go of reads that an operator was not quick enough for."""
        now = trio.current_time()
        for _, wait in list(self._readings.held()):
            if wait.deadline_s <= now:
                self.over(wait.waiter_id, Outcome.LATE)

    # -- operators ---------------------------------------------------------------------------------------------------

    def say(self, number: int, word: bool, *, whole_process: bool) -> list[Reading]:
        """Note an operator's word on a reading; return all that it is about. Raises NoSuchThing."""
        reading = self._readings.find(number)
        if reading is None:
            raise NoSuchThing(f"no reader waits under the number {number}, or it has gone")
        concerned = self._readings.say(reading, word, trio.current_time(), whole_process=whole_process)
        log.info("an operator has decided", granted=word, id=number, readings=len(concerned), **_who(reading.reader))
        return concerned

    def held(self) -> list[tuple[Reading, Wait]]:
        """Return the waits that need an operator, oldest first."""
        return list(self._readings.held())

    # -- lists -------------------------------------------------------------------------------------------------------

    def waiting(self, choice: Choice, standing: Callable[[Wait], Standing | None]) -> list[Entry]:
        """Return who waits now, oldest first."""
        entries = []
        for reading in self._readings.waiting():
            entry = _entry(reading)
            if choice.fits(entry):
                found = [each for each in map(standing, reading.waits.values()) if each is not None]
                first = min(found, key=lambda each: each.ahead, default=None)
                entries.append(entry if first is None else _standing(entry, first))
        return entries

    def history(self, choice: Choice) -> list[Entry]:
        """Return who waited, newest first."""
        return [entry for entry in self._all_past() if choice.fits(entry)]

    def _all_past(self) -> Iterator[Entry]:
        yield from map(_entry, self._readings.quiet())
        yield from reversed(self._past)

    # -- writing down ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down what is over until cancelled, then what is left."""
        try:
            while True:
                await trio.sleep(WRITE_S)
                await trio.to_thread.run_sync(self._write, self._close(is_end=False))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._write, self._close(is_end=True))

    def _close(self, *, is_end: bool) -> Sequence[Entry]:
        entries = [_entry(reading) for reading in self._readings.sweep(trio.current_time(), is_end=is_end)]
        self._past.extend(entries)
        return entries

    def _write(self, entries: Sequence[Entry]) -> None:
        try:
            self._log.append(entries)
        except OSError as error:
            # Recalls are worth more than the record of them.
            log.error("recalls could not be written down", error=str(error), readings=len(entries))


def standing_of(
    plans: Mapping[VolumeId, Sequence[Stretch]], label: Callable[[VolumeId], str]
) -> Callable[[Wait], Standing | None]:
    """Return a function that tells where a wait stands in the plans of all tapes."""
    places: dict[SegmentId, list[tuple[int, Stretch, VolumeId]]] = {}
    for volume_id, stretches in plans.items():
        for place, each in enumerate(stretches):
            places.setdefault(each.frames.segment_id, []).append((place, each, volume_id))

    def standing(wait: Wait) -> Standing | None:
        mine = [
            (place, each.eta_s, volume_id)
            for place, each, volume_id in places.get(wait.frames.segment_id, ())
            if each.frames.first <= wait.frames.last and wait.frames.first <= each.frames.last
        ]
        if wait.is_held or not mine:
            return None
        place, eta_s, volume_id = max(mine)
        return Standing(label(volume_id), place, eta_s)

    return standing


def _who(reader: Reader) -> dict[str, object]:
    return {"uid": reader.uid, "pid": reader.pid, "command": reader.command, "path": reader.path}


def _standing(entry: Entry, standing: Standing) -> Entry:
    return msgspec.structs.replace(entry, tape=standing.tape, ahead=standing.ahead, eta_s=round(standing.eta_s, 1))


def _entry(reading: Reading) -> Entry:
    now_s = trio.current_time()
    waited_s = reading.waited_s + sum(now_s - wait.since_s for wait in reading.waits.values())
    began = datetime.fromtimestamp(reading.began_ns / 1e9, UTC)
    last = datetime.fromtimestamp(reading.began_ns / 1e9 + reading.last_s - reading.began_s, UTC)
    return Entry(
        id=reading.number,
        state="asking" if reading.is_asking else "waiting" if reading.waits else "over",
        uid=reading.reader.uid,
        pid=reading.reader.pid,
        command=reading.reader.command,
        path=reading.reader.path,
        size_bytes=reading.reader.size_bytes,
        bytes=reading.bytes,
        waits=len(reading.waits) + sum(reading.outcomes.values()),
        outcomes={outcome.value: count for outcome, count in reading.outcomes.items()},
        waited_s=round(waited_s, 3),
        began_at=began.isoformat(timespec="milliseconds"),
        last_at=last.isoformat(timespec="milliseconds"),
        reason=reading.reason or None,
        word=None if reading.word is None else "granted" if reading.word else "denied",
    )
