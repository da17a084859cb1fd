"""Waiting for a drive that is becoming ready, with word of how far it is. Blocking; one thread."""

from __future__ import annotations

from collections.abc import Callable

from drivers.errors import NotReady
from drivers.interface import Busy, Lengthy, Listener
from drivers.scsi import cdb as commands
from drivers.scsi.device import Device
from drivers.scsi.outcomes import Again, Doing, outcome_of
from drivers.scsi.sense import Key, Sense

#: A sentence for the operator.
Report = Callable[[str], None]

_POLL_S = 1.0
_FIRST_REPORT_S = 30.0
_REPORT_EVERY_S = 60.0
#: Drives of every generation have loaded a tape that they know by then.
_LONG_LOAD_S = 180.0
_IN_PROGRESS = (0x04, 0x3E)


def is_becoming_ready(sense: Sense) -> bool:
    """Tell whether time alone makes the device ready."""
    return sense.key is Key.NOT_READY and sense.asc in _IN_PROGRESS and outcome_of(sense).again is Again.LATER


def wait_ready(device: Device, *, limit_s: float, report: Report, listener: Listener = lambda busy: None) -> None:
    """Wait until the drive is ready, at most `limit_s`; `report` hears sentences of it, `listener` how far it is.

    A new LTO-9 cartridge is measured for up to two hours at its first load. Raises NotReady and others when the drive
    is not ready for another reason.
    """
    is_told = False

    def tell(busy: Busy) -> None:
        nonlocal is_told
        is_told = True
        listener(busy)

    try:
        _wait(device, limit_s, report, tell)
    finally:
        if is_told:
            listener(None)


def _wait(device: Device, limit_s: float, report: Report, tell: Callable[[Busy], None]) -> None:
    begun_s = device.clock.now()
    next_report_s = begun_s + _FIRST_REPORT_S
    while True:
        done = device.execute(commands.test_unit_ready(), Doing.LOAD)
        if done.sense is None or not is_becoming_ready(done.sense):
            error = device.error_in(done, Doing.LOAD)
            if error is not None:
                raise error
            return
        now_s = device.clock.now()
        if now_s - begun_s > limit_s:
            raise NotReady(f"{device.name} has been becoming ready for {now_s - begun_s:.0f} s [{done.sense.codes}]")
        # A load that is none of the first is over by then; and only the first tells how far it is.
        if done.sense.progress is not None or now_s - begun_s >= _LONG_LOAD_S:
            tell(Busy(Lengthy.MEASURING, done.sense.progress))
        elif now_s - begun_s >= _FIRST_REPORT_S:
            tell(Busy(Lengthy.LOADING))
        if now_s >= next_report_s:
            report(_progress(device.name, done.sense, now_s - begun_s))
            next_report_s = now_s + _REPORT_EVERY_S
        device.clock.sleep(_POLL_S)


def _progress(name: str, sense: Sense, waited_s: float) -> str:
    done = "" if sense.progress is None else f", {sense.progress:.0%} done"
    return f"{name} is becoming ready for {waited_s / 60:.0f} min{done}; a new LTO-9 tape takes up to two hours"
