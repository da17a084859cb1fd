"""What the mover of a backup and one that writes a further copy at the same time say to each other, and how.

A stream socket between the two; its name is abstract, so that nothing is left of it, and each end looks at whose
process the other is. Five bytes in front of each message: whether it is a word (msgpack) or a block of the payload, and
its length. The death of either end is the end of the stream for the other. Blocking; each direction is used by one
thread.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import msgspec

from catalog.ids import SegmentId, SetId, VolumeId, new_uuid
from catalog.records import Segment, SetTotals
from tapefs.errors import TapefsError
from tapefs.format.records import Header

#: Socket buffers: two blocks wait in the kernel, so that neither end waits for the other's turn on the processor.
_BUFFER_BYTES = 1024 * 1024
_FRAME = struct.Struct(">?I")
_PEER = struct.Struct("3i")
#: How long one call waits before the caller looks around.
_LOOK_S = 0.25
#: No message comes near it.
_LONGEST_BYTES = 64 * 1024**2


class HungUp(TapefsError):
    """The other mover is gone, or wants no more."""


class _Word(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all words."""


# -- from the backup ---------------------------------------------------------------------------------------------------


class Go(_Word, frozen=True, kw_only=True):
    """Get a tape: one with this key (empty: none), and not one of these."""

    key_fingerprint: str
    by_drive: bool
    exclude: list[VolumeId]


class Begin(_Word, frozen=True, kw_only=True):
    """A segment begins; the blocks that follow are its payload."""

    #: As on the first tape, but for the volume.
    header: Header
    #: Plain bytes that it may hold.
    limit_bytes: int
    #: What the set has so far.
    totals: SetTotals


class PayloadEnds(_Word, frozen=True, kw_only=True):
    """There are no more blocks."""

    sha256: bytes


class TrailerIsThere(_Word, frozen=True, kw_only=True):
    """The segment's local trailer is whole and synced."""


class Committed(_Word, frozen=True, kw_only=True):
    """The first copy counts; so may this one."""

    segment: Segment


class Lost(_Word, frozen=True, kw_only=True):
    """The segment does not come to be, or not on this tape: forget it."""


class Sealed(_Word, frozen=True, kw_only=True):
    """The set is whole and COMPLETE in the ledger: write its SET INDEX, and end."""


# -- to the backup -----------------------------------------------------------------------------------------------------


class Hello(_Word, frozen=True, kw_only=True):
    """First: which of the copies this is, by its place in the offer."""

    target: int


class Ready(_Word, frozen=True, kw_only=True):
    """A tape stands at its end, and the next segment may begin there."""

    volume_id: VolumeId
    #: Plain bytes that a segment may hold there.
    room_bytes: int


class Changing(_Word, frozen=True, kw_only=True):
    """The tape is full, another one is on its way; `Ready` comes when it is there."""


class Copied(_Word, frozen=True, kw_only=True):
    """The segment's copy is on tape and in the ledger."""

    segment_id: SegmentId


class Dropped(_Word, frozen=True, kw_only=True):
    """The segment does not get this copy now."""

    segment_id: SegmentId
    reason: str


Word = (
    Go | Begin | PayloadEnds | TrailerIsThere | Committed | Lost | Sealed | Hello | Ready | Changing | Copied | Dropped
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Word] = msgspec.msgpack.Decoder(Word)


class CopyTask(msgspec.Struct, frozen=True, kw_only=True):
    """One further copy of a set that is being written."""

    set_id: SetId
    #: Where the mover of the backup listens.
    address: str
    #: Its place in the offer.
    target: int
    #: Whose tapes it is for; empty: those of the job's pool, other ones than the first copy's.
    pool: str


class Wire:
    """One end of the stream."""

    def __init__(self, connection: socket.socket) -> None:
        """Owns the connection from now on. Raises OSError when the other end is another user's."""
        self._socket = connection
        try:
            _check_peer(connection)
            connection.setblocking(True)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                connection.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            # A receive looks around now and then; a send is ended by the other end's death, or by `hang_up`.
            seconds = struct.pack("ll", 0, int(_LOOK_S * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, seconds)
        except OSError:
            connection.close()
            raise

    def say(self, word: Word) -> None:
        """Send a word. Raises HungUp."""
        self._send(_encoder.encode(word), is_block=False)

    def give(self, block: bytes | memoryview) -> None:
        """Send a block of the payload. Raises HungUp."""
        self._send(block, is_block=True)

    def hear(self, look_around: Callable[[], None]) -> Word | bytes:
        """Wait for a word or a block. Raises HungUp, and what `look_around` does, which is called for each at least."""
        look_around()
        is_block, length = _FRAME.unpack(self._receive(_FRAME.size, look_around))
        if length > _LONGEST_BYTES:
            raise HungUp("the other mover speaks another language")
        data = self._receive(length, look_around)
        if is_block:
            return data
        try:
            return _decoder.decode(data)
        except msgspec.DecodeError as error:
            raise HungUp(f"the other mover speaks another language: {error}") from error

    def hang_up(self) -> None:
        """Let both ends' calls end; from any thread, harmless twice."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # The other end was faster.

    def close(self) -> None:
        """Let go of the socket; nobody may be using it any more."""
        self._socket.close()

    def _send(self, data: bytes | memoryview, *, is_block: bool) -> None:
        try:
            rest = memoryview(_FRAME.pack(is_block, len(data)))
            sent = self._socket.sendmsg([rest, data])
            if sent < len(rest):
                self._socket.sendall(rest[sent:])
                sent = len(rest)
            self._socket.sendall(memoryview(data)[sent - len(rest) :])
        except OSError as error:
            raise HungUp("the other mover is gone") from error

    def _receive(self, length: int, look_around: Callable[[], None]) -> bytes:
        parts: list[bytes] = []
        while length:
            try:
                part = self._socket.recv(length, socket.MSG_WAITALL)
            except BlockingIOError:
                look_around()
                continue
            except OSError as error:
                raise HungUp("the other mover is gone") from error
            if not part:
                raise HungUp("the other mover is gone")
            parts.append(part)
            length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def listen() -> tuple[socket.socket, str]:
    """Return a socket that listens, and its address for `connect`. Raises OSError."""
    address = f"tapefs-copies-{new_uuid()}"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(f"\0{address}")
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener, address


def connect(address: str) -> Wire:
    """Return the way to the mover that listens there. Raises HungUp."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(f"\0{address}")
        return Wire(connection)
    except OSError as error:
        connection.close()
        raise HungUp(f"the backup does not listen any more: {error.strerror or error}") from error


def _check_peer(connection: socket.socket) -> None:
    """Raise PermissionError unless the other end is a process of our user: abstract names have no permissions."""
    _, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    if uid != os.geteuid():
        raise PermissionError(f"a process of user {uid} wanted to take part in a backup")
