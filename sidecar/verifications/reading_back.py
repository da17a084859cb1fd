"""One copy read back by a drive's mover, until it is done or something else wants the drive.

Belongs to the drive's task, in its trio run; the tape is threaded before.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from sidecar.bell import Bell
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, Call, CommandFailed, Mover
from sidecar.verifications.outcome import CopyTask
from sidecar.verifications.queue import MOST_INTERRUPTIONS, Verifications
from tapefs.mover.messages import Cancel, Verify

#: A recall may wait so long for another drive before a verification is interrupted for it.
YIELD_S = 1.0


class ReadingBack:
    """What a drive reads back, one copy at a time."""

    def __init__(self, verifications: Verifications, bell: Bell, is_recall_waiting: Callable[[], bool]) -> None:
        """`is_recall_waiting` tells whether anybody wants to read what only this drive can give now."""
        self._verifications = verifications
        self._bell = bell
        self._is_recall_waiting = is_recall_waiting
        #: The copy that is being read.
        self._task: CopyTask | None = None

    async def read(self, mover: Mover, task: CopyTask) -> None:
        """Read the copy, and tell how that went. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        verifications = self._verifications
        verifications.begin(task)
        self._task = task
        try:
            await self._read(mover, task)
        except CommandFailed as error:
            is_cancelled = verifications.is_cancelled(task)
            if error.kind == DRIVE_FAILED and not is_cancelled:
                raise DriveFailed(str(error)) from error
            if error.kind == "cancelled" and not is_cancelled:
                verifications.put_off(task)
            else:
                verifications.fail(task, str(error), is_cancelled=is_cancelled)
        else:
            verifications.done(task)
        self._task = None

    def mover_died(self, reason: str, *, is_the_end: bool = False) -> None:
        """The mover is gone; what it was reading is for another, unless too many have died of it.

        At the end of the sidecar it is for the next one.
        """
        task, self._task = self._task, None
        if task is not None and not is_the_end:
            self._verifications.drive_failed(task, reason)

    async def _read(self, mover: Mover, task: CopyTask) -> None:
        """Have the mover do it; it is told to stop when that is wanted. Raises CommandFailed, MoverDied."""
        async with trio.open_nursery() as nursery:
            call = await mover.start_call(
                lambda number: Verify(id=number, volume_id=task.volume_id, segment_id=task.segment_id)
            )
            nursery.start_soon(self._stop_when_wanted, mover, call, task)
            error = await _error_of(call)
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error

    async def _stop_when_wanted(self, mover: Mover, call: Call, task: CopyTask) -> None:
        while not self._verifications.is_cancelled(task):
            if task.interruptions < MOST_INTERRUPTIONS and self._is_recall_waiting():
                await trio.sleep(YIELD_S)
                if self._is_recall_waiting():
                    break
            await self._bell.wait_rung()
        await mover.tell(Cancel(target=call.number))


async def _error_of(call: Call) -> CommandFailed | None:
    try:
        await call.wait_done()
    except CommandFailed as error:
        return error
    return None
