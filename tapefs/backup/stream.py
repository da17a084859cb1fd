"""Frames become committed segments on tape, in order.

The writer thread owns the drive until `settle` returns; the intake thread hands it segments and frames and reads on
meanwhile, also over the border of two segments. Write order of a segment: intent, HEADER, filemark, PAYLOAD, filemark,
local trailer synced, TRAILER, synchronous filemark, ledger. A segment for which the tape has no room, or that it
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
from tapefs.tape.append import OpenTape


@dataclass(frozen=True, slots=True)
class Lost:
    """A segment that did not come to be, and why; the tape holds nothing of it that counts."""

    plan: SegmentPlan
    error: BaseException


@dataclass(frozen=True, slots=True)
class _Finish:
    """The segment's last frame has been handed over."""


class _Settled(threading.Event):
    """The writer has nothing more to do."""


class TapeStream:
    """The writer thread for one tape."""

    def __init__(
        self,
        context: SetContext,
        drive: Drive,
        tape: OpenTape,
        pool: Pool,
        committed: Callable[[CommittedSegment], None],
    ) -> None:
        self._context = context
        self._drive = drive
        self._tape = tape
        self._pool = pool
        self._committed = committed
        self._queue: queue.SimpleQueue[SegmentPlan | Frame | _Finish | _Settled | None] = queue.SimpleQueue()
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

    @property
    def is_broken(self) -> bool:
        """A segment was lost; nothing more is written until `settle`."""
        return self._lost is not None

    def begin(self, plan: SegmentPlan) -> None:
        """The frames that follow belong to this segment."""
        self._queue.put(plan)

    def put(self, frame: Frame) -> None:
        """Hand over a frame, submitted to the workers; it goes back to the pool when it is written."""
        self._queue.put(frame)

    def finish(self) -> None:
        """The segment has no more frames."""
        self._queue.put(_Finish())

    def settle(self) -> Lost | None:
        """Wait until all that was handed over is committed or lost; the drive is then the caller's."""
        settled = _Settled()
        self._queue.put(settled)
        settled.wait()
        lost, self._lost = self._lost, None
        return lost

    def close(self) -> None:
        """End the thread; what is not committed is lost."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()
        if self._writer is not None:
            self._writer.discard()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, _Settled):
                item.set()
                continue
            if isinstance(item, SegmentPlan):
                self._plan = self._plan if self._lost else item
            try:
                if self._lost is None and not self._closing:
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

    def _lose(self, error: BaseException) -> None:
        if self._plan is None:
            raise error
        writer, self._writer = self._writer, None
        self._lost = Lost(self._plan, error)
        if writer is not None:
            writer.discard()

    def _write(self, item: SegmentPlan | Frame | _Finish) -> None:
        if isinstance(item, SegmentPlan):
            self._writer = SegmentWriter(self._context, self._drive, self._tape, item)
            self._writer.begin()
            return
        writer = self._writer
        if writer is None:
            raise AssertionError("a frame came before its segment")
        before = writer.stored_bytes
        if isinstance(item, Frame):
            item.ready.wait()
            if item.error is not None:
                raise item.error
            writer.add(item)
        else:
            committed = writer.finish()
            # It counts now, whatever comes: its local trailer must stay.
            self._writer = None
            self._committed(committed)
            writer.close()
        self.stored_bytes += writer.stored_bytes - before
        self.end_is_near |= writer.end_is_near


def _no_local_trailer(error: OSError) -> StorageFailed:
    failure = StorageFailed(
        f"cannot write a trailer to the state folder: {error.strerror}; see to its disk, then run the backup again",
        retryable=error.errno in (errno.ENOSPC, errno.EDQUOT),
    )
    failure.__cause__ = error
    return failure
