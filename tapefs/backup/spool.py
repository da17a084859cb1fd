"""The spool: whole segments go to disk first, and from there to tape as fast as the drive takes them.

For sources that are slower than the drive's slowest speed. One segment is being spooled while the one before it goes to
tape; so there are two at most. Spool files have no names: whatever dies leaves nothing behind. A thread of the stage's
own takes frames out in order; what it has made goes into the tape writer's queue.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from catalog.errors import StorageFailed
from tapefs.backup.body import SegmentBody
from tapefs.backup.frames import Frame, Pool
from tapefs.backup.payload import Octets, StreamedPayload
from tapefs.backup.segment import SegmentPlan, SetContext
from tapefs.home import Home
from tapefs.standing_back import come_forward

#: Segments on disk at a time.
_SEGMENTS = 2
#: What a segment takes in the spool for each plain byte at most.
_STORED_PER_PLAIN = 1.02
_SMALLEST_SEGMENT_BYTES = 4 * 1024**2
_PIECE_BYTES = 4 * 1024**2


def spooled_segment_bytes(home: Home) -> int:
    """Return the plain bytes of a segment of which two fit the spool.

    Raises StorageFailed when the disk has less room than the settings want, or too little for any segment.
    """
    home.spool.mkdir(mode=0o700, exist_ok=True)
    status = os.statvfs(home.spool)
    free, wanted = status.f_bavail * status.f_frsize, home.settings.backup.spool_bytes
    if wanted > free:
        raise StorageFailed(
            f"the spool may take {wanted} bytes, but the disk of {home.spool} has {free} left: "
            "lower backup.spool_bytes, or make room",
            retryable=True,
        )
    most = int((wanted or free // 2) / _SEGMENTS / _STORED_PER_PLAIN)
    if most < _SMALLEST_SEGMENT_BYTES:
        raise StorageFailed(
            f"the disk of {home.spool} has {free} bytes left: too little to spool a segment", retryable=True
        )
    return most


class _SpoolFile:
    """A file without a name, as a `ByteSink`. Unbuffered: closing it on a full disk must not fail."""

    def __init__(self, folder: Path) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 - its owner closes it
        self.bytes = 0

    def write(self, data: Octets | memoryview) -> None:
        """Write all of it. Raises OSError."""
        rest = memoryview(data)
        while rest:
            rest = rest[self.file.write(rest) :]
        self.bytes += len(data)


class Spooled:
    """A segment on disk; `close` gives its place to another."""

    def __init__(self, plan: SegmentPlan, context: SetContext, place: threading.Semaphore) -> None:
        """Begin an empty one; the caller has acquired its `place`. Raises OSError."""
        self.plan = plan
        self._place = place
        self._spool = _SpoolFile(context.home.spool)
        try:
            payload = StreamedPayload(self._spool, context.codec)
            self.body = SegmentBody(context.home.trailer(plan.segment_id), payload, context.early)
        except OSError:
            self._spool.file.close()
            raise
        self._is_closed = False

    def pieces(self) -> Iterator[Octets]:
        """Yield the payload. Raises StorageFailed."""
        file, left = self._spool.file, self._spool.bytes
        try:
            file.seek(0)
            while left:
                piece = file.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise StorageFailed("a spool file is shorter than what was written to it", retryable=False)
                left -= len(piece)
                yield piece
        except OSError as error:
            raise StorageFailed(f"cannot read from the spool: {error.strerror}", retryable=False) from error

    def close(self) -> None:
        """Give the space back; harmless twice."""
        if not self._is_closed:
            self._is_closed = True
            try:
                self._spool.file.close()
            finally:
                self._place.release()

    def discard(self) -> None:
        """Forget it, local trailer and all."""
        self.body.discard()
        self.close()


@dataclass(frozen=True, slots=True)
class SpoolFailed:
    """A segment could not be spooled; those before it are whole."""

    plan: SegmentPlan
    error: BaseException


@dataclass(frozen=True, slots=True)
class Finish:
    """The segment's last frame has been handed over."""


class Settled(threading.Event):
    """There is nothing more to do, as far as was handed over."""


Item = SegmentPlan | Frame | Finish | Settled | None


class SpoolStage:
    """The thread that stands before the tape writer."""

    def __init__(
        self,
        context: SetContext,
        pool: Pool,
        hand_on: Callable[[Spooled | SpoolFailed | Settled | None], None],
        is_broken: Callable[[], bool],
    ) -> None:
        """While `is_broken`, everything up to the next Settled is passed over."""
        self._context = context
        self._pool = pool
        self._hand_on = hand_on
        self._is_broken = is_broken
        self._places = threading.Semaphore(_SEGMENTS)
        self._current: Spooled | None = None
        #: A segment could not be spooled; nothing more is until the next Settled.
        self.has_failed = False
        self._queue: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="spool")
        self._thread.start()

    def put(self, item: Item) -> None:
        """Take in what the tape writer would get."""
        self._queue.put(item)

    def join(self) -> None:
        """Wait for the end, after None was put."""
        self._thread.join()

    def _run(self) -> None:
        come_forward()
        while (item := self._queue.get()) is not None:
            if isinstance(item, Settled):
                self._drop()
                self.has_failed = False
                self._hand_on(item)
                continue
            try:
                if not self.has_failed and not self._is_broken():
                    self._take(item)
            finally:
                if isinstance(item, Frame):
                    item.ready.wait()
                    self._pool.give_back(item)
        self._drop()
        self._hand_on(None)

    def _take(self, item: SegmentPlan | Frame | Finish) -> None:
        plan = item if isinstance(item, SegmentPlan) else None if self._current is None else self._current.plan
        if plan is None:
            return  # The tape writer was broken when its segment began.
        try:
            self._spool(item)
        except OSError as error:
            self._fail(plan, _no_spool(error))
        except BaseException as error:  # noqa: BLE001 - handed to the intake thread by way of the tape writer
            self._fail(plan, error)

    def _spool(self, item: SegmentPlan | Frame | Finish) -> None:
        if isinstance(item, SegmentPlan):
            self._begin(item)
            return
        current = self._current
        if current is None:
            raise AssertionError("a frame came before its segment")
        if isinstance(item, Frame):
            item.ready.wait()
            if item.error is not None:
                raise item.error
            current.body.add(item)
        else:
            current.body.finish()
            self._current = None
            self._hand_on(current)

    def _begin(self, plan: SegmentPlan) -> None:
        self._places.acquire()
        try:
            self._current = Spooled(plan, self._context, self._places)
        except BaseException:
            self._places.release()
            raise

    def _fail(self, plan: SegmentPlan, error: BaseException) -> None:
        self._drop()
        self.has_failed = True
        self._hand_on(SpoolFailed(plan, error))

    def _drop(self) -> None:
        current, self._current = self._current, None
        if current is not None:
            current.discard()


def _no_spool(error: OSError) -> StorageFailed:
    failure = StorageFailed(
        f"cannot write to the spool: {error.strerror}; make room on the disk of the state folder or lower "
        "backup.spool_bytes, then run the backup again",
        retryable=True,
    )
    failure.__cause__ = error
    return failure
