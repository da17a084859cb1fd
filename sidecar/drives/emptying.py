"""What becomes of the tape in a drive that has failed: out of it and back in its slot, or stuck.

One trio run; while this runs nobody else has the drive.
"""

from __future__ import annotations

import structlog
import trio

from catalog.errors import CatalogError
from drivers.errors import DriveError
from sidecar.drives.health import Health
from sidecar.drives.movers import CommandFailed, Mover, MoverDied, open_mover
from sidecar.drives.shared import Shared
from tapefs.errors import NoTape
from tapefs.mover.messages import Report, Unload
from tapefs.mover.wire import WireError

#: A drive may take so long to let go of its tape: a rewind takes two minutes.
EMPTY_S = 600.0

log = structlog.get_logger(__name__)


async def empty_drive(shared: Shared, drive: int, health: Health) -> None:
    """Have the tape out of the drive that has failed, so that others can use it; else note that it is stuck."""
    label = shared.library.label_in(drive)
    if label is None:
        return
    why = f"it did not come out within {EMPTY_S:.0f} s"
    try:
        with trio.move_on_after(EMPTY_S) as patience:
            async with open_mover(
                shared.home, health.name, drive, command=shared.mover_command, inherit=shared.inherit
            ) as mover:
                await _unload(mover)
            if shared.library.human is None:
                await shared.library.put_away(drive)
        is_stuck = patience.cancelled_caught
    except* (CommandFailed, MoverDied, WireError, NoTape, DriveError, OSError) as group:
        is_stuck, why = True, str(_first(group))
    if is_stuck:
        health.stuck = label
        log.warning("the tape does not come out of the drive that failed", drive=health.name, tape=label, error=why)
    else:
        log.info("the tape is out of the drive that failed", drive=health.name, tape=label)
    shared.bell.ring()


async def _unload(mover: Mover) -> None:
    """Unthread and eject what is in the drive. Raises CommandFailed, MoverDied, WireError."""
    ready = await mover.wait_ready()
    if not ready.loaded:
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(mover.run_reports, _pass_over)
        await mover.call(lambda number: Unload(id=number))
        nursery.cancel_scope.cancel()


def _pass_over(report: Report) -> None:
    """What a mover says besides its answer is of no use here."""


async def note_in_tape(shared: Shared, label: str, reason: str) -> None:
    """Let people see what has happened to the tape; its state stays, and its next commit takes the note away."""
    try:
        volume = await trio.to_thread.run_sync(shared.ledger.volume_by_label, label)
        if not volume.reason:
            await trio.to_thread.run_sync(shared.ledger.mark_volume, volume.volume_id, volume.state, reason)
    except CatalogError as error:
        log.warning("the tape is not marked", tape=label, error=str(error))


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
