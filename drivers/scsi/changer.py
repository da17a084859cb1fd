"""A media changer over any transport: the promises of `drivers.interface.Changer` in SCSI. Blocking; one thread.

One kind of elements is asked at a time, and barcodes and drives' names apart: libraries get each of these right, and
some of them nothing that is combined.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from drivers.errors import ChangerError, DeviceFailed, DriveError, NoSuchElement, NotReady, NotSupported
from drivers.interface import Element, ElementKind
from drivers.scsi import robot_cdb as commands
from drivers.scsi.device import Clock, Device
from drivers.scsi.elements import ElementStatus, parse_element_status
from drivers.scsi.inquiry import CHANGER
from drivers.scsi.mode_access import ModePages
from drivers.scsi.modes import ELEMENT_ADDRESSES, AddressRange, parse_element_addresses
from drivers.scsi.outcomes import Doing
from drivers.scsi.ready import Report, wait_ready
from drivers.scsi.robot_cdb import ElementType
from drivers.scsi.timeouts import Timeouts
from drivers.scsi.transport import Transport

_log = logging.getLogger(__name__)
#: Some libraries take only the lower 16 bits of what they may send.
_ROOM_BYTES = 0xFFFF
#: So many elements with barcodes fit in there.
_MOST_AT_ONCE = 500
#: A library looks at all its slots when it starts.
_START_S = 1800.0
_EVERYWHERE = AddressRange(0, 0xFFFF)


class ScsiChanger:
    """One library; implements `drivers.interface.Changer`.

    Slots are numbered from 0 in the order of their addresses, import/export elements behind them. Drives have the
    numbers of their serials in `drive_serials`; without any, those of their addresses.
    """

    def __init__(
        self,
        transport: Transport,
        drive_serials: Sequence[str] = (),
        *,
        report: Report = _log.info,
        clock: Clock | None = None,
    ) -> None:
        """Take the library behind `transport`, which is closed with it, and when this fails.

        Raises DeviceFailed, also when the library has no drive with one of the serials, and NotReady.
        """
        self._transport = transport
        self._serials = tuple(drive_serials)
        self._report = report
        self._is_closed = False
        try:
            self._device = Device(transport, clock=clock)
            if self._device.identity.device_type != CHANGER:
                raise DeviceFailed(f"{self._device.name} is no changer")
            self._device.timeouts = Timeouts(supported=self._device.supported_commands())
            wait_ready(self._device, limit_s=_START_S, report=report)
            self._ranges = self._read_ranges()
            self._drives = self._find_drives()
        except BaseException:
            transport.close()
            raise

    @property
    def name(self) -> str:
        """Return vendor, model and serial number."""
        return self._device.name

    # -- what is where -------------------------------------------------------------------------------------------

    def inventory(self) -> list[Element]:
        """Return all drives, then all slots, then all ports."""
        self._check_open()
        by_address = {each.address: each for each in self._read(ElementType.DATA_TRANSFER)}
        missing = [address for address in self._drives if address not in by_address]
        if missing:
            raise DeviceFailed(f"{self._device.name} tells nothing of its drive at {missing[0]:#x} any more")
        drives = [by_address[address] for address in self._drives]
        return [
            *(_element(ElementKind.DRIVE, number, each) for number, each in enumerate(drives)),
            *self._slots_and_ports(),
        ]

    def _slots_and_ports(self) -> list[Element]:
        slots, ports = self._read(ElementType.STORAGE), self._read(ElementType.IMPORT_EXPORT)
        return [
            *(_element(ElementKind.SLOT, number, each) for number, each in enumerate(slots)),
            *(_element(ElementKind.PORT, number, each) for number, each in enumerate(ports, len(slots))),
        ]

    def _slot_addresses(self) -> list[int]:
        kinds = (ElementType.STORAGE, ElementType.IMPORT_EXPORT)
        return [each.address for kind in kinds for each in self._read(kind)]

    def _read_ranges(self) -> dict[ElementType, AddressRange]:
        """Ask which addresses each kind has; everywhere, when the library does not tell."""
        try:
            page = parse_element_addresses(ModePages(self._device).read(ELEMENT_ADDRESSES).page)
        except NotSupported:
            return dict.fromkeys(ElementType, _EVERYWHERE)
        return {
            ElementType.TRANSPORT: page.robots,
            ElementType.STORAGE: page.slots,
            ElementType.IMPORT_EXPORT: page.import_export,
            ElementType.DATA_TRANSFER: page.drives,
        }

    def _read(self, kind: ElementType, *, device_ids: bool = False) -> list[ElementStatus]:
        """Ask for all elements of a kind, a few hundred at a time."""
        found: list[ElementStatus] = []
        first, end = self._ranges[kind].first, self._ranges[kind].first + self._ranges[kind].count
        while first < end:
            count = min(end - first, _MOST_AT_ONCE)
            cdb = commands.read_element_status(
                kind, _ROOM_BYTES, first=first, count=count, barcodes=not device_ids, device_ids=device_ids
            )
            # Of other kinds than asked for, and twice the same, is what some libraries send at their ends.
            answer = parse_element_status(self._device.read(cdb, _ROOM_BYTES, Doing.ROBOT))
            new = [each for each in answer if each.kind is kind and first <= each.address < end]
            if not new:
                break
            found += new
            first = new[-1].address + 1
        return found

    # -- which drive is which ------------------------------------------------------------------------------------

    def drive_names(self) -> dict[int, str]:
        """Return what the library calls its drives, by address: usually the serial number at the end of a name."""
        self._check_open()
        return self._drive_names()

    def _drive_names(self) -> dict[int, str]:
        try:
            drives = self._read(ElementType.DATA_TRANSFER, device_ids=True)
        except NotSupported:
            drives = self._read(ElementType.DATA_TRANSFER)
        return {each.address: each.device.text if each.device else "" for each in drives}

    def _find_drives(self) -> list[int]:
        """Return the addresses of the drives in the order of their numbers."""
        names = self._drive_names()
        if not self._serials:
            return list(names)
        if not any(names.values()) and len(names) == len(self._serials):
            self._report(
                f"{self._device.name} does not tell which drive is which: taken in the order of their addresses"
            )
            return list(names)
        return [self._address_of(serial, names) for serial in self._serials]

    def _address_of(self, serial: str, names: dict[int, str]) -> int:
        fitting = [address for address, name in names.items() if name.split()[-1:] == [serial]]
        fitting = fitting or [address for address, name in names.items() if name.endswith(serial)]
        if len(fitting) != 1:
            known = ", ".join(names.values()) or "none"
            raise DeviceFailed(f"{self._device.name} has no drive with the serial number {serial}, but: {known}")
        return fitting[0]

    # -- moves ---------------------------------------------------------------------------------------------------

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot or port into a drive. See `Changer.load`."""
        self._check_open()
        self._move(self._slot(slot), self._drive(drive))

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot or port. See `Changer.unload`."""
        self._check_open()
        source, target = self._drive(drive), self._slot(slot)
        try:
            self._move(source, target)
        except (ChangerError, NotReady):
            raise
        except DriveError as error:
            # Libraries have many words for it, but most tell in the drive's element that they cannot reach in.
            if any(each.address == source and not each.accessible for each in self._read(ElementType.DATA_TRANSFER)):
                raise NotReady(f"the cartridge is threaded in drive {drive}: unload the drive first") from error
            raise

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge between slots and ports. See `Changer.transfer`."""
        self._check_open()
        self._move(self._slot(source), self._slot(target))

    def _move(self, source: int, target: int) -> None:
        self._device.run(commands.move_medium(source, target), Doing.ROBOT)

    def _slot(self, number: int) -> int:
        addresses = self._slot_addresses()
        if not 0 <= number < len(addresses):
            raise NoSuchElement(f"{self._device.name} has no slot {number}, only {len(addresses)}, from 0")
        return addresses[number]

    def _drive(self, number: int) -> int:
        if not 0 <= number < len(self._drives):
            raise NoSuchElement(f"{self._device.name} has no drive {number}, only {len(self._drives)}, from 0")
        return self._drives[number]

    # -- closing -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the library. See `Changer.close`."""
        self._is_closed = True
        self._transport.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise DeviceFailed(f"{self._device.name} is closed")


def _element(kind: ElementKind, number: int, status: ElementStatus) -> Element:
    return Element(kind, number, status.full, status.barcode)
