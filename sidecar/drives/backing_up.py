"""The backup that one drive runs: it gets its tapes here, and is told when to leave its drive to recalls for a while.

Belongs to the drive's task, in its trio run.
"""

from __future__ import annotations

from functools import partial

import msgspec
import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import JobNumber
from catalog.records import DriveMove, JobState
from drivers.errors import DriveError
from sidecar.drives.alongside import ANSWER_S
from sidecar.drives.asking import Asking, Step
from sidecar.drives.bay import Bay
from sidecar.drives.giving_way import LONGEST_S, LOOK_S
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, Call, CommandFailed, Mover, MoverDied
from sidecar.drives.shared import Shared
from sidecar.jobs.queue import Run
from sidecar.jobs.streams import Stream
from sidecar.tapes.for_writing import Tapes
from sidecar.tapes.tasks import TapeTask
from tapefs.errors import TapefsError
from tapefs.mover.messages import (
    Backup,
    Command,
    CopiesComing,
    CopiesOffered,
    Done,
    GiveWay,
    NeedVolume,
    NoVolume,
    Progress,
    Reclaim,
    Report,
    StreamGrew,
    StreamKept,
)

#: A backup that is to be paused may take so long to the end of its segment; then it stops where it is, and writes that
#: segment once more when it goes on.
PATIENCE_S = 60.0
#: How often a mover is told how far a stream has come.
TELL_S = 0.05

log = structlog.get_logger(__name__)


class BackingUp:
    """One drive's."""

    def __init__(self, bay: Bay, asking: Asking, shared: Shared) -> None:
        self._bay = bay
        self._asking = asking
        self._tapes = Tapes(bay, shared)
        self._shared = shared
        self._run: Run | None = None
        #: The tape that is being reclaimed.
        self._errand: TapeTask | None = None
        #: The running backup has left its tape, and the drive recalls.
        self._gives_way = False
        #: Why the drive could not change its tape for the running backup.
        self._trouble = ""
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        self._offered = trio.Event()

    def note(self, report: Report) -> None:
        """Take what the mover says of the running backup."""
        if isinstance(report, NeedVolume):
            self._needs_in.send_nowait(report)
        elif isinstance(report, StreamKept):
            if self._run is not None:
                self._shared.streams.kept(self._run.job, report.up_to)
        elif isinstance(report, CopiesOffered):
            if self._run is not None:
                self._shared.alongside.offer(self._bay.number, self._run.job, report)
                self._offered.set()
        elif self._run is not None:
            self._run.note(report)
        elif self._errand is not None and isinstance(report, Progress):
            self._errand.progress = report

    async def mover_died(self, reason: str, *, is_of_the_drive: bool, is_the_end: bool) -> None:
        """The mover is gone, and with it the backup that ran: it goes on with another drive if this one is to blame.

        `is_the_end`: the sidecar ends; the backup goes on when it is there again.
        """
        self._shared.alongside.withdraw(self._bay.number)
        if self._run is not None and is_of_the_drive:
            await self._leave_drive(self._run, reason)
        elif self._run is not None:
            run, self._run = self._run, None
            if is_the_end or run.is_pausing:
                await self._shared.jobs.stopped(run, reason)
            else:
                await self._shared.jobs.end(run, JobState.CANCELLED if run.is_cancelled else JobState.FAILED, reason)
        if self._errand is not None and not is_the_end:
            task, self._errand = self._errand, None
            why = (
                f"{reason.partition(' while the backup ran')[0]}; what was moved stays moved, the same command goes on"
            )
            self._shared.tape_tasks.fail(task, "drive", why)
            self._shared.library.let_go(self._bay.number)
        self._shared.library.stop_awaiting(self._bay.number)

    async def _leave_drive(self, run: Run, reason: str) -> None:
        self._run = None
        self._shared.streams.failed(run.job, DRIVE_FAILED)
        move = DriveMove(
            drive=self._bay.name, reason=reason, at_ns=self._shared.jobs.now_ns(), tape=self._bay.label or ""
        )
        await self._shared.jobs.leave_drive(run, move)

    async def run_next(self, mover: Mover, nursery: trio.Nursery) -> None:
        """Run the next job to its end. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        run = self._run = self._shared.jobs.begin_next(self._bay.name, self._shared.fleet.up())
        nursery.start_soon(self._shared.jobs.look_for_earlier, run)
        self._bay.leave_to_another()
        self._shared.recalls.overdue_drives.discard(self._bay.number)
        self._bay.last_was_backup = True
        stream = self._shared.streams.of(run.job)
        command = Backup(id=0, job=run.job, stream=None if stream is None else stream.task)
        _, error = await self._work(mover, nursery, command, run.job, run)
        self._run = None
        if error is None:
            self._shared.fleet.of(self._bay.name).worked()
            await self._shared.jobs.end(run, JobState.COMPLETED, "")
        elif error.kind != "cancelled":
            self._shared.streams.failed(run.job, error.kind)
            await self._shared.jobs.end(run, JobState.FAILED, str(error), error.kind)
        elif run.is_pausing and not run.is_cancelled:
            await self._shared.jobs.paused(run)
        else:
            await self._shared.jobs.end(run, JobState.CANCELLED, str(error))
        self._bay.written()

    async def reclaim(self, mover: Mover, nursery: trio.Nursery, task: TapeTask) -> None:
        """Have what lives on a tape moved off it. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        tasks = self._shared.tape_tasks
        tasks.begin(task)
        self._errand = task
        self._bay.leave_to_another()
        self._shared.recalls.overdue_drives.discard(self._bay.number)
        self._bay.last_was_backup = True
        command = Reclaim(id=0, volume_id=task.volume_id)
        done, error = await self._work(mover, nursery, command, None, task)
        self._errand = None
        if error is None:
            self._shared.fleet.of(self._bay.name).worked()
            tasks.done(task, None, task.volume_id, None if done is None else done.reclaimed)
        else:
            tasks.fail(task, error.kind, str(error))
        self._bay.written()

    async def _work(
        self,
        mover: Mover,
        session: trio.Nursery,
        command: Command,
        job: JobNumber | None,
        whose: Run | TapeTask,
    ) -> tuple[Done | None, CommandFailed | None]:
        """Return how the mover says it went. Raises MoverDied, DriveFailed."""
        self._gives_way, self._trouble = False, ""
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        self._offered = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._provide_tapes, mover, session, job)
            call = await mover.start_call(lambda number: msgspec.structs.replace(command, id=number))
            nursery.start_soon(self._have_give_way, mover, call.number)
            nursery.start_soon(self._tell_companions, mover, call.number)
            if job is not None and (stream := self._shared.streams.of(job)) is not None:
                nursery.start_soon(_tell_stream, mover, call.number, stream)
            await whose.attach(call, mover)
            done, error = await _end_of(call)
            nursery.cancel_scope.cancel()
        self._shared.giving_way.over(self._bay.number)
        self._shared.alongside.withdraw(self._bay.number)
        if error is not None and (error.kind == DRIVE_FAILED or (self._trouble and error.kind != "cancelled")):
            raise DriveFailed(self._trouble or str(error))
        return done, error

    async def _tell_companions(self, mover: Mover, number: int) -> None:
        """Answer the offer of further copies, when the drives that are free have had their turn."""
        await self._offered.wait()
        self._shared.bell.ring()
        await trio.sleep(ANSWER_S)
        await mover.tell(CopiesComing(target=number, count=self._shared.alongside.taken_of(self._bay.number)))

    # -- giving way --------------------------------------------------------------------------------------------------

    async def _have_give_way(self, mover: Mover, number: int) -> None:
        """Tell the running backup when it is to leave its tape at the end of a segment, until cancelled."""
        is_told, bay, paused_s = False, self._bay, 0.0
        while True:
            is_pausing = self._run is not None and self._run.is_pausing
            if self._gives_way:
                is_told = False  # What it was told is done with.
            else:
                tape = self._shared.giving_way.tape_for(bay.number, trio.current_time(), bay.is_usable)
                if (tape is not None or is_pausing) is not is_told:
                    is_told = not is_told
                    await mover.tell(GiveWay(target=number, is_wanted=is_told))
            if is_pausing and self._run is not None:
                paused_s += LOOK_S
                if paused_s > PATIENCE_S:
                    await self._run.tell_cancel()
            await trio.sleep(LOOK_S)

    async def _recall_meanwhile(self, mover: Mover, session: trio.Nursery) -> None:
        """Do what recalls there are in the drive that a backup has left; then eject. Raises CommandFailed."""
        bay = self._bay
        self._gives_way, began_s = True, trio.current_time()
        log.info("a backup gives way to recalls", drive=bay.name)
        self._shared.library.let_go(bay.number)
        while (step := self._step_meanwhile(mover, session, began_s + LONGEST_S)) is not None:
            # A cancelled backup must not leave a step half done; waiting for frames is none.
            with trio.CancelScope(shield=step != self._shared.bell.wait_rung):
                await step()
        await bay.eject(mover)
        log.info("a backup goes on after recalls", drive=bay.name, seconds=round(trio.current_time() - began_s))
        self._shared.giving_way.over(bay.number)
        self._gives_way = False

    def _step_meanwhile(self, mover: Mover, session: trio.Nursery, end_s: float) -> Step | None:
        """Return the next step of the recalls for which a backup gives way, None when they are over."""
        now_s, tape = trio.current_time(), self._bay.tape
        if tape is not None:
            reading = self._asking.step(mover, session, tape, now_s) if now_s < end_s else None
            if reading is not None:
                return reading
            if self._shared.recalls.queue.has_asked(tape):
                return self._shared.bell.wait_rung
        other = self._asking.other_tape(now_s) if now_s < end_s else None
        return None if other is None else partial(self._asking.mount, mover, *other)

    # -- its tapes ---------------------------------------------------------------------------------------------------

    async def _provide_tapes(self, mover: Mover, session: trio.Nursery, job: JobNumber | None) -> None:
        """Answer the running backup's NeedVolume until cancelled."""
        while True:
            need = await self._needs_out.receive()
            if self._run is not None and self._run.is_pausing:
                # No segment is begun: whatever tape it wants, this is a good place.
                await self._run.tell_cancel()
                continue
            try:
                if need.gave_way:
                    await self._recall_meanwhile(mover, session)
                ready = await self._tapes.provide(mover, need, job)
            except (DriveFailed, MoverDied):
                raise
            except (CommandFailed, TapefsError, DriveError, CatalogError) as error:
                if isinstance(error, CommandFailed) and error.kind == DRIVE_FAILED:
                    self._trouble = str(error)
                await mover.tell(NoVolume(reason=str(error)))
            else:
                await mover.tell(ready)


async def _tell_stream(mover: Mover, number: int, stream: Stream) -> None:
    """Tell how far the stream has come, until it has come to its end, good or bad."""
    while True:
        changed, state = stream.changed, stream.state()
        await mover.tell(StreamGrew(target=number, state=state))
        if state.ended_ns or state.broken:
            return
        await changed.wait()
        await trio.sleep(TELL_S)


async def _end_of(call: Call) -> tuple[Done | None, CommandFailed | None]:
    try:
        return await call.wait_done(), None
    except CommandFailed as error:
        return None, error
