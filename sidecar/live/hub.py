"""The hub of the streams: notices in their order, and a board with the newest progress of each source.

One trio run; `tell` and `over` are synchronous. A listener has no queue, only two places: the number of the last notice
that it was given, and how far it has read the board. So a thousand listeners cost what one does, and what a slow one
misses of the progress is what was overtaken anyway. Notices it never misses: behind the newest, which are kept here as
they are sent, it reads on in the ledger.

An event is encoded once, and what goes to listeners who stand at the same place and want the same is joined once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Reversible, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import takewhile

import msgspec
import trio

from catalog.notice_records import Facts, Notice
from sidecar.bell import Bell
from sidecar.http.answers import moment
from sidecar.notices.events import Events
from sidecar.notices.views import notice_answer

#: A sign of life, when there is nothing to tell for so long.
HEARTBEAT_S = 15.0
#: How soon a client that was cut off is to come again.
RETRY_MS = 2000
#: Notices that are kept encoded, and how many a listener who is behind is given at a time.
RECENT, PIECE = 1000, 200
#: What a source has said last stays on the board so long behind its end, for those who read slowly.
OVER_S = 60.0

HELLO = b"retry: %d\n\n" % RETRY_MS
HEARTBEAT = b": still here\n\n"

_encoder = msgspec.json.Encoder()


class ProgressAnswer(msgspec.Struct, frozen=True):
    """How far something is; the next of the same kind and subject takes its place."""

    at: datetime | None
    #: `job.progress`, `drive.state` …
    kind: str
    subject: str
    facts: Facts
    #: It has come to its end, and nothing more is told of it.
    is_over: bool


class GapAnswer(msgspec.Struct, frozen=True):
    """Notices that were asked for and are not kept any more: from the first on, up to the last."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class _Sent:
    """An event as it is sent."""

    #: Number of a notice, or place on the board.
    number: int
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """What a listener is given, and where it stands then."""

    data: bytes
    notice: int
    place: int


class Live:
    """All streams of this sidecar."""

    def __init__(self, events: Events) -> None:
        self._events = events
        #: The newest notices, without a gap; the newest of all stands last.
        self._recent: deque[_Sent] = deque(maxlen=RECENT)
        self.newest = events.newest
        self._board: dict[tuple[str, str], _Sent] = {}
        self._over_at: dict[tuple[str, str], float] = {}
        self._place = 0
        self._bell = Bell()
        self._pieces: dict[tuple[tuple[str, ...], int, int], _Piece] = {}
        self._listeners = 0
        self._came = Bell()
        #: One reads new notices at a time.
        self._turn = trio.Lock()
        self._is_ended = False

    # -- telling -----------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have notices told as they are posted, for ever."""
        while True:
            await self._events.wait_beyond(self.newest)
            await self.catch_up()

    async def catch_up(self) -> None:
        """Tell the notices that were posted by now."""
        async with self._turn:
            while self.newest < self._events.newest:
                for notice in await self._events.since(self.newest, RECENT):
                    self._recent.append(_sent_notice(notice))
                    self.newest = notice.number
                self._wake()

    def tell(self, kind: str, subject: str, facts: Facts, *, is_over: bool = False) -> None:
        """Put on the board how far something is, in the place of what stood there; costs little if nobody listens."""
        self._sweep()
        self._pieces.clear()
        self._place += 1
        answer = ProgressAnswer(moment(self._events.now_ns()), kind, subject, facts, is_over)
        key = kind, subject
        self._board.pop(key, None)
        self._board[key] = _Sent(self._place, kind, _framed("progress", answer))
        if is_over:
            self._over_at[key] = trio.current_time()
        else:
            self._over_at.pop(key, None)

    def show(self) -> None:
        """Wake the listeners for what was told: all of a second at once."""
        self._wake()

    def clear(self) -> None:
        """Empty the board: nobody has kept it up to date."""
        self._board.clear()
        self._over_at.clear()
        self._pieces.clear()

    def end(self) -> None:
        """End all streams, and those that come later."""
        self._is_ended = True
        self._wake()

    @property
    def is_followed(self) -> bool:
        """Does anybody listen?"""
        return self._listeners > 0

    @property
    def listeners(self) -> int:
        """How many listen."""
        return self._listeners

    async def wait_followed(self) -> None:
        """Wait until somebody listens."""
        while not self._listeners:
            await self._came.wait_rung()

    def _wake(self) -> None:
        self._pieces.clear()
        self._bell.ring()

    def _sweep(self) -> None:
        late = trio.current_time() - OVER_S
        for key in list(takewhile(lambda each: self._over_at[each] <= late, self._over_at)):
            del self._over_at[key], self._board[key]

    # -- for the listeners -------------------------------------------------------------------------------------------

    def come(self) -> None:
        """Somebody listens from now on; `go` must follow."""
        self._listeners += 1
        self._came.ring()

    def go(self) -> None:
        """He does not any more."""
        self._listeners -= 1

    @property
    def is_ended(self) -> bool:
        """Is all over?"""
        return self._is_ended

    def has_more(self, notice: int, place: int) -> bool:
        """Is there anything behind these places?"""
        return notice < self.newest or place < self._place

    async def wait_news(self) -> None:
        """Wait until there is something new for anybody."""
        await self._bell.wait_rung()

    def piece_nowait(self, wanted: tuple[str, ...], notice: int, place: int) -> _Piece | None:
        """Return what stands behind two places, perhaps nothing; None when the ledger must be asked."""
        if notice < self.newest - len(self._recent):
            return None
        key = wanted, notice, place
        if key not in self._pieces:
            notices = _behind(self._recent, notice)
            progress = _behind(self._board.values(), place)
            data = b"".join(each.data for each in [*notices, *progress] if is_wanted(each.kind, wanted))
            self._pieces[key] = _Piece(data, self.newest, self._place)
        return self._pieces[key]

    async def kept_piece(self, wanted: tuple[str, ...], notice: int, place: int) -> _Piece:
        """Return the next notices behind one that is long past."""
        found = await self._events.since(notice, PIECE)
        if not found:
            return _Piece(b"", self.newest, place)
        gap = b""
        if notice and found[0].number > notice + 1:
            gap = _framed("gap", GapAnswer(notice + 1, found[0].number - 1))
        data = b"".join(_sent_notice(each).data for each in found if is_wanted(each.kind, wanted))
        return _Piece(gap + data, found[-1].number, place)


class Listener:
    """Where one client stands; made and used by one task."""

    def __init__(self, live: Live, wanted: Sequence[str], behind: int | None) -> None:
        """`wanted` are patterns of kinds, none for all; `behind` the number of a notice, None for the newest."""
        self._live = live
        self._wanted = tuple(sorted(set(wanted)))
        self._place = 0
        self._greeting = HELLO
        self._notice = live.newest if behind is None else behind
        if self._notice > live.newest:
            # Numbers begin anew with a new ledger: what he has of the old one says nothing about this one.
            self._greeting += _framed("gap", GapAnswer(live.newest + 1, self._notice))
            self._notice = 0
        self._beat_at = trio.current_time() + HEARTBEAT_S

    async def next_piece(self) -> bytes | None:
        """Wait for the next whole events: a comment when there are none for a while, None when all is over."""
        if self._greeting:
            greeting, self._greeting = self._greeting, b""
            return greeting
        while True:
            data = await self._take()
            if data:
                self._beat_at = trio.current_time() + HEARTBEAT_S
                return data
            if self._live.is_ended:
                return None
            if not await self._wait():
                self._beat_at = trio.current_time() + HEARTBEAT_S
                return HEARTBEAT

    async def _take(self) -> bytes:
        piece = self._live.piece_nowait(self._wanted, self._notice, self._place)
        if piece is None:
            piece = await self._live.kept_piece(self._wanted, self._notice, self._place)
        self._notice, self._place = piece.notice, piece.place
        return piece.data

    async def _wait(self) -> bool:
        """Wait for news; False when it is time for a sign of life. `_take` came between two waits without an await."""
        if self._live.has_more(self._notice, self._place):
            return True
        with trio.move_on_at(self._beat_at):
            await self._live.wait_news()
            return True
        return False


def is_wanted(kind: str, patterns: tuple[str, ...]) -> bool:
    """Does somebody with these patterns (`job.*`) want that kind? Without patterns: all."""
    return not patterns or any(fnmatchcase(kind, pattern) for pattern in patterns)


def _behind(events: Reversible[_Sent], number: int) -> list[_Sent]:
    """Return those with a higher number; they stand in order."""
    return list(takewhile(lambda each: each.number > number, reversed(events)))[::-1]


def _sent_notice(notice: Notice) -> _Sent:
    data = b"id: %d\n%b" % (notice.number, _framed("notice", notice_answer(notice)))
    return _Sent(notice.number, notice.kind, data)


def _framed(name: str, answer: msgspec.Struct) -> bytes:
    """Return an event as it is sent: JSON has no line ends of its own."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encoder.encode(answer))
