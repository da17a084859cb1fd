"""Where the frames of a segment go: straight to the drive, or first into a file, for archives that name their end.

Used by the writer thread alone.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Protocol

from catalog.errors import StorageFailed
from catalog.index.model import EntryFlag
from tapefs.backup.draft import Draft
from tapefs.backup.frames import Frame
from tapefs.codecs import Codec
from tapefs.codecs.lzma2 import END_OF_STREAM
from tapefs.format.frames import frame_checksum
from tapefs.format.records import DirectoryEntered, DirectoryLeft, as_bytes
from tapefs.format.sevenzip import SIGNATURE_BYTES, ArchiveIndex, signature_header
from tapefs.format.tar import part_name

_COPY_BYTES = 1 << 20
#: By another name, because in a class that has a field `bytes` that is what `bytes` means.
Octets = bytes
#: The ledger and the trailers want room on the same disk.
_KEPT_FREE_BYTES = 64 << 20
_LEAST_ROOM_BYTES = 16 << 20


class Payload(Protocol):
    """The payload of one segment."""

    @property
    def place(self) -> int:
        """Where the next frame begins."""
        ...

    def begin(self) -> None:
        """Get ready. Raises StorageFailed."""
        ...

    def add(self, frame: Frame) -> None:
        """Take a frame with its members; one of no bytes brings members only. Raises drive errors, StorageFailed.

        What is stored of it may get an end here, and with that its checksum.
        """
        ...

    def finish(self) -> None:
        """Give the drive all that is still missing, but for the last short block. Raises as `add`."""
        ...

    def close(self) -> None:
        """Let go of what was needed on the way. Harmless twice."""
        ...


class ByteSink(Protocol):
    """Takes a stream of bytes: a `TapeFile`, or a file of the spool."""

    @property
    def bytes(self) -> int:
        """Taken in so far."""
        ...

    def write(self, data: Octets | memoryview) -> None:
        """Take in bytes, which do not change afterwards. Raises drive errors, or OSError."""
        ...


class StreamedPayload:
    """Frames go on as they come, to the drive or into the spool, and the codec's closing behind them."""

    def __init__(self, sink: ByteSink, codec: Codec) -> None:
        self._sink = sink
        self._codec = codec
        self._lengths: list[tuple[int, int]] = []

    @property
    def place(self) -> int:
        """See `Payload.place`."""
        return self._sink.bytes

    def begin(self) -> None:
        """See `Payload.begin`."""

    def add(self, frame: Frame) -> None:
        """See `Payload.add`."""
        if frame.used:
            self._sink.write(frame.stored)
            self._lengths.append((len(frame.stored), frame.used))

    def finish(self) -> None:
        """See `Payload.finish`."""
        self._sink.write(self._codec.closing(self._lengths))

    def close(self) -> None:
        """See `Payload.close`."""


class ArchivePayload:
    """A `.7z`: it is made in a file without a name, because its first bytes say where its end lies.

    The plain stream is the members' contents, one behind the other without gaps. What a 7z cannot hold is left out:
    devices, fifos, and names that share the content of an earlier member of the segment.
    """

    def __init__(self, blocks: ByteSink, scratch: Path, frame_bytes: int) -> None:
        """`scratch` is where the files are; no frame is longer than `frame_bytes`."""
        self._blocks = blocks
        self._scratch = scratch
        self._frame_bytes = frame_bytes
        self._files: list[IO[bytes]] = []
        self.place = SIGNATURE_BYTES
        #: Paths of the open directories, each with a slash, by number.
        self._paths: dict[int, bytes] = {}
        #: Where the next content begins in the plain stream.
        self._plain = 0
        #: Of the block at hand: packed and plain length.
        self._block = (0, 0)
        #: CRC-32 of the content that runs over frames.
        self._running = 0

    def begin(self) -> None:
        """See `Payload.begin`."""
        with self._storage():
            self._scratch.mkdir(mode=0o700, exist_ok=True)
            self._spool = self._open()
            self._index = ArchiveIndex(self._open(), self._frame_bytes)
            self._spool.write(bytes(SIGNATURE_BYTES))

    def add(self, frame: Frame) -> None:
        """See `Payload.add`."""
        checks = self._checks(frame)
        with self._storage():
            for number, draft in enumerate(frame.drafts):
                self._take(draft, checks.get(number, 0))
            if not frame.used:
                return
            is_cut = bool(frame.pieces) and frame.pieces[-1].draft < 0
            if not is_cut:
                frame.stored = bytes(frame.stored) + END_OF_STREAM
                frame.checksum = frame_checksum(frame.stored)
            self._spool.write(frame.stored)
            self.place += len(frame.stored)
            packed, plain = self._block
            self._block = (packed + len(frame.stored), plain + frame.used)
            if not is_cut:
                self._index.add_block(*self._block)
                self._block = (0, 0)

    def finish(self) -> None:
        """See `Payload.finish`."""
        if self._block != (0, 0):
            raise AssertionError("the last frame of a segment ends within a member")
        with self._storage():
            closing = self._index.closing()
            end = next(closing)
            for piece in closing:
                self._spool.write(end)
                self.place, end = self.place + len(end), piece
            self._spool.write(end)
            self._spool.seek(0)
            self._spool.write(signature_header(self.place, end))
            self._spool.seek(0)
        while piece := self._read():
            self._blocks.write(piece)

    def close(self) -> None:
        """See `Payload.close`."""
        for file in self._files:
            try:
                file.close()
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise  # Of a full disk the error has been told; what was not written is not wanted any more.

    def _open(self) -> IO[bytes]:
        file = TemporaryFile(dir=self._scratch)  # noqa: SIM115 - for close()
        self._files.append(file)
        return file

    def _read(self) -> bytes:
        with self._storage():
            return self._spool.read(_COPY_BYTES)

    def _checks(self, frame: Frame) -> dict[int, int]:
        """Return the CRC-32 of the contents that end in this frame, by draft number."""
        view = frame.view
        checks = {draft: zlib.crc32(view[start : start + length]) for draft, start, length in frame.spans}
        for start, length, first, draft in frame.pieces:
            self._running = zlib.crc32(view[start : start + length], 0 if first else self._running)
            if draft >= 0:
                checks[draft] = self._running
        return checks

    def _take(self, draft: object, check: int) -> None:
        if isinstance(draft, Draft):
            self._take_member(draft, check)
        elif isinstance(draft, DirectoryEntered):
            self._enter(draft)
        elif isinstance(draft, DirectoryLeft):
            self._paths.pop(draft.n, None)

    def _enter(self, line: DirectoryEntered) -> None:
        name = as_bytes(line.name, line.name_b64)
        path = self._paths.get(line.p, b"") + name
        self._paths[line.n] = path + b"/" if path else b""
        if path:
            self._index.add_member(path, line.mode, line.mtime, None)

    def _take_member(self, draft: Draft, check: int) -> None:
        mode, length = draft.status.st_mode, draft.content_bytes
        if draft.flags & EntryFlag.UNREADABLE or not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            return
        if length and draft.at != self._plain:
            return  # Another name of a member before it.
        name = draft.name if draft.part < 0 else part_name(draft.name, draft.part)
        if stat.S_ISLNK(mode):
            check = zlib.crc32(draft.target)
        content = (length, check) if length else None
        self._index.add_member(self._paths[draft.directory] + name, mode, draft.status.st_mtime_ns, content)
        self._plain += length

    @contextmanager
    def _storage(self) -> Iterator[None]:
        """Raise StorageFailed for errors of the scratch folder: they are no fault of the tape."""
        try:
            yield
        except OSError as error:
            raise StorageFailed(
                f"cannot collect a 7z segment in {self._scratch}: {error.strerror}; see to its disk, then run the "
                "backup again",
                retryable=error.errno in (errno.ENOSPC, errno.EDQUOT),
            ) from error


def archive_room(scratch: Path, needed_bytes: int) -> int:
    """Return how many plain bytes a 7z segment may hold by the room on the disk of its folder.

    Raises StorageFailed when that is less than `needed_bytes`, or too little for any segment worth writing.
    """
    status = os.statvfs(scratch if scratch.exists() else scratch.parent)
    room = (status.f_bavail * status.f_frsize - _KEPT_FREE_BYTES) * 100 // 102
    needed_bytes = max(needed_bytes, _LEAST_ROOM_BYTES)
    if room < needed_bytes:
        raise StorageFailed(
            f"a 7z segment is collected in {scratch} before it goes to tape, and there is room for {max(room, 0)} "
            f"bytes only, where {needed_bytes} are needed: make room there, or use another codec",
            retryable=True,
        )
    return room
