"""The robot as a SCSI device: SMC over the changer of the virtual library. Any thread; one command at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drivers.errors import DriveError, NoSuchElement, NotReady, SlotEmpty, SlotFull
from drivers.interface import ElementKind
from drivers.virtual.changer import Place, VirtualChanger
from drivers.vtl.commands import Access, Command, Done, Operation, operation
from drivers.vtl.elements import (
    FIRST_DRIVE,
    FIRST_SLOT,
    PICKER,
    ElementState,
    ElementType,
    address_of,
    element_status,
    place_of,
    type_of,
)
from drivers.vtl.inquiry import CHANGER, Identity
from drivers.vtl.logs import Logs, flags_parameter, parameter
from drivers.vtl.modes import ModeHeader, ModePage, Modes, fixed_page
from drivers.vtl.sense import (
    DESTINATION_FULL,
    INTERNAL_FAILURE,
    INVALID_ELEMENT,
    INVALID_FIELD_IN_CDB,
    MODE_CHANGED,
    REMOVAL_PREVENTED,
    REMOVAL_PREVENTED_BY_DRIVE,
    SOURCE_EMPTY,
    CheckCondition,
    Key,
    Sense,
    refuse,
)
from drivers.vtl.tape import REVISION, TapeServer
from drivers.vtl.unit import LogicalUnit

_MOVE_S, _INVENTORY_S = 300, 1800
#: The first class that fits counts.
_ERRORS: tuple[tuple[type[DriveError], int], ...] = (
    (SlotEmpty, SOURCE_EMPTY),
    (SlotFull, DESTINATION_FULL),
    (NoSuchElement, INVALID_ELEMENT),
    (NotReady, REMOVAL_PREVENTED_BY_DRIVE),
)


def _failure(error: DriveError) -> CheckCondition:
    code = next((code for kind, code in _ERRORS if isinstance(error, kind)), None)
    return CheckCondition(Sense(Key.HARDWARE_ERROR, INTERNAL_FAILURE)) if code is None else refuse(code)


class ChangerServer(LogicalUnit):
    """The device server of the robot, in front of the servers of its drives.

    A cartridge that comes into a drive is threaded at once. One that an initiator has used there must be unloaded
    before the robot takes it.
    """

    def __init__(self, changer: VirtualChanger, tapes: Sequence[TapeServer], serial: str) -> None:
        """`tapes`: the drives in order of their numbers; `serial`: of the library."""
        self._changer = changer
        self._tapes = list(tapes)
        #: Where the cartridge with a barcode was taken from last.
        self._sources: dict[str, int] = {}
        kinds = [each.kind for each in changer.inventory()]
        counts = (len(self._tapes), kinds.count(ElementKind.SLOT), kinds.count(ElementKind.PORT))
        self._modes = Modes(_pages(*counts), ModeHeader, lambda specific, descriptor: False)
        self._logs = Logs(
            {
                0x12: lambda: [flags_parameter(0, bytes(8))],
                0x2E: lambda: [parameter(number, 0, 1) for number in range(1, 65)],
            }
        )
        super().__init__(Identity(CHANGER, "TAPEFS", "VIRTUAL-LIBRARY", REVISION, serial))

    def close(self) -> None:
        """Let go of the robot, not of the drives."""
        with self.lock:
            self._changer.close()

    def operations(self) -> Sequence[Operation]:
        """Return the commands of SMC."""
        modes = self._modes
        return [
            operation("TEST UNIT READY", "00 00 00 00 00 00", lambda command: Done(), Access.ALWAYS),
            operation("INITIALIZE ELEMENT STATUS", "07 00 00 00 00 00", self._initialize, timeout_s=_INVENTORY_S),
            operation("MODE SELECT(6)", "15 11 00 00 FF 00", lambda c: self._select(c, modes.select_6)),
            operation("MODE SENSE(6)", "1A 08 FF FF FF 00", modes.sense_6, Access.READER),
            operation("OPEN/CLOSE IMPORT/EXPORT ELEMENT", "1B 00 FF FF 01 00", self._open_port),
            operation("PREVENT ALLOW MEDIUM REMOVAL", "1E 00 00 00 01 00", self._prevent),
            operation("POSITION TO ELEMENT", "2B 00 FF FF FF FF 00 00 01 00", self._position, timeout_s=_MOVE_S),
            operation(
                "INITIALIZE ELEMENT STATUS WITH RANGE",
                "37 03 FF FF 00 00 FF FF 00 00",
                self._initialize_range,
                timeout_s=_INVENTORY_S,
            ),
            operation("LOG SELECT", "4C 03 FF FF 00 00 00 FF FF 00", self._logs.select, Access.READER),
            operation("LOG SENSE", "4D 01 FF FF 00 FF FF FF FF 00", self._logs.sense, Access.ALWAYS),
            operation("MODE SELECT(10)", "55 11 00 00 00 00 00 FF FF 00", lambda c: self._select(c, modes.select_10)),
            operation("MODE SENSE(10)", "5A 18 FF FF 00 00 00 FF FF 00", modes.sense_10, Access.READER),
            operation("MOVE MEDIUM", "A5 00 FF FF FF FF FF FF 00 00 01 00", self._move, timeout_s=_MOVE_S),
            operation("EXCHANGE MEDIUM", "A6 00 FF FF FF FF FF FF FF FF 03 00", self._exchange, timeout_s=_MOVE_S),
            operation("READ ELEMENT STATUS", "B8 1F FF FF FF FF 03 FF FF FF 00 00", self._status, Access.READER),
            # The same as 37h under the number that libraries had for it before the standard.
            operation(
                "INITIALIZE ELEMENT STATUS WITH RANGE",
                "E7 03 FF FF 00 00 FF FF 00 00",
                self._initialize_range,
                timeout_s=_INVENTORY_S,
            ),
        ]

    def is_quick(self, cdb: bytes) -> bool:
        """Tell whether a command moves nothing."""
        return cdb[0] not in (0xA5, 0xA6)

    def _run(self, command: Command) -> Done:
        try:
            return super()._run(command)
        except DriveError as error:
            raise _failure(error) from error

    # -- what is where -------------------------------------------------------------------------------------------

    def _elements(self) -> list[ElementState]:
        """Return all elements in order of address."""
        states = [ElementState(ElementType.TRANSPORT, PICKER)]
        for each in self._changer.inventory():
            tape = self._tapes[each.number] if each.kind is ElementKind.DRIVE else None
            states.append(
                ElementState(
                    type_of(each.kind),
                    address_of((each.kind, each.number)),
                    each.barcode,
                    accessible=tape is None or not tape.is_threaded(),
                    source=self._sources.get(each.barcode or ""),
                    name=tape.identity.name() if tape is not None else b"",
                )
            )
        return sorted(states, key=lambda state: state.address)

    def _status(self, command: Command) -> Done:
        kind, first, count = command.cdb[1] & 0x0F, command.number(2, 2), command.number(4, 2)
        if kind > ElementType.DRIVE:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        known = self._elements()
        if first > max(each.address for each in known):
            raise refuse(INVALID_ELEMENT, 2)
        chosen = [each for each in known if kind in (ElementType.ALL, each.type) and each.address >= first]
        tags, names = bool(command.cdb[1] & 0x10), bool(command.cdb[6] & 0x01)
        return command.give(element_status(chosen[:count], tags=tags, names=names), command.number(7, 3))

    def _initialize(self, command: Command) -> Done:
        self._elements()
        return Done()

    def _initialize_range(self, command: Command) -> Done:
        first = command.number(2, 2)
        if command.cdb[1] & 1 and not any(each.address == first for each in self._elements()):
            raise refuse(INVALID_ELEMENT, 2)
        return Done()

    # -- moving --------------------------------------------------------------------------------------------------

    def _place(self, command: Command, field: int) -> Place:
        return place_of(command.number(field, 2), self._changer.inventory(), field)

    def _check_picker(self, command: Command, mask: int) -> None:
        if command.number(2, 2) not in (0, PICKER):
            raise refuse(INVALID_ELEMENT, 2)
        # LTO cartridges have one side.
        if command.cdb[10] & mask:
            raise refuse(INVALID_FIELD_IN_CDB, 10)

    def _move(self, command: Command) -> Done:
        self._check_picker(command, 0x01)
        source, target = self._place(command, 4), self._place(command, 6)
        barcode, there = self._barcode(source), self._barcode(target)
        if barcode is not None and there is None:
            self._let_go(source)
        self._changer.move(source, target)
        self._arrived(barcode, source, target)
        return Done()

    def _exchange(self, command: Command) -> Done:
        self._check_picker(command, 0x03)
        source, first, second = (self._place(command, field) for field in (4, 6, 8))
        barcode, other, there = (self._barcode(each) for each in (source, first, second))
        if barcode is not None and other is not None and source != first and (there is None or second == source):
            self._let_go(source)
            self._let_go(first)
        self._changer.exchange(source, first, second)
        self._arrived(barcode, source, first)
        self._arrived(other, first, second)
        return Done()

    def _barcode(self, place: Place) -> str | None:
        return next(each.barcode for each in self._changer.inventory() if (each.kind, each.number) == place)

    def _let_go(self, place: Place) -> None:
        if place[0] is ElementKind.DRIVE:
            self._tapes[place[1]].let_go()

    def _arrived(self, barcode: str | None, source: Place, target: Place) -> None:
        if barcode is not None:
            self._sources[barcode] = address_of(source)
        if target[0] is ElementKind.DRIVE:
            self._tapes[target[1]].inserted()

    def _position(self, command: Command) -> Done:
        if command.number(2, 2) not in (0, PICKER):
            raise refuse(INVALID_ELEMENT, 2)
        if command.cdb[8] & 0x01:
            raise refuse(INVALID_FIELD_IN_CDB, 8)
        self._place(command, 4)
        return Done()

    def _open_port(self, command: Command) -> Done:
        """OPEN/CLOSE IMPORT/EXPORT ELEMENT: `tapefs library` is the hand behind the door, and opens it by itself."""
        address = command.number(2, 2)
        found = next((each for each in self._elements() if each.address == address), None)
        if found is None or found.type is not ElementType.IMPORT_EXPORT:
            raise refuse(INVALID_ELEMENT, 2)
        if self.preventing and not command.cdb[4] & 0x01:
            raise refuse(REMOVAL_PREVENTED)
        return Done()

    # -- the rest ------------------------------------------------------------------------------------------------

    def _prevent(self, command: Command) -> Done:
        """Ports stay closed while somebody prevents removal; there is no other door."""
        if command.cdb[4] & 1:
            self.preventing.add(command.nexus)
        else:
            self.preventing.discard(command.nexus)
        return Done()

    def _select(self, command: Command, select: Callable[[Command], bool]) -> Done:
        if select(command):
            self.tell_others(command.nexus, MODE_CHANGED)
        length = len(command.data_out)
        return Done(length, length)


def _pages(drives: int, slots: int, ports: int) -> list[ModePage]:
    numbers = (PICKER, 1, FIRST_SLOT, slots, FIRST_SLOT + slots if ports else 0, ports, FIRST_DRIVE, drives)
    addresses = "".join(f"{each:04x}" for each in numbers) + "0000"
    return [
        fixed_page(0x1D, addresses),
        # One picker that cannot turn.
        fixed_page(0x1E, "00 00"),
        fixed_page(0x1F, _WITH_PORTS if ports else _WITHOUT_PORTS),
    ]


#: What can keep cartridges (picker, slots, ports, drives), and from where to where they are moved and exchanged: from
#: none to the picker, else anywhere.
_WITHOUT_PORTS = "0A 00 00 0A 00 0A 00 00 00 00 00 0A 00 0A 00 00 00 00"
_WITH_PORTS = "0E 00 00 0E 0E 0E 00 00 00 00 00 0E 0E 0E 00 00 00 00"
