"""A drive by IBM's itdt, for hosts where only it may touch the drive. Blocking; one thread.

Every block is a file and a process of its own, and after each the drive is asked where it stands: a block counts only
if the head has moved by exactly one. That is slow (tens of blocks a second), but right whatever itdt makes of a file.
Never run against the real program: see docs/drives.md.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from drivers.errors import (
    BadAnswer,
    DeviceFailed,
    DriveInUse,
    EndOfData,
    NotReady,
    NotSupported,
    WriteFailed,
)
from drivers.health import DriveHealth, MediumHealth
from drivers.interface import BlockNo, Busy, Counters, DriveStatus, FileNo, Lengthy, Listener, Position
from drivers.itdt.answers import find_flag
from drivers.itdt.marks import Marks
from drivers.itdt.tool import Itdt
from drivers.scsi.generations import generation_of_density, generation_of_model, native_bytes

MIB = 1024 * 1024
#: Attributes of the cartridge's memory.
_REMAINING, _CAPACITY, _DENSITY, _BARCODE = 0x0000, 0x0001, 0x0405, 0x0806
_LOADS, _LIFETIME_WRITTEN, _LIFETIME_READ = 0x0003, 0x0220, 0x0221
_MANUFACTURER, _SERIAL, _MANUFACTURED = 0x0400, 0x0401, 0x0406


class ItdtDrive:
    """One drive; implements `drivers.interface.Drive`, but for what itdt does not tell.

    Writing needs `qrypos` to tell of early warning; counters begin anew with each process.
    """

    def __init__(self, itdt: Itdt, lock: Path) -> None:
        """Take the drive; `lock` is a file that keeps other processes of ours away. Raises DriveInUse, DeviceFailed."""
        self._itdt = itdt
        self._counters = Counters()
        self._loaded = False
        self._listener: Listener = lambda busy: None
        self._marks = Marks()
        self._lock: int | None = _take(lock)
        self._folder = tempfile.TemporaryDirectory(prefix="tapefs-itdt-")
        self._identity: tuple[str, int] | None = None

    def watch(self, listener: Listener) -> None:
        """Tell that a first load goes on. See `TellsProgress.watch`."""
        self._listener = listener

    # -- the cartridge -----------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """Thread the cartridge; the head stands at block 0. See `Drive.load`."""
        self._check_open()
        if not self._loaded:
            self._itdt.load()
            try:
                # It has answered that it is becoming ready: it is asked again only a minute later.
                self._itdt.wait_ready(lambda: self._listener(Busy(Lengthy.MEASURING)))
            finally:
                self._listener(None)
            self._loaded, self._marks = True, Marks()
            self._count(loads=1)
        self._itdt.move_head("rewind")
        if compress is not None:
            self._itdt.set_parameter("compression", "1" if compress else "0")

    def unload(self) -> None:
        """Unthread and eject. See `Drive.unload`."""
        self._check_open()
        if self._loaded or self._itdt.is_ready():
            self._itdt.unload()
        self._loaded = False

    def status(self) -> DriveStatus:
        """Return a snapshot; works without a tape."""
        self._check_open()
        identity, generation = self._identify()
        parameters = self._itdt.parameters()
        density = self._attribute(_DENSITY)
        capacity = self._attribute(_CAPACITY) if self._loaded else 0
        remaining = self._attribute(_REMAINING) if self._loaded else 0
        in_warning = self._loaded and bool(self._itdt.position()[1])
        capacity_bytes = (capacity * MIB if capacity else native_bytes(density)) if self._loaded else 0
        return DriveStatus(
            loaded=self._loaded,
            barcode=self._barcode(),
            generation=generation,
            medium_generation=generation_of_density(density),
            write_protected=bool(find_flag(parameters, "write protect", "write protected")),
            compresses=bool(find_flag(parameters, "compression")),
            capacity_bytes=capacity_bytes,
            # Told in whole MiB; where no warning is on, there is room for something.
            remaining_bytes=0 if in_warning or not self._loaded else max(1, (remaining or 0) * MIB),
            identity=identity,
            counters=self._counters,
        )

    def health(self) -> DriveHealth:
        """Tell what the cartridge's memory has counted: of itself, a drive tells itdt nothing that can be relied on.

        See `TellsHealth.health`.
        """
        self._check_open()
        if not self._loaded:
            return DriveHealth()
        written, read = self._attribute(_LIFETIME_WRITTEN), self._attribute(_LIFETIME_READ)
        capacity, remaining = self._attribute(_CAPACITY), self._attribute(_REMAINING)
        medium = MediumHealth(
            loads=self._attribute(_LOADS),
            written_bytes=None if written is None else written * MIB,
            read_bytes=None if read is None else read * MIB,
            capacity_bytes=None if capacity is None else capacity * MIB,
            remaining_bytes=None if remaining is None else remaining * MIB,
            generation=generation_of_density(self._attribute(_DENSITY)),
            manufacturer=self._text(_MANUFACTURER),
            serial=self._text(_SERIAL),
            manufactured=self._text(_MANUFACTURED),
        )
        return DriveHealth(medium=medium)

    # -- positions ---------------------------------------------------------------------------------------------------

    def position(self) -> Position:
        """Return where the head stands; filemarks that were not seen yet are looked for first, which moves the tape."""
        self._check_loaded()
        block, _ = self._itdt.position()
        if block > self._marks.explored:
            self._explore(block)
        return Position(BlockNo(block), FileNo(self._marks.before(block)))

    def rewind(self) -> None:
        """Go to block 0."""
        self._check_loaded()
        self._itdt.move_head("rewind")

    def locate(self, block: BlockNo) -> None:
        """Go to a logical block. See `Drive.locate`."""
        self._check_loaded()
        if block < 0:
            raise ValueError(f"there is no block {block}")
        self._count(locates=1)
        try:
            self._itdt.move_head("setpos", str(block))
        except EndOfData:
            self._itdt.move_head("seod")
            raise

    def space_filemarks(self, count: int) -> None:
        """Go forwards over filemarks. See `Drive.space_filemarks`."""
        self._check_loaded()
        if count < 0:
            raise ValueError(f"{count} filemarks cannot be passed over")
        for _ in range(count):
            self._over_one()

    def seek_end(self) -> None:
        """Go to the end of data."""
        self._check_loaded()
        self._itdt.move_head("seod")

    def _over_one(self) -> None:
        begin, _ = self._itdt.position()
        self._itdt.move_head("fsf", "1")
        self._marks.passed(begin, self._itdt.position()[0])

    def _explore(self, block: int) -> None:
        """Learn of all filemarks before `block`, then stand there again."""
        self._itdt.move_head("setpos", str(self._marks.explored))
        while self._marks.explored < block:
            try:
                self._over_one()
            except EndOfData:
                self._marks.none_before(self._itdt.position()[0])
                break
        self._itdt.move_head("setpos", str(block))

    # -- blocks ------------------------------------------------------------------------------------------------------

    def read_into(self, buffer: memoryview) -> int:
        """Read the next block. See `Drive.read_into`."""
        self._check_loaded()
        begin, _ = self._itdt.position()
        target = self._file("read")
        self._itdt.read_one(target, begin)
        data = target.read_bytes() if target.exists() else b""
        end, _ = self._itdt.position()
        if end == begin:
            raise EndOfData(f"there is nothing behind block {begin}")
        if end != begin + 1:
            raise BadAnswer(f"itdt read {end - begin} blocks where one was asked for: they cannot be told apart")
        if not data:
            self._marks.passed(begin, end)
            return 0
        if len(data) > len(buffer):
            self._itdt.move_head("setpos", str(begin))
            raise ValueError(f"block {begin} has {len(data)} bytes, the buffer {len(buffer)}")
        buffer[: len(data)] = data
        self._marks.no_mark(begin)
        self._count(blocks_read=1, bytes_read=len(data))
        return len(data)

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block. See `Drive.write_block`; also raises NotSupported, before anything is written."""
        self._check_loaded()
        if len(block) == 0:
            raise ValueError("a block has at least 1 byte")
        begin = self._where_to_write()
        source = self._file("write")
        source.write_bytes(block)
        self._itdt.write_raw(source, begin)
        self._marks.cut(begin)
        end, warns = self._itdt.position()
        if end != begin + 1:
            raise WriteFailed(f"itdt wrote {end - begin} blocks where one was asked for: do not use this driver", begin)
        self._marks.no_mark(begin)
        self._count(blocks_written=1, bytes_written=len(block))
        return bool(warns)

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write filemarks; itdt syncs always. See `Drive.write_filemarks`."""
        self._check_loaded()
        if count < 0:
            raise ValueError(f"{count} filemarks cannot be written")
        if count == 0:
            if sync:
                self._itdt.sync(self._itdt.position()[0])
            return
        begin = self._where_to_write()
        self._itdt.write_filemarks(count, begin)
        self._marks.cut(begin)
        end, _ = self._itdt.position()
        if end != begin + count:
            raise WriteFailed(f"itdt wrote {end - begin} filemarks where {count} were asked for", begin)
        for each in range(begin, end):
            self._marks.passed(each, each + 1)

    def erase(self, *, long: bool) -> None:
        """Erase from the head on. See `Drive.erase`."""
        self._check_loaded()
        begin, _ = self._itdt.position()
        self._itdt.erase(short=not long)
        self._marks.cut(begin)
        # Behind a long erase the standard leaves open where the head is.
        if self._itdt.position()[0] != begin:
            self._itdt.move_head("setpos", str(begin))

    def close(self) -> None:
        """Let go of the device without moving the tape."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._folder.cleanup()

    # -- inside ------------------------------------------------------------------------------------------------------

    def _where_to_write(self) -> int:
        block, warns = self._itdt.position()
        if warns is None:
            raise NotSupported(
                "this itdt does not tell of early warning in `qrypos`: nothing is written, because the end of the "
                "tape would come without notice; tapes can be read"
            )
        return block

    def _identify(self) -> tuple[str, int]:
        if self._identity is None:
            fields = self._itdt.inquiry()
            product = fields.get("product id") or fields.get("product identification") or ""
            vendor = fields.get("vendor id") or fields.get("vendor identification") or ""
            serial = fields.get("serial number") or fields.get("unit serial number") or ""
            names = " ".join(each for each in (vendor, product, serial) if each)
            self._identity = (names or self._itdt.device, generation_of_model(product) or 0)
        return self._identity

    def _attribute(self, number: int) -> int | None:
        """Return an attribute that is a number; None without a tape, or when it does not have it."""
        if not self._loaded:
            return None
        try:
            return int.from_bytes(self._itdt.read_attribute(number), "big")
        except (NotSupported, NotReady):
            return None

    def _barcode(self) -> str | None:
        return self._text(_BARCODE) or None

    def _text(self, number: int) -> str:
        """Return an attribute that is a text; empty without a tape, or when it does not have it."""
        if not self._loaded:
            return ""
        try:
            return self._itdt.read_attribute(number).decode("ascii", "replace").strip(" \0")
        except (NotSupported, NotReady):
            return ""

    def _file(self, name: str) -> Path:
        path = Path(self._folder.name) / name
        path.unlink(missing_ok=True)
        return path

    def _count(self, **more: int) -> None:
        known = self._counters
        self._counters = replace(known, **{name: getattr(known, name) + by for name, by in more.items()})

    def _check_open(self) -> None:
        if self._lock is None:
            raise DeviceFailed("the drive is closed")

    def _check_loaded(self) -> None:
        self._check_open()
        if not self._loaded:
            raise NotReady(f"no tape is loaded in {self._itdt.device}")


def _take(lock: Path) -> int:
    try:
        lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceFailed(f"cannot make {lock}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise DriveInUse(f"another process uses the drive: {lock} is locked") from error
    return descriptor
