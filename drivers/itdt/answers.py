"""What itdt prints: fields with dots, `Result:`, `Exit with code:`, and sense data. Pure; any thread.

IBM documents the shape of the lines, not each of them; names of fields are compared without case. What is not there is
None, never a guess.

    Drive Address 257
      Drive State .................... Normal
      Media Present .................. Yes
      Volume Tag ..................... TP0001L9
    Exit with code: 0
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from drivers.scsi.sense import Key, Sense

_FIELD = re.compile(r"^\s*([A-Za-z][A-Za-z0-9/()# -]*?)\s*(?:\.{2,}|:|=)\s*(\S.*?)?\s*$")
_ADDRESS = re.compile(r"^\s*(Robot|Drive|Slot|Import/Export Station) Address\s*(?:\.+)?\s*(\d+)\s*$")
_RESULT = re.compile(r"^\s*Result:\s*(\w+)", re.MULTILINE)
_EXIT = re.compile(r"^\s*Exit with code:\s*(-?\d+)", re.MULTILINE)
_NUMBER = re.compile(r"(?:0x([0-9A-Fa-f]+)|(\d+))")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How itdt itself says that it ended; None where it does not."""

    #: PASSED, FAILED or ABORTED; the worst, when several commands were given.
    result: str | None
    code: int | None


def parse_verdict(text: str) -> Verdict:
    """Read how it ended."""
    results = [found.upper() for found in _RESULT.findall(text)]
    bad = next((each for each in results if each != "PASSED"), None)
    codes = [int(each) for each in _EXIT.findall(text)]
    worst = next((code for code in codes if code != 0), codes[-1] if codes else None)
    return Verdict(bad or (results[-1] if results else None), worst)


def parse_fields(text: str) -> dict[str, str]:
    """Return all fields by their names in small letters; of several of the same name the last."""
    found = (match for line in text.splitlines() if (match := _FIELD.match(line)))
    return {match[1].strip().lower(): match[2] or "" for match in found}


def find_number(fields: dict[str, str], *names: str) -> int | None:
    """Return the number in the first field that has one of these names; decimal, or hexadecimal behind 0x."""
    for name in names:
        match = _NUMBER.search(fields.get(name, ""))
        if match:
            return int(match[1], 16) if match[1] else int(match[2])
    return None


def find_flag(fields: dict[str, str], *names: str) -> bool | None:
    """Return what the first field that has one of these names says."""
    for name in names:
        word = fields.get(name, "").strip().lower()
        if word in ("yes", "true", "on", "enabled", "1"):
            return True
        if word in ("no", "false", "off", "disabled", "0"):
            return False
    return None


def parse_sense_fields(text: str) -> Sense | None:
    """Return the sense data that a failed command printed, None when there are none."""
    fields = parse_fields(text)
    key = _hexadecimal(fields.get("sense key"))
    if key is None or not 0 <= key <= 0xF:
        return None
    both = _hexadecimal(fields.get("asc/ascq"))
    if both is not None:
        return Sense(Key(key), both >> 8, both & 0xFF)
    return Sense(Key(key), _hexadecimal(fields.get("asc")) or 0, _hexadecimal(fields.get("ascq")) or 0)


def _hexadecimal(text: str | None) -> int | None:
    found = re.match(r"(?:0x)?([0-9A-Fa-f]{1,4})\b", text or "")
    return int(found[1], 16) if found else None


@dataclass(frozen=True, slots=True)
class Place:
    """One element of `inventory`."""

    #: `robot`, `drive`, `slot` or `import/export station`.
    kind: str
    address: int
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def full(self) -> bool | None:
        """Is a cartridge here? None when itdt does not tell."""
        return find_flag(self.fields, "media present")

    @property
    def barcode(self) -> str | None:
        """Its barcode."""
        return self.fields.get("volume tag") or None


def parse_inventory(text: str) -> list[Place]:
    """Return all elements in the order in which they are printed."""
    places: list[Place] = []
    for line in text.splitlines():
        found = _ADDRESS.match(line)
        if found:
            places.append(Place(found[1].lower(), int(found[2])))
        elif places:
            places[-1].fields.update(parse_fields(line))
    return places
