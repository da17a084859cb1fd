"""The tape library: what lies where, who works with which tape, and the robot's moves.

One trio run; the changer itself is used in one device thread. What lies where is told by codes: a cartridge's barcode,
or the label that is its barcode (`Volume.code`). A tape that a drive's task works with is *held* by that drive, so that
no other takes it; holding is synchronous, moving is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog
import trio

from catalog.errors import NotFound
from catalog.ids import VolumeId, new_uuid
from catalog.ledger import Ledger
from catalog.records import Volume, VolumeState
from drivers.errors import ChangerError
from drivers.human.changer import HumanChanger
from drivers.interface import Changer, Element, ElementKind
from drivers.lto import Use, use
from drivers.registry import drive_name
from sidecar.drives.devicethread import DeviceThread
from sidecar.tapes.human import give_eyes
from tapefs.errors import NoTape
from tapefs.home import Home
from tapefs.retention.pools import SCRATCH, Pools
from tapefs.tape.barcodes import generation_of, is_cleaning

log = structlog.get_logger(__name__)

#: Native capacity by LTO generation, decimal as the makers state it; used until the drive has told the real one.
NATIVE_BYTES = {
    1: 100 * 10**9,
    2: 200 * 10**9,
    3: 400 * 10**9,
    4: 800 * 10**9,
    5: 1500 * 10**9,
    6: 2500 * 10**9,
    7: 6000 * 10**9,
    8: 12000 * 10**9,
    9: 18000 * 10**9,
    10: 30000 * 10**9,
}


class Library:
    """The cartridges and the robot."""

    def __init__(self, home: Home, ledger: Ledger, changer: Changer, capacity_of: Callable[[str], int | None]) -> None:
        """Use `changer` from now on; `capacity_of` tells a cartridge's bytes by its barcode, None when it cannot."""
        self._home = home
        self._ledger = ledger
        self._changer = changer
        self._capacity_of = capacity_of
        #: The changer, if it is a human, and the eyes on the drives that it has then.
        self.human = changer if isinstance(changer, HumanChanger) else None
        self.eyes = give_eyes(changer, ledger)
        self._interrupt = None if self.human is None else self.human.interrupt
        self._thread = DeviceThread("changer")
        self._moving = trio.Lock()
        self._elements: list[Element] = []
        #: Labels of tapes in drives, by code, as they were at that event of the ledger.
        self._labels: dict[str, str] = {}
        self._labels_as_of = -1
        self._holders: dict[VolumeId, int] = {}
        #: Tapes that a drive waits for while they are in another one, and that drive.
        self._awaited: dict[VolumeId, int] = {}
        #: Drives whose tasks have nothing to do; their tapes are there for others.
        self.resting: set[int] = set()
        #: LTO generation of each drive, by its number, as its mover told it; drives that do not tell are not here.
        self.generations: dict[int, int] = {}
        #: Where a cartridge came from, to bring it back there.
        self._origins: dict[str, int] = {}

    # -- what is where -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Ask the robot what lies where, and enter tapes that the ledger does not know as blank. Raises DriveError."""
        async with self._moving:
            await self._take_inventory()
        await trio.to_thread.run_sync(self._enter_new_tapes, [e.barcode for e in self._elements if e.barcode])

    async def enter_new(self) -> None:
        """Enter tapes that were put on a human's shelf; does not wait for a move that is under way."""
        if self.human is not None:
            self._elements = self.human.inventory()
            await trio.to_thread.run_sync(self._enter_new_tapes, [e.barcode for e in self._elements if e.barcode])

    @property
    def drives(self) -> int:
        """Number of drives."""
        return sum(element.kind is ElementKind.DRIVE for element in self._elements)

    @property
    def elements(self) -> list[Element]:
        """All places, as the robot told them the last time."""
        return list(self._elements)

    def place_of(self, code: str) -> Element | None:
        """Return where the tape is, None when it is not in the library."""
        return next((element for element in self._elements if element.full and element.barcode == code), None)

    def in_drive(self, drive: int) -> str | None:
        """Return the code of the tape in the drive."""
        return self._element(ElementKind.DRIVE, drive).barcode

    def label_in(self, drive: int) -> str | None:
        """Return the label of the tape in the drive."""
        code = self.in_drive(drive)
        if code is None:
            return None
        # Asked for with every status call: where labels are not barcodes, the ledger reads all tapes, 5 ms for 2,000.
        if (newest := self._ledger.newest_event()) != self._labels_as_of:
            self._labels, self._labels_as_of = {}, newest
        if code not in self._labels:
            self._labels[code] = self._label_of(code)
        return self._labels[code]

    def _label_of(self, code: str) -> str:
        try:
            return self._ledger.volume_by_code(code).label
        except NotFound:
            return code  # A cleaning cartridge, for instance.

    def code_of(self, volume_id: VolumeId) -> str:
        """Return what the robot knows the tape by. Raises NoTape when it is another volume by now."""
        return self._volume(volume_id).code

    def holder_of(self, volume_id: VolumeId) -> int | None:
        """Return the drive that works with the tape, None when none does."""
        return self._holders.get(volume_id)

    def is_free_for(self, volume_id: VolumeId, drive: int) -> bool:
        """Is the tape in the library, and may this drive have it now?"""
        if self._holders.get(volume_id, drive) != drive:
            return False
        place = self._place(volume_id)
        return place is not None and (place.kind is not ElementKind.DRIVE or place.number == drive)

    def misfit(self, volume: Volume, drive: int | None, wanted: Use) -> str:
        """Say why a drive cannot use a tape so, or, without a drive, why none here can; nothing when it can.

        Nobody knows the generation of a blank tape whose barcode does not tell: the drive will say.
        """
        if volume.state is VolumeState.BLANK and generation_of(volume.code) is None:
            return ""
        known = self.generations if drive is None else {drive: self.generations.get(drive, 0)}
        is_type_m = volume.code.endswith("M8")
        enough = (Use.WRITING,) if wanted is Use.WRITING else (Use.WRITING, Use.READING)
        if not known or any(use(each, volume.generation, is_type_m=is_type_m) in enough for each in known.values()):
            return ""
        which = "no drive here" if drive is None else f"the drive, which is LTO-{known[drive]},"
        verb = "writes" if wanted is Use.WRITING else "reads"
        return f"{which} {verb} no {'type M (M8)' if is_type_m else f'LTO-{volume.generation}'} tapes"

    def is_for_drive(self, volume_id: VolumeId, drive: int) -> bool:
        """Can the drive read the tape? If none here can, each counts as able, so that somebody notices."""
        try:
            volume = self._ledger.volume(volume_id)
        except NotFound:
            return True
        return not self.misfit(volume, drive, Use.READING) or bool(self.misfit(volume, None, Use.READING))

    def is_held(self, volume_id: VolumeId) -> bool:
        """Does a drive's task work with the tape?"""
        return volume_id in self._holders

    def is_here(self, volume_id: VolumeId) -> bool:
        """Is the tape where a robot fetches tapes? One in a port is on its way in or out: nobody fetches it back."""
        place = self._place(volume_id)
        return place is not None and place.kind is not ElementKind.PORT

    def whence(self, code: str | None) -> str:
        """Say where a tape lies that somebody is to put in, if that is elsewhere; to be put behind what is said."""
        try:
            location = self._ledger.volume_by_code(code).location if code is not None else ""
        except NotFound:
            return ""
        return f"; it lies in {location}" if location else ""

    def missing(self, volume: Volume) -> str:
        """Say what to do when a tape that is needed is not in the library, or lies in one of its ports."""
        place = self.place_of(volume.code)
        if place is not None and place.kind is ElementKind.PORT:
            return f"tape {volume.label} lies in port {place.number}: `tapefs tape import` takes it in again"
        return f"tape {volume.label} is not in the library: put it in{self.whence(volume.code)}"

    def cleaning_cartridges(self) -> list[Element]:
        """Return the places of cleaning cartridges in slots and drives; one in a port is on its way in or out."""
        places = (each for each in self._elements if each.full and each.kind is not ElementKind.PORT)
        return [each for each in places if is_cleaning(each.barcode or "")]

    # -- whose it is -------------------------------------------------------------------------------------------------

    def hold(self, volume_id: VolumeId, drive: int) -> None:
        """Keep a tape for a drive, and no other; to be called right behind the choice or `is_free_for`."""
        self.let_go(drive)
        self._holders[volume_id] = drive

    def let_go(self, drive: int) -> None:
        """The drive's task does not work with its tape any more; it may still be in the drive."""
        self._holders = {volume_id: holder for volume_id, holder in self._holders.items() if holder != drive}

    def await_tape(self, volume_id: VolumeId, drive: int) -> None:
        """Note that the drive waits for a tape that another one may have: an idle one gives it up."""
        self._awaited[volume_id] = drive

    def stop_awaiting(self, drive: int) -> None:
        """The drive has its tape, or does not want it any more."""
        self._awaited = {volume_id: waiter for volume_id, waiter in self._awaited.items() if waiter != drive}

    def is_awaited_from(self, drive: int) -> bool:
        """Does another drive wait for the tape in this one?"""
        in_drive = self._element(ElementKind.DRIVE, drive)
        # One that was begun anew or forgotten since has no place.
        return any(waiter != drive and self._place(each) == in_drive for each, waiter in self._awaited.items())

    def leaving(self, drive: int) -> VolumeId | None:
        """Return the tape in the drive if the ledger says that it lies elsewhere: it is to be carried there."""
        code = self.in_drive(drive)
        if code is None:
            return None
        try:
            volume = self._ledger.volume_by_code(code)
        except NotFound:
            return None
        return volume.volume_id if volume.location else None

    def idle_tapes(self, drive: int) -> list[VolumeId]:
        """Return the tapes in other drives than this one that have nothing to do."""
        codes = [
            each.barcode
            for each in self._elements
            if each.kind is ElementKind.DRIVE and each.number != drive and each.number in self.resting
        ]
        by_code = {volume.code: volume.volume_id for volume in self._ledger.volumes()}
        return [by_code[code] for code in codes if code in by_code]

    # -- moves -------------------------------------------------------------------------------------------------------

    async def put_in(self, volume_id: VolumeId, drive: int) -> None:
        """Bring the tape into the drive, whose tape, if any, must be ejected. Raises NoTape, DriveError."""
        volume = self._volume(volume_id)
        code = volume.code
        if reason := self.misfit(volume, drive, Use.READING):
            raise NoTape(f"tape {volume.label} is not put into {drive_name(drive)}: {reason}")
        await self._bring(code, drive, f"tape {volume.label}", lambda: self.missing(volume))

    async def put_in_cleaning(self, code: str, drive: int) -> None:
        """Bring a cleaning cartridge into the drive, whose tape, if any, must be ejected. Raises NoTape, DriveError."""
        name = f"cleaning cartridge {code}"
        await self._bring(code, drive, name, lambda: f"{name} is in no slot of the library: put it in")

    async def _bring(self, code: str, drive: int, name: str, missing: Callable[[], str]) -> None:
        async with self._moving:
            await self._take_inventory()
            if self.in_drive(drive) == code:
                return
            await self._clear(drive)
            place = self.place_of(code)
            if place is None or place.kind is ElementKind.PORT:
                raise NoTape(missing())
            if place.kind is ElementKind.DRIVE:
                raise NoTape(f"{name} is in another drive: see `tapefs drives`")
            await self._thread.run(lambda: self._changer.load(place.number, drive), self._interrupt)
            self._origins[code] = place.number
            await self._take_inventory()
        log.info("tape moved into drive", tape=code, drive=drive, slot=place.number)

    async def put_away(self, drive: int) -> None:
        """Bring the drive's ejected tape, if any, back to a slot. Raises NoTape when none is free, DriveError."""
        async with self._moving:
            await self._take_inventory()
            await self._clear(drive)

    def free(self, kind: ElementKind) -> Element | None:
        """Return the first slot or port without a tape."""
        return next((each for each in self._elements if each.kind is kind and not each.full), None)

    async def transfer(self, code: str, kind: ElementKind) -> Element:
        """Bring a tape from its slot or port to the first free one of that kind. Raises NoTape, DriveError."""
        async with self._moving:
            await self._take_inventory()
            place, target = self.place_of(code), self.free(kind)
            if place is None or place.kind is ElementKind.DRIVE:
                raise NoTape(f"tape {code} is in no slot any more: see `tapefs inventory`")
            if target is None:
                raise NoTape(f"no {kind.value} is free: take a tape out of the library")
            await self._thread.run(lambda: self._changer.transfer(place.number, target.number))
            await self._take_inventory()
        log.info("tape moved", tape=code, source=place.number, target=target.number)
        return Element(target.kind, target.number, True, code)

    async def _clear(self, drive: int) -> None:
        """Bring the ejected tape of the drive back to where it came from, or to any free slot."""
        element = self._element(ElementKind.DRIVE, drive)
        if not element.full:
            return
        slots = [e.number for e in self._elements if e.kind is ElementKind.SLOT and not e.full]
        if not slots:
            raise NoTape(f"no slot is free for the tape in drive {drive}: take a tape out of the library")
        origin = self._origins.get(element.barcode or "", -1)
        slot = origin if origin in slots else slots[0]
        await self._thread.run(lambda: self._changer.unload(drive, slot))
        await self._take_inventory()

    async def close(self) -> None:
        """Let go of the changer."""
        with trio.CancelScope(shield=True):
            async with self._moving:
                await self._thread.run(self._changer.close)
                self._thread.close()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _volume(self, volume_id: VolumeId) -> Volume:
        try:
            return self._ledger.volume(volume_id)
        except NotFound:
            raise NoTape(f"tape {volume_id} has been begun anew or forgotten since: what it held is gone") from None

    def _place(self, volume_id: VolumeId) -> Element | None:
        """Return where the tape is; None for one that has been begun anew or forgotten since."""
        try:
            return self.place_of(self._ledger.volume(volume_id).code)
        except NotFound:
            return None

    async def _take_inventory(self) -> None:
        self._elements = await self._thread.run(self._changer.inventory)

    def _element(self, kind: ElementKind, number: int) -> Element:
        for element in self._elements:
            if element.kind is kind and element.number == number:
                return element
        raise ChangerError(f"the library has no {kind.value} {number}: compare `drives` in tapefs.toml with it")

    def _enter_new_tapes(self, codes: list[str]) -> None:
        for code in codes:
            if is_cleaning(code):
                continue
            try:
                self._ledger.volume_by_code(code)
            except NotFound:
                volume = self._blank(code, self._free_label(code))
                self._ledger.add_volume(volume)
                log.info("new tape", tape=volume.label, barcode=code)

    def _free_label(self, code: str) -> str:
        """Return the code, or, when another tape was given that for a name, the code with a number."""
        label, number = code, 1
        while True:
            try:
                self._ledger.volume_by_label(label)
            except NotFound:
                return label
            number += 1
            label = f"{code}-{number}"

    def _blank(self, code: str, label: str) -> Volume:
        settings = self._home.settings
        generation = generation_of(code) or settings.library.generation
        return Volume(
            volume_id=VolumeId(new_uuid()),
            label=label,
            barcode="" if label == code else code,
            pool=SCRATCH if SCRATCH in Pools.of(self._home, self._ledger) else settings.backup.pool,
            installation_id=self._ledger.installation().installation_id,
            generation=generation,
            capacity_bytes=self._capacity_of(code) or NATIVE_BYTES.get(generation, 0),
            block_size=settings.backup.block_size,
            state=VolumeState.BLANK,
            created_at_ns=time.time_ns(),
        )
