"""One task with a tape, done by a drive's mover from beginning to end.

Belongs to the drive's task, in its trio run. Nothing interrupts it: a tape is never left half labelled or half erased
for somebody who waits.
"""

from __future__ import annotations

import msgspec

from drivers.errors import DriveError
from drivers.interface import ElementKind
from sidecar.drives.bay import Bay
from sidecar.drives.health import DriveFailed
from sidecar.drives.movers import DRIVE_FAILED, CommandFailed, Mover
from sidecar.drives.shared import Shared
from sidecar.tapes.orders import PutBack
from sidecar.tapes.tasks import TapeTask
from tapefs.errors import NoTape
from tapefs.mover.messages import Tend


class Tending:
    """One drive's."""

    def __init__(self, bay: Bay, shared: Shared) -> None:
        self._bay = bay
        self._shared = shared
        #: What is being done.
        self._task: TapeTask | None = None

    async def run(self, mover: Mover, task: TapeTask) -> None:
        """Do it, and tell how that went. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        tasks, bay, command = self._shared.tape_tasks, self._bay, task.command
        if isinstance(command, PutBack):
            raise AssertionError("no mover does that")
        tasks.begin(task)
        self._task = task
        bay.last_was_backup = False
        try:
            await self._put_in(mover, task)
            bay.leave_to_another()
            call = await mover.start_call(lambda number: msgspec.structs.replace(command, id=number))
            await task.attach(call, mover)
            done = await call.wait_done()
        except CommandFailed as error:
            if error.kind == DRIVE_FAILED:
                raise DriveFailed(str(error)) from error
            tasks.fail(task, error.kind, str(error))
        except (NoTape, DriveError) as error:
            tasks.fail(task, "no_volume", str(error))
        else:
            tasks.done(task, done.found, done.volume_id, imported=done.imported)
        self._over(task)

    def to_put_back(self) -> TapeTask | None:
        """Return the task that wants the tape in this drive brought back to its slot, if any.

        Tapes that have left their drives meanwhile are where they should be.
        """
        library, tasks = self._shared.library, self._shared.tape_tasks
        for task in tasks.to_put_back():
            try:
                place = library.place_of(library.code_of(task.volume_id))
            except NoTape as error:  # It was given up meanwhile.
                tasks.fail(task, "no_volume", str(error))
                continue
            if place is not None and place.kind is ElementKind.DRIVE:
                if place.number == self._bay.number:
                    return task
                continue
            tasks.begin(task)
            tasks.done(task, None, task.volume_id)
        return None

    async def put_back(self, mover: Mover, task: TapeTask) -> None:
        """Bring the tape back, and tell how that went. Raises MoverDied, DriveFailed; `mover_died` must follow then."""
        tasks = self._shared.tape_tasks
        tasks.begin(task)
        self._task = task
        try:
            await self._bay.put_back(mover)
        except CommandFailed as error:
            tasks.fail(task, error.kind, str(error))
        except (NoTape, DriveError) as error:
            tasks.fail(task, "no_volume", str(error))
        else:
            tasks.done(task, None, task.volume_id)
        self._over(task)

    async def _put_in(self, mover: Mover, task: TapeTask) -> None:
        """Get the tape into the drive; a human may put in what looks like none of ours."""
        library = self._shared.library
        code = library.code_of(task.volume_id)
        unsure = set[str]() if library.eyes is None else library.eyes.unsure
        unsure.add(code)
        try:
            await self._bay.put_in(mover, task.volume_id)
        finally:
            unsure.discard(code)

    def mover_died(self, reason: str, *, is_the_end: bool = False) -> None:
        """The mover is gone; what it was doing has failed, and is finished by the next use of the tape.

        At the end of the sidecar it stays as it is: the next one knows more.
        """
        task = self._task
        if task is not None and not is_the_end:
            self._shared.tape_tasks.fail(task, "drive", reason)
            self._over(task)

    def _over(self, task: TapeTask) -> None:
        """The tape is free again. One that was given up has another id now: nobody waits for the old one."""
        self._task = None
        self._shared.library.let_go(self._bay.number)
        if isinstance(task.command, Tend) and not self._is_known(task):
            message = f"tape {task.tape} was given up ({task.kind}): what lay on it is gone"
            self._shared.recalls.tape_failed(task.volume_id, message)
            self._shared.verifications.tape_failed(task.volume_id, message)
        self._shared.bell.ring()

    def _is_known(self, task: TapeTask) -> bool:
        return any(volume.volume_id == task.volume_id for volume in self._shared.ledger.volumes())
