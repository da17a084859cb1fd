"""Who may use a logical unit: RESERVE(6), and persistent reservations. Belongs to its unit, under its lock.

Nothing survives the process: the unit says so (PTPL_C is 0), and refuses APTPL.
"""

from __future__ import annotations

from collections.abc import Callable

from drivers.vtl.commands import Access, Command, Done, Nexus
from drivers.vtl.sense import (
    INSUFFICIENT_REGISTRATION_RESOURCES,
    INVALID_FIELD_IN_CDB,
    INVALID_RELEASE,
    PARAMETER_LIST_LENGTH,
    REGISTRATIONS_PREEMPTED,
    RESERVATIONS_PREEMPTED,
    RESERVATIONS_RELEASED,
    refuse,
    refuse_parameter,
)

_WRITE_EXCLUSIVE, _EXCLUSIVE = 1, 3
_WRITE_REGISTRANTS, _EXCLUSIVE_REGISTRANTS = 5, 6
_WRITE_ALL, _EXCLUSIVE_ALL = 7, 8
_FOR_WRITING = (_WRITE_EXCLUSIVE, _WRITE_REGISTRANTS, _WRITE_ALL)
_FOR_REGISTRANTS = (_WRITE_REGISTRANTS, _EXCLUSIVE_REGISTRANTS, _WRITE_ALL, _EXCLUSIVE_ALL)
_FOR_ALL = (_WRITE_ALL, _EXCLUSIVE_ALL)
#: Types 1, 3, 5, 6, 7, 8 as a bit mask, the first byte for 0 to 7.
_TYPE_MASK = bytes([0b11101010, 0b00000001])
_PARAMETERS_BYTES = 24
MAX_REGISTRATIONS = 256


class ReservationConflict(Exception):
    """The command meets somebody else's reservation. Never leaves the device server."""


class Reservations:
    """Both kinds of reservations of one logical unit."""

    def __init__(self, tell: Callable[[Nexus, int], None]) -> None:
        """`tell` establishes a unit attention for an initiator."""
        self._tell = tell
        #: Holder of a RESERVE(6).
        self._simple: Nexus | None = None
        self._keys: dict[Nexus, int] = {}
        self._generation = 0
        #: Holder of the persistent reservation, and its type; 0: there is none.
        self._holder: Nexus | None = None
        self._type = 0

    # -- what it means for commands ------------------------------------------------------------------------------

    def check(self, nexus: Nexus, access: Access) -> None:
        """Raise ReservationConflict when this initiator must not send such a command."""
        if access is Access.ANYBODY:
            return
        if self._simple is not None and self._simple != nexus:
            raise ReservationConflict
        if not self._type or access is Access.ALWAYS or self._is_holder(nexus):
            return
        if self._type in _FOR_REGISTRANTS and nexus in self._keys:
            return
        if not (access is Access.READER and self._type in _FOR_WRITING):
            raise ReservationConflict

    def _is_holder(self, nexus: Nexus) -> bool:
        return nexus in self._keys if self._type in _FOR_ALL else nexus == self._holder

    def lose(self, nexus: Nexus) -> None:
        """The initiator has gone: its RESERVE(6) ends, what is persistent stays."""
        if self._simple == nexus:
            self._simple = None

    def reset(self) -> None:
        """The unit was reset: as `lose`, for all."""
        self._simple = None

    # -- RESERVE(6), RELEASE(6) ----------------------------------------------------------------------------------

    def reserve(self, command: Command) -> Done:
        """RESERVE(6)."""
        if self._keys:
            raise ReservationConflict
        self._simple = command.nexus
        return Done()

    def release(self, command: Command) -> Done:
        """RELEASE(6); harmless for who holds nothing."""
        if self._keys:
            raise ReservationConflict
        self.lose(command.nexus)
        return Done()

    # -- PERSISTENT RESERVE IN -----------------------------------------------------------------------------------

    def read_keys(self, command: Command) -> Done:
        """READ KEYS."""
        keys = b"".join(key.to_bytes(8, "big") for key in self._keys.values())
        return command.give(self._header(keys), command.number(7, 2))

    def read_reservation(self, command: Command) -> Done:
        """READ RESERVATION."""
        held = b""
        if self._type:
            key = 0 if self._holder is None or self._type in _FOR_ALL else self._keys[self._holder]
            held = key.to_bytes(8, "big") + bytes([0, 0, 0, 0, 0, self._type, 0, 0])
        return command.give(self._header(held), command.number(7, 2))

    def report_capabilities(self, command: Command) -> Done:
        """REPORT CAPABILITIES."""
        # TMV: the mask of types is valid.
        return command.give(bytes([0, 8, 0x00, 0x80]) + _TYPE_MASK + bytes(2), command.number(7, 2))

    def read_full_status(self, command: Command) -> Done:
        """READ FULL STATUS."""
        parts = []
        for nexus, key in self._keys.items():
            name = nexus.encode() + b"\0"
            name += bytes(-len(name) % 4)
            # Protocol 5, iSCSI; format 1, a name with a session id.
            identity = bytes([0x45, 0]) + len(name).to_bytes(2, "big") + name
            holds = self._type if self._type and self._is_holder(nexus) else 0
            head = key.to_bytes(8, "big") + bytes([0, 0, 0, 0, bool(holds), holds, 0, 0, 0, 0, 0, 1])
            parts.append(head + len(identity).to_bytes(4, "big") + identity)
        return command.give(self._header(b"".join(parts)), command.number(7, 2))

    def _header(self, data: bytes) -> bytes:
        return self._generation.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data

    # -- PERSISTENT RESERVE OUT ----------------------------------------------------------------------------------

    def out(self, command: Command) -> Done:
        """PERSISTENT RESERVE OUT, all service actions. Raises CheckCondition, ReservationConflict."""
        if command.number(5, 4) != _PARAMETERS_BYTES:
            raise refuse(PARAMETER_LIST_LENGTH)
        parameters = command.parameters(_PARAMETERS_BYTES)
        key, new_key = int.from_bytes(parameters[:8], "big"), int.from_bytes(parameters[8:16], "big")
        if parameters[20] & ~0x04:
            raise refuse_parameter(20)
        action = command.cdb[1] & 0x1F
        if action in (0, 6):
            self._register(command.nexus, None if action == 6 else key, new_key)
            return Done(_PARAMETERS_BYTES, _PARAMETERS_BYTES)
        if self._keys.get(command.nexus) != key:
            raise ReservationConflict
        if action == 1:
            self._take(command.nexus, self._kind(command))
        elif action == 2:
            self._give_back(command.nexus, self._kind(command))
        elif action == 3:
            self._clear(command.nexus)
        else:
            self._preempt(command.nexus, new_key, command)
        return Done(_PARAMETERS_BYTES, _PARAMETERS_BYTES)

    def _kind(self, command: Command) -> int:
        scope, kind = command.cdb[2] >> 4, command.cdb[2] & 0xF
        if scope or kind not in (1, 3, 5, 6, 7, 8):
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        return kind

    def _register(self, nexus: Nexus, key: int | None, new_key: int) -> None:
        if key is not None and self._keys.get(nexus, 0) != key:
            raise ReservationConflict
        if new_key:
            if nexus not in self._keys and len(self._keys) >= MAX_REGISTRATIONS:
                raise refuse(INSUFFICIENT_REGISTRATION_RESOURCES)
            self._keys[nexus] = new_key
        elif nexus in self._keys:
            was_holder = bool(self._type) and self._is_holder(nexus)
            del self._keys[nexus]
            if was_holder and (self._type not in _FOR_ALL or not self._keys):
                self._end(nexus)
        self._generation = (self._generation + 1) % 2**32

    def _take(self, nexus: Nexus, kind: int) -> None:
        if not self._type:
            self._holder, self._type = nexus, kind
        elif not (self._is_holder(nexus) and self._type == kind):
            raise ReservationConflict

    def _give_back(self, nexus: Nexus, kind: int) -> None:
        if not self._type or not self._is_holder(nexus):
            return
        if self._type != kind:
            raise refuse(INVALID_RELEASE)
        self._end(nexus)

    def _end(self, nexus: Nexus) -> None:
        """The reservation ends by its holder's will; registrants of such a one are told."""
        if self._type in _FOR_REGISTRANTS:
            for other in self._keys:
                if other != nexus:
                    self._tell(other, RESERVATIONS_RELEASED)
        self._holder, self._type = None, 0

    def _clear(self, nexus: Nexus) -> None:
        for other in self._keys:
            if other != nexus:
                self._tell(other, RESERVATIONS_PREEMPTED)
        self._keys.clear()
        self._holder, self._type = None, 0
        self._generation = (self._generation + 1) % 2**32

    def _preempt(self, nexus: Nexus, victim_key: int, command: Command) -> None:
        kind = self._kind(command)
        victims = [each for each, key in self._keys.items() if key == victim_key and each != nexus]
        if not victim_key:
            if self._type not in _FOR_ALL:
                raise refuse_parameter(8)
            victims = [each for each in self._keys if each != nexus]
        holds = bool(self._type) and (
            not victim_key or (self._holder is not None and self._keys.get(self._holder) == victim_key)
        )
        if not victims and not holds:
            raise ReservationConflict
        for each in victims:
            del self._keys[each]
            self._tell(each, REGISTRATIONS_PREEMPTED)
        if holds:
            self._holder, self._type = nexus, kind
        self._generation = (self._generation + 1) % 2**32
