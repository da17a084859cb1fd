"""Frames become committed segments on tape, in order.

The writer thread owns the drive until `settle` returns; the intake thread hands it segments and frames and reads on
meanwhile, also over the border of two segments. Write order of a segment: intent, HEADER, filemark, PAYLOAD, filemark,
local trailer synced, TRAILER, synchronous filemark, ledger. With a spool another thread stands before it, and whole
segments come from there. A segment for which the tape has no room, or that it
refuses, is lost as a whole: the writer passes over everything behind it until `settle`, which tells the intake where to
go back to.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from catalog.errors import StorageFailed
from drivers.interface import Drive
from tapefs.backup.frames import Frame, Pool
from tapefs.backup.segment import CommittedSegment, SegmentPlan, SegmentWriter, SetContext
from tapefs.backup.spool import Finish, Item, Settled, Spooled, SpoolFailed, SpoolStage
from tapefs.standing_back import come_forward
from tapefs.tape.append import OpenTape
from tapefs.tape.fill import FillCounts


@dataclass(frozen=True, slots=True)
class Lost:
    """A segment that did not come to be, and why; the tape holds nothing of it that counts."""

    plan: SegmentPlan
    error: BaseException


_Item = SegmentPlan | Frame | Finish | Settled | Spooled | SpoolFailed


class TapeStream:
    """The writer thread for one tape."""

    def __init__(
        self,
        context: SetContext,
        drive: Drive,
        tape: OpenTape,
        pool: Pool,
        committed: Callable[[CommittedSegment], None],
        fills: FillCounts,
        *,
        spool: bool = False,
    ) -> None:
        self._context = context
        self._drive = drive
        self._tape = tape
        self._pool = pool
        self._committed = committed
        self._fills = fills
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._lost: Lost | None = None
        self._plan: SegmentPlan | None = None
        self._writer: SegmentWriter | None = None
        self._closing = False
        #: The drive has warned that the tape ends soon.
        self.end_is_near = False
        #: Payload bytes written to this tape.
        self.stored_bytes = 0
        self._thread = threading.Thread(target=self._run, name="tape-writer")
        self._thread.start()
        self._spool = SpoolStage(context, pool, self._queue.put, self._passes_over) if spool else None

    @property
    def is_broken(self) -> bool:
        """A segment was lost; nothing more is written until `settle`."""
        return self._lost is not None or (self._spool is not None and self._spool.has_failed)

    def begin(self, plan: SegmentPlan) -> None:
        """The frames that follow belong to this segment."""
        self._put(plan)

    def put(self, frame: Frame) -> None:
        """Hand over a frame, submitted to the workers; it goes back to the pool when it is written."""
        self._put(frame)

    def finish(self) -> None:
        """The segment has no more frames."""
        self._put(Finish())

    def settle(self) -> Lost | None:
        """Wait until all that was handed over is committed or lost; the drive is then the caller's."""
        settled = Settled()
        self._put(settled)
        settled.wait()
        lost, self._lost = self._lost, None
        return lost

    def close(self) -> None:
        """End the thread; what is not committed is lost."""
        self._closing = True
        self._put(None)
        if self._spool is not None:
            self._spool.join()
        self._thread.join()
        if self._writer is not None:
            self._writer.discard()

    def _put(self, item: Item) -> None:
        if self._spool is not None:
            self._spool.put(item)
        else:
            self._queue.put(item)

    def _passes_over(self) -> bool:
        return self._closing or self._lost is not None

    def _run(self) -> None:
        come_forward()  # The intake stands back, and whoever feeds a drive must not.
        while (item := self._queue.get()) is not None:
            if isinstance(item, Settled):
                item.set()
                continue
            if self._lost is None and isinstance(item, SegmentPlan | Spooled | SpoolFailed):
                self._plan = item if isinstance(item, SegmentPlan) else item.plan
            passes_over = self._passes_over()
            try:
                if not passes_over:
                    self._write(item)
            except OSError as error:
                # Drives and the ledger have errors of their own: this was the local trailer, and no fault of the tape.
                self._lose(_no_local_trailer(error))
            except BaseException as error:  # noqa: BLE001 - handed to the intake thread by settle()
                self._lose(error)
            finally:
                if isinstance(item, Frame):
                    item.ready.wait()
                    self._pool.give_back(item)
                elif isinstance(item, Spooled):
                    # One that was begun has been discarded with its writer if it was lost.
                    (item.discard if passes_over else item.close)()

    def _lose(self, error: BaseException) -> None:
        if self._plan is None:
            raise error
        writer, self._writer = self._writer, None
        self._lost = Lost(self._plan, error)
        if writer is not None:
            writer.discard()

    def _write(self, item: _Item) -> None:
        if isinstance(item, SpoolFailed):
            raise item.error
        if isinstance(item, SegmentPlan | Spooled):
            self._begin(item)
            return
        writer = self._at_hand()
        before = writer.stored_bytes
        if isinstance(item, Frame):
            item.ready.wait()
            if item.error is not None:
                raise item.error
            writer.add(item)
            self._note(writer, before)
        else:
            self._finish(writer)

    def _begin(self, item: SegmentPlan | Spooled) -> None:
        if isinstance(item, SegmentPlan):
            self._writer = SegmentWriter(self._context, self._drive, self._tape, item, self._fills)
            self._writer.begin()
            return
        writer = self._writer = SegmentWriter(self._context, self._drive, self._tape, item.plan, self._fills, item.body)
        writer.begin()
        for piece in item.pieces():
            if self._closing:
                return
            before = writer.stored_bytes
            writer.copy(piece)
            self._note(writer, before)
        self._finish(writer)

    def _finish(self, writer: SegmentWriter) -> None:
        before = writer.stored_bytes
        committed = writer.finish()
        # It counts now, whatever comes: its local trailer must stay.
        self._writer = None
        self._committed(committed)
        writer.close()
        self._note(writer, before)

    def _note(self, writer: SegmentWriter, before: int) -> None:
        self.stored_bytes += writer.stored_bytes - before
        self.end_is_near |= writer.end_is_near

    def _at_hand(self) -> SegmentWriter:
        if self._writer is None:
            raise AssertionError("a frame came before its segment")
        return self._writer


def _no_local_trailer(error: OSError) -> StorageFailed:
    failure = StorageFailed(
        f"cannot write a trailer to the state folder: {error.strerror}; see to its disk, then run the backup again",
        retryable=error.errno in (errno.ENOSPC, errno.EDQUOT),
    )
    failure.__cause__ = error
    return failure
