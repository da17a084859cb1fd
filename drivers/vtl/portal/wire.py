"""A connection: whole PDUs in, lists of buffers out. One thread reads; any thread sends, one at a time.

Raises ConnectionError when the peer has gone, ProtocolError when what comes is no PDU.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Sequence

from drivers.vtl.portal.pdu import HEADER_BYTES, Header, ProtocolError, parse_header

#: The kernel takes 1,024 pieces at a time.
_MAX_PIECES = 512
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def padding(length: int) -> bytes:
    """Return what fills up a data segment."""
    return _PADDING[length % 4]


class Wire:
    """One TCP connection."""

    def __init__(self, connection: socket.socket, *, patience_s: float) -> None:
        """A peer that takes nothing for `patience_s` seconds has gone."""
        self._socket = connection
        self._header = bytearray(HEADER_BYTES)
        self._rest = memoryview(bytearray(1024))
        self.lock = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(patience_s))
        # A host that lost its power is noticed after two minutes.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 6)

    def local_address(self) -> str:
        """Return the address that the peer came to, as TargetAddress wants it."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def wait_at_most(self, seconds: float) -> None:
        """Give the peer so long for each piece that is read from now on; 0: for ever."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(seconds))

    def read_header(self) -> Header:
        """Return the next header; additional ones are read past."""
        self.read_into(memoryview(self._header))
        extra = 4 * self._header[4]
        if extra:
            self.read_into(self._rest[:extra])
        return parse_header(bytes(self._header))

    def read_data(self, length: int, most: int) -> bytes:
        """Return a data segment of at most `most` bytes."""
        if length > most:
            raise ProtocolError(f"a data segment of {length} bytes, {most} were promised at most")
        data = bytearray(length)
        self.read_data_into(memoryview(data))
        return bytes(data)

    def read_data_into(self, target: memoryview) -> None:
        """Fill `target` from a data segment of its length, and read past the padding."""
        if len(target):
            self.read_into(target)
            pad = -len(target) % 4
            if pad:
                self.read_into(self._rest[:pad])

    def skip_data(self, length: int) -> None:
        """Read past a data segment that nobody wants."""
        left = length + -length % 4
        while left:
            piece = min(left, len(self._rest))
            self.read_into(self._rest[:piece])
            left -= piece

    def read_into(self, target: memoryview) -> None:
        """Fill `target`."""
        done = 0
        while done < len(target):
            try:
                count = self._socket.recv_into(target[done:], 0, socket.MSG_WAITALL)
            except (BlockingIOError, TimeoutError) as error:
                raise ConnectionError("the initiator says nothing more") from error
            except OSError as error:
                raise ConnectionError(str(error)) from error
            if not count:
                raise ConnectionError("the initiator has closed the connection")
            done += count

    def send(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Send all pieces; the caller holds `lock`."""
        for first in range(0, len(pieces), _MAX_PIECES):
            self._send(list(pieces[first : first + _MAX_PIECES]))

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        left = sum(map(len, pieces))
        while True:
            try:
                count = self._socket.sendmsg(pieces)
            except (BlockingIOError, TimeoutError) as error:
                raise ConnectionError("the initiator takes nothing more") from error
            except OSError as error:
                raise ConnectionError(str(error)) from error
            left -= count
            if not left:
                return
            while count >= len(pieces[0]):
                count -= len(pieces.pop(0))
            pieces[0] = memoryview(pieces[0])[count:]

    def shut(self) -> None:
        """End the connection both ways: whoever reads or sends gets ConnectionError. Any thread; harmless twice."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The peer was quicker.
            return

    def close(self) -> None:
        """Let go of the socket; nobody uses it any more."""
        self._socket.close()


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))
