"""What tape drives and changers have in common as SCSI devices. Any thread: a unit does one command at a time.

A unit knows its initiators by name (`Nexus`). Each has its own unit attentions; modes are shared by all.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from drivers.scsi.transport import Status
from drivers.vtl.commands import Access, Answer, Command, Done, Nexus, Operation, operation
from drivers.vtl.inquiry import Identity, standard_inquiry, vital_page
from drivers.vtl.reservations import ReservationConflict, Reservations
from drivers.vtl.sense import (
    INVALID_FIELD_IN_CDB,
    INVALID_OPCODE,
    LUN_RESET,
    NEXUS_LOST,
    POWER_ON,
    CheckCondition,
    Key,
    Sense,
    refuse,
)

_INQUIRY, _REQUEST_SENSE, _REPORT_LUNS = 0x12, 0x03, 0xA0
_HEEDLESS = (_INQUIRY, _REQUEST_SENSE, _REPORT_LUNS)
#: Initiators that are remembered after they have gone.
_REMEMBERED = 256


class LogicalUnit(ABC):
    """A device server; subclasses add their commands."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.lock = threading.RLock()
        self.reservations = Reservations(self.tell)
        #: Does a unit say sense in descriptor format (the control mode page's D_SENSE)?
        self.descriptor_sense = False
        #: The logical units of the target in which this one stands.
        self.luns = [0]
        self._attentions: dict[Nexus, list[int]] = {}
        self._gone: dict[Nexus, list[int]] = {}
        #: Initiators that forbid taking the medium out.
        self.preventing: set[Nexus] = set()
        self._operations: dict[int, dict[int | None, Operation]] = {}
        for each in [*self._common(), *self.operations()]:
            self._operations.setdefault(each.opcode, {})[each.action] = each

    # -- initiators ----------------------------------------------------------------------------------------------

    def attach(self, nexus: Nexus) -> None:
        """An initiator comes, or comes back: it is told by a unit attention, as SAM wants it."""
        with self.lock:
            if nexus in self._gone:
                self._attentions[nexus] = [NEXUS_LOST, *self._gone.pop(nexus)]
            elif nexus not in self._attentions:
                self._attentions[nexus] = [POWER_ON]

    def detach(self, nexus: Nexus) -> None:
        """An initiator has gone. Harmless for one that is not there."""
        with self.lock:
            if nexus not in self._attentions:
                return
            pending = self._attentions.pop(nexus)
            self._gone[nexus] = [each for each in pending if each != NEXUS_LOST]
            while len(self._gone) > _REMEMBERED:
                del self._gone[next(iter(self._gone))]
            self.preventing.discard(nexus)
            self.reservations.lose(nexus)

    def tell(self, nexus: Nexus, code: int) -> None:
        """Establish a unit attention for an initiator, here or gone."""
        for known in (self._attentions, self._gone):
            if nexus in known and code not in known[nexus]:
                known[nexus].append(code)

    def tell_others(self, nexus: Nexus | None, code: int) -> None:
        """Establish a unit attention for all initiators but one."""
        for other in [*self._attentions, *self._gone]:
            if other != nexus:
                self.tell(other, code)

    def reset(self, code: int = LUN_RESET) -> None:
        """Do as after a reset: reservations and prevention end, all are told; subclasses add what is lost."""
        with self.lock:
            self.reservations.reset()
            self.preventing.clear()
            self.tell_others(None, code)

    # -- commands ------------------------------------------------------------------------------------------------

    @abstractmethod
    def operations(self) -> Sequence[Operation]:
        """Return the commands that this kind of device adds."""

    def is_quick(self, cdb: bytes) -> bool:
        """Tell whether a command takes so little that nobody minds waiting for it."""
        return True

    def idle_sense(self) -> Sense:
        """Return what REQUEST SENSE tells when nothing else is to be told."""
        return Sense(Key.NO_SENSE)

    def execute(
        self, nexus: Nexus, cdb: bytes, data_out: memoryview | None = None, data_in: memoryview | None = None
    ) -> Answer:
        """Do one command of an attached initiator; `data_in` is filled from its start. Bad ones are answered."""
        empty = memoryview(b"")
        command = Command(nexus, cdb, data_out or empty, data_in or empty)
        with self.lock:
            try:
                done = self._run(command)
            except CheckCondition as error:
                return self.refusal(error.sense)
            except ReservationConflict:
                return Answer(Status.RESERVATION_CONFLICT)
            if done.sense is None:
                return Answer(Status.GOOD, b"", done.moved_bytes, done.wanted_bytes)
            sense = done.sense.encode(descriptors=self.descriptor_sense)
            return Answer(Status.CHECK_CONDITION, sense, done.moved_bytes, done.wanted_bytes)

    def refusal(self, sense: Sense) -> Answer:
        """Return the answer to a command that is refused."""
        return Answer(Status.CHECK_CONDITION, sense.encode(descriptors=self.descriptor_sense))

    def _run(self, command: Command) -> Done:
        if not command.cdb:
            raise refuse(INVALID_OPCODE, 0)
        if command.cdb[0] not in _HEEDLESS:
            self._check_attention(command.nexus)
        found = self.find(command.cdb)
        self.reservations.check(command.nexus, found.access)
        found.check(command.cdb)
        return found.run(command)

    def find(self, cdb: bytes) -> Operation:
        """Return the table entry of a command. Raises CheckCondition when there is none."""
        actions = self._operations.get(cdb[0])
        if actions is None:
            raise refuse(INVALID_OPCODE, 0)
        if None in actions:
            return actions[None]
        action = cdb[1] & 0x1F if len(cdb) > 1 else None
        if action not in actions:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        return actions[action]

    def _check_attention(self, nexus: Nexus) -> None:
        pending = self._attentions.get(nexus)
        if pending:
            raise CheckCondition(Sense(Key.UNIT_ATTENTION, pending.pop(0)))

    def _common(self) -> list[Operation]:
        reservations = self.reservations
        return [
            operation("REQUEST SENSE", "03 01 00 00 FF 00", self._request_sense, Access.ANYBODY),
            operation("INQUIRY", "12 01 FF FF FF 00", self._inquiry, Access.ANYBODY),
            operation("RESERVE(6)", "16 00 00 00 00 00", reservations.reserve, Access.ALWAYS),
            operation("RELEASE(6)", "17 00 00 00 00 00", reservations.release, Access.ANYBODY),
            # Some software knows only these, which do the same.
            operation("RESERVE(10)", "56 00 00 00 00 00 00 00 00 00", reservations.reserve, Access.ALWAYS),
            operation("RELEASE(10)", "57 00 00 00 00 00 00 00 00 00", reservations.release, Access.ANYBODY),
            operation("SEND DIAGNOSTIC", "1D 04 00 00 00 00", lambda command: Done()),
            operation("REPORT LUNS", "A0 00 FF 00 00 00 FF FF FF FF 00 00", self._report_luns, Access.ANYBODY),
            operation(
                "REPORT SUPPORTED OPERATION CODES",
                "A3 0C 87 FF FF FF FF FF FF FF 00 00",
                self._report_operations,
                Access.READER,
                action=True,
            ),
            *(
                operation(name, f"5E {number:02X} 00 00 00 00 00 FF FF 00", run, Access.ALWAYS, action=True)
                for number, (name, run) in enumerate(
                    (
                        ("READ KEYS", reservations.read_keys),
                        ("READ RESERVATION", reservations.read_reservation),
                        ("REPORT CAPABILITIES", reservations.report_capabilities),
                        ("READ FULL STATUS", reservations.read_full_status),
                    )
                )
            ),
            *(
                operation(
                    "PERSISTENT RESERVE OUT",
                    f"5F {number:02X} FF 00 00 FF FF FF FF 00",
                    reservations.out,
                    Access.ALWAYS,
                    action=True,
                )
                for number in range(7)
            ),
        ]

    # -- what all devices answer ---------------------------------------------------------------------------------

    def _request_sense(self, command: Command) -> Done:
        pending = self._attentions.get(command.nexus)
        sense = Sense(Key.UNIT_ATTENTION, pending.pop(0)) if pending else self.idle_sense()
        return command.give(sense.encode(descriptors=bool(command.cdb[1] & 1)), command.cdb[4])

    def _inquiry(self, command: Command) -> Done:
        page, allocated = command.cdb[2], command.number(3, 2)
        if command.cdb[1] & 1:
            data = vital_page(self.identity, page)
            if data is None:
                raise refuse(INVALID_FIELD_IN_CDB, 2)
            return command.give(data, allocated)
        if page:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        return command.give(standard_inquiry(self.identity), allocated)

    def _report_luns(self, command: Command) -> Done:
        allocated = command.number(6, 4)
        if command.cdb[2] > 2:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        if allocated < 16:
            raise refuse(INVALID_FIELD_IN_CDB, 6)
        luns = [] if command.cdb[2] == 1 else self.luns
        return command.give(report_of_luns(luns), allocated)

    def _report_operations(self, command: Command) -> Done:
        wants_timeouts = bool(command.cdb[2] & 0x80)
        options, opcode, action = command.cdb[2] & 7, command.cdb[3], command.number(4, 2)
        if options == 0:
            data = self._all_operations(wants_timeouts)
        elif options in (1, 2, 3):
            data = self._one_operation(options, opcode, action, wants_timeouts)
        else:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        return command.give(data, command.number(6, 4))

    def _all_operations(self, wants_timeouts: bool) -> bytes:
        parts = []
        for each in (each for actions in self._operations.values() for each in actions.values()):
            flags = 0x01 * (each.action is not None) | 0x02 * wants_timeouts
            parts.append(bytes([each.opcode, 0]) + (each.action or 0).to_bytes(2, "big") + bytes([0, flags]))
            parts.append(len(each.usage).to_bytes(2, "big") + (_timeouts(each) if wants_timeouts else b""))
        data = b"".join(parts)
        return len(data).to_bytes(4, "big") + data

    def _one_operation(self, options: int, opcode: int, action: int, wants_timeouts: bool) -> bytes:
        actions = self._operations.get(opcode, {})
        has_actions = bool(actions) and None not in actions
        if (options == 1 and has_actions) or (options == 2 and actions and not has_actions):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        found = actions.get(action if has_actions else None)
        if found is None:
            return bytes([0, 0x01, 0, 0])
        flags = 0x03 | 0x80 * wants_timeouts
        data = bytes([0, flags]) + len(found.usage).to_bytes(2, "big") + found.usage
        return data + (_timeouts(found) if wants_timeouts else b"")


def report_of_luns(luns: list[int]) -> bytes:
    """Return what REPORT LUNS gives."""
    entries = b"".join(encode_lun(lun) for lun in luns)
    return len(entries).to_bytes(4, "big") + bytes(4) + entries


def encode_lun(lun: int) -> bytes:
    """Return the eight bytes of a LUN: peripheral addressing below 256, flat above."""
    return bytes([0, lun]) + bytes(6) if lun < 256 else (0x4000 | lun).to_bytes(2, "big") + bytes(6)


def _timeouts(each: Operation) -> bytes:
    """Return a command timeouts descriptor: nominal and recommended seconds."""
    return bytes([0, 10, 0, 0]) + (1).to_bytes(4, "big") + each.timeout_s.to_bytes(4, "big")
