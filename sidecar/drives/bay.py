"""The place for a tape in one drive: which one is there, getting one in, threaded and checked, and out again.

Belongs to the drive's task, in its trio run.
"""

from __future__ import annotations

import structlog
import trio

from catalog.ids import VolumeId
from drivers.errors import DriveError
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, CommandFailed, Mover
from sidecar.drives.shared import Shared
from sidecar.recalls.tape_order import TapeOrder
from sidecar.verifications.reading_back import YIELD_S
from tapefs.errors import NoTape
from tapefs.mover.messages import DriveState, Load, Ready, Unload
from tapefs.recall.locates import motion_of_drive

#: So many drives may fail when they load one tape; then the tape may be to blame, and is left alone.
MOST_FAILED_LOADS = 2

#: What the states of DriveState mean for a tape in the drive.
_NOT_THREADED = ("empty", "failed", "cleaning")

log = structlog.get_logger(__name__)


class Bay:
    """One drive's."""

    def __init__(self, number: int, name: str, shared: Shared) -> None:
        self.number = number
        self.name = name
        self._shared = shared
        self._is_threaded = False
        self._barcode: str | None = None
        #: The tape that is threaded and whose label the mover has checked.
        self.tape: VolumeId | None = None
        self.since_s = 0.0
        #: The tape was written since it was loaded: what is read may come from the drive's buffer.
        self.is_written = False
        #: What used it last was a backup: jobs and recalls take turns.
        self.last_was_backup = False
        #: The drive may know an order in which it had best read this tape.
        self.recommends = False
        #: How the tape is read.
        self.order = TapeOrder(motion_of_drive(shared.home.drives, name, 0), 0)

    @property
    def label(self) -> str | None:
        """Label of the cartridge in the drive."""
        return self._shared.library.label_in(self.number)

    def note(self, said: Ready | DriveState) -> None:
        """Take what the mover says of the cartridge."""
        self._barcode = said.barcode
        self._is_threaded = said.loaded if isinstance(said, Ready) else said.state not in _NOT_THREADED

    def is_usable(self, volume_id: VolumeId) -> bool:
        """May this drive fetch that tape? One that is nowhere counts as usable, so that somebody notices."""
        library = self._shared.library
        if not library.is_for_drive(volume_id, self.number):
            return False
        return volume_id != self.tape and (
            library.is_free_for(volume_id, self.number) or not library.is_here(volume_id)
        )

    async def thread(self, mover: Mover, volume_id: VolumeId) -> None:
        """Get a tape into the drive, threaded and checked.

        Raises CommandFailed, NoTape, DriveError when the tape cannot be had, DriveFailed when the drive is to blame.
        """
        library = self._shared.library
        library.hold(volume_id, self.number)
        try:
            if library.in_drive(self.number) is not None:
                await self.eject(mover)
            await library.put_in(volume_id, self.number)
            await mover.call(lambda number: Load(id=number, volume_id=volume_id))
        except (CommandFailed, NoTape, DriveError) as error:
            library.let_go(self.number)
            if isinstance(error, CommandFailed) and error.kind == DRIVE_FAILED:
                failed = self._shared.fleet.failed_loads
                failed[volume_id] = failed.get(volume_id, 0) + 1
                raise DriveFailed(str(error)) from error
            raise
        self._shared.fleet.failed_loads.pop(volume_id, None)
        self._is_threaded, self.is_written = True, False
        self._now_in(volume_id)

    async def put_in(self, mover: Mover, volume_id: VolumeId) -> None:
        """Get a tape into the drive, whatever is on it; the mover threads it. Raises CommandFailed, NoTape, DriveError.

        Nobody else gets it until `library.let_go`.
        """
        library = self._shared.library
        library.hold(volume_id, self.number)
        if library.in_drive(self.number) is not None:
            await self.eject(mover)
        await library.put_in(volume_id, self.number)

    def is_given_up(self, volume_id: VolumeId) -> bool:
        """Have so many drives failed with this tape that no other is tried? Counts anew then."""
        failed = self._shared.fleet.failed_loads
        if failed.get(volume_id, 0) < MOST_FAILED_LOADS:
            return False
        del failed[volume_id]
        return True

    async def eject(self, mover: Mover) -> None:
        """Unthread the tape in the drive. Raises CommandFailed."""
        self.leave_to_another()
        if self._is_threaded:
            await mover.call(lambda number: Unload(id=number))
            self._is_threaded = False

    async def give_up(self, mover: Mover) -> None:
        """Bring the tape back to its slot: another drive waits for it, or a vault. Raises DriveFailed, MoverDied."""
        try:
            await self.put_back(mover)
        except (CommandFailed, NoTape, DriveError) as error:
            log.warning("a tape that is wanted elsewhere stays in its drive", drive=self.name, error=str(error))
            await trio.sleep(YIELD_S)  # It is tried again, but not all the time.
        self._shared.bell.ring()

    async def put_back(self, mover: Mover) -> None:
        """Bring the tape back to its slot. Raises CommandFailed, NoTape, DriveError, DriveFailed, MoverDied."""
        library = self._shared.library
        try:
            await self.eject(mover)
            await library.put_away(self.number)
        except CommandFailed as error:
            if error.kind == DRIVE_FAILED:
                raise DriveFailed(str(error)) from error
            raise
        library.let_go(self.number)

    def leave_to_another(self) -> None:
        """Nobody reads the tape any more: it is on its way out, or a backup's."""
        if self.tape is not None:
            self._shared.recalls.stop_reading_ahead(self.tape)
        self.tape = None

    def written(self) -> None:
        """A backup has ended and left the tape that is in the drive now, if any; the head is at its end."""
        self._shared.library.stop_awaiting(self.number)
        self._shared.library.let_go(self.number)
        self.is_written = True
        volume_id = self._volume_in_drive()
        if volume_id is None:
            self.tape, self.since_s = None, trio.current_time()
        else:
            self._now_in(volume_id, is_at_end=True)

    def _now_in(self, volume_id: VolumeId, *, is_at_end: bool = False) -> None:
        self.tape, self.since_s = volume_id, trio.current_time()
        volume = self._shared.ledger.volume(volume_id)
        self.recommends = not volume.foreign
        motion = motion_of_drive(self._shared.home.drives, self.name, volume.generation)
        head = volume.end_block if is_at_end else 0
        self.order = TapeOrder(motion, volume.block_size, head, is_forwards=bool(volume.foreign))

    def _volume_in_drive(self) -> VolumeId | None:
        """Return the tape that a backup has left threaded, whose label the mover knows by then."""
        if not self._is_threaded or self._barcode is None:
            return None
        return self._shared.ledger.volume_by_code(self._barcode).volume_id
