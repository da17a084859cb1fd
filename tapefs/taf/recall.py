"""Frames of an archive of TAF's, from the medium in the drive: what `tapefs.recall.payload` does for segments of ours.

An archive is a stream: what is wanted is found by decompressing what is before it, from the beginning or the nearest
checkpoint. So it is read forwards once for all that is wanted in order, and what is passed over on the way is handed
to `passed`: the next wish may be for that. Runs in the drive's thread.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import BinaryIO

from catalog.index.model import FrameRow
from catalog.records import ForeignArchive, Segment, SegmentCopy
from drivers.errors import DeviceGone, NoSuchFile
from drivers.interface import Drive, HoldsFiles
from tapefs.errors import BadStructure, CodecFailed, ContentDamaged
from tapefs.format.frames import frame_checksum
from tapefs.taf.sevenzip import contents_of_7z
from tapefs.taf.streams import DAMAGE, STREAMS, Stream
from tapefs.taf.survey import unpacked

_PIECE_BYTES = 1024 * 1024
#: Errors of files that say that the medium has gone, not that it is damaged.
_GONE = (errno.ENOTCONN, errno.ENODEV, errno.ESTALE, errno.ESHUTDOWN)

#: Is given frames that nobody has asked for: ordinal, bytes.
Passed = Callable[[int, bytes], None]


def nobody(number: int, plain: bytes) -> None:
    """Want none of what is passed over."""


class ArchiveReader:
    """Reads frames of one archive; going on behind the last one costs nothing. `close` lets go of the file."""

    def __init__(
        self, drive: Drive, segment: Segment, copy: SegmentCopy, rows: Sequence[FrameRow], passed: Passed = nobody
    ) -> None:
        """`rows` are those of the set's index. Raises BadStructure when the segment is no archive."""
        if segment.archive is None:
            raise BadStructure(f"segment {segment.segment_id} is no archive of another program")
        self.copy = copy
        self.rows = rows
        self._drive = drive
        self._archive: ForeignArchive = segment.archive
        self._size_bytes = segment.stored_bytes
        self._passed = passed
        self._checkpoints = unpacked(segment.archive.checkpoints)
        self._stream: Stream | None = None
        self._files = ExitStack()
        #: Where the stream stands.
        self._at = 0

    def plain(self, number: int) -> bytes:
        """Return a frame. Raises BadStructure when it is damaged or unreadable, and drive errors."""
        row = self.rows[number]
        try:
            self._go_to(number)
            plain = self._read(row.plain_bytes)
            if len(plain) != row.plain_bytes or frame_checksum(plain) != row.checksum:
                raise ContentDamaged(f"{self.name} is not what it was when it was imported, or it is damaged")
        except BaseException:
            self.forget()
            raise
        return plain

    def next_beginning(self, number: int) -> int:
        """Return the next frame that can be had although this one is damaged; behind the last, if there is none."""
        if self._archive.suffix == ".tar":
            return number + 1
        damaged = self.rows[number].plain_offset
        later = [plain for _, plain in self._checkpoints if plain > damaged]
        return bisect_left(self.rows, later[0], key=lambda row: row.plain_offset) if later else len(self.rows)

    @property
    def name(self) -> str:
        """Path of the archive on the medium, for people."""
        return os.fsdecode(self._archive.path)

    def forget(self) -> None:
        """Begin anew with the next frame."""
        self._files.close()
        self._stream = None

    def close(self) -> None:
        """Let go of the file."""
        self.forget()

    def _go_to(self, number: int) -> None:
        """Have the stream stand where a frame begins."""
        wanted = self.rows[number].plain_offset
        stored, plain = self._checkpoints[bisect_right(self._checkpoints, wanted, key=lambda each: each[1]) - 1]
        if self._archive.suffix == ".tar":
            stored = plain = wanted
        if self._stream is None or not plain <= self._at <= wanted:
            self._open(stored, plain)
        self._pass_to(wanted)

    def _pass_to(self, wanted: int) -> None:
        place = bisect_right(self.rows, self._at, key=lambda row: row.plain_offset) - 1
        while self._at < wanted:
            row = self.rows[place]
            end = row.plain_offset + row.plain_bytes
            is_whole = self._at == row.plain_offset
            plain = self._read(end - self._at)
            if self._at != end:
                raise ContentDamaged(f"{self.name} ends too early: it is not what it was, or it is damaged")
            if is_whole and frame_checksum(plain) == row.checksum:
                self._passed(place, plain)
            place += 1

    def _open(self, stored: int, plain: int) -> None:
        self.forget()
        if not isinstance(self._drive, HoldsFiles):
            raise BadStructure(f"{self.name} lies on a mounted volume, which this drive cannot read")
        try:
            descriptor = self._drive.open_file(self._archive.path)
        except NoSuchFile as error:
            raise BadStructure(str(error)) from error
        file = self._files.enter_context(os.fdopen(descriptor, "rb"))
        found = os.fstat(file.fileno())
        if (found.st_size, found.st_mtime_ns) != (self._size_bytes, self._archive.mtime_ns):
            raise BadStructure(f"{self.name} has changed since it was imported")
        with _failing(self.name):
            self._stream = self._files.enter_context(self._opened(file, (stored, plain)))
        self._at = plain

    def _opened(self, file: BinaryIO, begin: tuple[int, int]) -> AbstractContextManager[Stream]:
        if self._archive.suffix == ".7z":
            return contents_of_7z(file)
        return nullcontext(STREAMS[self._archive.suffix](file, begin=begin))

    def _read(self, size: int) -> bytes:
        """Return the next bytes, fewer at the end. Raises BadStructure, DeviceGone."""
        if self._stream is None:
            raise AssertionError("no archive is open")
        pieces, left = [], size
        with _failing(self.name):
            while left and (piece := self._stream.read(min(left, _PIECE_BYTES))):
                pieces.append(piece)
                left -= len(piece)
        self._at += size - left
        return b"".join(pieces)


@contextmanager
def _failing(name: str) -> Iterator[None]:
    """Make what goes wrong with a file an error of the tape."""
    try:
        yield
    except DAMAGE as error:
        raise ContentDamaged(f"{name} is damaged: {str(error) or type(error).__name__}") from error
    except CodecFailed as error:
        raise BadStructure(f"{name} cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno in _GONE:
            raise DeviceGone(f"the volume has gone while {name} was read: mount it again") from error
        raise BadStructure(f"{name} cannot be read: {error.strerror or error}") from error
