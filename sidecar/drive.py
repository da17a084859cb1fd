"""The task of one drive: keeps its mover alive, and decides what the drive does next.

One trio run; as many of these as there are drives, all looking at the same queues. The choice is synchronous, so two
drives never take the same job or tape. What is done, in this order:

1. frames wanted from the tape in the drive are asked for in rounds (`tape_order`);
2. a tape is left only when nothing asked of it is open; the mover's reading on does not count;
3. jobs and recalls from other tapes take turns; while a backup runs, recalls wait for another drive, or until they have
   waited so long that it gives way at the end of a segment (`giving_way`), or for its end;
4. a tape that has had its readers for ten minutes while others wait gets no new ones until it has been left once;
5. when none of that is to do, copies are read back; a waiting recall interrupts it, a job waits for the copy's end.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import JobState
from drivers.errors import DriveError
from sidecar.bell import Bell
from sidecar.giving_way import LONGEST_S, LOOK_S, GivingWay
from sidecar.jobs import Jobs, Run
from sidecar.library import Library
from sidecar.movers import Call, CommandFailed, Mover, MoverCommand, MoverDied, open_mover
from sidecar.reading_back import YIELD_S, ReadingBack
from sidecar.recalling import Recalls
from sidecar.recalls import Request
from sidecar.recovery import has_sealed
from sidecar.tape_order import VERY_FEW, Round, TapeOrder
from sidecar.verifying import CopyTask, Verifications
from sidecar.walks import PIECE_BYTES
from sidecar.walks import STAY_S as AHEAD_STAY_S
from tapefs.errors import NoTape
from tapefs.home import Home
from tapefs.mover.messages import (
    Backup,
    DriveState,
    FinishSets,
    FrameRange,
    FramesArrived,
    FramesFailed,
    GiveWay,
    Load,
    LostFile,
    NeedVolume,
    NoVolume,
    Recall,
    Report,
    Unload,
    Verified,
    VerifyProgress,
    VolumeReady,
)
from tapefs.mover.wire import WireError
from tapefs.recall.locates import motion_of_drive

#: A tape may keep the drive so long while others wait.
STAY_S = 600.0
#: Pause before a mover is started again: doubled each time, back to the first after a mover has lived long enough.
FIRST_PAUSE_S, LONGEST_PAUSE_S, LIVED_S = 0.25, 60.0, 60.0
#: A running job waits so long for a tape that another drive has.
TAPE_PATIENCE_S = 3600.0
#: What the states of DriveState mean for a tape in the drive.
NOT_THREADED = ("empty", "failed")

SHUTDOWN = "interrupted: the sidecar was stopped while the backup ran; `tapefs job resume` goes on"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What all drives use together."""

    home: Home
    ledger: Ledger
    library: Library
    jobs: Jobs
    recalls: Recalls
    giving_way: GivingWay
    verifications: Verifications
    bell: Bell
    mover_command: MoverCommand
    #: Descriptors that movers keep open: the lock on the state folder.
    inherit: Sequence[int]
    #: Called when a mover has died; the argument is the sentence for the operator.
    on_failure: Callable[[str], Awaitable[None]]
    #: Called when the disk of the staging area is full; returns how many bytes were dropped there.
    make_room: Callable[[], Awaitable[int]]
    #: So far may a mover read on behind what is wanted, in bytes of plain stream.
    read_on_bytes: int


class DriveTask:
    """One drive."""

    def __init__(self, number: int, name: str, shared: Shared) -> None:
        self.number = number
        self.name = name
        #: As DriveState has it; `starting` before the mover has said anything.
        self.state = "starting"
        #: Sessions in a row in which the mover did not even become ready.
        self.failures = 0
        #: Set when the mover was ready, or could not be started, for the first time.
        self.tried = trio.Event()
        self._shared = shared
        self._busy = True
        #: The tape that is threaded and whose label the mover has checked.
        self._tape: VolumeId | None = None
        self._tape_since_s = 0.0
        self._is_threaded = False
        self._barcode: str | None = None
        self._run: Run | None = None
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        self._last_was_backup = False
        #: The running backup has left its tape, and the drive recalls.
        self._gives_way = False
        #: The tape in the drive was written since it was loaded: what is read may come from the drive's buffer.
        self._is_written = False
        self._reading_back = ReadingBack(shared.verifications, shared.bell, self._is_recall_waiting)
        #: How that tape is read; and what the queue's `news` was when it was last looked at.
        self._order = TapeOrder(motion_of_drive(shared.home.drives, name, 0), 0)
        self._news = -1
        #: What the mover was asked for and has not answered, oldest first.
        self._asks: list[list[FrameRange]] = []

    @property
    def tape(self) -> str | None:
        """Label of the cartridge in the drive."""
        return self._shared.library.in_drive(self.number)

    @property
    def is_idle(self) -> bool:
        """Does the drive wait for something to do (or its mover for being started again)?"""
        return not self._busy

    def asked(self) -> list[FrameRange]:
        """Return what the mover was asked to stage, in its order, of which some may have come."""
        return [frames for ask in self._asks for frames in ask]

    async def run(self) -> None:
        """Keep a mover working for ever."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = trio.current_time()
            try:
                await self._session()
            except* (MoverDied, WireError, CatalogError, DriveError, OSError) as group:
                await self._note_failure(group)
            self._busy = False
            if trio.current_time() - began > LIVED_S:
                pause_s = FIRST_PAUSE_S
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    # -- the life of a mover -----------------------------------------------------------------------------------------

    async def _session(self) -> None:
        """Start a mover and work with it until it dies."""
        shared = self._shared
        self._busy, self.state, self._tape, self._asks = True, "starting", None, []
        reason = SHUTDOWN
        try:
            async with open_mover(
                shared.home, self.name, self.number, command=shared.mover_command, inherit=shared.inherit
            ) as mover:
                await self._begin(mover)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(mover.run_reports, self._on_report)
                    nursery.start_soon(self._work, mover, nursery)
        except* (MoverDied, WireError):
            reason = f"the mover of {self.name} ended while the backup ran: see the log; `tapefs job resume` goes on"
            raise
        except* (CatalogError, DriveError, OSError) as group:
            reason = f"{self.name}: {_sentence(group)}"
            raise
        finally:
            await self._clean_up(reason)

    async def _begin(self, mover: Mover) -> None:
        ready = await mover.wait_ready()
        self.failures = 0
        self._is_threaded, self._barcode = ready.loaded, ready.barcode
        self.state = "loaded" if ready.loaded else "empty"
        self.tried.set()
        log.info("drive ready", drive=self.name, tape=ready.barcode, pid=mover.pid)

    async def _clean_up(self, reason: str) -> None:
        """The mover is gone: bring to an end what it was doing."""
        with trio.CancelScope(shield=True):
            if self._run is not None:
                run, self._run = self._run, None
                state = JobState.CANCELLED if run.is_cancelled else JobState.FAILED
                await self._shared.jobs.end(run, state, reason)
            self._reading_back.mover_died(reason.replace("the backup ran", "it was read"))
            if self._tape is not None:
                self._shared.recalls.mover_died(self._tape)
                self._shared.recalls.stop_reading_ahead(self._tape)
            self._shared.library.stop_awaiting(self.number)
            self._shared.recalls.overdue_drives.discard(self.number)
            self._tape = None
            self._shared.library.let_go(self.number)

    async def _note_failure(self, group: BaseExceptionGroup[BaseException]) -> None:
        self.state = "failed"
        self.failures += 1
        self.tried.set()
        sentence = _sentence(group)
        log.error("drive failed", drive=self.name, error=sentence, failures=self.failures)
        await self._shared.on_failure(sentence)

    def _on_report(self, report: Report) -> None:
        """Take what the mover says outside of answers; synchronous, in its order."""
        shared = self._shared
        if isinstance(report, FramesArrived):
            frames = FrameRange(report.segment_id, report.first, report.last)
            self._order.arrived(frames)
            shared.recalls.arrived(frames)
        elif isinstance(report, FramesFailed):
            frames = FrameRange(report.segment_id, report.first, report.last)
            if self._tape is not None:
                shared.recalls.failed(self._tape, frames, report.message)
        elif isinstance(report, DriveState):
            self.state, self._barcode = report.state, report.barcode
            self._is_threaded = report.state not in NOT_THREADED
        elif isinstance(report, VerifyProgress | LostFile | Verified):
            shared.verifications.note(report)
        elif isinstance(report, NeedVolume):
            self._needs_in.send_nowait(report)
        elif self._run is not None:
            self._run.note(report)

    # -- what to do next ---------------------------------------------------------------------------------------------

    async def _work(self, mover: Mover, nursery: trio.Nursery) -> None:
        await self._finish_sets(mover)
        while True:
            step = self._choose(mover, nursery)
            self._busy = step is not None
            if step is None:
                await self._shared.bell.wait_rung()
            else:
                await step()

    def _choose(self, mover: Mover, nursery: trio.Nursery) -> Callable[[], Awaitable[None]] | None:
        """Return the next step, None when there is nothing to do but wait. See the module's rules."""
        queue, jobs = self._shared.recalls.queue, self._shared.jobs
        now = trio.current_time()
        other = self._other_tape(now)
        if self._tape is not None:
            stays_too_long = now > self._tape_since_s + STAY_S and (other is not None or jobs.has_queued())
            self._read_ahead(self._tape, is_awaited=other is not None or jobs.has_queued(), now_s=now)
            if queue.has_todo(self._tape) and not stays_too_long:
                step = self._reading(mover, nursery, self._tape, now)
                if step is not None:
                    return step
            if queue.has_asked(self._tape):
                return None
        if jobs.has_queued() and (other is None or not self._last_was_backup):
            return partial(self._backup, mover, nursery)
        if other is not None:
            return partial(self._mount, mover, *other)
        if self._shared.library.is_awaited_from(self.number):
            return partial(self._give_up_tape, mover)
        ahead = self._shared.recalls.walks.next_tape(self._is_usable)
        if ahead is not None:
            return partial(self._mount, mover, ahead, False)
        task = self._shared.verifications.next_for(self._tape, self._is_usable)
        return None if task is None else partial(self._verify, mover, task)

    def _other_tape(self, now_s: float) -> tuple[VolumeId, bool] | None:
        """Return which tape to load for recalls, and whether because it is overdue."""
        recalls = self._shared.recalls
        others_overdue = len(recalls.overdue_drives - {self.number})
        return recalls.queue.next_tape(now_s, self._is_usable, self._shared.library.drives, others_overdue)

    def _reading(
        self, mover: Mover, nursery: trio.Nursery, volume_id: VolumeId, now_s: float
    ) -> Callable[[], Awaitable[None]] | None:
        """Return the step that asks for more of the tape in the drive: a round, or what joins the one that runs."""
        queue = self._shared.recalls.queue
        is_running = queue.has_asked(volume_id)
        if is_running and queue.news == self._news:
            return None
        self._news = queue.news
        todo = queue.todo(volume_id, now_s)
        requests = self._order.joining(todo) if is_running else todo
        return partial(self._ask, mover, nursery, volume_id, requests, not is_running) if requests else None

    def _read_ahead(self, volume_id: VolumeId, *, is_awaited: bool, now_s: float) -> None:
        """Have more fetched of what walks want of the tape in the drive; not for long while others wait for it."""
        recalls = self._shared.recalls
        if is_awaited and now_s > self._tape_since_s + AHEAD_STAY_S:
            recalls.stop_reading_ahead(volume_id)
        else:
            recalls.read_ahead(volume_id, self._order.tail_block, self._order.blocks_of(PIECE_BYTES))

    def _is_usable(self, volume_id: VolumeId) -> bool:
        """May this drive fetch that tape? One that is nowhere counts as usable, so that somebody notices."""
        library = self._shared.library
        return volume_id != self._tape and (
            library.is_free_for(volume_id, self.number) or not library.is_here(volume_id)
        )

    # -- steps -------------------------------------------------------------------------------------------------------

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

    async def _mount(self, mover: Mover, volume_id: VolumeId, is_overdue: bool) -> None:
        """Get a tape into the drive, threaded and checked; recalls from it fail when that does not work."""
        self._last_was_backup = False
        if is_overdue:
            self._shared.recalls.overdue_drives.add(self.number)
        else:
            self._shared.recalls.overdue_drives.discard(self.number)
        try:
            await self._thread(mover, volume_id)
        except (CommandFailed, NoTape, DriveError) as error:
            self._shared.recalls.tape_failed(volume_id, str(error))

    async def _thread(self, mover: Mover, volume_id: VolumeId) -> None:
        """Get a tape into the drive, threaded and checked. Raises CommandFailed, NoTape, DriveError."""
        library = self._shared.library
        library.hold(volume_id, self.number)
        try:
            if library.in_drive(self.number) is not None:
                await self._eject(mover)
            await library.put_in(volume_id, self.number)
            await mover.call(lambda number: Load(id=number, volume_id=volume_id))
        except (CommandFailed, NoTape, DriveError):
            library.let_go(self.number)
            raise
        self._is_threaded, self._is_written = True, False
        self._now_in(volume_id)

    async def _eject(self, mover: Mover) -> None:
        """Unthread the tape in the drive. Raises CommandFailed."""
        if self._tape is not None:
            self._shared.recalls.stop_reading_ahead(self._tape)
        self._tape = None
        if self._is_threaded:
            await mover.call(lambda number: Unload(id=number))
            self._is_threaded = False

    async def _give_up_tape(self, mover: Mover) -> None:
        """Bring the tape back to its slot, because another drive waits for it."""
        library = self._shared.library
        try:
            await self._eject(mover)
            await library.put_away(self.number)
        except (CommandFailed, NoTape, DriveError) as error:
            log.warning("a tape that another drive waits for stays", drive=self.name, error=str(error))
            await trio.sleep(YIELD_S)  # It is tried again, but not all the time.
        else:
            library.let_go(self.number)
        self._shared.bell.ring()

    def _now_in(self, volume_id: VolumeId | None, *, is_at_end: bool = False) -> None:
        self._tape = volume_id
        self._tape_since_s = trio.current_time()
        if volume_id is not None:
            volume = self._shared.ledger.volume(volume_id)
            motion = motion_of_drive(self._shared.home.drives, self.name, volume.generation)
            self._order = TapeOrder(motion, volume.block_size, volume.end_block if is_at_end else 0)

    async def _ask(
        self, mover: Mover, nursery: trio.Nursery, volume_id: VolumeId, requests: list[Request], is_round: bool
    ) -> None:
        """Ask for frames from the tape in the drive, planned if they are a round; do not wait for them."""
        self._shared.recalls.queue.ask(volume_id, requests)
        self._last_was_backup = False
        frames = [request.frames for request in requests]
        # At once: what answers to former asks settle meanwhile depends on it.
        self._asks.append(frames)
        if is_round:
            begun = await self._planned(requests)
            self._order.begin(begun)
            frames[:] = [request.frames for request in begun.requests]
        # What a walk wants is known: reading on would only take the room that it needs.
        most_bytes = 0 if len(self._shared.recalls.walks) else self._shared.read_on_bytes
        call = await mover.start_call(
            lambda number: Recall(id=number, volume_id=volume_id, frames=frames, read_on_bytes=most_bytes)
        )
        nursery.start_soon(self._follow, call, volume_id, frames)

    async def _planned(self, requests: list[Request]) -> Round:
        if len(requests) <= VERY_FEW:
            return self._order.plan(requests)
        return await trio.to_thread.run_sync(self._order.plan, requests)

    async def _follow(self, call: Call, volume_id: VolumeId, frames: list[FrameRange]) -> None:
        message, has_room_again = "the mover ended the recall without these frames", False
        try:
            await call.wait_done()
        except CommandFailed as error:
            message = str(error)
            if error.kind == "no_space":
                # It ends by itself: without anything left to drop the recall fails.
                has_room_again = await self._shared.make_room() > 0
                message = "the disk of the staging area is full, and all that is there is pinned or open"
        place = next(place for place, each in enumerate(self._asks) if each is frames)
        later = [each for ask in self._asks[place + 1 :] for each in ask]
        del self._asks[place]
        if has_room_again:
            self._shared.recalls.ask_again(volume_id, frames, later)
        else:
            self._shared.recalls.settle(volume_id, frames, later, message)

    # -- verifications -----------------------------------------------------------------------------------------------

    async def _verify(self, mover: Mover, task: CopyTask) -> None:
        """Read one copy back; its tape is loaded anew if it is not in the drive, or was written there."""
        self._last_was_backup = False
        if self._tape != task.volume_id or self._is_written:
            try:
                await self._thread(mover, task.volume_id)
            except (CommandFailed, NoTape, DriveError) as error:
                self._shared.verifications.tape_failed(task.volume_id, str(error))
            return  # What is to do may have changed meanwhile.
        await self._reading_back.read(mover, task)

    def _is_recall_waiting(self) -> bool:
        """Does anybody want to read a tape that this drive could fetch, or that is in it?"""
        queue = self._shared.recalls.queue
        if self._tape is not None and queue.has_todo(self._tape):
            return True
        walks = self._shared.recalls.walks
        if self._tape is not None and walks.has_pending(self._tape):
            return True
        return self._other_tape(trio.current_time()) is not None or walks.next_tape(self._is_usable) is not None

    # -- backups -----------------------------------------------------------------------------------------------------

    async def _backup(self, mover: Mover, nursery: trio.Nursery) -> None:
        """Run the next job to its end."""
        run = self._run = self._shared.jobs.begin_next()
        if self._tape is not None:
            self._shared.recalls.stop_reading_ahead(self._tape)
        self._tape = None
        self._shared.recalls.overdue_drives.discard(self.number)
        self._last_was_backup = True
        state, error = await self._run_backup(mover, nursery, run)
        self._run = None
        await self._shared.jobs.end(run, state, error)
        self._shared.library.stop_awaiting(self.number)
        self._shared.library.let_go(self.number)
        self._is_written = True
        self._now_in(self._volume_in_drive(), is_at_end=True)
        await self._finish_sets(mover)

    async def _run_backup(self, mover: Mover, session: trio.Nursery, run: Run) -> tuple[JobState, str]:
        """Return how the mover says it went. Raises MoverDied."""
        self._gives_way = False
        self._needs_in, self._needs_out = trio.open_memory_channel[NeedVolume](16)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._provide_tapes, mover, session)
            call = await mover.start_call(lambda number: Backup(id=number, job=run.job))
            nursery.start_soon(self._have_give_way, mover, call.number)
            await run.attach(call, mover)
            outcome = await _outcome(call)
            nursery.cancel_scope.cancel()
        self._shared.giving_way.over(self.number)
        return outcome

    async def _have_give_way(self, mover: Mover, number: int) -> None:
        """Tell the running backup when it is to leave its tape at the end of a segment, until cancelled."""
        is_told = False
        while True:
            if self._gives_way:
                is_told = False  # What it was told is done with.
            else:
                tape = self._shared.giving_way.tape_for(self.number, trio.current_time(), self._is_usable)
                if (tape is not None) is not is_told:
                    is_told = tape is not None
                    await mover.tell(GiveWay(target=number, is_wanted=is_told))
            await trio.sleep(LOOK_S)

    async def _recall_meanwhile(self, mover: Mover, session: trio.Nursery) -> None:
        """Do what recalls there are in the drive that a backup has left; then eject. Raises CommandFailed."""
        self._gives_way, began_s = True, trio.current_time()
        log.info("a backup gives way to recalls", drive=self.name)
        self._shared.library.let_go(self.number)
        self._tape = None
        while (step := self._step_meanwhile(mover, session, began_s + LONGEST_S)) is not None:
            # A cancelled backup must not leave a step half done; waiting for frames is none.
            with trio.CancelScope(shield=step != self._shared.bell.wait_rung):
                await step()
        await self._eject(mover)
        log.info("a backup goes on after recalls", drive=self.name, seconds=round(trio.current_time() - began_s))
        self._shared.giving_way.over(self.number)
        self._gives_way = False

    def _step_meanwhile(
        self, mover: Mover, session: trio.Nursery, end_s: float
    ) -> Callable[[], Awaitable[None]] | None:
        """Return the next step of the recalls for which a backup gives way, None when they are over."""
        now_s, tape = trio.current_time(), self._tape
        if tape is not None:
            reading = self._reading(mover, session, tape, now_s) if now_s < end_s else None
            if reading is not None:
                return reading
            if self._shared.recalls.queue.has_asked(tape):
                return self._shared.bell.wait_rung
        other = self._other_tape(now_s) if now_s < end_s else None
        return None if other is None else partial(self._mount, mover, *other)

    async def _provide_tapes(self, mover: Mover, session: trio.Nursery) -> None:
        """Answer the running backup's NeedVolume until cancelled."""
        while True:
            need = await self._needs_out.receive()
            try:
                if need.gave_way:
                    await self._recall_meanwhile(mover, session)
                if need.volume_id is not None:
                    volume_id = await self._provide_this(need.volume_id)
                else:
                    volume_id = await self._provide(mover, need)
            except (CommandFailed, NoTape, DriveError) as error:
                await mover.tell(NoVolume(reason=str(error)))
            else:
                await mover.tell(VolumeReady(volume_id=volume_id))

    async def _provide(self, mover: Mover, need: NeedVolume) -> VolumeId:
        """Choose a tape and bring it into the drive. Raises CommandFailed, NoTape, DriveError.

        A tape that is threaded already stays; another one is ejected first: while it waits, a backup takes Unload.
        """
        library = self._shared.library
        await library.refresh()
        volume = library.choose(need.pool, need.exclude, self.number)
        library.hold(volume.volume_id, self.number)
        if not need.ejected and library.in_drive(self.number) != volume.label:
            await mover.call(lambda number: Unload(id=number))
        await library.put_in(volume.volume_id, self.number)
        return volume.volume_id

    async def _provide_this(self, volume_id: VolumeId) -> VolumeId:
        """Bring this very tape into the drive anew; the mover has ejected what was there. Raises NoTape, DriveError.

        What was ejected goes back to its slot first: of two drives that wait for each other's tape both get theirs.
        """
        library = self._shared.library
        library.let_go(self.number)
        await library.put_away(self.number)
        self._shared.bell.ring()
        await library.refresh()
        label = self._shared.ledger.volume(volume_id).label
        with trio.move_on_after(TAPE_PATIENCE_S) as patience:
            while not library.is_free_for(volume_id, self.number):
                if not library.is_here(volume_id):
                    raise NoTape(f"tape {label} is not in the library: put it in")
                library.await_tape(volume_id, self.number)
                self._shared.bell.ring()
                await self._shared.bell.wait_rung()
        library.stop_awaiting(self.number)
        if patience.cancelled_caught:
            raise NoTape(f"another drive has had tape {label} for an hour: see `tapefs drives`")
        library.hold(volume_id, self.number)
        await library.put_in(volume_id, self.number)
        return volume_id

    def _volume_in_drive(self) -> VolumeId | None:
        """Return the tape that a backup has left threaded, whose label the mover knows by then."""
        if not self._is_threaded or self._barcode is None:
            return None
        return self._shared.ledger.volume_by_label(self._barcode).volume_id


async def _outcome(call: Call) -> tuple[JobState, str]:
    try:
        await call.wait_done()
    except CommandFailed as error:
        return (JobState.CANCELLED if error.kind == "cancelled" else JobState.FAILED), str(error)
    return JobState.COMPLETED, ""


def _sentence(group: BaseExceptionGroup[BaseException]) -> str:
    """Return the message of the first error in a group."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)
