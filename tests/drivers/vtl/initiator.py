"""An initiator for the tests that can also misbehave: PDUs by hand, as the figures of RFC 7143 have them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

NAME = "iqn.2026-01.org.tapefs:tester"
NO_TAG = 0xFFFFFFFF


@dataclass(frozen=True)
class Pdu:
    """What came: the header's 48 bytes and the data."""

    head: bytes
    data: bytes

    @property
    def opcode(self) -> int:
        return self.head[0]

    @property
    def flags(self) -> int:
        return self.head[1]

    def word(self, first: int) -> int:
        return int.from_bytes(self.head[first : first + 4], "big")

    def keys(self) -> dict[str, str]:
        return dict(each.decode().split("=", 1) for each in self.data.split(b"\0") if each)


class Initiator:
    """One connection."""

    def __init__(self, host: str, port: int, isid: bytes = bytes.fromhex("80 00 00 00 00 01")) -> None:
        self.socket = socket.create_connection((host, port), timeout=60)
        self.isid = isid
        self.number = 100
        self.tag = 0

    def __enter__(self) -> Initiator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()

    # -- PDUs -----------------------------------------------------------------------------------------------------

    def send(self, head: bytes, data: bytes = b"") -> None:
        assert len(head) == 48
        self.socket.sendall(head[:4] + b"\0" + len(data).to_bytes(3, "big") + head[8:] + data + bytes(-len(data) % 4))

    def receive(self) -> Pdu:
        head = self._exactly(48)
        length = int.from_bytes(head[5:8], "big")
        return Pdu(head, self._exactly(length + -length % 4)[:length])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    def end(self) -> None:
        """Say nothing more; the target may have ended the connection already."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def is_cut_off(self) -> bool:
        """Read what still comes; tell whether the target then ends the connection."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True

    # -- login ----------------------------------------------------------------------------------------------------

    def login_pdu(self, keys: dict[str, str], *, flags: int, tsih: int = 0, version: int = 0) -> Pdu:
        head = struct.pack(
            ">BBBB4x6sHIHHII16x", 0x43, flags, version, version, self.isid, tsih, 1, 1, 0, self.number, 0
        )
        self.send(head, b"".join(f"{key}={value}".encode() + b"\0" for key, value in keys.items()))
        return self.receive()

    def login(self, target: str, **extra: str) -> Pdu:
        """Log in without security, in one step."""
        keys = {"InitiatorName": NAME, "SessionType": "Normal", "TargetName": target, **extra}
        got = self.login_pdu(keys, flags=0x87)
        assert (got.opcode, got.flags, got.word(36)) == (0x23, 0x87, 0), got
        return got

    # -- commands -------------------------------------------------------------------------------------------------

    def command(
        self,
        lun: int,
        cdb: str | bytes,
        *,
        out: bytes = b"",
        room: int = 0,
        expected: int | None = None,
        final: bool = True,
        number: int | None = None,
    ) -> int:
        """Send a command with immediate data; return its tag."""
        raw = (cdb if isinstance(cdb, bytes) else bytes.fromhex(cdb)).ljust(16, b"\0")
        self.tag += 1
        length = expected if expected is not None else room or len(out)
        flags = 0x80 * final | 0x40 * bool(room) | 0x20 * bool(out or (expected and not room)) | 0x01
        head = struct.pack(
            ">BBxx4xBB6xIIII16s",
            0x01,
            flags,
            0,
            lun,
            self.tag,
            length,
            self.number if number is None else number,
            0,
            raw,
        )
        if number is None:
            self.number += 1
        self.send(head, out)
        return self.tag

    def data_out(self, tag: int, transfer: int, number: int, offset: int, data: bytes, *, final: bool) -> None:
        head = struct.pack(">BBxx4x8xIIIIIII4x", 0x05, 0x80 * final, tag, transfer, 0, 0, 0, number, offset)
        self.send(head, data)

    def result(self) -> tuple[int, bytes, bytes, int]:
        """Collect the answer to one command: status, data, sense, residual (negative for an overflow)."""
        data = b""
        while True:
            got = self.receive()
            if got.opcode == 0x25:
                assert got.word(40) == len(data)
                data += got.data
                if not got.flags & 1:
                    continue
                status, sense = got.head[3], b""
            else:
                assert got.opcode == 0x21, got
                status, sense = got.head[3], got.data[2:]
            residual = got.word(44) * (-1 if got.flags & 4 else 1)
            assert bool(got.flags & 6) == bool(residual)
            return status, data, sense, residual

    def run(self, lun: int, cdb: str | bytes, *, out: bytes = b"", room: int = 0) -> tuple[int, bytes, bytes, int]:
        self.command(lun, cdb, out=out, room=room)
        return self.result()

    def manage(self, function: int, lun: int, referenced: int = NO_TAG) -> Pdu:
        head = struct.pack(">BBxx4xBB6xIIII16x", 0x42, 0x80 | function, 0, lun, 0x7777, referenced, self.number, 0)
        self.send(head)
        return self.receive()

    def ping(self, data: bytes) -> None:
        self.send(struct.pack(">BBxx4x8xIIII16x", 0x40, 0x80, 0x9999, NO_TAG, self.number, 0), data)
