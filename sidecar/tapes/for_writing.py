"""Tapes for what a drive writes: a running backup's, or a further copy's.

Belongs to the drive's task, in its trio run.
"""

from __future__ import annotations

import trio

from catalog.ids import JobNumber, VolumeId
from drivers.interface import ElementKind
from drivers.registry import drive_name
from sidecar.drives.bay import Bay
from sidecar.drives.movers import Mover
from sidecar.drives.shared import Shared
from sidecar.tapes.allotting import begun_elsewhere, choose, idle_elsewhere, take_over, want_of
from tapefs.errors import NoTape
from tapefs.mover.messages import NeedVolume, Unload, VolumeReady
from tapefs.retention.allocation import Answer, Source, Want
from tapefs.retention.pools import Pools

#: A running job waits so long for a tape that another drive has.
TAPE_PATIENCE_S = 3600.0
#: A tape that was begun and lies idle in another drive is waited for so long; then another one is begun.
GIVE_UP_S = 300.0
#: … and looks so often whether that drive still works.
TAPE_LOOK_S = 5.0


class Tapes:
    """One drive's."""

    def __init__(self, bay: Bay, shared: Shared) -> None:
        self._bay = bay
        self._shared = shared

    async def provide(self, mover: Mover, need: NeedVolume, job: JobNumber | None) -> VolumeReady:
        """Bring the tape into the drive that is needed. Raises CommandFailed, TapefsError, DriveError, CatalogError.

        Without a job it is for a set that leaves its tape: one that its own job could have written.
        """
        if need.volume_id is not None:
            return VolumeReady(volume_id=await self._provide_this(need.volume_id))
        return await self._provide_any(mover, need, job)

    def _want(self, need: NeedVolume, job: JobNumber | None) -> Want:
        shared, now_ns = self._shared, self._shared.jobs.now_ns()
        if job is not None:
            return want_of(shared.home, shared.ledger, job, need.pool, need.exclude, now_ns)
        pool = Pools.of(shared.home, shared.ledger).get(need.pool)
        job_id = None if need.set_id is None else shared.ledger.backup_set(need.set_id).job_id
        return Want(pool=pool, now_ns=now_ns, job_id=job_id, set_id=need.set_id, exclude=need.exclude)

    async def _provide_any(self, mover: Mover, need: NeedVolume, job: JobNumber | None) -> VolumeReady:
        """Choose a tape and bring it into the drive. Raises CommandFailed, TapefsError, DriveError, CatalogError.

        A tape that is threaded already stays; another one is ejected first: while it waits, a backup takes Unload.
        """
        library = self._shared.library
        await library.refresh()
        shared, number = self._shared, self._bay.number
        want = self._want(need, job)
        taken = await self._chosen(want)
        volume = taken.volume
        library.hold(volume.volume_id, number)
        await take_over(shared.ledger, taken, want)
        is_anew = taken.source is Source.REUSED
        if is_anew and shared.recalls.queue.has_todo(volume.volume_id):
            shared.recalls.tape_failed(volume.volume_id, f"tape {volume.label} is begun anew: its sets have expired")
        if not need.ejected and library.in_drive(number) != volume.code:
            await mover.call(lambda number: Unload(id=number))
        await library.put_in(volume.volume_id, number)
        return VolumeReady(volume_id=volume.volume_id, anew=is_anew)

    async def _chosen(self, want: Want) -> Answer:
        """Choose a tape; if the only one is idle in another drive, when that has given it up. Raises NoTape.

        So is one there that was begun, before another one is begun here.
        """
        shared, tried = self._shared, set[VolumeId]()
        while True:
            try:
                taken = choose(shared.home, shared.ledger, shared.library, want, self._bay.number)
                begun = None if taken.source is Source.BEGUN else self._begun_elsewhere(want)
                if begun is None or begun in tried:
                    return taken
                tried.add(begun)
                await self._wait_given_up(begun)
                continue
            except NoTape:
                elsewhere = idle_elsewhere(shared.home, shared.ledger, shared.library, want)
                if elsewhere is None:
                    raise
            await self._wait_free(elsewhere)

    def _begun_elsewhere(self, want: Want) -> VolumeId | None:
        shared = self._shared
        queue = shared.recalls.queue

        def is_unread(volume_id: VolumeId) -> bool:
            return not queue.has_todo(volume_id) and not queue.has_asked(volume_id)

        return begun_elsewhere(shared.home, shared.ledger, shared.library, want, self._bay.number, is_unread)

    async def _wait_given_up(self, volume_id: VolumeId) -> None:
        """Have the drive that rests with a tape give it up; come back without it when that works with it again."""
        library, number = self._shared.library, self._bay.number
        holder = library.holder_of(volume_id)
        if holder is not None:
            library.let_go(holder)  # It has done with it.
        library.await_tape(volume_id, number)
        self._shared.bell.ring()
        try:
            with trio.move_on_after(GIVE_UP_S):
                while library.is_here(volume_id) and not library.is_held(volume_id):
                    if library.is_free_for(volume_id, number):
                        return
                    with trio.move_on_after(TAPE_LOOK_S):
                        await self._shared.bell.wait_rung()
        finally:
            library.stop_awaiting(number)

    async def _provide_this(self, volume_id: VolumeId) -> VolumeId:
        """Bring this very tape into the drive anew; the mover has ejected what was there. Raises NoTape, DriveError.

        What was ejected goes back to its slot first: of two drives that wait for each other's tape both get theirs.
        """
        library = self._shared.library
        library.let_go(self._bay.number)
        await library.put_away(self._bay.number)
        self._shared.bell.ring()
        await library.refresh()
        await self._wait_free(volume_id)
        library.hold(volume_id, self._bay.number)
        await library.put_in(volume_id, self._bay.number)
        return volume_id

    async def _wait_free(self, volume_id: VolumeId) -> None:
        """Wait until another drive has given up the tape. Raises NoTape when it does not, or cannot."""
        library, bell = self._shared.library, self._shared.bell
        volume = self._shared.ledger.volume(volume_id)
        library.await_tape(volume_id, self._bay.number)
        bell.ring()
        try:
            with trio.move_on_after(TAPE_PATIENCE_S) as patience:
                while not library.is_free_for(volume_id, self._bay.number):
                    if not library.is_here(volume_id):
                        raise NoTape(library.missing(volume))
                    self._check_not_stuck(volume.label)
                    with trio.move_on_after(TAPE_LOOK_S):
                        await bell.wait_rung()
        finally:
            library.stop_awaiting(self._bay.number)
        if patience.cancelled_caught:
            raise NoTape(f"another drive has had tape {volume.label} for an hour: see `tapefs drives`")

    def _check_not_stuck(self, label: str) -> None:
        """Raise NoTape if the tape is in a drive that does not work."""
        place = self._shared.library.place_of(label)
        if place is None or place.kind is not ElementKind.DRIVE:
            return
        health = self._shared.fleet.of(drive_name(place.number))
        if health.is_hopeless:
            raise NoTape(f"tape {label} is in {health.name}, which does not work: {health.sentence()}")
