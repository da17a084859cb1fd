"""A virtual cartridge: a folder with one plain file per tape file, and its state. Blocking; one owner, one thread.

Write order. Payload bytes go to the page cache. `sync` waits for the payload files and their names, then replaces the
state durably. `note` writes the state for a death of the process only. Overwriting moves the end of data durably before
anything behind it is cut or deleted. Bytes behind the end of data are what a crash left: they are ignored, and removed
before the next write.
"""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed, DiskFull, ReadFailed, WriteFailed
from drivers.reading_files import read_error
from drivers.tape_files import TapeFile, TapeFiles
from drivers.virtual.payloads import PayloadFiles
from drivers.virtual.runs import BlockRuns
from drivers.virtual.sealing import PLAIN, SealFiles
from drivers.virtual.state import (
    BUFFERED,
    EndRecord,
    FileRecord,
    read_buffered,
    read_state,
    write_buffered,
    write_state,
)

#: How much is written between two notes of the state: about what dies with the process, as in a drive's buffer.
NOTE_BYTES = 64 * 1024 * 1024


class _TapeFile(TapeFile):
    __slots__ = ()

    def record(self) -> FileRecord:
        return FileRecord(runs=self.runs.pairs(), filemark=self.filemark)


class Cartridge(TapeFiles[_TapeFile]):
    """Storage and head of a threaded cartridge, without rules or times.

    The head is a place between blocks; appending where data follows drops what follows. The last file of the list is
    open, and often empty. Raises DeviceFailed when the state is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._payloads = PayloadFiles(folder)
        self._seals = SealFiles(folder)
        self._load(buffered=True)

    def _load(self, *, buffered: bool) -> None:
        """Take over the state on disk; the head stands at block 0."""
        self._state = read_state(self.folder)
        durable = self._state.files
        files = read_buffered(self.folder, self._state) if buffered else durable
        self._files = [_TapeFile(0, 0)]
        for each in files:
            self._files[-1].runs = BlockRuns(each.runs)
            if each.filemark:
                self._close_last_file()
        #: First file that may differ from the durable state: that one's open file, or the first behind it.
        self._first_volatile = len(durable) if not durable or durable[-1].filemark else len(durable) - 1
        self._changed = files != durable
        #: Files with bytes that were not waited for; another process wrote those that the note tells of.
        self._dirty = set(range(self._first_volatile, len(files))) if self._changed else set()
        self._tail_removed = False
        self._unnoted_bytes = 0
        self._file = self._block = self._byte = 0

    @property
    def barcode(self) -> str:
        """Return the barcode."""
        return self._state.barcode

    @property
    def generation(self) -> int:
        """Return the LTO generation."""
        return self._state.generation

    @property
    def capacity_bytes(self) -> int:
        """Return the payload bytes it holds when full."""
        return self._state.capacity_bytes

    @property
    def write_protected(self) -> bool:
        """Tell whether the tab is set."""
        return self._state.write_protected

    @property
    def worm(self) -> bool:
        """Tell whether what is written can never be overwritten."""
        return self._state.worm

    @property
    def is_synced(self) -> bool:
        """Tell whether all that was written would survive a power cut."""
        return not self._changed

    # -- moving and reading --------------------------------------------------------------------------------------

    def byte_before(self, block: int) -> int:
        """Return the payload bytes before an existing logical block or the end of data."""
        file = self._files[self._file_of(block)]
        return file.first_byte + file.runs.offset(block - file.first_block)

    def block_before_filemarks(self, count: int) -> int | None:
        """Return the block number of the `count`-th filemark before the head, None when there are fewer."""
        number = self._file - count
        return self._files[number + 1].first_block - 1 if number >= 0 else None

    def bounds(self) -> tuple[int, int]:
        """Return the first block of the tape file in which the head stands, and that behind its last."""
        current = self._files[self._file]
        return current.first_block, current.first_block + current.runs.blocks

    def record_of_next(self) -> bytes:
        """Return what the drive noted of the next block when it encrypted it. Raises ReadFailed, DeviceFailed."""
        try:
            return self._seals.read(self._file, self._block)
        except OSError as error:
            raise read_error(self._seals.path(self._file), error, self.head_block) from error

    def read_into(self, block: memoryview) -> None:
        """Fill `block`, as long as `next_size` told, and move on. Raises ReadFailed or DeviceFailed: the head stays."""
        try:
            complete = self._payloads.read_into(self._file, block, self._byte)
        except OSError as error:
            raise read_error(self._payloads.path(self._file), error, self.head_block) from error
        if not complete:
            path = self._payloads.path(self._file)
            raise ReadFailed(f"{path} is shorter than the cartridge's state says", self.head_block)
        self._block += 1
        self._byte += len(block)

    # -- writing -------------------------------------------------------------------------------------------------

    def truncate(self) -> None:
        """Make the head's place the end of data, durably. Raises WriteFailed."""
        self._make_end_of_data()

    def append(self, block: bytes | memoryview, record: bytes = PLAIN) -> None:
        """Write one block (not empty, a memoryview of bytes) at the head. Raises WriteFailed.

        `record`: what the drive notes of a block that it has encrypted.
        """
        self._make_end_of_data()
        self._write(block, record)
        self._files[-1].runs.extend(len(block))
        self._block += 1
        self._byte += len(block)
        self._unnoted_bytes += len(block)
        if self._unnoted_bytes >= NOTE_BYTES:
            self.note()

    def append_filemark(self) -> None:
        """Write a filemark at the head. Raises WriteFailed."""
        self._make_end_of_data()
        self._write(b"")
        self._close_last_file()
        self.pass_filemark()

    def _write(self, data: bytes | memoryview, record: bytes = PLAIN) -> None:
        try:
            if data:
                self._seals.write(self._file, self._block, record)
            self._payloads.write(self._file, data, self._byte)
        except OSError as error:
            # Blocks before it may have waited in the buffer; and a part may lie behind the end of data now.
            raise self._lose_buffer(error) from error
        self._dirty.add(self._file)
        self._changed = True

    def _close_last_file(self) -> None:
        last = self._files[-1]
        last.filemark = True
        self._files.append(_TapeFile(last.first_block + last.runs.blocks + 1, last.first_byte + last.runs.bytes))

    def _make_end_of_data(self) -> None:
        """Drop what is behind the head, and what a crash left behind the end of data."""
        if self._file < len(self._files) - 1 or self._block < self._files[-1].runs.blocks:
            self._cut()
        if self._tail_removed:
            return
        try:
            self._payloads.cut(len(self._files) - 1, self._files[-1].runs.bytes)
            self._seals.cut(len(self._files) - 1, self._files[-1].runs.blocks)
        except OSError as error:
            raise self._write_failed(error) from error
        self._tail_removed = True

    def _cut(self) -> None:
        current = self._files[self._file]
        current.runs.cut(self._block)
        current.filemark = False
        del self._files[self._file + 1 :]
        self._dirty = {each for each in self._dirty if each <= self._file}
        self._changed = True
        self._tail_removed = False
        self.sync()

    def note(self) -> None:
        """Write the state down for a death of the process, without waiting. Raises WriteFailed as `sync`."""
        self._unnoted_bytes = 0
        first = self._first_volatile
        try:
            self._payloads.drain()
            write_buffered(self.folder, self._state.serial, first, self._records(first), self._end())
        except OSError as error:
            raise self._lose_buffer(error) from error

    def sync(self) -> None:
        """Return when all that was written would survive a power cut.

        Raises WriteFailed; then everything since the last successful sync is dropped and the head stands at the end of
        data: after a failed fsync nobody can tell what reached the disk.
        """
        if not self._changed:
            return
        state = msgspec.structs.replace(
            self._state, serial=self._state.serial + 1, end_of_data=self._end(), files=self._records(0)
        )
        try:
            self._payloads.sync(sorted(self._dirty))
            self._seals.sync(self._dirty)
            write_state(self.folder, state)
            (self.folder / BUFFERED).unlink(missing_ok=True)
        except OSError as error:
            raise self._lose_buffer(error) from error
        self._state = state
        self._first_volatile = len(self._files) - 1
        self._dirty = set()
        self._changed = False
        self._unnoted_bytes = 0

    def _records(self, first: int) -> list[FileRecord]:
        files = self._files if self._files[-1].runs.blocks else self._files[:-1]
        return [each.record() for each in files[first:]]

    def _end(self) -> EndRecord:
        last = self._files[-1]
        return EndRecord(file=len(self._files) - 1, block=self.end_block, byte=last.first_byte + last.runs.bytes)

    def _write_failed(self, error: OSError) -> WriteFailed:
        kind = DiskFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else WriteFailed
        return kind(f"the virtual cartridge in {self.folder}: {error.strerror}", self.head_block)

    def _lose_buffer(self, error: OSError) -> WriteFailed:
        failure = self._write_failed(error)
        self.drop_unsynced()
        return failure

    def drop_unsynced(self) -> None:
        """Lose what was not synced, as a power cut does; the head stands at the end of data. Raises DeviceFailed."""
        self._payloads.discard()
        try:
            (self.folder / BUFFERED).unlink(missing_ok=True)
        except OSError as error:
            raise DeviceFailed(f"the virtual cartridge in {self.folder}: {error.strerror}") from error
        self._load(buffered=False)
        self.seek(self.end_block)

    def protect(self, protected: bool) -> None:
        """Set or clear the write-protect tab, durably. Raises WriteFailed."""
        self.sync()
        self._state = msgspec.structs.replace(self._state, write_protected=protected)
        self._changed = True
        self.sync()

    def close(self) -> None:
        """Let go; what is not synced is noted, so that it survives the process but not a power cut."""
        if self._changed:
            self.note()
        self._payloads.release()
