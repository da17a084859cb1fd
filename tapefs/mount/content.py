"""Open files: reading their bytes from the staging files, and waiting for those that are not there. Trio.

A file whose bytes are all staged when it is opened has them pinned until it is released, and the kernel may keep them
in its page cache. Any other is read past the page cache, so that a wait never takes one of the few places the kernel
has for page reads.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Protocol

import trio

from catalog.ids import SegmentId, SetId
from catalog.index.model import EntryFlag
from tapefs.errors import BadStructure, RecallFailed, SourceError
from tapefs.mount.recalls import Caller, Recalls, Wanted
from tapefs.mount.stages import SharedPin, Stages
from tapefs.mount.walks import Walks
from tapefs.mount.who import shown
from tapefs.staging.stage import Pin, SegmentStage
from tapefs.vfs.archive import Archive
from tapefs.vfs.nodes import EntryNode
from tapefs.vfs.residency import Piece, pieces_of, stretches
from tapefs.vfs.roster import utc_name

#: A plain number: an IntFlag costs 1.2 µs an operation.
_UNREADABLE = int(EntryFlag.UNREADABLE)


class OpenFile(Protocol):
    """A file that is open."""

    @property
    def is_cacheable(self) -> bool:
        """May it be read through the page cache?"""
        ...

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """Return what `read` would, or None if that may have to wait."""
        ...

    async def read(self, offset: int, size: int) -> bytes:
        """Return exactly what was asked for, less only at the end of the file."""
        ...

    def release(self) -> None:
        """Let go of everything; called once."""
        ...


class OpenText:
    """A virtual file: its text as it was when it was opened."""

    is_cacheable = False

    def __init__(self, text: bytes) -> None:
        self._text = text

    def read_nowait(self, offset: int, size: int) -> bytes:
        """Return a part of the text."""
        return self._text[offset : offset + size]

    async def read(self, offset: int, size: int) -> bytes:
        """Return a part of the text."""
        return self._text[offset : offset + size]

    def release(self) -> None:
        """Nothing to let go of."""


class OpenUnreadable:
    """A file that could not be read at backup time: its name is in the archive, its content is not."""

    is_cacheable = False

    def read_nowait(self, offset: int, size: int) -> None:
        """Return None: `read` tells why."""

    async def read(self, offset: int, size: int) -> bytes:
        """Raise SourceError."""
        raise SourceError("this file could not be read when it was backed up")

    def release(self) -> None:
        """Nothing to let go of."""


class Contents:
    """Opens files, for one thread. `deadline_s` is how long a read waits for tape, 0 for ever."""

    def __init__(self, archive: Archive, stages: Stages, recalls: Recalls, walks: Walks, deadline_s: float) -> None:
        self.walks = walks
        self._archive = archive
        self._stages = stages
        self._recalls = recalls
        self._deadline_s = deadline_s or math.inf

    def open(self, node: EntryNode, uid: int, gid: int, thread_id: int) -> OpenFile:
        """Open a regular file of a set. Raises BadStructure, OSError."""
        if node.entry.flags & _UNREADABLE:
            return OpenUnreadable()
        pieces = pieces_of(node.view.reader, node.number, node.entry)
        caller = Caller(node.inode, uid, thread_id, gid)
        self.walks.opened(node, pieces, caller)
        return OpenContent(self, node, pieces, caller)

    def take(self, segment_id: SegmentId) -> SegmentStage | None:
        """See Stages."""
        return self._stages.take(segment_id)

    def pin(self, stage: SegmentStage, frames: range) -> Pin | SharedPin | None:
        """See Stages."""
        return self._stages.pin(stage, frames)

    def give_back(self, stage: SegmentStage) -> None:
        """See Stages."""
        self._stages.give_back(stage)

    def rest(self) -> None:
        """See Stages."""
        self._stages.rest()

    def deadline(self) -> float:
        """Return on trio's clock when a read that begins now gives up."""
        return trio.current_time() + self._deadline_s

    def frames(self, set_id: SetId, piece: Piece, start: int, length: int) -> Wanted:
        """Return which frames hold these bytes of the piece's segment. Raises BadStructure."""
        frames = self._archive.index(set_id).frames_covering(piece.segment_no, start, length)
        if not frames:
            raise BadStructure(
                f"segment {piece.segment_id} has no bytes {start} to {start + length}: the index is damaged"
            )
        return Wanted(piece.segment_id, frames[0].number, frames[-1].number)

    async def wait(self, wanted: Wanted, caller: Caller, deadline_s: float, is_staged: Callable[[], bool]) -> None:
        """See Recalls."""
        await self._recalls.wait(wanted, caller, deadline_s, is_staged)


class OpenContent:
    """A regular file of a set: pieces in segments, and holes between them if it is sparse."""

    def __init__(self, contents: Contents, node: EntryNode, pieces: Sequence[Piece], caller: Caller) -> None:
        self._contents = contents
        self._node = node
        self._set_id = node.view.backup_set.set_id
        self._size = node.entry.size
        self._pieces = pieces
        self._starts = [piece.file_offset for piece in pieces]
        self._caller = caller
        #: Taken when first needed, given back at release.
        self._taken: dict[SegmentId, SegmentStage] = {}
        self._pins: list[Pin | SharedPin] = []
        self.is_cacheable = self._pin_all()
        #: The only piece of a file without holes that is pinned.
        self._whole = pieces[0] if self.is_cacheable and pieces and pieces[0].length == self._size else None

    def _pin_all(self) -> bool:
        """Pin all frames of the file, or none and return False."""
        for stretch in stretches(self._pieces) if len(self._pieces) > 1 else self._pieces:
            stage = self._stage(stretch.segment_id)
            pin = None
            if stage is not None:
                pin = self._contents.pin(stage, stage.frames_for(stretch.offset, stretch.length))
            if pin is None:
                self._unpin_all()
                return False
            self._pins.append(pin)
        return True

    def _unpin_all(self) -> None:
        while self._pins:
            self._pins.pop().release()

    def _stage(self, segment_id: SegmentId) -> SegmentStage | None:
        stage = self._taken.get(segment_id)
        if stage is None:
            stage = self._contents.take(segment_id)
            if stage is not None:
                self._taken[segment_id] = stage
        return stage

    def release(self) -> None:
        """Let go of pins and staging files."""
        self._contents.walks.left(self._node, self._caller)
        self._unpin_all()
        while self._taken:
            self._contents.give_back(self._taken.popitem()[1])

    # -- reading -----------------------------------------------------------------------------------------------------

    def read_nowait(self, offset: int, size: int) -> bytes | None:
        """Return what `read` would if the file is one piece without holes and was staged when it was opened, else None.

        Raises BadStructure, OSError.
        """
        end = min(offset + size, self._size)
        piece = self._whole
        if piece is None or offset >= end:
            return None
        return self._read_staged(piece.segment_id, piece.offset + offset, end - offset)

    async def read(self, offset: int, size: int) -> bytes:
        """Return exactly what was asked for, less only at the end of the file. Raises as Recalls.wait, BadStructure,
        OSError.
        """
        end = min(offset + size, self._size)
        if offset >= end:
            return b""
        ordinal = bisect_right(self._starts, offset) - 1
        if ordinal >= 0:
            piece = self._pieces[ordinal]
            if end <= piece.file_offset + piece.length:
                return await self._read_piece(piece, offset - piece.file_offset, end - offset, None)
        return await self._read_across(max(ordinal, 0), offset, end)

    async def _read_across(self, ordinal: int, offset: int, end: int) -> bytes:
        """Read over the borders of pieces, from the one numbered `ordinal` on; what is in none is a hole."""
        deadline_s = self._contents.deadline()
        parts = []
        for piece in islice(self._pieces, ordinal, None):
            if piece.file_offset >= end:
                break
            hole = piece.file_offset - offset
            if hole > 0:
                parts.append(bytes(hole))
                offset = piece.file_offset
            length = min(end, piece.file_offset + piece.length) - offset
            if length > 0:
                parts.append(await self._read_piece(piece, offset - piece.file_offset, length, deadline_s))
                offset += length
        parts.append(bytes(end - offset))
        return b"".join(parts)

    async def _read_piece(self, piece: Piece, offset: int, length: int, deadline_s: float | None) -> bytes:
        """Read within a piece; what is staged is read at once, in the event loop: 128 KiB take 10 µs, a hop to a thread
        100.
        """
        start = piece.offset + offset
        while (content := self._read_staged(piece.segment_id, start, length)) is None:
            if deadline_s is None:
                deadline_s = self._contents.deadline()
            await self._recall(piece, start, length, deadline_s)
        if not self.is_cacheable:
            self._contents.walks.read(piece.segment_id, start + length - 1, self._caller)
        return content

    def _read_staged(self, segment_id: SegmentId, start: int, length: int) -> bytes | None:
        stage = self._stage(segment_id)
        if stage is None:
            return None
        content = stage.read(start, length)
        if content is not None:
            stage.touch(stage.frames_for(start, length))
        return content

    async def _recall(self, piece: Piece, start: int, length: int, deadline_s: float) -> None:
        def is_staged() -> bool:
            taken = self._taken.get(piece.segment_id)
            if taken is not None and not taken.is_linked():
                # Somebody has emptied the staging folder: what arrives goes to new files.
                del self._taken[piece.segment_id]
                self._contents.give_back(taken)
            stage = self._stage(piece.segment_id)
            return stage is not None and stage.has(stage.frames_for(start, length))

        stage = self._stage(piece.segment_id)
        if stage is not None:
            frames = stage.frames_for(start, length)
            # Left by the machine's last run: comparing is quicker than any tape. The stage stays open until release.
            if stage.doubtful(frames):
                revived = await trio.to_thread.run_sync(stage.revive, frames)
                if revived:
                    return
        if not self._caller.name:
            # Not at open: that has to be quick, and most files need it never.
            self._caller = self._caller._replace(name=_name(self._node), size_bytes=self._size)
        wanted = self._contents.frames(self._set_id, piece, start, length)
        walk = await self._contents.walks.missed(self._node, self._pieces, start, piece, self._caller)
        is_refused = False
        try:
            await self._contents.wait(wanted, self._caller, deadline_s, is_staged)
        except RecallFailed:
            is_refused = True
            raise
        finally:
            self._contents.walks.waited(walk, is_refused=is_refused)


def _name(node: EntryNode) -> str:
    """Return what file it is, for people."""
    backup_set = node.view.backup_set
    return f"{backup_set.name}/{utc_name(backup_set.started_at_ns)}/…/{shown(node.entry.name)}"
