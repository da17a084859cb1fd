"""The tape files on a volume, and a head: storage without rules or times. Blocking; one owner, one thread.

Tape file N is the file `tapefs/0000N`, its bytes end to end. Order of writing: a tape file gets its note (`notes`) when
it is made, saying that it is open; its content is synced before the note says that a filemark ends it; `sync` then
waits for notes, names and LTFS's index. So a note never claims what is not there, and the end of data is in the first
file whose note says open, behind what the note tells. Dropping what is behind the head makes that durable before a byte
of it goes. Bytes behind the end of data are what a crash left; they are removed before the next write.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat

from drivers.errors import DeviceFailed, EndOfMedium, ReadFailed, WriteFailed
from drivers.ltfs.notes import Note, note_name, read_note, write_note
from drivers.ltfs.readme import README, README_NAME
from drivers.ltfs.volume import Volume
from drivers.reading_files import read_error
from drivers.tape_files import TapeFile, TapeFiles
from drivers.virtual.runs import BlockRuns

_NAME = re.compile(r"\d{5}|[1-9]\d{5,8}")
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _TapeFile(TapeFile):
    __slots__ = ("beside",)

    def __init__(self, first_block: int, first_byte: int) -> None:
        super().__init__(first_block, first_byte)
        #: Its note is in a file of its own.
        self.beside = False

    def note(self) -> Note:
        return Note(tuple(self.runs.pairs()), self.filemark)


def tape_file_name(number: int) -> str:
    """Return the name of tape file `number`."""
    return f"{number:05d}"


class Tape(TapeFiles[_TapeFile]):
    """The last file of the list is open, and often empty and not made yet; block numbers count filemarks, too."""

    def __init__(self, volume: Volume) -> None:
        """Read all notes; the head stands at block 0. Raises DeviceFailed when files or notes make no sense."""
        self._volume = volume
        self._descriptor = -1
        self._is_writable = False
        self._load()

    def _load(self) -> None:
        self._let_go()
        self._files = [_TapeFile(0, 0)]
        self._file = self._block = self._byte = 0
        #: The open file exists.
        self._is_made = False
        #: Nothing lies behind the end of data.
        self._tail_removed = False
        #: Tape files whose note or content is not durable yet.
        self._dirty: set[int] = set()
        self._changed = False
        if self._volume.folder < 0:
            return
        try:
            numbers = self._numbers()
            for number in range(len(numbers)):
                if numbers[number] != number:
                    raise DeviceFailed(f"{self._path(number)} is missing, but there are files behind it: bring it back")
                if not self._take(number, is_last=number == len(numbers) - 1):
                    break
        except OSError as error:
            raise self._volume.failure(error) from error

    def _numbers(self) -> list[int]:
        return sorted(int(name) for name in os.listdir(self._volume.folder) if _NAME.fullmatch(name))

    def _take(self, number: int, *, is_last: bool) -> bool:
        """Take over a tape file from the volume; False: the end of data is in it."""
        name = tape_file_name(number)
        strange = DeviceFailed(f"{self._path(number)} is no regular file: it is somebody else's")
        try:
            descriptor = os.open(name, _READ, dir_fd=self._volume.folder)
        except OSError as error:
            raise strange if error.errno == errno.ELOOP else error from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise strange
            note, beside = read_note(self._volume.folder, name, descriptor)
        except ValueError as error:
            raise DeviceFailed(f"the note of {self._path(number)} is damaged: {error}") from error
        finally:
            os.close(descriptor)
        if note is None:
            if found.st_size == 0 and is_last:
                return False
            raise DeviceFailed(
                f"{self._path(number)} has no note of its blocks: if the volume is a copy, copy extended attributes "
                "too (cp -a, rsync -aX)"
            )
        current = self._files[-1]
        current.runs, current.beside, self._is_made = BlockRuns(note.runs), beside, True
        if not note.filemark:
            # Less than noted: the content was not synced when the machine died.
            _shorten(current.runs, found.st_size)
            return False
        self._close_last_file()
        return True

    def _close_last_file(self) -> None:
        last = self._files[-1]
        last.filemark = True
        self._files.append(_TapeFile(last.first_block + last.runs.blocks + 1, last.first_byte + last.runs.bytes))
        self._is_made = False

    def _path(self, number: int) -> str:
        return f"{self._volume.mount}/tapefs/{tape_file_name(number)}"

    # -- where the head is -------------------------------------------------------------------------------------------

    @property
    def end_byte(self) -> int:
        """Return the bytes of all blocks."""
        return self._files[-1].first_byte + self._files[-1].runs.bytes

    @property
    def is_synced(self) -> bool:
        """Would all that was written survive a power cut?"""
        return not self._changed

    @property
    def begins_file(self) -> bool:
        """Would the next block be the first of a tape file?"""
        return self._block == 0

    # -- moving and reading ------------------------------------------------------------------------------------------

    def seek(self, block: int) -> None:
        """Put the head before an existing logical block or at the end of data."""
        super().seek(block)
        self._let_go()

    def pass_filemark(self) -> None:
        """Move the head over the filemark that `next_size` told of."""
        self._let_go()
        super().pass_filemark()

    def read_into(self, block: memoryview) -> None:
        """Fill `block`, as long as `next_size` told, and move on. Raises ReadFailed or DeviceFailed: the head stays."""
        done = 0
        try:
            if self._descriptor < 0:
                self._descriptor = os.open(tape_file_name(self._file), _READ, dir_fd=self._volume.folder)
            while done < len(block):
                count = os.preadv(self._descriptor, [block[done:]], self._byte + done)
                if count == 0:
                    raise ReadFailed(f"{self._path(self._file)} is shorter than its note says", self.head_block)
                done += count
        except OSError as error:
            self._let_go()
            raise read_error(self._path(self._file), error, self.head_block) from error
        self._block += 1
        self._byte += len(block)

    def _let_go(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        self._is_writable = False
        if descriptor >= 0:
            os.close(descriptor)

    # -- writing -----------------------------------------------------------------------------------------------------

    def append(self, block: bytes | memoryview) -> None:
        """Write one block at the head. Raises EndOfMedium (nothing of it is there then), WriteFailed."""
        self._make_end_of_data()
        try:
            self._open_for_writing()
            self._write(block)
        except OSError as error:
            raise self._lose(error) from error
        self._changed = True
        self._dirty.add(self._file)
        self._files[-1].runs.extend(len(block))
        self._block += 1
        self._byte += len(block)

    def truncate(self) -> None:
        """Make the head's place the end of data, durably; an empty tape file there goes, too. Raises WriteFailed."""
        self._make_end_of_data()
        try:
            if self._is_made and not self._files[-1].runs.blocks:
                self._let_go()
                _remove(self._volume.folder, tape_file_name(len(self._files) - 1))
                self._is_made = False
                self._dirty.discard(len(self._files) - 1)
            self._changed = True
        except OSError as error:
            raise self._lose(error) from error
        self.sync()

    def _write(self, block: bytes | memoryview) -> None:
        rest, done = memoryview(block), 0
        try:
            while done < len(rest):
                done += os.pwrite(self._descriptor, rest[done:], self._byte + done)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            os.ftruncate(self._descriptor, self._byte)
            raise EndOfMedium(f"the volume at {self._volume.mount} is full ({error.strerror})") from error

    def append_filemark(self) -> None:
        """Write a filemark at the head; what is before it in its tape file is synced. Raises as append."""
        self._make_end_of_data()
        last = self._files[-1]
        try:
            self._open_for_writing()
            os.fsync(self._descriptor)
            last.filemark = True
            self._write_note(last)
        except OSError as error:
            last.filemark = False
            raise self._lose(error) from error
        self._changed = True
        self._dirty.add(self._file)
        self._close_last_file()
        self.pass_filemark()

    def _open_for_writing(self) -> None:
        """Have the open file at hand, made if it is missing. Raises OSError."""
        if self._descriptor >= 0 and self._is_writable:
            return
        self._let_go()
        name = tape_file_name(self._file)
        if self._is_made:
            self._descriptor = os.open(name, _WRITE, dir_fd=self._volume.folder)
        else:
            folder = self._volume.make_folder()
            if self._file == 0:
                _write_readme(folder)
            self._descriptor = os.open(name, _WRITE | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=folder)
            self._is_made = True
            self._write_note(self._files[-1])
        self._is_writable = True

    def _write_note(self, file: _TapeFile) -> None:
        """Note the blocks of the open file, which is at hand."""
        name = tape_file_name(len(self._files) - 1)
        file.beside = write_note(self._volume.folder, name, self._descriptor, file.note(), beside=file.beside)

    def _make_end_of_data(self) -> None:
        """Drop what is behind the head, and what a crash left behind the end of data."""
        if self._file < len(self._files) - 1 or self._block < self._files[-1].runs.blocks:
            self._cut()
        if self._tail_removed:
            return
        try:
            self._remove_tail()
        except OSError as error:
            raise self._lose(error) from error
        self._tail_removed = True

    def _cut(self) -> None:
        """Make the head's place the end of data, durably."""
        current = self._files[self._file]
        current.runs.cut(self._block)
        current.filemark = False
        del self._files[self._file + 1 :]
        self._is_made = True
        self._tail_removed = False
        self._dirty = {each for each in self._dirty if each < self._file} | {self._file}
        self._changed = True
        self.sync()

    def _remove_tail(self) -> None:
        """Remove the bytes and files behind the end of data. Raises OSError."""
        folder = self._volume.folder
        if folder < 0:
            return
        self._let_go()
        last = len(self._files) - 1
        for number in reversed(self._numbers()):
            if number <= last:
                break
            _remove(folder, tape_file_name(number))
        if last not in self._numbers():
            return
        size_bytes = self._files[-1].runs.bytes
        descriptor = os.open(tape_file_name(last), _WRITE, dir_fd=folder)
        try:
            if os.fstat(descriptor).st_size != size_bytes:
                os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
        if not self._is_made:
            # A file without a note and without a byte: made, and then the machine died.
            _remove(folder, tape_file_name(last))

    def sync(self) -> None:
        """Return when all that was written would survive a power cut. Raises WriteFailed as `append`."""
        if not self._changed:
            return
        try:
            if len(self._files) - 1 in self._dirty:
                self._sync_open_file()
            for number in sorted(self._dirty):
                self._sync_file(number)
            self._volume.sync()
        except OSError as error:
            raise self._lose(error) from error
        self._dirty = set()
        self._changed = False

    def _sync_open_file(self) -> None:
        """Sync the content, then note what there is of it."""
        kept = self._descriptor >= 0 and self._is_writable
        if not kept:
            self._let_go()
            number = len(self._files) - 1
            self._descriptor = os.open(tape_file_name(number), _WRITE, dir_fd=self._volume.folder)
            self._is_writable = True
        os.fsync(self._descriptor)
        self._write_note(self._files[-1])
        if not kept:
            self._let_go()

    def _sync_file(self, number: int) -> None:
        descriptor = os.open(tape_file_name(number), _READ, dir_fd=self._volume.folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _lose(self, error: OSError) -> WriteFailed:
        """Return what a failed write or sync means: nobody can tell what is on the medium, `reload` looks."""
        block = self.head_block
        self._let_go()
        return WriteFailed(f"the volume at {self._volume.mount}: {error.strerror}", block)

    def reload(self) -> None:
        """Take what is on the volume for what there is; the head stands at block 0. Raises DeviceFailed."""
        self._load()

    def close(self) -> None:
        """Let go of all files. What was not synced is not noted, so it is lost."""
        self._let_go()


def _shorten(runs: BlockRuns, size_bytes: int) -> None:
    """Keep only the blocks that are whole within `size_bytes`."""
    blocks = 0
    for size, count in runs.pairs():
        whole = min(count, size_bytes // size)
        blocks += whole
        size_bytes -= whole * size
        if whole < count:
            break
    runs.cut(blocks)


def _write_readme(folder: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(README_NAME, flags, 0o644, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(README.encode())
        file.flush()
        os.fsync(descriptor)


def _remove(folder: int, name: str) -> None:
    """Remove a tape file behind the end of data, its note first: the file behind an open one needs none."""
    descriptor = os.open(name, _WRITE, dir_fd=folder)
    try:
        os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(note_name(name), dir_fd=folder)
    os.unlink(name, dir_fd=folder)
