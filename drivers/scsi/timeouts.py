"""How long each command may take: as the drive recommends it, else by generation. Pure; any thread.

A timeout is for a device that hangs; a command that is only slow must never meet it.
"""

from __future__ import annotations

from collections.abc import Iterable

from drivers.scsi.cdb import Op
from drivers.scsi.opcodes import Supported

#: Commands that answer from memory, and what a drive may be busy with meanwhile.
_ASK_S = 60.0
_ROBOT_S = 300.0
#: LTO-9's first load of a new cartridge.
MEDIUM_OPTIMISATION_S = 7920.0

#: Seconds by generation, LTO-5 to LTO-10, full height; older drives get those of LTO-5.
_BY_GENERATION: dict[Op, tuple[float, ...]] = {
    Op.ERASE_6: (16_380, 24_600, 27_540, 54_896, 74_341, 16_320),
    Op.ERASE_16: (16_380, 24_600, 27_540, 54_896, 74_341, 16_320),
    Op.LOAD_UNLOAD: (780, 780, 960, 960, MEDIUM_OPTIMISATION_S, 780),
    Op.LOCATE_10: (2040, 2940, 2880, 2880, 2940, 2940),
    Op.LOCATE_16: (2040, 2940, 2880, 2880, 2940, 2940),
    Op.SPACE_6: (2040, 2940, 2880, 2880, 2940, 2940),
    Op.SPACE_16: (2040, 2940, 2880, 2880, 2940, 2940),
    Op.READ_6: (1500, 1500, 2280, 2280, 2340, 2340),
    Op.REWIND: (600,) * 6,
    Op.WRITE_6: (1500,) * 6,
    Op.WRITE_FILEMARKS_6: (1620,) * 6,
    Op.WRITE_FILEMARKS_16: (1620,) * 6,
}
_BY_COMMAND: dict[Op, float] = {
    Op.INITIALIZE_ELEMENT_STATUS: 1800.0,
    Op.READ_ELEMENT_STATUS: _ROBOT_S,
    Op.MOVE_MEDIUM: _ROBOT_S,
    Op.EXCHANGE_MEDIUM: 2 * _ROBOT_S,
    # Switching settings may flush the drive's buffer before.
    Op.MODE_SELECT_6: 300.0,
    Op.MODE_SELECT_10: 300.0,
    # A new key may wait for the blocks that went before.
    Op.SECURITY_PROTOCOL_OUT: 300.0,
    # Sorting thousands of segments is no matter of moments for a drive's processor.
    Op.MAINTENANCE_OUT: 300.0,
}
_OLDEST, _NEWEST = 5, 10


class Timeouts:
    """The timeouts of one device."""

    def __init__(self, generation: int | None = None, supported: Iterable[Supported] = ()) -> None:
        """Use what the device recommends, else the table of its generation, the slowest when it is unknown."""
        self._generation = generation
        self._recommended = {
            each.opcode: float(each.recommended_s)
            for each in supported
            if each.recommended_s and each.service_action is None
        }

    def of(self, cdb: bytes) -> float:
        """Return the seconds that a command may take."""
        told_s = self._recommended.get(cdb[0], 0.0)
        # Some firmware recommends 0 or 1 s for what it answers from memory, and is busy for longer with other things.
        return max(told_s, _ASK_S) if told_s else self._table_s(cdb[0])

    def _table_s(self, opcode: int) -> float:
        if opcode not in Op._value2member_map_:
            return _ASK_S
        op = Op(opcode)
        row = _BY_GENERATION.get(op)
        if row is None:
            return _BY_COMMAND.get(op, _ASK_S)
        if self._generation is None:
            return max(row)
        return row[min(max(self._generation, _OLDEST), _NEWEST) - _OLDEST]
