"""Erasing from the head to the end of the tape. Blocking; one thread, that of the drive.

A new end of data is written within minutes at most; writing over every metre takes up to a day. So a drive is asked to
begin the latter and to answer at once, and then how far it is; one that does not know that is waited for.
"""

from __future__ import annotations

from drivers.errors import NotReady, NotSupported
from drivers.interface import Busy, Lengthy, Listener
from drivers.scsi import cdb as commands
from drivers.scsi.device import Device
from drivers.scsi.outcomes import Doing
from drivers.scsi.ready import is_becoming_ready
from drivers.scsi.sense import Sense
from drivers.scsi.session import DriveSession

_FIRST_POLL_S = 1.0
_POLL_S = 30.0
_FIRST_REPORT_S, _REPORT_EVERY_S = 60.0, 600.0
#: "Erase operation in progress", and a device that says only that something is.
_ERASING = (0x00, 0x18)
_OPERATION_IN_PROGRESS = (0x00, 0x16)


def erase(session: DriveSession, *, long: bool, listener: Listener = lambda busy: None) -> None:
    """Erase; the head stands where it stood. Raises as `Drive.erase`; nothing was done when it is NotSupported."""
    at = session.known_block()
    _begin(session, at, long=long)
    if long:
        try:
            _wait(session, listener)
        finally:
            listener(None)
    session.check_steady()
    session.stands_at(None)
    # Behind a long erase the standard leaves open where the head is.
    if session.where() != at:
        session.device.run(commands.locate_16(at), Doing.MOVE, block=at)
    session.stands_at(at)


def _begin(session: DriveSession, at: int, *, long: bool) -> None:
    """Send the command, in the way that the drive knows. Raises NotSupported when it knows none."""
    ways = [commands.erase_6(long=long), commands.erase_16(at, long=long)]
    if long:
        ways.insert(0, commands.erase_6(long=True, immediate=True))
    for number, cdb in enumerate(ways, 1):
        try:
            session.command(cdb, Doing.ERASE, block=at)
        except NotSupported:
            if number == len(ways):
                raise
        else:
            return


def _wait(session: DriveSession, listener: Listener) -> None:
    """Wait until an erase that goes on in the drive has ended, with word of how far it is. Raises its failure."""
    device = session.device
    begun_s = device.clock.now()
    next_report_s = begun_s + _FIRST_REPORT_S
    limit_s = device.timeouts.of(commands.erase_6(long=True))
    while (sense := device.ask_sense()) is not None and _is_busy(sense):
        now_s = device.clock.now()
        if now_s - begun_s > limit_s:
            raise NotReady(f"{device.name} has been erasing for {(now_s - begun_s) / 3600:.1f} h [{sense.codes}]")
        listener(Busy(Lengthy.ERASING, sense.progress))
        if now_s >= next_report_s:
            session.report(_progress(device, sense, now_s - begun_s))
            next_report_s = now_s + _REPORT_EVERY_S
        device.clock.sleep(_FIRST_POLL_S if now_s - begun_s < _POLL_S else _POLL_S)
    if sense is not None and (error := device.error_of(sense, Doing.ERASE)) is not None:
        raise error
    # Else a failure is told with the next command.
    device.run(commands.test_unit_ready(), Doing.ERASE)


def _is_busy(sense: Sense) -> bool:
    return (sense.asc, sense.ascq) in (_ERASING, _OPERATION_IN_PROGRESS) or is_becoming_ready(sense)


def _progress(device: Device, sense: Sense, waited_s: float) -> str:
    done = "" if sense.progress is None else f", {sense.progress:.0%} done"
    return f"{device.name} has been erasing the tape for {waited_s / 60:.0f} min{done}; a whole tape takes up to a day"
