"""The movers that write further copies while a backup runs, as its own mover sees them.

It listens; a mover of another drive that has the time calls, gets a tape, and is given each segment's blocks behind
the word that it begins. Nobody waits for them but at the begin of the run, while they get their first tapes, and at its
end. Blocks wait in memory, up to the size of a fill buffer each; a companion that does not take them in time loses the
segment, whose copy is made later, from tape.

Threads: two for each companion, and one that listens. Intake thread and tape writer call in; one lock for all.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from catalog.ids import SegmentId, SetId, VolumeId
from catalog.records import Segment, SetTotals
from tapefs.along.words import (
    Begin,
    Changing,
    Committed,
    Copied,
    Dropped,
    Go,
    Hello,
    HungUp,
    Lost,
    PayloadEnds,
    Ready,
    Sealed,
    TrailerIsThere,
    Wire,
    Word,
    listen,
)
from tapefs.format.records import Header
from tapefs.keys.policy import Seal
from tapefs.tape.fill import FillBuffer

log = structlog.get_logger(__name__)

#: One that is said to come has called within this time, or is not waited for.
_CALLS_S = 10.0
#: So long the begin of a run waits for their first tapes: a robot's way, and the threading.
FIRST_TAPE_S = 180.0
#: A companion that has said nothing for so long at the end is not waited for any more.
_SILENT_S = 600.0
#: So long may the first drive stand, or run dry, in a segment because of a companion. To lose the segment costs more:
#: 32 GiB take two minutes to read, and two to write.
_PATIENCE_S = 10.0
#: A companion that was too slow so many times in a row is not asked any more: its tape only wears.
_MOST_DROPS = 2
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class CopyOffer:
    """The further copies of a set that other drives may write at once."""

    set_id: SetId
    #: Where its mover listens.
    address: str
    #: For each copy whose tapes it is for; empty: those of the job's pool.
    pools: tuple[str, ...]


class Companion:
    """One other mover. All but the two threads' own work is done with the lock held."""

    def __init__(self, wire: Wire, changed: threading.Condition, buffer_bytes: int) -> None:
        self._wire = wire
        self._changed = changed
        self._buffer_bytes = buffer_bytes
        self._queue: deque[Word | bytes | memoryview] = deque()
        self._queued_bytes = 0
        #: The segment that it is given.
        self.segment_id: SegmentId | None = None
        self._patience_s = 0.0
        self._slow_drops = 0
        self.target = -1
        #: The tape that it writes, once it has one.
        self.volume_id: VolumeId | None = None
        #: It takes the next segment.
        self.is_willing = False
        self.is_gone = False
        self.heard_at_s = time.monotonic()
        self._room_bytes = 0
        #: Plain bytes of segments that it has been given, or will be, and has not put on tape.
        self._on_its_way: dict[SegmentId, int] = {}
        self._sender = threading.Thread(target=self._send_all, name="copy-sender", daemon=True)
        self._sender.start()

    # -- with the lock held ------------------------------------------------------------------------------------------

    @property
    def room_bytes(self) -> int:
        """Plain bytes that the next segment may hold on its tape."""
        return self._room_bytes - sum(self._on_its_way.values())

    def say(self, word: Word) -> None:
        """Say it when all that was said before is said."""
        self._queue.append(word)
        self._changed.notify_all()

    def begin(self, word: Begin) -> bool:
        """Give it a segment, if it takes one."""
        if self.is_gone or not self.is_willing:
            self._on_its_way.pop(word.header.segment, None)
            return False
        self.segment_id, self._patience_s = word.header.segment, _PATIENCE_S
        self.say(word)
        return True

    def comes(self, segment_id: SegmentId, plain_bytes: int) -> None:
        """It will be given so much."""
        if self.is_willing:
            self._on_its_way[segment_id] = plain_bytes

    def take(self, block: bytes | memoryview, fill: FillBuffer) -> None:
        """Have a block wait for it; a companion that has no room for it in time is not waited for."""
        segment_id = self.segment_id
        while (
            self.segment_id is not None and self._queued_bytes and self._queued_bytes + len(block) > self._buffer_bytes
        ):
            if self._patience_s <= 0:
                self._too_slow(self.segment_id)
                break
            before_s, costs_nothing = time.monotonic(), fill.is_feeding and not fill.is_low
            self._changed.wait(_LOOK_S)
            if not costs_nothing:
                self._patience_s -= time.monotonic() - before_s
        if self.segment_id is not None and self.segment_id == segment_id:
            self._queue.append(block)
            self._queued_bytes += len(block)
            self._changed.notify_all()

    def goes_back(self) -> None:
        """What was on its way to the first tape is lost."""
        self._on_its_way.clear()

    def lose(self) -> None:
        """The segment that it is given does not come to be, or not there."""
        if self.segment_id is None:
            return
        self._on_its_way.pop(self.segment_id, None)
        begin = next((n for n, each in enumerate(self._queue) if isinstance(each, Begin)), None)
        if begin is None:
            self._queue.clear()
            self._queue.append(Lost())
        else:
            # It has not heard of it.
            while len(self._queue) > begin:
                self._queue.pop()
        self._queued_bytes = 0
        self.segment_id = None
        self._changed.notify_all()

    def _too_slow(self, segment_id: SegmentId) -> None:
        log.warning("a further copy is too slow, the segment is copied later", segment=segment_id)
        self.lose()
        self._slow_drops += 1
        if self._slow_drops >= _MOST_DROPS:
            self.hang_up()

    def hang_up(self) -> None:
        """Be done with it."""
        self.is_gone, self.is_willing, self.segment_id = True, False, None
        self._queue.clear()
        self._queued_bytes = 0
        self._wire.hang_up()
        self._changed.notify_all()

    def heard(self, word: Word | bytes) -> None:
        """Take what it says."""
        self.heard_at_s = time.monotonic()
        if isinstance(word, Ready):
            self.volume_id, self._room_bytes, self.is_willing = word.volume_id, word.room_bytes, True
        elif isinstance(word, Changing):
            self.is_willing = False
        elif isinstance(word, Copied):
            self._on_its_way.pop(word.segment_id, None)
            self._slow_drops = 0
        elif isinstance(word, Dropped):
            log.warning("a further copy is made later", segment=word.segment_id, reason=word.reason)
            self._on_its_way.pop(word.segment_id, None)
            self.is_willing = False
            if self.segment_id == word.segment_id:
                self.lose()
        self._changed.notify_all()

    # -- threads -----------------------------------------------------------------------------------------------------

    def _send_all(self) -> None:
        while (item := self._next()) is not None:
            try:
                if isinstance(item, bytes | memoryview):
                    self._wire.give(item)
                else:
                    self._wire.say(item)
            except HungUp:
                with self._changed:
                    self.hang_up()
                return

    def _next(self) -> Word | bytes | memoryview | None:
        with self._changed:
            while not self._queue and not self.is_gone:
                self._changed.wait()
            if self.is_gone:
                return None
            item = self._queue.popleft()
            if isinstance(item, bytes | memoryview):
                self._queued_bytes -= len(item)
                self._changed.notify_all()
            return item

    def hear_all(self) -> None:
        """Take what it says until it is gone; the thread of `Companions` for it."""
        try:
            while True:
                word = self._wire.hear(_nothing)
                with self._changed:
                    self.heard(word)
        except HungUp:
            with self._changed:
                self.hang_up()
        self._sender.join()
        self._wire.close()


class Companions:
    """All of a run, and the socket at which they call. Made and closed by the intake thread."""

    def __init__(self, set_id: SetId, pools: Sequence[str], buffer_bytes: int) -> None:
        """Listen, for one companion at most for each of `pools`. Raises OSError."""
        self._listener, address = listen()
        #: What the other drives are to be told.
        self.offer = CopyOffer(set_id, address, tuple(pools))
        self._buffer_bytes = buffer_bytes
        self._changed = threading.Condition()
        self._companions: list[Companion] = []
        self._called = 0
        self._seal: Seal | None = None
        #: Tapes of the first copy, and those on which companions have written, by target.
        self._first_tapes: set[VolumeId] = set()
        self._tapes: dict[int, set[VolumeId]] = {}
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept_all, name="copy-calls", daemon=True)
        self._acceptor.start()

    # -- the intake thread's -----------------------------------------------------------------------------------------

    def other_tapes(self) -> list[VolumeId]:
        """Return the tapes that the first copy must not go to."""
        with self._changed:
            return [volume_id for found in self._tapes.values() for volume_id in found]

    def now_on(self, volume_id: VolumeId, seal: Seal, others: Sequence[VolumeId] = ()) -> None:
        """The first copy goes on with this tape; `others` hold what it has written before."""
        with self._changed:
            self._first_tapes.update((volume_id, *others))
            if self._seal is None:
                self._seal = seal
                for each in self._companions:
                    self._send_off(each)

    def wait_for(self, coming: int, look_around: Callable[[], None]) -> None:
        """Wait until so many have called and have a tape, or a while has passed. Raises what `look_around` does."""
        began_s = time.monotonic()
        while True:
            with self._changed:
                waited_s = time.monotonic() - began_s
                lacks_calls = self._called < coming and waited_s < _CALLS_S
                lacks_tapes = any(not each.is_willing for each in self._alive()) and waited_s < FIRST_TAPE_S
                if not lacks_calls and not lacks_tapes:
                    return
                self._changed.wait(_LOOK_S)
            look_around()

    def limit_bytes(self, limit_bytes: int, least_bytes: int) -> int:
        """Return what a segment may hold that fits all tapes it goes to: those that have room for `least_bytes`."""
        with self._changed:
            rooms = [each.room_bytes for each in self._alive() if each.is_willing]
            return min([limit_bytes, *(room for room in rooms if room >= max(least_bytes, limit_bytes // 4))])

    def handed_over(self, segment_id: SegmentId, plain_bytes: int) -> None:
        """A segment of that size is on its way to all tapes."""
        with self._changed:
            for each in self._alive():
                each.comes(segment_id, plain_bytes)

    def go_back(self) -> None:
        """What was handed over and is not committed comes again, in other segments."""
        with self._changed:
            for each in self._alive():
                each.goes_back()

    def seal(self, look_around: Callable[[], None]) -> None:
        """The set is COMPLETE: have the copies ended, and wait for that. What `look_around` raises comes through."""
        self._stop_listening()
        with self._changed:
            for each in self._alive():
                # Who is getting another tape has nothing on it that lacks an index.
                each.say(Sealed()) if each.is_willing else each.hang_up()
                each.heard_at_s = time.monotonic()
        while True:
            with self._changed:
                for each in self._alive():
                    if time.monotonic() - each.heard_at_s > _SILENT_S:
                        log.warning("the drive of a further copy does not answer", tape=each.volume_id)
                        each.hang_up()
                if not self._alive():
                    return
                self._changed.wait(_LOOK_S)
            look_around()

    def close(self) -> None:
        """Be done with all of them."""
        self._stop_listening()
        with self._changed:
            for each in self._alive():
                each.hang_up()
        for thread in self._threads:
            thread.join()

    # -- the tape writer's -------------------------------------------------------------------------------------------

    def begin(self, header: Header, limit_bytes: int, totals: SetTotals) -> Party:
        """Give a segment to all that take one; they are who a `Tee` then goes to."""
        word = Begin(header=header, limit_bytes=limit_bytes, totals=totals)
        with self._changed:
            return Party(self._changed, header.segment, [each for each in self._alive() if each.begin(word)])

    # -- inside ------------------------------------------------------------------------------------------------------

    def _alive(self) -> list[Companion]:
        return [each for each in self._companions if not each.is_gone]

    def _send_off(self, each: Companion) -> None:
        if self._seal is None or each.target < 0:
            return
        own = self._tapes.setdefault(each.target, set())
        others = {volume_id for found in self._tapes.values() for volume_id in found}
        exclude = sorted((self._first_tapes | others) - own)
        each.say(Go(key_fingerprint=self._seal.fingerprint, by_drive=self._seal.by_drive, exclude=exclude))

    def _accept_all(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # It was closed.
            try:
                wire = Wire(connection)
            except OSError as error:
                log.warning("a call that is none", error=str(error))
                continue
            thread = threading.Thread(target=self._serve, args=(wire,), name="copy-hearer", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, wire: Wire) -> None:
        companion = Companion(wire, self._changed, self._buffer_bytes)
        try:
            hello = wire.hear(_nothing)
        except HungUp:
            hello = b""
        with self._changed:
            taken = {each.target for each in self._alive()}
            if not isinstance(hello, Hello) or self._closing or hello.target in taken:
                companion.hang_up()
            else:
                companion.target = hello.target
                self._companions.append(companion)
                self._called += 1
                self._send_off(companion)
        companion.hear_all()
        with self._changed:
            if companion.target >= 0 and companion.volume_id is not None:
                self._tapes.setdefault(companion.target, set()).add(companion.volume_id)

    def _stop_listening(self) -> None:
        self._closing = True
        with suppress(OSError):  # It was done before.
            self._listener.shutdown(socket.SHUT_RDWR)  # That alone ends an `accept` that waits.
        self._listener.close()
        self._acceptor.join()


@dataclass(frozen=True, slots=True)
class Party:
    """The companions that are given one segment."""

    changed: threading.Condition
    segment_id: SegmentId
    companions: Sequence[Companion]


class Tee:
    """What stands before the fill buffer of the first copy's drive: blocks go to companions, too. Writer thread."""

    def __init__(self, fill: FillBuffer) -> None:
        self._fill = fill
        self._party: Party | None = None

    def go_to(self, party: Party) -> None:
        """From now on blocks go to them, too."""
        self._party = party if party.companions else None

    def write_block(self, block: bytes | memoryview) -> bool:
        """Hand on one block. Raises what the fill buffer does."""
        if self._party is None:
            return self._fill.write_block(block)
        kept = block if isinstance(block, bytes) or block.readonly else bytes(block)
        with self._party.changed:
            for each in _at_it(self._party):
                each.take(kept, self._fill)
        return self._fill.write_block(kept)

    def payload_ends(self, sha256: bytes) -> None:
        """All blocks were handed on."""
        self._say(PayloadEnds(sha256=sha256))

    def trailer_is_there(self) -> None:
        """The local trailer is synced."""
        self._say(TrailerIsThere())

    def committed(self, segment: Segment) -> None:
        """The first copy counts; the segment is no longer given to anybody."""
        self._say(Committed(segment=segment))
        self._party = None

    def lost(self) -> None:
        """The segment does not come to be; harmless twice, and behind `committed`."""
        party, self._party = self._party, None
        if party is not None:
            with party.changed:
                for each in _at_it(party):
                    each.lose()

    def _say(self, word: Word) -> None:
        if self._party is None:
            return
        with self._party.changed:
            for each in _at_it(self._party):
                each.say(word)
                if isinstance(word, Committed):
                    each.segment_id = None


def _at_it(party: Party) -> list[Companion]:
    return [each for each in party.companions if each.segment_id == party.segment_id]


def _nothing() -> None:
    """There is nothing to look at."""
