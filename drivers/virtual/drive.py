"""The virtual tape drive: rules of a real one over a `Cartridge`, with modelled times. Blocking; one thread.

A drive is held by one process (flock on `drives/N.lock`). A cartridge that was threaded when its process died is still
threaded for the next one, which does not know the position: it rewinds, loads again or unloads.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from drivers.errors import (
    DeviceFailed,
    DriveInUse,
    EndOfData,
    EndOfMedium,
    IncompatibleMedium,
    NotReady,
    PositionLost,
    WormOverwrite,
    WriteFailed,
    WriteProtected,
)
from drivers.health import DriveHealth
from drivers.interface import DriveKey, DriveStatus, Encryption, Listener, NextBlock
from drivers.lto import can_read, can_write
from drivers.tape_files import MovesOverFiles
from drivers.virtual.cartridge import Cartridge
from drivers.virtual.ciphering import DriveCipher
from drivers.virtual.condition import (
    CLEAN_S,
    health_of,
    is_cleaning,
    life_of,
    read_alerts,
    use_cleaning_cartridge,
)
from drivers.virtual.drive_state import DriveRecord, read_drive, write_drive
from drivers.virtual.layout import cartridge_folder, drive_lock_path, library_lock, read_library
from drivers.virtual.measuring import FirstLoads
from drivers.virtual.mechanics import Mechanics
from drivers.virtual.memory import Attribute, MemoryRecord, read_memory, write_memory
from drivers.virtual.pace import Pace, parse_mode
from drivers.virtual.sealing import Cipher
from drivers.virtual.spacing import Spaced, plan_blocks
from drivers.virtual.state import StateRecord, read_state

#: SCSI gives the length of a block 24 bits.
MAX_BLOCK_BYTES = 2**24 - 1
_MIN_RESERVE_BYTES = 8 * 1024 * 1024
_CLOSED = -1


def reserve_bytes(capacity_bytes: int) -> int:
    """Return the bytes between early warning and end of a cartridge."""
    return max(capacity_bytes // 50, _MIN_RESERVE_BYTES)


class VirtualDrive(MovesOverFiles[Cartridge]):
    """One drive of a virtual library; implements `drivers.interface.Drive`, `TellsProgress`, `Encrypts`."""

    def __init__(
        self,
        folder: Path,
        number: int,
        motion: str = "account",
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open drive `number`. Raises DriveInUse, NoSuchElement, DeviceFailed, and ValueError for an unknown motion."""
        pace = Pace(parse_mode(motion), sleep, now)
        library = read_library(folder)
        bay = library.bay(number)
        self._folder = folder
        self._number = number
        self._generation = bay.generation
        self._identity = f"TAPEFS VIRTUAL-LTO{bay.generation} {library.serial}-{number}"
        self._lock = _take_lock(folder, number)
        #: Why nothing works any more, "" while it does.
        self._dead = ""
        self._cartridge: Cartridge | None = None
        self._keys = DriveCipher()
        self._position_lost = False
        try:
            record = read_drive(folder, number)
            self._compresses = record.compresses
            self._mechanics = Mechanics(bay.generation, record.counters, pace)
            self._first_loads = FirstLoads(folder, number, bay.generation, self._mechanics)
            self._threaded = record.threaded if record.threaded == bay.barcode else None
            if self._threaded is not None:
                self._resume(self._threaded, record.head_block)
            self._remember()
        except BaseException:
            os.close(self._lock)
            raise

    def _resume(self, barcode: str, head_block: int | None) -> None:
        """Go on with a cartridge that an earlier process threaded."""
        try:
            tape = Cartridge(cartridge_folder(self._folder, barcode))
        except DeviceFailed:
            # Every call but unload says so again, see `_medium`.
            return
        self._adopt(tape)
        self._count_use(read_memory(tape.folder))
        self._position_lost = head_block is None or head_block > tape.end_block
        if not self._position_lost and head_block is not None:
            tape.seek(head_block)

    def _adopt(self, tape: Cartridge) -> None:
        self._cartridge = tape
        self._position_lost = False
        self._warning_byte = max(0, tape.capacity_bytes - reserve_bytes(tape.capacity_bytes))
        self._mechanics.adopt(tape.generation)

    def _remember(self, head_block: int | None = None) -> None:
        record = DriveRecord(
            threaded=self._threaded,
            head_block=head_block,
            compresses=self._compresses,
            counters=self._mechanics.counters(),
        )
        write_drive(self._folder, self._number, record)

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """Thread the cartridge; one that is threaded already is rewound. See `Drive.load`.

        Compression is a switch that is remembered: payload files hold what was written, whichever way it stands.
        """
        self._check_alive()
        if compress is not None:
            self._compresses = compress
        if self._threaded is not None:
            self.rewind()
            return
        self._first_loads.measure()
        # The changer looks whether a cartridge is threaded under the same lock.
        with library_lock(self._folder):
            barcode = read_library(self._folder).bay(self._number).barcode
            if barcode is None:
                raise NotReady(f"drive{self._number} holds no tape: put one in")
            if is_cleaning(barcode):
                raise IncompatibleMedium(f"{barcode} in drive{self._number} is a cleaning cartridge: it holds no data")
            tape = Cartridge(cartridge_folder(self._folder, barcode))
            if not can_read(self._generation, tape.generation):
                raise IncompatibleMedium(
                    f"an LTO-{self._generation} drive cannot read {barcode}, which is LTO-{tape.generation}"
                )
            memory = read_memory(tape.folder).loaded_by(self._identity)
            # Before the tape is threaded: whatever fails from there on, `unload` asks for these counts.
            self._count_use(memory)
            self._threaded = barcode
            try:
                self._remember()
            except DeviceFailed:
                self._threaded = None
                raise
            self._adopt(tape)
            write_memory(tape.folder, memory, sync=False)
        self._mechanics.load()
        self._remember()

    def watch(self, listener: Listener) -> None:
        """Tell how far a first load is. See `TellsProgress.watch`."""
        self._first_loads.listener = listener

    def first_load_s(self) -> float:
        """Return the seconds by the clock that measuring the cartridge in the drive will take.

        0 when that was done, or when this drive waits for nothing.
        """
        self._check_alive()
        return 0.0 if self._threaded is not None else self._first_loads.waited_s()

    def skip_measuring(self) -> None:
        """The cartridge in the drive is measured: somebody has waited for that."""
        self._check_alive()
        if self._threaded is None:
            self._first_loads.skip()

    def unload(self) -> None:
        """Sync, rewind, unthread and eject. See `Drive.unload`."""
        self._check_alive()
        if self._cartridge is not None:
            self._flush(self._cartridge)
            self._mechanics.unload(self._cartridge.head_byte)
            self._note_use(self._cartridge)
            self._cartridge.close()
        self._cartridge = self._threaded = None
        self._position_lost = False
        self._keys.unloaded()
        self._remember()

    def status(self) -> DriveStatus:
        """Return a snapshot. See `Drive.status`."""
        self._check_alive()
        tape = self._cartridge
        barcode = self._threaded or read_library(self._folder).bay(self._number).barcode
        medium = self._describe(barcode) if barcode is not None else None
        return DriveStatus(
            loaded=self._threaded is not None,
            barcode=barcode,
            generation=self._generation,
            medium_generation=medium.generation if medium else None,
            write_protected=bool(medium and (medium.write_protected or not self._can_write(medium.generation))),
            compresses=self._compresses,
            capacity_bytes=medium.capacity_bytes if medium else 0,
            remaining_bytes=max(0, self._warning_byte - tape.head_byte) if tape else 0,
            identity=self._identity,
            counters=self._mechanics.counters(),
            worm=medium.worm if medium else False,
            medium_loads=self.memory().loads if medium else None,
        )

    # -- its condition -------------------------------------------------------------------------------------------

    def health(self) -> DriveHealth:
        """Tell the flags that somebody has set, and what the chip has counted. See `TellsHealth.health`."""
        status = self.status()
        alerts = read_alerts(self._folder, self._number)
        if status.barcode is None:
            return health_of(alerts, None)
        medium = replace(
            life_of(self.memory()),
            capacity_bytes=status.capacity_bytes,
            remaining_bytes=status.remaining_bytes if status.loaded else None,
            generation=status.medium_generation,
            is_worm=status.worm,
            is_write_protected=status.write_protected,
        )
        return health_of(alerts, medium)

    def clean(self, *, is_waited_for: bool = False) -> None:
        """Clean itself with the cartridge in it; somebody may have waited for that. See `CanBeCleaned.clean`."""
        self._check_alive()
        if self._threaded is not None:
            raise NotReady(f"drive{self._number} holds {self._threaded}: unload it, and put a cleaning cartridge in")
        use_cleaning_cartridge(self._folder, self._number)
        if is_waited_for:
            self._mechanics.measured(CLEAN_S)
        else:
            self._mechanics.clean(CLEAN_S)
        self._remember()

    def cleaning_s(self) -> float:
        """Return the seconds by the clock that a cleaning takes; 0 when this drive waits for nothing."""
        return self._mechanics.waited_s(CLEAN_S)

    def _describe(self, barcode: str) -> StateRecord | Cartridge | None:
        """Return what is known of the cartridge; None when its state is damaged, which `load` will tell."""
        if self._cartridge is not None:
            return self._cartridge
        try:
            return read_state(cartridge_folder(self._folder, barcode))
        except DeviceFailed:
            return None

    def _can_write(self, generation: int) -> bool:
        return can_write(self._generation, generation)

    def set_compression(self, compress: bool) -> None:
        """Turn the switch of compression while a tape is threaded, without moving it."""
        self._check_alive()
        self._compresses = compress
        self._remember()

    # -- encryption ----------------------------------------------------------------------------------------------

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """Give the drive a key, or take it away. See `Encrypts.set_key`."""
        self._at_hand()
        self._keys.set_own(key, writes=writes)

    def encryption(self) -> Encryption | None:
        """Return what becomes of blocks. See `Encrypts.encryption`."""
        self._check_alive()
        return self._keys.look()

    def next_block(self) -> NextBlock:
        """Return what lies before the head. See `Encrypts.next_block`."""
        return self._keys.next_block(self._at_hand())

    def set_cipher(self, cipher: Cipher | None) -> None:
        """Put a key into the drive itself, whoever its driver is: a reset takes it away."""
        self._check_alive()
        self._keys.cipher = cipher

    # -- the cartridge's memory ----------------------------------------------------------------------------------

    @property
    def worm(self) -> bool:
        """Tell whether a cartridge is threaded that can be written only once."""
        return self._cartridge is not None and self._cartridge.worm

    def memory(self) -> MemoryRecord:
        """Return the chip of the cartridge in the drive, threaded or not. Raises NotReady, DeviceFailed."""
        if self._cartridge is None:
            return read_memory(self._memory_folder())
        return self._used(self._cartridge)

    def write_attribute(self, number: int, attribute: Attribute | None) -> None:
        """Write an attribute into the chip, durably, or remove it. Raises NotReady, DeviceFailed."""
        folder = self._memory_folder()
        write_memory(folder, self.memory().with_attribute(number, attribute), sync=True)

    def _memory_folder(self) -> Path:
        self._check_alive()
        barcode = self._threaded or read_library(self._folder).bay(self._number).barcode
        if barcode is None:
            raise NotReady(f"drive{self._number} holds no tape: put one in")
        return cartridge_folder(self._folder, barcode)

    def _used(self, tape: Cartridge) -> MemoryRecord:
        now = self._mechanics.counters()
        return read_memory(tape.folder).used(
            written_bytes=now.bytes_written - self._written_before, read_bytes=now.bytes_read - self._read_before
        )

    def _count_use(self, memory: MemoryRecord) -> None:
        """Count from here on for the cartridge, and go on with what its last load, by an earlier process, counted."""
        now = self._mechanics.counters()
        self._written_before = now.bytes_written - memory.last_written_bytes
        self._read_before = now.bytes_read - memory.last_read_bytes

    def _note_use(self, tape: Cartridge) -> None:
        write_memory(tape.folder, self._used(tape), sync=False)

    # -- moving --------------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Go to block 0. See `Drive.rewind`."""
        tape = self._medium()
        self._flush(tape)
        self._mechanics.rewind(tape.head_byte)
        tape.seek(0)
        if self._position_lost:
            self._keys.was_rewound()
        self._position_lost = False
        self._remember()

    def space_back(self, count: int) -> int:
        """Go back over `count` filemarks, before the last of them, or to block 0; return how many were passed."""
        if count < 0:
            raise ValueError(f"cannot space back over {count} filemarks")
        if count == 0:
            return 0
        tape = self._at_hand()
        passed = min(count, tape.head_file)
        block = tape.block_before_filemarks(count)
        self._go(tape, 0 if block is None else block)
        return passed

    def space_blocks(self, count: int) -> Spaced:
        """Go over `count` blocks, backwards when it is negative; a filemark is passed and ends it."""
        tape = self._at_hand()
        spaced = plan_blocks(tape, count)
        self._go(tape, spaced.block)
        return spaced

    def nearest_first(self, extents: Sequence[tuple[int, int]]) -> list[int]:
        """Return the order in which extents (first block, last block) are read when the nearest is always next.

        The tape does not move. Raises NotReady, PositionLost, EndOfData.
        """
        tape = self._at_hand()
        behind = next((last for _, last in extents if last >= tape.end_block), None)
        if behind is not None:
            raise EndOfData(f"block {behind} is behind the end of data, which is at block {tape.end_block}")
        spans = [(tape.byte_before(first), tape.byte_before(last + 1)) for first, last in extents]
        return self._mechanics.nearest_first(tape.head_byte, spans)

    def _go(self, tape: Cartridge, block: int) -> None:
        """Move the head; as SCSI wants it, the buffer is written out before."""
        self._flush(tape)
        if block == tape.head_block:
            return
        from_byte = tape.head_byte
        tape.seek(block)
        self._mechanics.locate(from_byte, tape.head_byte)
        self._remember()

    # -- blocks --------------------------------------------------------------------------------------------------

    def read_into(self, buffer: memoryview) -> int:
        """Read the next block or pass a filemark. See `Drive.read_into`."""
        tape = self._at_hand()
        size_bytes = tape.next_size()
        if size_bytes is None:
            raise EndOfData(f"there is nothing behind block {tape.head_block}")
        if size_bytes > buffer.nbytes:
            raise ValueError(
                f"block {tape.head_block} has {size_bytes} bytes, the buffer only {buffer.nbytes}: use a larger one"
            )
        if size_bytes:
            self._keys.read(tape, _octets(buffer)[:size_bytes])
        else:
            tape.pass_filemark()
        self._mechanics.read(size_bytes)
        return size_bytes

    def next_size(self) -> int | None:
        """Return the size of the next block, 0 for a filemark, None at the end of data. Raises as `read_into`."""
        return self._at_hand().next_size()

    def erase(self, *, long: bool) -> None:
        """Make the head's place the end of data, durably. See `Drive.erase`; a long one takes its time."""
        tape = self._writable()
        if tape.worm:
            raise WormOverwrite(f"{tape.barcode} can be written only once: it cannot be erased")
        try:
            tape.truncate()
            tape.sync()
        except WriteFailed:
            self._position_lost = True
            raise
        self._mechanics.erase(tape.head_byte, tape.capacity_bytes if long else tape.head_byte)
        self._remember()

    def long_erase_s(self) -> float:
        """Return the seconds by the clock that a long erase from the head takes; 0 when nothing waits."""
        tape = self._medium()
        return self._mechanics.waited_s(self._mechanics.erase_s(tape.head_byte, tape.capacity_bytes))

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block at the head. See `Drive.write_block`."""
        data = _octets(block) if isinstance(block, memoryview) else block
        size_bytes = len(data)
        if not 0 < size_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {MAX_BLOCK_BYTES} bytes, not {size_bytes}")
        tape = self._writable()
        end_byte = tape.head_byte + size_bytes
        if end_byte > tape.capacity_bytes:
            raise EndOfMedium(f"{tape.barcode} is full: {tape.capacity_bytes} bytes")
        try:
            self._keys.write(tape, data)
        except WriteFailed:
            self._position_lost = True
            raise
        self._mechanics.write(size_bytes)
        return end_byte >= self._warning_byte

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write filemarks, or only flush. See `Drive.write_filemarks`."""
        if count < 0:
            raise ValueError(f"cannot write {count} filemarks")
        tape = self._writable() if count else self._at_hand()
        try:
            for _ in range(count):
                tape.append_filemark()
            if count and not sync:
                tape.note()
        except WriteFailed:
            self._position_lost = True
            raise
        if count:
            self._mechanics.write(0)
        if sync:
            self._flush(tape)
        self._remember()

    def _flush(self, tape: Cartridge) -> None:
        if tape.is_synced:
            return
        try:
            tape.sync()
        except WriteFailed:
            self._position_lost = True
            raise
        self._mechanics.stop()

    # -- failing and closing -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Behave as after a reset by another host or a power cycle: the buffer and the position are lost."""
        self._check_alive()
        self._keys.was_reset()
        if self._cartridge is not None:
            self._cartridge.drop_unsynced()
            self._mechanics.lose_buffer()
            self._position_lost = True

    def cut_power(self) -> None:
        """Behave as when the host's power fails: what was not synced is gone, and nothing works until a new open."""
        self.reset()
        self._dead = f"drive{self._number} has lost its power"

    def close(self) -> None:
        """Let go; the tape stays where it is. What was not synced survives, but not a power cut. See `Drive.close`."""
        if self._lock == _CLOSED:
            return
        lock, self._lock = self._lock, _CLOSED
        alive = not self._dead
        self._dead = f"drive{self._number} is closed"
        try:
            if self._cartridge is not None and alive:
                self._note_use(self._cartridge)
                self._cartridge.close()
            if alive:
                self._remember(self._head_if_known())
        finally:
            os.close(lock)

    def _head_if_known(self) -> int | None:
        return None if self._cartridge is None or self._position_lost else self._cartridge.head_block

    # -- checks --------------------------------------------------------------------------------------------------

    def _check_alive(self) -> None:
        if self._dead:
            raise DeviceFailed(self._dead)

    def _medium(self) -> Cartridge:
        self._check_alive()
        if self._cartridge is None:
            if self._threaded is not None:
                raise DeviceFailed(f"{self._threaded} in drive{self._number} has a damaged state: unload it")
            raise NotReady(f"drive{self._number} has no tape threaded: load one")
        return self._cartridge

    def _at_hand(self) -> Cartridge:
        tape = self._cartridge
        if tape is None or self._dead:
            return self._medium()
        if self._position_lost:
            raise PositionLost(f"drive{self._number} was reset: rewind, then check label and position")
        return tape

    def _writable(self) -> Cartridge:
        tape = self._at_hand()
        if tape.write_protected:
            raise WriteProtected(f"{tape.barcode} is write-protected")
        if not self._can_write(tape.generation):
            raise IncompatibleMedium(
                f"an LTO-{self._generation} drive cannot write {tape.barcode}, which is LTO-{tape.generation}"
            )
        if tape.worm and tape.head_block < tape.end_block:
            raise WormOverwrite(f"{tape.barcode} can be written only once: append at its end, block {tape.end_block}")
        return tape


def _octets(view: memoryview) -> memoryview:
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _take_lock(folder: Path, number: int) -> int:
    path = drive_lock_path(folder, number)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DeviceFailed(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DriveInUse(f"drive{number} of {folder} is in use by another process") from None
    return descriptor
