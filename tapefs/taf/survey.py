"""Reads an archive of TAF once, from front to end, and notes what it holds. Blocking; one thread.

Its decompressed stream is cut into frames of equal length: those are what is staged later. Each has a checksum, and
every file its SHA-256. Damage costs what is behind it in the same archive; what is before it is noted.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from drivers.ltfs.attributes import read_facts
from tapefs.errors import BadStructure, UsageError
from tapefs.format.frames import frame_checksum
from tapefs.taf.notes import Notes, TakenArchive
from tapefs.taf.records import Member
from tapefs.taf.sevenzip import members_of_7z
from tapefs.taf.streams import STREAMS, Stream
from tapefs.taf.tar import members_of_stream
from tapefs.taf.volume import Archive, TafVolume, open_archive

#: Length of a frame: as in segments of our own.
FRAME_BYTES = 4 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
#: Between two checkpoints lie so many plain bytes, and twice as many each time there are too many of them.
_STRIDE_BYTES = 64 * 1024 * 1024
_MOST_CHECKPOINTS = 2048
#: What a file can have.
_LARGEST = (1 << 63) - 1

#: Is told the bytes of the archive that were read, and the path at hand.
Tell = Callable[[int, bytes], None]


def survey_archive(volume: TafVolume, archive: Archive, notes: Notes, tell: Tell) -> str:
    """Read an archive and note what it holds; return why it is not whole, empty if it is.

    Raises UsageError when the volume has gone, StorageFailed, CodecFailed.
    """
    with notes.taking(archive) as taken:
        try:
            with open(open_archive(volume, archive), "rb") as file:
                return _Survey(file, archive, taken, tell).run(lambda error: _require(volume, error))
        except OSError as error:
            # Damage of the medium is noted within; this is an archive that cannot even be opened.
            _require(volume, error)
            problem = error.strerror or str(error)
            taken.finish(0, b"", b"", problem)
            return problem


def _require(volume: TafVolume, error: OSError) -> None:
    """Raise UsageError if the volume is not there any more: then nothing can be said of its archives."""
    try:
        is_same = read_facts(volume.root).uuid == volume.facts.uuid
    except OSError:
        is_same = False
    if not is_same:
        raise UsageError(f"the volume at {volume.root} has gone ({error.strerror}): mount it again") from error


class _Survey:
    """One archive at work."""

    def __init__(self, file: BinaryIO, archive: Archive, taken: TakenArchive, tell: Tell) -> None:
        self._archive = archive
        self._taken = taken
        self._tell = tell
        self._file = _Summing(file)
        self._checkpoints = Checkpoints()
        self._cutter: _Cutter | None = None
        #: Where the newest content that was read wholly ends in the stream.
        self._sound_bytes = 0

    def run(self, require: Callable[[OSError], None]) -> str:
        """Read it; return why it is not whole. Raises what `require` raises when the medium cannot be read."""
        problem = ""
        try:
            for member in self._members():
                self._take(member)
        except BadStructure as error:
            problem = str(error)
        except OSError as error:
            require(error)
            problem = f"the volume cannot be read: {error.strerror}"
        problem = problem or self._changed()
        cutter = self._cutter
        plain_bytes = 0 if cutter is None else cutter.finish(self._sound_bytes if problem else cutter.at)
        sha256 = self._file.digest() if not problem and self._archive.suffix != ".7z" else b""
        self._taken.finish(plain_bytes, sha256, self._checkpoints.packed(plain_bytes), problem)
        return problem

    def _changed(self) -> str:
        found = os.fstat(self._file.inside.fileno())
        if (found.st_size, found.st_mtime_ns) == (self._archive.size_bytes, self._archive.mtime_ns):
            return ""
        return "it is still being written: import it again when TAF has done"

    def _members(self) -> Iterator[Member]:
        if self._archive.suffix == ".7z":
            return members_of_7z(self._file.inside, self._cut)
        file = cast(BinaryIO, self._file)
        return members_of_stream(self._cut(STREAMS[self._archive.suffix](file, self._checkpoints.add)))

    def _cut(self, stream: Stream) -> Stream:
        self._cutter = _Cutter(stream, self._taken)
        return self._cutter

    def _take(self, member: Member) -> None:
        if max(member.size_bytes, member.rdev) > _LARGEST:
            raise BadStructure(f"the archive is damaged: {os.fsdecode(member.path)!r} cannot be that large")
        self._tell(self._file.at, member.path)
        sha256 = None
        if stat.S_ISREG(member.mode) and not member.is_link:
            digest, length = hashlib.sha256(), 0
            read = member.read_stored or member.read
            while piece := read(_PIECE_BYTES):
                digest.update(piece)
                length += len(piece)
                self._tell(self._file.at, member.path)
            if length != member.stored_bytes:
                raise BadStructure(f"the archive is damaged: {os.fsdecode(member.path)!r} ends early")
            sha256 = digest.digest()
            self._sound_bytes = max(self._sound_bytes, member.offset + length)
        self._taken.member(member, sha256)


class _Cutter:
    """A stream on its way through: frames of it are summed and noted."""

    def __init__(self, stream: Stream, taken: TakenArchive) -> None:
        self._stream = stream
        self._taken = taken
        self._frame = bytearray()
        #: Whole frames that wait to be noted, because what is sound is known late.
        self._waiting: list[tuple[int, bytes]] = []
        #: Bytes that went through.
        self.at = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        piece = self._stream.read(size)
        self.at += len(piece)
        self._frame += piece
        while len(self._frame) >= FRAME_BYTES:
            with memoryview(self._frame)[:FRAME_BYTES] as whole:
                self._waiting.append((FRAME_BYTES, frame_checksum(whole)))
            del self._frame[:FRAME_BYTES]
        return piece

    def finish(self, end: int) -> int:
        """Note the frames that hold the first `end` bytes; return how many bytes those have."""
        whole = self._waiting[: -(-end // FRAME_BYTES)]
        self._taken.frames(whole)
        done = len(whole) * FRAME_BYTES
        if end <= done:
            return done
        with memoryview(self._frame)[: end - done] as rest:
            self._taken.frames([(rest.nbytes, frame_checksum(rest))])
        return end


class _Summing:
    """A file on its way through, from front to end."""

    def __init__(self, inside: BinaryIO) -> None:
        self.inside = inside
        self._sha256 = hashlib.sha256()
        self.at = 0

    def read(self, size: int, /) -> bytes:
        """Return the next bytes."""
        piece = self.inside.read(size)
        self._sha256.update(piece)
        self.at += len(piece)
        return piece

    def seek(self, place: int, /) -> int:
        """Go to the beginning; nobody goes elsewhere."""
        if place != self.at:
            raise AssertionError("an archive is read from front to end")
        return place

    def digest(self) -> bytes:
        """Return the SHA-256 of all that was read."""
        return self._sha256.digest()


class Checkpoints:
    """Where an archive can be decompressed from: not all places, a few are enough."""

    def __init__(self) -> None:
        self._places: list[tuple[int, int]] = []
        self._stride_bytes = _STRIDE_BYTES

    def add(self, stored: int, plain: int) -> None:
        """Take a place, in the file and in the plain stream, if it is far enough from the one before."""
        newest = self._places[-1][1] if self._places else 0
        if plain - newest < self._stride_bytes:
            return
        self._places.append((stored, plain))
        if len(self._places) > _MOST_CHECKPOINTS:
            self._places = self._places[1::2]
            self._stride_bytes *= 2

    def packed(self, end: int) -> bytes:
        """Return those before `end` of the plain stream, as `ForeignArchive.checkpoints` has them."""
        return b"".join(
            stored.to_bytes(8, "big") + plain.to_bytes(8, "big") for stored, plain in self._places if plain < end
        )


def unpacked(checkpoints: bytes) -> list[tuple[int, int]]:
    """Return checkpoints as (stored, plain) offsets, the beginning included."""
    numbers = [int.from_bytes(checkpoints[at : at + 8], "big") for at in range(0, len(checkpoints), 8)]
    return [(0, 0), *zip(numbers[::2], numbers[1::2], strict=True)]
