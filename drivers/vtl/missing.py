"""What answers for logical units that are not there. Any thread."""

from __future__ import annotations

from drivers.scsi.transport import Status
from drivers.vtl.commands import Answer, Command, Nexus, Operation
from drivers.vtl.inquiry import TAPE, Identity, standard_inquiry
from drivers.vtl.sense import INVALID_LUN, Key, Sense
from drivers.vtl.unit import LogicalUnit, report_of_luns

_INQUIRY, _REQUEST_SENSE, _REPORT_LUNS = 0x12, 0x03, 0xA0
#: Peripheral qualifier 3, type 1Fh: there is nothing, and there never will be.
_NOTHING = 0x7F


class MissingUnit(LogicalUnit):
    """Answers INQUIRY, REQUEST SENSE and REPORT LUNS, and refuses all else."""

    def __init__(self) -> None:
        super().__init__(Identity(TAPE, "TAPEFS", "NO UNIT", "0001", "0"))

    def operations(self) -> list[Operation]:
        """Return nothing: `execute` knows them all."""
        return []

    def execute(
        self, nexus: Nexus, cdb: bytes, data_out: memoryview | None = None, data_in: memoryview | None = None
    ) -> Answer:
        """See `LogicalUnit.execute`."""
        command = Command(nexus, cdb, data_in=data_in or memoryview(b""))
        sense = Sense(Key.ILLEGAL_REQUEST, INVALID_LUN).encode()
        if cdb[0] == _INQUIRY and not cdb[1] & 1:
            data = bytes([_NOTHING]) + standard_inquiry(self.identity)[1:]
            done = command.give(data, command.number(3, 2))
        elif cdb[0] == _REQUEST_SENSE:
            done = command.give(sense, cdb[4])
        elif cdb[0] == _REPORT_LUNS:
            done = command.give(report_of_luns(self.luns), command.number(6, 4))
        else:
            return Answer(Status.CHECK_CONDITION, sense)
        return Answer(Status.GOOD, b"", done.moved_bytes, done.wanted_bytes)
