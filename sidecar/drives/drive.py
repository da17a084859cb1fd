"""The task of one drive: keeps its mover alive, and decides what the drive does next.

One trio run; as many of these as there are drives, all looking at the same queues. The choice is synchronous, so two
drives never take the same job or tape. What is done, in this order:

1. frames wanted from the tape in the drive are asked for in rounds (`tape_order`);
2. a tape is left only when nothing asked of it is open; the mover's reading on does not count;
3. jobs and recalls from other tapes take turns; while a backup runs, recalls wait for another drive, or until they have
   waited so long that it gives way at the end of a segment (`giving_way`), or for its end;
4. a tape that has had its readers for ten minutes while others wait gets no new ones until it has been left once;
5. a drive that is to be cleaned is, before it gets another job or tape (`cleaner`), never within a job;
6. when none of that is to do, the drive writes a further copy of a backup that runs, and gives it up as soon as a
   reader waits (`copying_along`);
7. then what walks will want is read, and tapes are identified, labelled, relabelled and erased, which nothing
   interrupts, and reclaimed, which gives way to recalls;
8. at last copies are read back; a waiting recall interrupts it, a job waits for the copy's end.

A drive that fails while it works loses its mover: what it was doing is for other drives, its tape is taken out if it
can be, and the drive rests (`health`) before it is tried again. A mover that dies leaves its work likewise.
"""

from __future__ import annotations

from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import VolumeId
from drivers.errors import DriveError
from sidecar.drives.asking import Asking, Step
from sidecar.drives.backing_up import BackingUp
from sidecar.drives.bay import Bay
from sidecar.drives.cleaner import Cleaner
from sidecar.drives.copying_along import CopyingAlong
from sidecar.drives.emptying import empty_drive, note_in_tape
from sidecar.drives.health import DriveFailed, Health
from sidecar.drives.movers import CommandFailed, Mover, MoverDied, open_mover
from sidecar.drives.shared import Shared
from sidecar.drives.tending import Tending
from sidecar.keeping import sentence_of
from sidecar.recovery import has_sealed
from sidecar.verifications.outcome import CopyTask
from sidecar.verifications.reading_back import ReadingBack
from tapefs.errors import KeyMissing, NoTape
from tapefs.keys.driving import require_key
from tapefs.mover.drive_file import write_failure
from tapefs.mover.messages import (
    DriveState,
    FinishSets,
    FrameRange,
    FramesArrived,
    FramesFailed,
    LostFile,
    NeedVolume,
    Ready,
    Report,
    Verified,
    VerifyProgress,
)
from tapefs.mover.wire import WireError

#: A tape may keep the drive so long while others wait.
STAY_S = 600.0
#: Pause before a mover is started again: doubled each time, back to the first after a mover has lived long enough.
FIRST_PAUSE_S, LONGEST_PAUSE_S, LIVED_S = 0.25, 60.0, 60.0
#: So often a drive without work looks whether a job is for it by now, and one that is set aside tells those who wait.
LOOK_S = 5.0

SHUTDOWN = "interrupted: the sidecar was stopped while the backup ran"

log = structlog.get_logger(__name__)


class DriveTask:
    """One drive."""

    def __init__(self, number: int, name: str, shared: Shared) -> None:
        self.number = number
        self.name = name
        #: As DriveState has it; `starting` before the mover has said anything.
        self.state = "starting"
        #: A sentence for people about something that takes the drive long, "" for nothing.
        self.note = ""
        #: Set when the mover was ready, or could not be started, for the first time.
        self.tried = trio.Event()
        self._shared = shared
        self._busy = True
        #: The tape in the drive that was to leave for a vault when this was looked at last.
        self._sent_out: VolumeId | None = None
        self._bay = Bay(number, name, shared)
        self._asking = Asking(self._bay, shared)
        self._backing_up = BackingUp(self._bay, self._asking, shared)
        self._copying_along = CopyingAlong(self._bay, shared)
        self._cleaner = Cleaner(self._bay, shared)
        self._tending = Tending(self._bay, shared)
        self._reading_back = ReadingBack(shared.verifications, shared.bell, self._asking.is_waited_for)
        self.health: Health = shared.fleet.of(name)

    @property
    def tape(self) -> str | None:
        """Label of the cartridge in the drive."""
        return self._bay.label

    @property
    def is_idle(self) -> bool:
        """Does the drive wait for something to do (or its mover for being started again)?"""
        return not self._busy

    def asked(self) -> list[FrameRange]:
        """Return what the mover was asked to stage, in its order, of which some may have come."""
        return self._asking.asked()

    async def run(self) -> None:
        """Keep a mover working for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            began, is_strike = trio.current_time(), False
            try:
                await self._session()
            except* (DriveFailed, MoverDied, WireError, CatalogError, DriveError, OSError) as group:
                is_strike = group.subgroup(DriveFailed) is not None
                await self._note_failure(group, is_strike=is_strike)
            except* Exception as group:
                # A bug, or a damaged record: as a drive that fails, so that it is not met for ever, and others go on.
                is_strike = True
                log.exception("a drive's task has failed unexpectedly", drive=self.name)
                await self._note_failure(group, is_strike=True)
            if is_strike:
                await empty_drive(self._shared, self.number, self.health)
                await self._write_failure()  # The mover that has emptied it knew nothing of that.
            self._busy = False
            if trio.current_time() - began > LIVED_S:
                pause_s = FIRST_PAUSE_S
            if await self._rest(pause_s, is_strike=is_strike):
                pause_s = FIRST_PAUSE_S
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _rest(self, pause_s: float, *, is_strike: bool) -> bool:
        """Wait until the drive is to be tried again; return whether an operator has said so."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_waiting)
            is_retried = await self.health.rest(pause_s, is_strike=is_strike)
            nursery.cancel_scope.cancel()
        return is_retried

    async def _tell_waiting(self) -> None:
        """Who comes while a drive is set aside is told so, too."""
        while self.health.is_set_aside:
            await self._shared.on_failure(self.health.sentence())
            await trio.sleep(LOOK_S)

    # -- the life of a mover -----------------------------------------------------------------------------------------

    async def _session(self) -> None:
        """Start a mover and work with it until it dies."""
        shared = self._shared
        self._busy, self.state, self.note = True, "starting", ""
        self._bay.tape = None
        self._asking.mover_started()
        reason, is_of_the_drive = SHUTDOWN, False
        try:
            async with open_mover(
                shared.home, self.name, self.number, command=shared.mover_command, inherit=shared.inherit
            ) as mover:
                await self._begin(mover)
                if shared.library.eyes is not None:
                    shared.library.eyes.open(self.number, mover)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mover.run_reports, self._on_report)
                    nursery.start_soon(self._work, mover, nursery)
        except* (CatalogError, DriveError, OSError) as group:
            reason = f"{self.name}: {_sentence(group)}"
            raise
        except* (MoverDied, WireError):
            reason, is_of_the_drive = f"the mover of {self.name} ended while the backup ran: see the log", True
            raise
        except* DriveFailed as group:
            reason, is_of_the_drive = _sentence(group), True
            raise
        except* Exception as group:
            reason = f"{self.name}: an error that nobody expected, {sentence_of(group)}: see the log"
            raise
        finally:
            self.health.is_up = False
            await self._clean_up(reason, is_of_the_drive=is_of_the_drive)

    async def _begin(self, mover: Mover) -> None:
        ready = await mover.wait_ready()
        await self._shared.unlocking.greet(mover)
        self._bay.note(ready)
        self._note_wish(ready)
        # A mount point takes volumes of any generation.
        if ready.generation and self._shared.home.settings.library.driver != "ltfs":
            self._shared.library.generations[self.number] = ready.generation
        self.state = "loaded" if ready.loaded else "empty"
        self.health.opened()
        self.tried.set()
        log.info("drive ready", drive=self.name, tape=ready.barcode, pid=mover.pid)

    async def _clean_up(self, reason: str, *, is_of_the_drive: bool) -> None:
        """The mover is gone: bring to an end what it was doing."""
        if self._shared.library.eyes is not None:
            self._shared.library.eyes.close(self.number)
        self._shared.library.resting.discard(self.number)
        with trio.CancelScope(shield=True):
            short, is_the_end = reason.partition(" while the backup ran")[0], reason == SHUTDOWN
            await self._backing_up.mover_died(reason, is_of_the_drive=is_of_the_drive, is_the_end=is_the_end)
            self._copying_along.mover_died()
            self._cleaner.mover_died(short, is_the_end=is_the_end)
            self._tending.mover_died(f"{short}; the same command finishes it", is_the_end=is_the_end)
            self._reading_back.mover_died(reason.replace("the backup ran", "it was read"), is_the_end=is_the_end)
            self._asking.mover_died(reason.replace("the backup ran", "it was read"))
            self._bay.leave_to_another()
            self._shared.library.let_go(self.number)

    async def _note_failure(self, group: BaseExceptionGroup[BaseException], *, is_strike: bool) -> None:
        self.state, self.note = "failed", ""
        self.tried.set()
        sentence = _sentence(group.subgroup(DriveFailed) or group)
        self.health.failed(sentence, is_strike=is_strike)
        log.error("drive failed", drive=self.name, error=sentence, failures=self.health.failures, tape=self.tape)
        await self._write_failure()
        if is_strike and self.tape is not None:
            await note_in_tape(self._shared, self.tape, f"was in {self.name} when that failed: {sentence}")
        await self._shared.on_failure(sentence)

    async def _write_failure(self) -> None:
        """Have `tapefs drives` say what is wrong, too."""
        try:
            folder, sentence = self._shared.home.drives, self.health.sentence()
            await trio.to_thread.run_sync(write_failure, folder, self.name, sentence)
        except OSError as error:
            log.warning("the drive's failure is not in its file", drive=self.name, error=str(error))

    def _on_report(self, report: Report) -> None:
        """Take what the mover says outside of answers; synchronous, in its order."""
        if isinstance(report, FramesArrived | FramesFailed):
            self._asking.note(report)
        elif isinstance(report, DriveState):
            self.state, self.note = report.state, report.note
            self._bay.note(report)
            self._note_wish(report)
        elif isinstance(report, VerifyProgress | LostFile | Verified):
            self._shared.verifications.note(report)
        elif isinstance(report, NeedVolume) and self._copying_along.is_at_it:
            self._copying_along.note(report)
        else:
            self._backing_up.note(report)

    def _note_wish(self, said: Ready | DriveState) -> None:
        """Remember whether the drive wants to be cleaned."""
        self._shared.cleanings.note(self.name, wants=said.wants_cleaning, must=said.must_be_cleaned)

    # -- what to do next ---------------------------------------------------------------------------------------------

    async def _work(self, mover: Mover, nursery: trio.Nursery) -> None:
        await self._finish_sets(mover)
        while True:
            step = self._choose(mover, nursery)
            self._busy = step is not None
            self._note_rest()
            if step is None:
                # A run that this drive has failed is for it, too, when no other has taken it for long.
                with trio.move_on_after(LOOK_S if self._shared.jobs.has_queued() else float("inf")):
                    await self._shared.bell.wait_rung()
            else:
                await step()

    def _note_rest(self) -> None:
        """Tell others whether they may have the tape in the drive."""
        resting, tape = self._shared.library.resting, self._bay.tape
        if self._busy or (tape is not None and self._shared.recalls.queue.has_asked(tape)):
            resting.discard(self.number)
        else:
            resting.add(self.number)

    def _choose(self, mover: Mover, nursery: trio.Nursery) -> Step | None:
        """Return the next step, None when there is nothing to do but wait. See the module's rules."""
        queue, jobs, asking, bay = self._shared.recalls.queue, self._shared.jobs, self._asking, self._bay
        now = trio.current_time()
        other = asking.other_tape(now)
        if bay.tape is not None:
            stays_too_long = now > bay.since_s + STAY_S and (other is not None or jobs.has_queued())
            asking.read_ahead(bay.tape, is_awaited=other is not None or jobs.has_queued(), now_s=now)
            if queue.has_todo(bay.tape) and not stays_too_long:
                step = asking.step(mover, nursery, bay.tape, now)
                if step is not None:
                    return step
            if queue.has_asked(bay.tape):
                return None
        cleaning = self._cleaner.step(mover)
        if cleaning is not None:
            return cleaning
        is_for_us = self._is_for_us()
        if is_for_us and (other is None or not bay.last_was_backup):
            return partial(self._backup, mover, nursery)
        if other is not None:
            return partial(asking.mount, mover, *other)
        if self._shared.library.is_awaited_from(self.number):
            return partial(bay.give_up, mover)
        if self._shared.alongside.has_free(self.number) and not jobs.has_queued():
            return partial(self._copying_along.run, mover)
        ahead = self._shared.recalls.walks.next_tape(bay.is_usable)
        if ahead is not None:
            return partial(asking.mount, mover, ahead, False)
        return self._for_operators(mover, nursery)

    def _is_for_us(self) -> bool:
        """Is there a job for this drive? One that must be cleaned before it writes leaves it to others, if it can."""
        up = self._shared.fleet.up()
        return self._shared.jobs.has_queued_for(self.name, up) and not self._shared.cleanings.leaves_writing_to(
            self.name, up
        )

    def _for_operators(self, mover: Mover, nursery: trio.Nursery) -> Step | None:
        """Return what is done when nobody waits for a tape."""
        bay = self._bay
        to_put_back = self._tending.to_put_back()
        if to_put_back is not None:
            return partial(self._tending.put_back, mover, to_put_back)
        tape_task = self._shared.tape_tasks.next_for(bay.tape, bay.is_usable)
        if tape_task is not None and tape_task.kind == "reclaim":
            return partial(self._backing_up.reclaim, mover, nursery, tape_task)
        if tape_task is not None:
            return partial(self._tending.run, mover, tape_task)
        task = self._shared.verifications.next_for(bay.tape, bay.is_usable)
        if task is not None:
            return partial(self._verify, mover, task)
        return self._send_out(mover)

    def _send_out(self, mover: Mover) -> Step | None:
        """Have a tape that belongs elsewhere brought to a slot, from where it can be taken; once, should that fail."""
        leaving = self._shared.library.leaving(self.number)
        is_new, self._sent_out = leaving != self._sent_out, leaving
        return partial(self._bay.give_up, mover) if leaving is not None and is_new else None

    # -- steps -------------------------------------------------------------------------------------------------------

    async def _backup(self, mover: Mover, nursery: trio.Nursery) -> None:
        await self._backing_up.run_next(mover, nursery)
        await self._finish_sets(mover)

    async def _finish_sets(self, mover: Mover) -> None:
        """Have the index of every sealed set put in place.

        Not while a backup runs anywhere: its own mover is about to do that for its set, and asks again at its end.
        """
        if self._shared.jobs.has_running() or not await trio.to_thread.run_sync(has_sealed, self._shared.ledger):
            return
        try:
            await mover.call(lambda number: FinishSets(id=number))
        except CommandFailed as error:
            log.error("sealed sets could not be finished; the next start tries again", error=str(error))

    async def _verify(self, mover: Mover, task: CopyTask) -> None:
        """Read one copy back; its tape is loaded anew if it is not in the drive, or was written there."""
        self._bay.last_was_backup = False
        if self._bay.tape != task.volume_id or self._bay.is_written:
            try:
                require_key(self._shared.home, self._shared.ledger.volume(task.volume_id))
                await self._bay.thread(mover, task.volume_id)
            except (CommandFailed, NoTape, DriveError, KeyMissing) as error:
                self._shared.verifications.tape_failed(task.volume_id, str(error))
            except DriveFailed as error:
                if self._bay.is_given_up(task.volume_id):
                    self._shared.verifications.tape_failed(task.volume_id, str(error))
                raise
            return  # What is to do may have changed meanwhile.
        await self._reading_back.read(mover, task)
        self.health.worked()


def _sentence(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the message of the first error in a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)
