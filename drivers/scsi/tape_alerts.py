"""TapeAlert: what a drive wants to be told to its operator. Pure; any thread.

The numbers are the standard's; the sentences are ours. Flags that the standard has given up are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Severity(IntEnum):
    """How bad it is."""

    INFORMATION = 1
    WARNING = 2
    CRITICAL = 3


@dataclass(frozen=True, slots=True)
class TapeAlert:
    """One flag."""

    number: int
    severity: Severity
    message: str


_I, _W, _C = Severity.INFORMATION, Severity.WARNING, Severity.CRITICAL

_TEXTS: dict[int, tuple[Severity, str]] = {
    1: (_W, "the drive has problems reading; nothing is lost yet, but the tape or the drive is getting worse"),
    2: (_W, "the drive has problems writing; nothing is lost yet, but the tape or the drive is getting worse"),
    3: (_W, "an error of reading or writing could not be corrected: copy what is on the tape to another one"),
    4: (_C, "the tape can no longer be read or written well: copy its data to another one and do not use it any more"),
    5: (_C, "the tape is damaged or the drive is faulty: call the drive's supplier if it happens with other tapes too"),
    6: (_C, "the tape or the drive fails in writing: try a tape that is known to be good"),
    7: (_W, "the tape has reached the end of its life: copy its data to another one and do not use it any more"),
    8: (_W, "the cartridge is not made for data: what is on it may get lost"),
    9: (_C, "the cartridge is write-protected: move its tab or use another one"),
    10: (_I, "the cartridge cannot be ejected, it is in use"),
    11: (_I, "the cartridge in the drive is a cleaning cartridge"),
    12: (_I, "the drive does not know the format of this cartridge"),
    13: (_C, "the tape has snapped or is cut in the drive: do not try to eject it, call the drive's supplier"),
    14: (_C, "the tape has snapped or is cut; the cartridge can be ejected: do not use it any more"),
    15: (
        _W,
        "the memory in the cartridge has failed, which makes loading slower: do not use the cartridge for writing",
    ),
    16: (_C, "somebody ejected the cartridge by hand while it was written or read"),
    17: (_W, "the drive can only read a cartridge of this kind"),
    18: (_W, "the directory of the tape is damaged, finding files is slow: read the whole tape to have it made again"),
    19: (_I, "the tape is nearing the end of its life: copy it at the next occasion"),
    20: (_C, "the drive must be cleaned now: put a cleaning cartridge in"),
    21: (_W, "the drive is due for cleaning"),
    22: (_C, "the cleaning cartridge is used up: put in another one"),
    23: (_C, "the drive does not take this cleaning cartridge: use one for its kind"),
    26: (_W, "a fan of the drive fails"),
    27: (_W, "a fan of the drive fails"),
    28: (_W, "the drive takes more power than it should"),
    30: (
        _C,
        "the drive has a hardware fault: eject the tape, reset the drive, and call its supplier if it comes again",
    ),
    31: (_C, "the drive has a hardware fault: switch it off and on, and call its supplier if it comes again"),
    32: (_W, "the drive has a problem with its connection to the host: check cables and adapters"),
    33: (_C, "the last operation failed: eject the tape, put it in again, and do it again"),
    34: (_W, "loading new firmware into the drive failed: it was not for this drive"),
    35: (_W, "the drive is too damp"),
    36: (_W, "the drive is too hot or too cold"),
    37: (_W, "the drive's voltage is out of its limits"),
    38: (_C, "a failure of the drive is to be expected: have it replaced"),
    39: (_W, "the drive may be faulty: have it examined"),
    49: (_W, "the tape holds less than it should: copy its data to another one at the next occasion"),
    50: (_I, "the drive lost statistics of a tape: the cartridge was taken out without being unloaded"),
    51: (_W, "the directory of the tape could not be written at unload: read the whole tape to have it made again"),
    52: (_C, "the drive could not write its system area: copy the data of this tape to another one"),
    53: (_C, "the drive could not read the system area of the tape: copy its data to another one"),
    54: (_C, "the start of the data cannot be found: the cartridge is of another format or was degaussed"),
    55: (_C, "the tape cannot be threaded: have the cartridge examined"),
    56: (_C, "the tape cannot be unthreaded: call the drive's supplier"),
    57: (_C, "the drive's link to the library's robot fails"),
    58: (_W, "the drive's firmware failed and started again: look for a newer one"),
    59: (_W, "the write-once cartridge was tampered with, or the drive cannot prove that it was not"),
    60: (_W, "this write-once cartridge cannot be overwritten: append to it, or use another one"),
    61: (_W, "the drive refused to write or read because of its rules for encryption"),
}

ALERTS = {number: TapeAlert(number, *each) for number, each in _TEXTS.items()}


def describe(flags: frozenset[int]) -> list[TapeAlert]:
    """Return what the set flags mean, the worst first; numbers without a known meaning are told as such."""
    known = [ALERTS.get(each, TapeAlert(each, _I, f"the drive set the TapeAlert flag {each}")) for each in flags]
    return sorted(known, key=lambda each: (-each.severity, each.number))
