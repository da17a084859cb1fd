"""A mounted volume as a tape drive: the rules of a real one over a `Tape`. Blocking; one thread.

The drive is the place where volumes are mounted; loading takes hold of what is mounted there, unloading lets go of it,
so that it can be unmounted. Mounting is done by people. What a drive has to remember, and its lock, is in the state
folder; the volume is locked while it is loaded.

The last bytes of a volume are never used: LTFS has to fit its index behind the data, twice, and a volume whose index
did not fit is repaired by hours of reading.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from drivers.errors import (
    DeviceFailed,
    DriveError,
    DriveInUse,
    EndOfData,
    EndOfMedium,
    NotReady,
    NotSupported,
    PositionLost,
    WriteFailed,
    WriteProtected,
)
from drivers.health import DriveHealth, MediumHealth
from drivers.interface import DriveStatus
from drivers.ltfs.tape import Tape
from drivers.ltfs.volume import RoomOf, Volume, room_of
from drivers.tape_files import MovesOverFiles
from drivers.virtual.drive_state import DriveRecord, Tally, read_drive, write_drive
from drivers.virtual.layout import drive_lock_path

#: Blocks are written without a limit of SCSI, but a reader's buffer has one.
MAX_BLOCK_BYTES = 2**24 - 1
#: Of a volume without a barcode.
_GENERATION = 9
_LEAST_KEPT_BYTES = 2 * 1024 * 1024
_LEAST_RESERVE_BYTES = 8 * 1024 * 1024
#: How often the file system is asked for its space while a tape file is written.
_ASK_EVERY_BYTES = 256 * 1024 * 1024
_CLOSED = -1


def kept_bytes(total_bytes: int) -> int:
    """Return the bytes at the end of a volume that are never used: for LTFS's index."""
    return max(total_bytes // 200, _LEAST_KEPT_BYTES)


def reserve_bytes(capacity_bytes: int) -> int:
    """Return the bytes between early warning and end."""
    return max(capacity_bytes // 50, _LEAST_RESERVE_BYTES)


class LtfsDrive(MovesOverFiles[Tape]):
    """The place `mount` as a drive; implements `drivers.interface.Drive`."""

    def __init__(
        self,
        folder: Path,
        number: int,
        mount: Path,
        *,
        any_filesystem: bool = False,
        room: RoomOf = room_of,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open drive `number`; `folder` is for its lock and counters. Raises DriveInUse, DeviceFailed."""
        self._folder = folder
        self._number = number
        self._mount = mount
        self._any_filesystem = any_filesystem
        self._room = room
        self._now = now
        self._volume: Volume | None = None
        self._tape: Tape | None = None
        self._position_lost = False
        #: What the volume holds when full, and where the warning begins; the latter as bytes from the beginning.
        self._capacity_bytes = 0
        self._warning_byte = 0
        self._ask_at_byte = 0
        self._lock = _take_lock(folder, number)
        try:
            record = read_drive(folder, number)
        except DriveError:
            os.close(self._lock)
            raise
        self._compresses = record.compresses
        self._tally = Tally.resume(record.counters)

    def _remember(self) -> None:
        write_drive(
            self._folder, self._number, DriveRecord(compresses=self._compresses, counters=self._tally.snapshot())
        )

    # -- loading -----------------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """Take hold of the volume that is mounted, or rewind. See `Drive.load`.

        `compress` is remembered and told again, and changes nothing: LTFS compresses as the volume was formatted.
        """
        self._check_open()
        if compress is not None:
            self._compresses = compress
        if self._volume is not None:
            self.rewind()
            return
        with self._timed("load"):
            volume = self._mounted()
            try:
                volume.lock()
                self._tape = Tape(volume)
                self._volume = volume
                self._measure()
            except BaseException:
                self._volume = self._tape = None
                volume.close()
                raise
        self._position_lost = False
        self._tally.loads += 1
        self._remember()

    def _mounted(self) -> Volume:
        return Volume(self._mount, any_filesystem=self._any_filesystem, room=self._room)

    def unload(self) -> None:
        """Sync and let go of the volume, which stays mounted. See `Drive.unload`."""
        self._check_open()
        if self._volume is None or self._tape is None:
            return
        if not self._position_lost:
            self._flush(self._tape)
        self._let_go()
        self._remember()

    def _let_go(self) -> None:
        if self._tape is not None:
            self._tape.close()
        if self._volume is not None:
            self._volume.close()
        self._tape = self._volume = None
        self._position_lost = False

    def status(self) -> DriveStatus:
        """Return a snapshot. See `Drive.status`."""
        self._check_open()
        if self._volume is not None and self._tape is not None:
            remaining = max(0, self._warning_byte - self._tape.head_byte)
            return self._describe(self._volume, self._capacity_bytes, remaining, loaded=True)
        try:
            volume = self._mounted()
        except DriveError:
            # What is wrong is told by `load`.
            return self._describe(None, 0, 0, loaded=False)
        try:
            return self._describe(volume, _capacity_if_whole(volume), 0, loaded=False)
        finally:
            volume.close()

    def health(self) -> DriveHealth:
        """Tell what the volume's attributes say, if it is one of LTFS. See `TellsHealth.health`."""
        self._check_open()
        volume = self._volume
        if volume is None or self._tape is None:
            return DriveHealth()
        try:
            found = volume.health()
        except OSError as error:
            raise DeviceFailed(f"{volume.name} at {self._mount} does not answer: {error.strerror}") from error
        status = self.status()
        medium = replace(
            found.medium or MediumHealth(),
            capacity_bytes=status.capacity_bytes,
            remaining_bytes=status.remaining_bytes,
            generation=status.medium_generation,
            is_write_protected=status.write_protected,
        )
        return replace(found, medium=medium)

    def _describe(
        self, volume: Volume | None, capacity_bytes: int, remaining_bytes: int, *, loaded: bool
    ) -> DriveStatus:
        generation = generation_of(volume.name) if volume else _GENERATION
        return DriveStatus(
            loaded=loaded,
            barcode=volume.name if volume else None,
            generation=generation,
            medium_generation=generation if volume else None,
            write_protected=volume is not None and volume.write_protected,
            compresses=self._compresses,
            capacity_bytes=capacity_bytes,
            remaining_bytes=remaining_bytes,
            identity=self._identity(volume),
            counters=self._tally.snapshot(),
        )

    def _identity(self, volume: Volume | None) -> str:
        if volume is None:
            return f"mount point {self._mount}"
        kind = "LTFS" if volume.facts.is_ltfs else "folder"
        return " ".join(part for part in (kind, volume.facts.creator, f"at {self._mount}") if part)

    # -- files of others ---------------------------------------------------------------------------------------------

    def medium_id(self) -> str:
        """Return the volume's UUID. See `HoldsFiles.medium_id`."""
        return self._medium()[0].facts.uuid

    def folder(self) -> Path:
        """Return where the volume is mounted. See `HoldsFiles.folder`."""
        self._medium()
        return self._mount

    def open_file(self, path: bytes) -> int:
        """Open a file that lies on the volume. See `HoldsFiles.open_file`."""
        volume, _ = self._medium()
        volume.check()
        return volume.open_file(path)

    # -- moving ------------------------------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Go to block 0; what a failed write or sync has left is looked up. See `Drive.rewind`."""
        volume, tape = self._medium()
        if self._position_lost:
            volume.check()
            tape.reload()
            self._position_lost = False
        else:
            self._flush(tape)
            tape.seek(0)
        self._measure()
        self._remember()

    def _go(self, tape: Tape, block: int) -> None:
        self._flush(tape)
        if block == tape.head_block:
            return
        tape.seek(block)
        self._tally.locates += 1
        self._remember()

    # -- blocks ------------------------------------------------------------------------------------------------------

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
        if size_bytes == 0:
            tape.pass_filemark()
            return 0
        with self._timed("read"):
            tape.read_into(_octets(buffer)[:size_bytes])
        self._tally.blocks_read += 1
        self._tally.bytes_read += size_bytes
        return size_bytes

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block at the head. See `Drive.write_block`."""
        data = _octets(block) if isinstance(block, memoryview) else block
        size_bytes = len(data)
        if not 0 < size_bytes <= MAX_BLOCK_BYTES:
            raise ValueError(f"a block has 1 to {MAX_BLOCK_BYTES} bytes, not {size_bytes}")
        volume, tape = self._writable()
        if tape.begins_file or tape.head_byte >= self._ask_at_byte:
            volume.check()
            self._measure()
        end_byte = tape.head_byte + size_bytes
        if end_byte > self._capacity_bytes:
            raise EndOfMedium(f"volume {volume.name} is full: {self._capacity_bytes} bytes, and room for its index")
        with self._timed("write"), self._losing():
            tape.append(data)
        self._tally.blocks_written += 1
        self._tally.bytes_written += size_bytes
        return end_byte >= self._warning_byte

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write filemarks, or only flush. See `Drive.write_filemarks`."""
        if count < 0:
            raise ValueError(f"cannot write {count} filemarks")
        tape = self._writable()[1] if count else self._at_hand()
        with self._timed("write"), self._losing():
            for _ in range(count):
                tape.append_filemark()
        if sync:
            self._flush(tape)
        self._remember()

    def erase(self, *, long: bool) -> None:
        """Remove the tape files from the head on, and nothing else of the volume. See `Drive.erase`."""
        volume, tape = self._writable()
        if long:
            raise NotSupported(
                f"volume {volume.name} is mounted: its tape files can be removed, but not written over: unmount it, "
                "and erase the tape with `mt erase` or `mkltfs --wipe`"
            )
        volume.check()
        with self._timed("write"), self._losing():
            tape.truncate()
        self._measure()
        self._remember()

    def _flush(self, tape: Tape) -> None:
        if tape.is_synced:
            return
        volume, _ = self._medium()
        # Of a volume that went away nothing more can be said than that what was not synced may be lost.
        with self._timed("write"), self._losing():
            volume.check()
            tape.sync()
        self._measure()

    def _measure(self) -> None:
        """Ask the file system what there is room for. Others may write to it, and LTFS never gives space back."""
        volume, tape = self._medium()
        self._capacity_bytes = _capacity(volume, tape.end_byte)
        self._warning_byte = max(0, self._capacity_bytes - reserve_bytes(self._capacity_bytes))
        self._ask_at_byte = tape.head_byte + _ASK_EVERY_BYTES

    # -- closing and checks ------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the volume and the drive; what was not synced is lost. See `Drive.close`."""
        if self._lock == _CLOSED:
            return
        lock, self._lock = self._lock, _CLOSED
        try:
            self._let_go()
            self._remember()
        finally:
            os.close(lock)

    def _check_open(self) -> None:
        if self._lock == _CLOSED:
            raise DeviceFailed(f"the drive at {self._mount} is closed")

    def _medium(self) -> tuple[Volume, Tape]:
        self._check_open()
        if self._volume is None or self._tape is None:
            raise NotReady(f"the volume at {self._mount} is not loaded")
        return self._volume, self._tape

    def _at_hand(self) -> Tape:
        _, tape = self._medium()
        if self._position_lost:
            raise PositionLost(f"writing to {self._mount} failed: rewind, then check label and position")
        return tape

    def _writable(self) -> tuple[Volume, Tape]:
        tape = self._at_hand()
        volume, _ = self._medium()
        if volume.write_protected:
            raise WriteProtected(
                f"volume {volume.name} is {'locked' if volume.facts.locked else 'mounted read-only'}: use another one"
            )
        return volume, tape

    @contextmanager
    def _losing(self) -> Iterator[None]:
        """What was not synced may be lost by a failure in here, and the position with it."""
        try:
            yield
        except (WriteFailed, DeviceFailed):
            self._position_lost = True
            raise

    @contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        start = self._now()
        try:
            yield
        finally:
            self._tally.seconds[kind] = self._tally.seconds.get(kind, 0.0) + self._now() - start


def capacity_of(volume: Volume) -> int:
    """Return what a volume holds of tape files when it is full. Raises DeviceFailed."""
    return _capacity(volume, Tape(volume).end_byte)


def _capacity_if_whole(volume: Volume) -> int:
    try:
        return capacity_of(volume)
    except DriveError:
        return 0  # What is wrong is told by `load`.


def _capacity(volume: Volume, used_bytes: int) -> int:
    free_bytes = volume.room().free_bytes
    return used_bytes + max(0, free_bytes - kept_bytes(used_bytes + free_bytes))


def generation_of(name: str) -> int:
    """Return the LTO generation that a barcode ends in (`L9`, `M8`); 9 for volumes without."""
    found = re.search(r"[LM](\d)$", name)
    return int(found[1]) if found and int(found[1]) >= 5 else _GENERATION


def _octets(view: memoryview) -> memoryview:
    return view if view.format == "B" and view.ndim == 1 else view.cast("B")


def _take_lock(folder: Path, number: int) -> int:
    path = drive_lock_path(folder, number)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DeviceFailed(f"cannot open {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DriveInUse(f"drive{number} of {folder} is in use by another process") from None
    return descriptor
