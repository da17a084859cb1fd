"""Who waits for tape, who waited, and what became of it. Pure bookkeeping; times are passed in.

A *reading* is one process and one file: a program that reads a file piece by piece waits many times, and an operator
who grants or refuses wants to be asked once. It stays open for a while behind its last wait, then it is history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from itertools import count

from catalog.ids import SegmentId
from sidecar.recalls.guard import Reader
from tapefs.mover.messages import FrameRange
from tapefs.spans import Spans

#: A reading is over when it has not waited for so long; with a word of the operator, which lasts as long, later.
IDLE_S, WORD_S = 60.0, 600.0
#: Readings that are open without a wait.
MOST_OPEN = 2000


class Outcome(Enum):
    """What became of a wait."""

    #: The bytes came.
    FETCHED = "fetched"
    #: A rule, a limit or an operator said no.
    REFUSED = "refused"
    #: A rule says that the reader does not wait; the bytes are being fetched.
    DEFERRED = "deferred"
    #: They could not be had.
    FAILED = "failed"
    #: The deadline came first.
    LATE = "late"
    #: The reader was ended.
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class Wait:
    """One read that waits."""

    waiter_id: str
    frames: FrameRange
    since_s: float
    #: Until when; infinite for ever.
    deadline_s: float
    #: It waits for an operator's word, and nothing is fetched for it.
    is_held: bool


@dataclass(slots=True)
class Reading:
    """One process that reads one file."""

    number: int
    reader: Reader
    began_s: float
    began_ns: int
    #: When it last began or ended to wait.
    last_s: float
    waits: dict[str, Wait] = field(default_factory=dict)
    outcomes: dict[Outcome, int] = field(default_factory=dict)
    waited_s: float = 0.0
    #: Plain bytes of the frames that it has waited for.
    bytes: int = 0
    #: Why it was last refused.
    reason: str = ""
    #: What an operator has said; None as long as nobody has.
    word: bool | None = None
    frames: dict[SegmentId, Spans] = field(default_factory=dict)

    @property
    def is_asking(self) -> bool:
        """Does it wait for an operator?"""
        return any(wait.is_held for wait in self.waits.values())

    def wished(self, wait: Wait, frame_bytes: int) -> None:
        """Note a wait."""
        self.waits[wait.waiter_id] = wait
        known = self.frames.setdefault(wait.frames.segment_id, Spans())
        before = sum(last - first + 1 for first, last in known.within(wait.frames.first, wait.frames.last))
        known.add(wait.frames.first, wait.frames.last)
        self.bytes += (wait.frames.last - wait.frames.first + 1 - before) * frame_bytes
        self.last_s = wait.since_s

    def over(self, waiter_id: str, outcome: Outcome, now_s: float, reason: str = "") -> None:
        """Note that a wait is over."""
        wait = self.waits.pop(waiter_id)
        self.waited_s += now_s - wait.since_s
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        self.reason = reason or self.reason
        self.last_s = now_s


_Key = tuple[int, int, str, str]


def _key(reader: Reader) -> _Key:
    return reader.uid, reader.pid, reader.command, reader.path


class Readings:
    """All of them."""

    def __init__(self, first_number: int = 1) -> None:
        self._numbers = count(first_number)
        self._open: dict[_Key, Reading] = {}
        #: Waiter to its reading.
        self._homes: dict[str, Reading] = {}
        #: What an operator has said of all that a process reads, and when that was last asked for.
        self._words: dict[_Key, tuple[bool, float]] = {}

    def of(self, reader: Reader, now_s: float, now_ns: int) -> Reading:
        """Return the open reading of that process and file, a new one if there is none."""
        key = _key(reader)
        if key not in self._open:
            self._open[key] = Reading(next(self._numbers), reader, now_s, now_ns, now_s)
        reading = self._open[key]
        if reading.word is None:
            reading.word = self._word_for(reader, now_s)
        return reading

    def note(self, reading: Reading, wait: Wait, frame_bytes: int) -> None:
        """Note a wait."""
        reading.wished(wait, frame_bytes)
        self._homes[wait.waiter_id] = reading

    def over(self, waiter_id: str, outcome: Outcome, now_s: float, reason: str = "") -> None:
        """Note that a wait is over; one that is not known does no harm."""
        reading = self._homes.pop(waiter_id, None)
        if reading is not None:
            reading.over(waiter_id, outcome, now_s, reason)

    def forget(self, waiter_id: str) -> None:
        """Take back a wait as if it had not been."""
        del self._homes.pop(waiter_id).waits[waiter_id]

    def wait(self, waiter_id: str) -> Wait | None:
        """Return a wait that is not over."""
        reading = self._homes.get(waiter_id)
        return None if reading is None else reading.waits[waiter_id]

    def find(self, number: int) -> Reading | None:
        """Return an open reading."""
        return next((reading for reading in self._open.values() if reading.number == number), None)

    def process(self, reader: Reader) -> list[Reading]:
        """Return all open readings of a process."""
        return [each for each in self._open.values() if _process(each.reader) == _process(reader)]

    def say(self, reading: Reading, word: bool, now_s: float, *, whole_process: bool) -> list[Reading]:
        """Note an operator's word; return the readings that it is about."""
        concerned = self.process(reading.reader) if whole_process else [reading]
        if whole_process:
            self._words[_process(reading.reader)] = (word, now_s)
        for each in concerned:
            each.word, each.last_s = word, now_s
        return concerned

    def held(self) -> Iterator[tuple[Reading, Wait]]:
        """Iterate over the waits that need an operator, oldest first."""
        for reading in list(self._open.values()):
            for wait in list(reading.waits.values()):
                if wait.is_held:
                    yield reading, wait

    def waiting(self) -> list[Reading]:
        """Return the readings that wait now, oldest first."""
        return [reading for reading in self._open.values() if reading.waits]

    def quiet(self) -> list[Reading]:
        """Return the open readings that do not wait now, newest first."""
        found = [reading for reading in self._open.values() if not reading.waits]
        return sorted(found, key=lambda reading: reading.last_s, reverse=True)

    def sweep(self, now_s: float, *, is_end: bool = False) -> list[Reading]:
        """Let go of what is over, and return it, oldest first. At the end everything is over."""
        quiet = [key for key, reading in self._open.items() if is_end or not reading.waits]
        too_many = max(0, len(quiet) - MOST_OPEN)
        closed = []
        for place, key in enumerate(sorted(quiet, key=lambda each: self._open[each].last_s)):
            reading = self._open[key]
            keep_s = IDLE_S if reading.word is None else WORD_S
            if is_end or place < too_many or now_s - reading.last_s >= keep_s:
                closed.append(self._open.pop(key))
        self._words = {key: said for key, said in self._words.items() if now_s - said[1] < WORD_S}
        return closed

    def _word_for(self, reader: Reader, now_s: float) -> bool | None:
        process = _process(reader)
        if process not in self._words:
            return None
        word, _ = self._words[process]
        self._words[process] = (word, now_s)
        return word


def _process(reader: Reader) -> _Key:
    return reader.uid, reader.pid, reader.command, ""
