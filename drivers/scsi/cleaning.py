"""Having a SCSI drive clean itself. Blocking; one thread.

A drive begins by itself when a cleaning cartridge comes in, is not ready meanwhile (02/30/03, or 02/04/xx), and ejects
the cartridge when it is done, which LTO drives are within some minutes. It may be done before anybody looks: the drive
was quick, or a human has put the cartridge in. What it has counted, and the flags that are new, tell that then.
"""

from __future__ import annotations

from drivers.errors import CleaningUsedUp, DeviceFailed, IncompatibleMedium, NotReady
from drivers.health import CLEANING_UNFIT, CLEANING_USED_UP, DriveHealth
from drivers.scsi import cdb as commands
from drivers.scsi import logs
from drivers.scsi.device import Device
from drivers.scsi.medium import read_log
from drivers.scsi.outcomes import Doing
from drivers.scsi.sense import Key, Sense

_POLL_S = 2.0
#: A cleaning takes about three minutes; longer than this it hangs.
LIMIT_S = 900.0
#: So long after the robot has put the cartridge in, a drive may still say that it holds none.
_SETTLE_S = 30.0
_NO_MEDIUM, _CLEANING, _FAILED = 0x3A, (0x30, 0x03), (0x30, 0x07)
_BECOMING_READY = 0x04


def clean(device: Device, before: DriveHealth | None) -> None:
    """Wait until the cleaning cartridge can be taken out; `before`: how the drive was. See `CanBeCleaned.clean`."""
    begun_s = device.clock.now()
    has_begun = False
    while True:
        sense = device.execute(commands.test_unit_ready(), Doing.LOAD).sense
        passed_s = device.clock.now() - begun_s
        if _is_cleaning(sense):
            has_begun = True
        elif sense is not None and (sense.asc, sense.ascq) == _FAILED:
            raise CleaningUsedUp(f"{device.name}: cleaning failed, the cartridge is used up or not for this drive")
        elif sense is None:
            raise IncompatibleMedium(f"{device.name} has loaded a cartridge with data: that is none for cleaning")
        elif sense.key is Key.UNIT_ATTENTION:
            continue  # It tells that a cartridge came, or that it was reset.
        elif sense.asc == _NO_MEDIUM:
            is_settled = has_begun or passed_s > _SETTLE_S
            if _is_cleaned(device, before, is_settled=is_settled, has_begun=has_begun):
                return
        elif sense.key is not Key.NOT_READY:
            raise device.error_of(sense, Doing.LOAD) or DeviceFailed(f"{device.name}: [sense {sense.codes}]")
        if passed_s > LIMIT_S:
            raise DeviceFailed(f"{device.name} has been cleaning for {passed_s / 60:.0f} min: look at its panel")
        device.clock.sleep(_POLL_S)


def _is_cleaning(sense: Sense | None) -> bool:
    if sense is None or sense.key is not Key.NOT_READY:
        return False
    return (sense.asc, sense.ascq) == _CLEANING or sense.asc == _BECOMING_READY


def _is_cleaned(device: Device, before: DriveHealth | None, *, is_settled: bool, has_begun: bool) -> bool:
    """Ask a drive without a cartridge whether it was cleaned. Raises CleaningUsedUp, IncompatibleMedium, NotReady.

    Before it has settled only what is new since it was looked at last proves anything.
    """
    page = read_log(device, logs.TAPE_ALERT_RESPONSE)
    alerts = logs.parse_tape_alert_response(page) if page else frozenset()
    if not is_settled:
        alerts = alerts - before.alerts if before is not None else frozenset()
    if CLEANING_USED_UP in alerts:
        raise CleaningUsedUp(f"{device.name}: the cleaning cartridge is used up [TapeAlert {CLEANING_USED_UP}]")
    if CLEANING_UNFIT in alerts:
        raise IncompatibleMedium(f"{device.name}: the cleaning cartridge is none for it [TapeAlert {CLEANING_UNFIT}]")
    if has_begun or _has_counted(device, before):
        return True
    if is_settled:
        raise NotReady(f"{device.name} has not begun to clean: put a cleaning cartridge in")
    return False


def _has_counted(device: Device, before: DriveHealth | None) -> bool:
    """Has it counted a cleaning since?"""
    page = read_log(device, logs.DEVICE_STATISTICS)
    now = logs.parse_device_statistics(page).cleanings if page else None
    return now is not None and before is not None and before.cleanings is not None and now > before.cleanings
