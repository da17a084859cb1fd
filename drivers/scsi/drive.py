"""A tape drive over any transport: the promises of `drivers.interface.Drive` in SCSI. Blocking; one thread.

Blocks of any length, buffered. What keeps the drive held, set and in its place is in `session.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from drivers.errors import (
    DriveError,
    EndOfData,
    NotSupported,
    PositionLost,
    TransportFailed,
    WriteProtected,
)
from drivers.health import DriveHealth
from drivers.interface import BlockNo, DriveKey, DriveStatus, Encryption, FileNo, Listener, NextBlock, Position
from drivers.lto import can_write
from drivers.scsi import cdb as commands
from drivers.scsi.cdb import MAX_24, Space
from drivers.scsi.cleaning import clean
from drivers.scsi.device import Clock, Done
from drivers.scsi.erasing import erase
from drivers.scsi.health import look_at_health
from drivers.scsi.locating import MOST_SPACED, locate
from drivers.scsi.medium import look_at_medium, room_bytes
from drivers.scsi.ordering import Ordering
from drivers.scsi.outcomes import Doing
from drivers.scsi.reading import BlockReader
from drivers.scsi.ready import Report, is_becoming_ready, wait_ready
from drivers.scsi.sense import Key
from drivers.scsi.session import DriveSession
from drivers.scsi.tally import Tally
from drivers.scsi.timeouts import MEDIUM_OPTIMISATION_S
from drivers.scsi.transport import Transport

_log = logging.getLogger(__name__)
_PROGRAMMED_WARNING = (0x00, 0x07)


class ScsiDrive:
    """One drive; implements `drivers.interface.Drive` and all that drives can besides."""

    def __init__(
        self,
        transport: Transport,
        folder: Path,
        *,
        reserve: bool = True,
        report: Report = _log.info,
        clock: Clock | None = None,
    ) -> None:
        """Take the drive behind `transport`, which is closed with it, and when this fails.

        `folder` keeps its lock, counters and reservation key. With `reserve` other hosts are kept out, where the drive
        knows reservations. `report` hears sentences for the operator. Raises DriveInUse, DeviceFailed.
        """
        self._session = DriveSession(transport, folder, reserve=reserve, report=report, clock=clock)
        self._device = self._session.device
        self._tally = Tally(self._session.notes.counters, self._device.clock.now)
        self._is_dirty = False
        self._listener: Listener = lambda busy: None
        self._reader = BlockReader(self._session)
        self._ordering = Ordering(self._device)
        #: How it was when it was asked last, if nothing has changed it since.
        self._health: DriveHealth | None = None
        #: Length of the largest block that is known.
        self._largest_bytes = 256 * 1024

    def watch(self, listener: Listener) -> None:
        """Tell how far a first load or a long erase is. See `TellsProgress.watch`."""
        self._listener = listener

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """Thread the cartridge, rewind it, and make the drive's settings. See `Drive.load`."""
        self._session.check_open()
        was_loaded = self._session.again(self._is_loaded)
        with self._tally.timed("load"):
            try:
                self._load(was_loaded, compress)
            except TransportFailed as broken:
                self._session.hold_again(broken)
                self._load(self._is_loaded(), compress)
        self._is_dirty = False
        self._tally.loads += not was_loaded
        self._keep_notes()

    def _load(self, is_loaded: bool, compress: bool | None) -> None:
        if not is_loaded:
            self._thread()
        wait_ready(self._device, limit_s=MEDIUM_OPTIMISATION_S, report=self._session.report, listener=self._listener)
        self._device.run(commands.rewind(), Doing.LOAD)
        self._session.settle(compress)
        self._session.steady_after_rewind()
        self._session.tell_alerts()

    def _is_loaded(self) -> bool:
        """Tell whether a tape is threaded or being threaded."""
        sense = self._device.execute(commands.test_unit_ready(), Doing.LOAD).sense
        return sense is None or sense.key is not Key.NOT_READY or is_becoming_ready(sense)

    def _thread(self) -> None:
        """Start threading, without waiting for its end where the drive allows that: it then tells how far it is."""
        try:
            self._device.run(commands.load_unload(load=True, immediate=True), Doing.LOAD)
        except NotSupported:
            self._device.run(commands.load_unload(load=True), Doing.LOAD)

    def unload(self) -> None:
        """Sync, rewind, unthread and eject. See `Drive.unload`."""
        self._session.check_open()
        failed = self._flush_before_unload() if self._is_dirty else None
        with self._tally.timed("load"):
            try:
                self._eject()
            except TransportFailed as broken:
                self._session.hold_again(broken)
                self._eject()
        self._session.tape_is_out()
        self._is_dirty = False
        self._keep_notes()
        # After the eject: whatever comes of it, the tape is out.
        self._session.again(self._session.keying.clear)
        if failed is not None:
            raise failed

    def _eject(self) -> None:
        if self._is_loaded():
            self._session.tell_alerts()
            with self._session.leaving():
                self._device.run(commands.load_unload(load=False), Doing.LOAD)

    def _flush_before_unload(self) -> DriveError | None:
        """Write out the buffer; a tape on which that fails must come out all the same."""
        try:
            self.write_filemarks(0, sync=True)
        except DriveError as error:
            return error
        return None

    def _keep_notes(self) -> None:
        self._session.notes.keep(self._tally.counters())

    # -- looking -------------------------------------------------------------------------------------------------

    def status(self) -> DriveStatus:
        """Return a snapshot. See `Drive.status`."""
        self._session.check_open()
        return self._session.again(self._look)

    def _look(self) -> DriveStatus:
        session = self._session
        is_loaded = self._device.execute(commands.test_unit_ready(), Doing.ASK).sense is None
        settings = session.settings.look()
        medium = look_at_medium(self._device, is_loaded=is_loaded, density=settings.density)
        medium_generation = medium.generation if medium else None
        generation = session.generation or medium_generation or 0
        fits = medium_generation is None or can_write(generation, medium_generation)
        return DriveStatus(
            loaded=is_loaded,
            barcode=medium.barcode if medium else None,
            generation=generation,
            medium_generation=medium_generation,
            write_protected=medium is not None and (settings.write_protected or not fits),
            compresses=settings.compresses,
            capacity_bytes=medium.capacity_bytes if medium else 0,
            remaining_bytes=self._remaining_bytes(medium.capacity_bytes) if medium and is_loaded else 0,
            identity=self._device.name,
            counters=self._tally.counters(),
            worm=medium is not None and medium.is_worm,
            medium_serial=medium.serial if medium else "",
            medium_loads=medium.loads if medium else None,
        )

    def _remaining_bytes(self, capacity_bytes: int) -> int:
        if self._session.is_warned:
            return 0
        used_bytes = 0
        try:
            position = self._session.read_position()
        except (PositionLost, NotSupported):
            pass
        else:
            if position.behind_warning:
                return 0
            used_bytes = (position.block or 0) * self._largest_bytes
        return room_bytes(self._device, used_bytes=used_bytes, capacity_bytes=capacity_bytes)

    def health(self) -> DriveHealth:
        """Ask drive and cartridge how they are. See `TellsHealth.health`."""
        self._session.check_open()
        found = self._session.again(lambda: look_at_health(self._device, self._session.report))
        self._health = found
        return replace(found, wants_cleaning=found.wants_cleaning or self._device.asks_to_be_cleaned)

    def clean(self) -> None:
        """Have it clean itself. See `CanBeCleaned.clean`."""
        self._session.check_open()
        self._session.tape_is_out()
        try:
            clean(self._device, self._health)
            self._device.asks_to_be_cleaned = False
        finally:
            self._health = None

    def recommended_order(self, extents: Sequence[tuple[int, int]]) -> list[int] | None:
        """Return the order in which the drive would read extents. See `RecommendsOrder.recommended_order`."""
        self._session.check_steady()
        return self._session.again(lambda: self._ordering.order(extents))

    # -- encryption ----------------------------------------------------------------------------------------------

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """Give the drive a key, or take it away. See `Encrypts.set_key`."""
        session = self._session
        session.check_steady()
        session.again(lambda: session.keying.put(key, writes=writes) if key else session.keying.clear())

    def encryption(self) -> Encryption | None:
        """Ask the drive what it does with blocks. See `Encrypts.encryption`."""
        self._session.check_open()
        return self._session.again(self._session.keying.look)

    def next_block(self) -> NextBlock:
        """Ask what lies before the head. See `Encrypts.next_block`."""
        self._session.check_steady()
        return self._session.again(self._session.keying.next_block)

    # -- moving --------------------------------------------------------------------------------------------------

    def position(self) -> Position:
        """Return where the head stands. See `Drive.position`."""
        self._session.check_steady()
        found = self._session.again(self._session.read_position)
        if found.block is None or found.file is None:
            self._session.lose(f"{self._device.name} does not know where its head stands")
            raise PositionLost(f"{self._session.lost}: rewind, then check label and position")
        return Position(BlockNo(found.block), FileNo(found.file))

    def rewind(self) -> None:
        """Go to block 0. See `Drive.rewind`."""
        self._session.check_open()
        if self._session.lost:
            wait_ready(
                self._device, limit_s=MEDIUM_OPTIMISATION_S, report=self._session.report, listener=self._listener
            )
        with self._tally.timed("rewind"):
            try:
                self._rewind()
            except TransportFailed as broken:
                self._session.where_after(broken)
                self._rewind()
        self._is_dirty = False
        self._session.steady_after_rewind()

    def _rewind(self) -> None:
        self._device.run(commands.rewind(), Doing.MOVE, block=self._session.block or 0)

    def locate(self, block: BlockNo) -> None:
        """Go to a logical block. See `Drive.locate`."""
        if block < 0:
            raise ValueError(f"there is no logical block {block}")
        self._session.check_steady()
        try:
            # What was buffered could be lost where the head stands at the target, if that is the beginning.
            self._move(lambda: locate(self._session, block), also=() if self._is_dirty else (block,))
        except EndOfData as error:
            raise EndOfData(f"block {block} is behind the end of data ({error})") from error
        self._session.stands_at(block)

    def space_filemarks(self, count: int) -> None:
        """Go forwards over filemarks. See `Drive.space_filemarks`."""
        if count < 0:
            raise ValueError(f"cannot space over {count} filemarks")
        self._session.check_steady()
        if count == 0:
            return
        space = commands.space_6 if count <= MOST_SPACED else commands.space_16
        self._move(lambda: self._session.command(space(Space.FILEMARKS, count), Doing.MOVE))

    def seek_end(self) -> None:
        """Go to the end of data. See `Drive.seek_end`."""
        self._session.check_steady()
        self._move(lambda: self._session.command(commands.space_6(Space.END_OF_DATA), Doing.MOVE))

    def _move(self, go: Callable[[], object], also: Collection[int] = ()) -> None:
        """Move the head; once more from where it was when the way to the drive broke meanwhile."""
        before = self._session.known_block()
        with self._tally.timed("locate"):
            try:
                go()
            except TransportFailed as broken:
                self._session.go_back(broken, before, also=also, or_between=True)
                go()
            finally:
                self._session.stands_at(None)
        # The head was moved on request: what was buffered is on the tape.
        self._is_dirty = False
        self._tally.locates += 1

    # -- blocks --------------------------------------------------------------------------------------------------

    def read_into(self, buffer: memoryview) -> int:
        """Read the next block or pass a filemark. See `Drive.read_into`."""
        view = buffer if buffer.format == "B" and buffer.ndim == 1 else buffer.cast("B")
        if not view.nbytes:
            raise ValueError("a buffer of 0 bytes holds no block")
        self._session.check_steady()
        view = view[: min(view.nbytes, MAX_24, self._session.transport.max_transfer_bytes)]
        with self._tally.timed("read"):
            length = self._reader.read(view)
        if length:
            self._largest_bytes = max(self._largest_bytes, length)
            self._tally.blocks_read += 1
            self._tally.bytes_read += length
        return length

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block at the head. See `Drive.write_block`."""
        session = self._session
        data = block.cast("B") if isinstance(block, memoryview) and (block.format != "B" or block.ndim != 1) else block
        size = len(data)
        if not 0 < size <= session.max_block_bytes:
            raise ValueError(f"a block has 1 to {session.max_block_bytes} bytes here, not {size}")
        session.check_steady()
        with self._tally.timed("write"):
            done = self._put(commands.write_6(size), 1, data)
        self._largest_bytes = max(self._largest_bytes, size)
        self._tally.blocks_written += 1
        self._tally.bytes_written += size
        session.is_warned |= self._is_warning(done)
        return session.is_warned

    def _put(self, cdb: bytes, steps: int, data: bytes | memoryview | None = None) -> Done | None:
        """Send a command that writes `steps` blocks or filemarks."""
        session = self._session
        before = session.known_block()
        was_dirty, self._is_dirty = self._is_dirty, True
        try:
            done = session.careful(lambda: session.command(cdb, Doing.WRITE, data_out=data), steps)
        except WriteProtected:
            self._is_dirty = was_dirty  # Nothing was taken.
            raise
        session.block = before + steps
        return done

    def _is_warning(self, done: Done | None) -> bool:
        if done is None:
            # Done, but its answer was lost with the connection.
            return self._session.read_position().behind_warning
        sense = done.sense
        return sense is not None and sense.end_of_medium and (sense.asc, sense.ascq) != _PROGRAMMED_WARNING

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write filemarks, or only flush. See `Drive.write_filemarks`."""
        if not 0 <= count <= MAX_24:
            raise ValueError(f"cannot write {count} filemarks")
        self._session.check_steady()
        with self._tally.timed("write"):
            if count:
                done = self._put_filemarks(count, sync)
                if done is None and sync:
                    self._flush()
            elif sync:
                self._flush()
        if sync:
            self._is_dirty = False
            self._keep_notes()

    def _put_filemarks(self, count: int, sync: bool) -> Done | None:
        try:
            return self._put(commands.write_filemarks_6(count, immediate=not sync), count)
        except NotSupported:
            if sync:
                raise
            return self._put(commands.write_filemarks_6(count, immediate=False), count)

    def _flush(self) -> None:
        was_dirty = self._is_dirty
        try:
            self._put(commands.write_filemarks_6(0, immediate=False), 0)
        except WriteProtected:
            # Some drives refuse even no filemarks on a protected tape, on which there is nothing to flush.
            if was_dirty:
                raise
            self._is_dirty = False

    def erase(self, *, long: bool) -> None:
        """Erase from the head to the end of the tape. See `Drive.erase`."""
        self._session.check_steady()
        was_dirty, self._is_dirty = self._is_dirty, True
        with self._tally.timed("write"):
            try:
                erase(self._session, long=long, listener=self._listener)
            except (WriteProtected, NotSupported):
                self._is_dirty = was_dirty  # Nothing was done.
                raise
        self._is_dirty = False
        self._keep_notes()

    # -- others --------------------------------------------------------------------------------------------------

    def passed_by(self, *, read: tuple[int, int], written: tuple[int, int], is_warned: bool) -> None:
        """Hear of blocks and bytes that went another way, through the kernel's tape driver. The head is behind them."""
        self._session.stands_at(None)
        self._session.is_warned = is_warned
        self._is_dirty |= written[0] > 0
        self._tally.blocks_read += read[0]
        self._tally.bytes_read += read[1]
        self._tally.blocks_written += written[0]
        self._tally.bytes_written += written[1]

    # -- closing -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the drive. See `Drive.close`."""
        if self._session.is_closed:
            return
        try:
            self._keep_notes()
        finally:
            self._session.close()
