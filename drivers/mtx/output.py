"""What mtx 1.3 prints: the status of a library, and sense data when a command failed. Pure; any thread.

The lines of `mtx status`, whose storage elements count from 1, import/export elements last:

      Storage Changer /dev/sg3:2 Drives, 25 Slots ( 1 Import/Export )
    Data Transfer Element 0:Full (Storage Element 5 Loaded):VolumeTag = TP0005L9
    Data Transfer Element 1:Empty
          Storage Element 1:Full :VolumeTag=TP0001L9
          Storage Element 25 IMPORT/EXPORT:Empty
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from drivers.errors import BadAnswer
from drivers.scsi.sense import Key, Sense

_HEAD = re.compile(r"^\s*Storage Changer .*:(\d+) Drives, (\d+) Slots \( (\d+) Import/Export \)\s*$", re.MULTILINE)
_DRIVE = re.compile(r"^Data Transfer Element (\d+):(Empty|Full)(.*)$")
_SLOT = re.compile(r"^\s+Storage Element (\d+)( IMPORT/EXPORT)?:(Empty|Full)(.*)$")
_TAG = re.compile(r":VolumeTag ?= ?([^:]*)")
_ASC = re.compile(r"Additional Sense Code\s*=\s*([0-9A-Fa-f]{1,2})\b")
_ASCQ = re.compile(r"Additional Sense Qualifier\s*=\s*([0-9A-Fa-f]{1,2})\b")
_KEY = re.compile(r"Sense Key\s*=\s*([A-Za-z ]+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Place:
    """One element, by the number that mtx has for it."""

    number: int
    full: bool
    barcode: str | None
    #: Operators put cartridges in and take them out here.
    is_port: bool = False


@dataclass(frozen=True, slots=True)
class Status:
    """A whole library."""

    #: By their numbers, from 0.
    drives: list[Place]
    #: By their numbers, from 1 without a gap, ports last.
    slots: list[Place]


def parse_status(text: str) -> Status:
    """Read the output of `mtx status`. Raises BadAnswer when lines are missing, or tell what the head does not."""
    head = _HEAD.search(text)
    if head is None:
        raise BadAnswer("mtx status did not tell of a library: it printed no line with `Storage Changer`")
    drives: list[Place] = []
    slots: list[Place] = []
    for line in text.splitlines():
        if found := _DRIVE.match(line):
            drives.append(Place(int(found[1]), found[2] == "Full", _barcode(found[3])))
        elif found := _SLOT.match(line):
            slots.append(Place(int(found[1]), found[3] == "Full", _barcode(found[4]), found[2] is not None))
    _check_count("drives", drives, int(head[1]), first=0)
    _check_count("slots", slots, int(head[2]), first=1)
    _check_ports(slots, int(head[3]))
    return Status(drives, slots)


def _barcode(rest: str) -> str | None:
    found = _TAG.search(rest)
    # The tag is filled with spaces to 32 or 36 characters; an unreadable one is all spaces, or dashes.
    name = found[1].strip() if found else ""
    return name if name.strip("-") else None


def _check_count(what: str, places: list[Place], count: int, *, first: int) -> None:
    numbers = [each.number for each in places]
    if numbers != list(range(first, first + count)):
        raise BadAnswer(f"mtx status announced {count} {what} and listed {len(numbers)}, not one after the other")


def _check_ports(slots: list[Place], count: int) -> None:
    ports = [each.is_port for each in slots]
    if ports != [False] * (len(slots) - count) + [True] * count:
        raise BadAnswer(f"mtx status announced {count} import/export elements and did not list them last")


def parse_sense_lines(text: str) -> Sense | None:
    """Return the sense data that a failed mtx printed, None when there are none."""
    name = _KEY.search(text)
    key = Key.__members__.get(name[1].upper().replace(" ", "_")) if name else None
    return None if key is None else Sense(key, _code(_ASC, text), _code(_ASCQ, text))


def _code(pattern: re.Pattern[str], text: str) -> int:
    found = pattern.search(text)
    return int(found[1], 16) if found else 0
