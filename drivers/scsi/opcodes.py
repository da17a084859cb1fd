"""REPORT SUPPORTED OPERATION CODES: what a device can do and how long each command may take. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.scsi.fields import Fields


@dataclass(frozen=True, slots=True)
class Supported:
    """One command of a device."""

    opcode: int
    #: None for commands without service actions.
    service_action: int | None
    #: How long it usually takes, and after how long something must be wrong; None when the device does not say.
    nominal_s: int | None
    recommended_s: int | None


def parse_supported_opcodes(data: bytes) -> list[Supported]:
    """Decode the list of all commands; one that was cut at the end is left out. Raises BadAnswer."""
    fields = Fields(data, "the list of supported commands")
    fields = fields.upto(4 + fields.number(0, 4))
    found = []
    at = 4
    while at + 8 <= len(fields):
        opcode, service_action, flags = fields.number(at), fields.number(at + 2, 2), fields.number(at + 5)
        at += 8
        nominal = recommended = 0
        if flags & 2:
            if at + 12 > len(fields):
                break
            nominal, recommended = fields.number(at + 4, 4), fields.number(at + 8, 4)
            at += 2 + fields.number(at, 2)
        found.append(Supported(opcode, service_action if flags & 1 else None, nominal or None, recommended or None))
    return found
