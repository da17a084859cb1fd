"""Readers that go through a tree: noticed, and what they come to next is named to the sidecar before they ask. Trio.

Who has listed a directory and then reads its first file, as `cp -r`, `tar` and `rsync` do, is taken for one at once, up
to the topmost directory that he has listed. Others have to show it: the further they have come in order, the further is
looked ahead. What is named is bounded by what the sidecar allows, and taken back when nobody reads on.

All in the event loop. What is said to the sidecar is a hint: when it does not arrive, the reads themselves still do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from uuid import uuid4

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import DirectoryNo, SegmentId, SetId
from catalog.index.reader import IndexReader
from tapefs.errors import BadStructure, RecallFailed, Unreachable
from tapefs.mount import who
from tapefs.mount.link import Link, Span, WalkMessage
from tapefs.mount.listings import Listings
from tapefs.mount.recalls import Caller
from tapefs.mount.tree_order import Stretch, TreeOrder
from tapefs.mount.window import Frame, Window
from tapefs.vfs.archive import Archive
from tapefs.vfs.nodes import EntryNode
from tapefs.vfs.residency import Piece, stretches

#: Without a listing as evidence: so far is looked ahead behind the first file that followed on another, four times as
#: far with each further one; and at least four times what was read in order.
_FIRST_BYTES = 64 * 1024**2
_GROWTH = 4
#: Reading on within one file shows itself behind so much.
_FILE_BYTES = 8 * 1024**2
#: A candidate is only looked for among the next few files.
_FEW_FILES = 3
#: Another process than the one that walks does not make the walk go further than this: it may be another walk.
_JUMP_BYTES = 64 * 1024**2
_GRAIN_BYTES = 16 * 1024**2
#: Entries looked at between two looks at what else is to do: a millisecond.
_ENTRIES = 64
#: A walk that nobody has gone on with is over after this; the second if its process has ended.
_IDLE_S, _GONE_S = 20.0, 3.0
#: The first read of a walk waits so long for the walk to be named before it asks itself: a pass over the tape is better
#: than a locate for it.
_NAMED_S = 1.0
#: So long is looked ahead before what was found is told.
_LOOK_S = 0.8
_RENEW_S = 15.0
_TICK_S = 1.0
#: After a refusal a thread is not asked for again so soon.
_REFUSED_S = 60.0
#: Walks at a time, and candidates of one user among them.
_MOST, _MOST_CANDIDATES = 32, 4
#: Runs of frames in one message, half of what the sidecar takes.
_SPANS = 4000
_THREADS = 64
_LAST_FILES = 4096

log = structlog.get_logger("tapefs.mount")


@dataclass(slots=True, eq=False)
class Walk:
    """One reader."""

    set_id: SetId
    caller: Caller
    #: None: nothing but the file at hand is known.
    order: TreeOrder | None
    window: Window
    #: He has listed what he reads.
    is_sure: bool
    last_s: float
    id: str = field(default_factory=lambda: str(uuid4()))
    #: Files that followed on one another, and bytes.
    hits: int = 0
    consumed_bytes: int = 0
    #: Reads elsewhere by the same thread since it last went on.
    strays: int = 0
    waiting: int = 0
    #: What the sidecar lets us name ahead; None before it was asked.
    window_bytes: int | None = None
    renewed_s: float = 0.0
    #: Not said to the sidecar yet.
    to_come: list[Frame] = field(default_factory=list)
    passed: list[Frame] = field(default_factory=list)
    named: trio.Event = field(default_factory=trio.Event)
    is_ended: bool = False

    @property
    def is_shown(self) -> bool:
        """Is it more than a guess?"""
        return self.is_sure or self.hits > 0 or self.consumed_bytes >= _FILE_BYTES

    @property
    def wanted_bytes(self) -> int:
        """How far to look ahead."""
        most = self.window_bytes or 0
        if self.is_sure or not most:
            return most
        grown = _FIRST_BYTES * _GROWTH ** min(self.hits, 20)
        return min(most, max(grown if self.hits else 0, _GROWTH * self.consumed_bytes))

    @property
    def is_low(self) -> bool:
        """Is it time to name more? Not for every file: a drive that has stopped should have something to do."""
        return not self.is_told and 2 * self.window.ahead_bytes < self.wanted_bytes

    @property
    def is_told(self) -> bool:
        """Is all that there is in the window?"""
        return self.order is None or self.order.is_over


class Walks:
    """All walks of a mount. `run` must run meanwhile."""

    def __init__(self, archive: Archive, link: Link) -> None:
        self.listings = Listings()
        self._archive = archive
        self._link = link
        self._walks: list[Walk] = []
        self._ended: list[Walk] = []
        self._news = trio.Event()
        #: The file that a thread has opened last.
        self._last_files: dict[int, int] = {}
        self._refused_until_s: dict[tuple[int, int], float] = {}

    # -- what readers do ---------------------------------------------------------------------------------------------

    def opened(self, node: EntryNode, pieces: Sequence[Piece], caller: Caller) -> None:
        """A file was opened."""
        if self._walks and pieces:
            self._go_on(pieces[0].segment_id, pieces[0].offset, caller)
        if len(self._last_files) > _LAST_FILES:
            self._last_files.clear()

    def left(self, node: EntryNode, caller: Caller) -> None:
        """A file is closed."""
        self._last_files[caller.thread_id] = node.number

    def read(self, segment_id: SegmentId, offset: int, caller: Caller) -> None:
        """Bytes of a segment's plain stream were read from a file that was not all staged."""
        if self._walks:
            self._go_on(segment_id, offset, caller)

    async def missed(self, node: EntryNode, pieces: Sequence[Piece], offset: int, place: Piece, caller: Caller) -> Walk:
        """A reader is about to wait for bytes at `offset` of the segment of `place`; tell `waited` when that is over.

        Returns once the sidecar knows of the walk that begins here, if it is one for sure, or after a second.
        """
        walk = self._go_on(place.segment_id, offset, caller)
        if walk is None:
            walk = self._begin(node, pieces, offset, place, caller)
        walk.waiting += 1
        if walk.is_sure and not walk.named.is_set():
            self._news.set()
            with trio.move_on_after(_NAMED_S):
                await walk.named.wait()
        return walk

    def waited(self, walk: Walk, *, is_refused: bool) -> None:
        """A wait is over."""
        walk.waiting -= 1
        walk.last_s = trio.current_time()
        if is_refused:
            self._end(walk)

    def _go_on(self, segment_id: SegmentId, offset: int, caller: Caller) -> Walk | None:
        """Return the walk that comes to this place now."""
        for walk in self._walks:
            ordinal = walk.window.find(segment_id, offset)
            if ordinal is None:
                continue
            jump_bytes = walk.window.bytes_to(ordinal)
            is_same = caller.thread_id == walk.caller.thread_id
            if not is_same and jump_bytes > _JUMP_BYTES:
                continue
            self._advance(walk, ordinal, jump_bytes, caller)
            return walk
        return None

    def _advance(self, walk: Walk, ordinal: int, jump_bytes: int, caller: Caller) -> None:
        before = walk.window.ahead_bytes
        # One item stays: several readers may be at work, and a frame may be shared.
        walk.passed += walk.window.drop_before(ordinal - 1)
        walk.consumed_bytes += before - walk.window.ahead_bytes
        walk.last_s = trio.current_time()
        walk.strays = 0
        if caller.inode != walk.caller.inode and jump_bytes <= 2 * _GRAIN_BYTES:
            walk.hits += 1
        walk.caller = caller
        if walk.is_shown and (walk.window_bytes is None or walk.is_low or len(walk.passed) >= _SPANS):
            self._news.set()

    # -- the beginning and the end -----------------------------------------------------------------------------------

    def _begin(self, node: EntryNode, pieces: Sequence[Piece], offset: int, place: Piece, caller: Caller) -> Walk:
        set_id, number = node.view.backup_set.set_id, node.view.backup_set.number
        directory = self.listings.directory_of(number, node.number)
        listed = self._listed_by(node, caller.thread_id) if directory is not None else set()
        reader = self._archive.index(set_id)
        is_sure = directory in listed and self._is_in_order(reader, directory, node, caller)
        order = None
        if directory is not None:
            here = reader.directory(directory)
            root = _top(reader, directory, listed) if directory in listed else DirectoryNo(0)
            order = TreeOrder(self._archive, set_id, here, node.number - here.files_first + 1, root)
        walk = Walk(set_id, caller, order, self._window(set_id), is_sure, trio.current_time())
        for stretch in _rest(pieces, offset, place):
            walk.to_come += walk.window.add(stretch)
        if order is not None:
            # Those that tell whether he goes on.
            for stretch in islice(order.go_on(_ENTRIES if is_sure else _FEW_FILES), _ENTRIES):
                walk.to_come += walk.window.add(stretch)
        self._make_room_for(walk)
        if self._refused_until_s.get((caller.uid, caller.thread_id), 0.0) > walk.last_s:
            walk.is_ended = True
            walk.named.set()
        else:
            self._walks.append(walk)
        return walk

    def _window(self, set_id: SetId) -> Window:
        def frames_of(stretch: Stretch) -> tuple[int, int, int]:
            reader = self._archive.index(set_id)
            frames = reader.frames_covering(stretch.segment_no, stretch.offset, stretch.length)
            if not frames:
                raise BadStructure(f"segment {stretch.segment_id} has no byte {stretch.offset}: the index is damaged")
            last = frames[-1].row
            return frames[0].number, frames[-1].number, last.plain_offset + last.plain_bytes

        return Window(frames_of, _GRAIN_BYTES)

    def _listed_by(self, node: EntryNode, thread_id: int) -> set[DirectoryNo]:
        """Return which directories of the set the process of this thread has listed."""
        if not thread_id:
            return set()
        by_thread = self.listings.of_threads(node.view.backup_set.number)
        found = set(by_thread.get(thread_id, ()))
        process = _process_of(thread_id)
        for other in list(by_thread)[-_THREADS:]:
            if other != thread_id and process is not None and _process_of(other) == process:
                found |= by_thread[other]
        return found

    def _is_in_order(self, reader: IndexReader, directory: DirectoryNo | None, node: EntryNode, caller: Caller) -> bool:
        """Is it the first file of its directory that has content, or one right behind what the thread read last?"""
        if directory is None:
            return False
        here = reader.directory(directory)
        before = self._last_files.get(caller.thread_id)
        if before is not None and 0 < node.number - before <= _FEW_FILES:
            return True
        for _, number, entry in reader.list_from(here, 0):
            if stat.S_ISDIR(entry.mode) or number >= node.number:
                return number == node.number
            if stat.S_ISREG(entry.mode) and entry.size:
                return False
        return False

    def _make_room_for(self, new: Walk) -> None:
        """The thread that begins a walk has left others; and there are not too many."""
        for walk in list(self._walks):
            if walk.caller.thread_id == new.caller.thread_id and not walk.waiting:
                walk.strays += 1
                if new.is_sure or walk.strays > 1:
                    self._end(walk)
        candidates = [
            walk for walk in self._walks if not walk.is_shown and not walk.waiting and walk.caller.uid == new.caller.uid
        ]
        for walk in candidates[: max(0, len(candidates) + 1 - _MOST_CANDIDATES)]:
            self._end(walk)
        idle = sorted((walk for walk in self._walks if not walk.waiting), key=lambda walk: walk.last_s)
        for walk in idle[: max(0, len(self._walks) + 1 - _MOST)]:
            self._end(walk)

    def _end(self, walk: Walk) -> None:
        if walk.is_ended:
            return
        walk.is_ended = True
        walk.named.set()
        self._walks.remove(walk)
        if walk.window_bytes is not None:
            self._ended.append(walk)
            self._news.set()

    # -- the sidecar -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look ahead, and tell the sidecar, until cancelled."""
        while True:
            with trio.move_on_after(_TICK_S):
                await self._news.wait()
            self._news = trio.Event()
            self._end_idle()
            for walk in list(self._walks):
                if walk.is_shown and not walk.is_ended:
                    await self._look_after(walk)
            await self._tell_ends()

    def _end_idle(self) -> None:
        now_s = trio.current_time()
        for walk in list(self._walks):
            idle_s = now_s - walk.last_s
            if not walk.waiting and (idle_s > _IDLE_S or (idle_s > _GONE_S and _is_gone(walk.caller.thread_id))):
                self._end(walk)

    async def _look_after(self, walk: Walk) -> None:
        try:
            if walk.window_bytes is None:
                # How far may it look? Said before anything is named: what comes in pieces is fetched in pieces.
                await self._tell(walk, is_question=True)
            elif trio.current_time() > walk.renewed_s + _RENEW_S or len(walk.passed) >= _SPANS:
                await self._tell(walk)
            is_low = walk.is_low
            while is_low and not walk.is_ended:
                is_low = not await self._look_ahead(walk)
                await self._tell(walk)
            if walk.to_come and not walk.is_ended:
                await self._tell(walk)
            walk.named.set()
        except Unreachable:
            return  # What was not told is still in its lists; the next tick tries again.
        except (RecallFailed, BadStructure, CatalogError) as error:
            log.error("cannot read ahead of a walk", reason=str(error))
            self._end(walk)

    async def _look_ahead(self, walk: Walk) -> bool:
        """Fill the window; return whether it is full, for after a while it is time to tell what was found."""
        until_s = trio.current_time() + _LOOK_S
        while walk.order is not None and not walk.is_told and walk.window.ahead_bytes < walk.wanted_bytes:
            if trio.current_time() > until_s:
                return False
            for stretch in walk.order.go_on(_ENTRIES):
                walk.to_come += walk.window.add(stretch)
            await trio.sleep(0)
        return True

    async def _tell(self, walk: Walk, *, is_question: bool = False) -> None:
        """Tell what is new, or only that there is a walk. Raises Unreachable, RecallFailed."""
        counts = (0, 0) if is_question else (len(walk.to_come), len(walk.passed))
        to_come, passed = _spans(walk.to_come[: counts[0]]), _spans(walk.passed[: counts[1]])
        seen = await trio.to_thread.run_sync(who.look_at, walk.caller.thread_id, walk.caller.inode)
        caller = walk.caller
        for first in range(0, max(len(to_come), len(passed), 1), _SPANS):
            walk.window_bytes = await self._link.walk(
                WalkMessage(
                    id=walk.id,
                    to_come=to_come[first : first + _SPANS],
                    passed=passed[first : first + _SPANS],
                    uid=caller.uid,
                    pid=seen.pid or caller.thread_id,
                    gids=tuple(dict.fromkeys((caller.gid, *seen.gids))),
                    commands=seen.commands,
                )
            )
        del walk.to_come[: counts[0]], walk.passed[: counts[1]]
        walk.renewed_s = trio.current_time()
        if not walk.window_bytes:
            if len(self._refused_until_s) > _LAST_FILES:
                self._refused_until_s.clear()
            self._refused_until_s[caller.uid, caller.thread_id] = walk.renewed_s + _REFUSED_S
            self._end(walk)

    async def _tell_ends(self) -> None:
        ended = list(self._ended)
        if not ended:
            return
        with suppress(Unreachable, RecallFailed):  # The sidecar forgets them after a while.
            await self._link.end_walks([walk.id for walk in ended])
        del self._ended[: len(ended)]


def _rest(pieces: Sequence[Piece], offset: int, place: Piece) -> Iterable[Stretch]:
    """Yield what is left of a file from a place on."""
    is_behind = False
    for piece in stretches(pieces):
        start, end = piece.offset, piece.offset + piece.length
        if not is_behind:
            if piece.segment_id != place.segment_id or not start <= offset < end:
                continue
            is_behind, start = True, offset
        yield Stretch(piece.segment_no, piece.segment_id, start, end - start)


def _top(reader: IndexReader, directory: DirectoryNo, listed: set[DirectoryNo]) -> DirectoryNo:
    """Return the topmost directory above that was listed with all in between."""
    while True:
        parent = reader.directory(directory).parent
        if parent == directory or parent not in listed:
            return directory
        directory = parent


def _spans(frames: Iterable[Frame]) -> list[Span]:
    """Return frames as runs."""
    found: list[Span] = []
    low: Frame | None = None
    last = -2
    for segment_id, number in sorted(set(frames)):
        if low is not None and segment_id == low[0] and number == last + 1:
            last = number
            continue
        if low is not None:
            found.append(Span(low[0], low[1], last))
        low, last = (segment_id, number), number
    if low is not None:
        found.append(Span(low[0], low[1], last))
    return found


def _is_gone(thread_id: int) -> bool:
    return thread_id != 0 and not os.path.exists(f"/proc/{thread_id}")


def _process_of(thread_id: int) -> int | None:
    """Return the process of a thread; None if it has ended."""
    try:
        with open(f"/proc/{thread_id}/status", "rb") as file:
            return next((int(line[5:]) for line in file if line.startswith(b"Tgid:")), None)
    except OSError:
        return None
