"""An initiator's hand for the tests: sends CDBs in hexadecimal to a device server in process, and reads sense."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from drivers.scsi.transport import Reply, Status
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import AnyFault, FaultyDrive
from drivers.virtual.library import create_library
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from drivers.vtl.unit import LogicalUnit

MIB = 2**20


@dataclass(frozen=True)
class Got:
    """What came back."""

    status: Status
    #: Key, additional code and qualifier, "" when there is none.
    sense: str
    #: Of FEI: filemark, end of medium, incorrect length.
    flags: str
    information: int | None
    data: bytes
    raw: bytes


class Hand:
    """One initiator."""

    def __init__(self, server: LogicalUnit, name: str = "test", *, greet: bool = True) -> None:
        self.transport = LocalTransport(server, name)
        if greet:
            assert self("00 00 00 00 00 00").sense[:5] == "6 290"

    def __call__(self, cdb: str | bytes, out: bytes | None = None, room: int = 65536) -> Got:
        raw = cdb if isinstance(cdb, bytes) else bytes.fromhex(cdb)
        buffer = bytearray(room)
        view = memoryview(buffer) if out is None and room else None
        return read_reply(self.transport.execute(raw, data_in=view, data_out=out, timeout_s=10), buffer)

    def good(self, cdb: str | bytes, out: bytes | None = None, room: int = 65536) -> bytes:
        """Send a command that must go well; return its data."""
        got = self(cdb, out, room)
        assert got.status is Status.GOOD, got
        return got.data

    def write(self, block: bytes) -> Got:
        return self(b"\x0a\0" + len(block).to_bytes(3, "big") + b"\0", block)

    def read(self, size: int = 65536, flags: int = 0) -> Got:
        return self(bytes([0x08, flags]) + size.to_bytes(3, "big") + b"\0", room=size)

    def marks(self, count: int = 1) -> Got:
        return self(b"\x10\0" + count.to_bytes(3, "big") + b"\0", b"")

    def space(self, kind: int, count: int) -> Got:
        return self(bytes([0x11, kind]) + count.to_bytes(3, "big", signed=True) + b"\0", room=0)

    def where(self) -> tuple[int, int]:
        """Return block and file of READ POSITION, long form."""
        data = self.good("34 06 00 00 00 00 00 00 00 00", room=32)
        return int.from_bytes(data[8:16], "big"), int.from_bytes(data[16:24], "big")


def read_reply(reply: Reply, buffer: bytes | bytearray) -> Got:
    sense = reply.sense
    data = bytes(buffer[: reply.moved_bytes])
    if not sense:
        return Got(reply.status, "", "", None, data, b"")
    assert sense[0] & 0x7F == 0x70
    assert len(sense) == 8 + sense[7]
    flags = "".join(letter for letter, bit in (("F", 0x80), ("E", 0x40), ("I", 0x20)) if sense[2] & bit)
    information = int.from_bytes(sense[3:7], "big", signed=True) if sense[0] & 0x80 else None
    text = f"{sense[2] & 0xF:X} {sense[12]:02X}{sense[13]:02X}"
    return Got(reply.status, text, flags, information, data, sense)


def make_tape(folder: Path, *faults: AnyFault, tape_bytes: int = 16 * MIB, generation: int = 9) -> TapeServer:
    """Return the server of a drive with a cartridge in it, threaded; the library is made if it is not there."""
    if not folder.exists():
        create_library(folder, tapes=2, tape_bytes=tape_bytes, drives=1, generation=generation)
        VirtualChanger(folder).load(0, 0)
    drive = VirtualDrive(folder, 0)
    server = TapeServer(FaultyDrive(drive, list(faults)) if faults else drive)
    server.inserted()
    return server


def fill(hand: Hand, *items: bytes) -> None:
    """Write blocks, and filemarks where an item is b""."""
    for item in items:
        assert (hand.write(item) if item else hand.marks()).sense == ""


def parameters(page: bytes) -> dict[int, bytes]:
    found, at = {}, 4
    assert int.from_bytes(page[2:4], "big") == len(page) - 4
    while at < len(page):
        length = page[at + 3]
        found[int.from_bytes(page[at : at + 2], "big")] = page[at + 4 : at + 4 + length]
        at += 4 + length
    return found


def log(hand: Hand, number: int) -> dict[int, bytes]:
    page = hand.good(bytes([0x4D, 0, 0x40 | number, 0, 0, 0, 0, 0xFF, 0xFF, 0]))
    assert page[:2] == bytes([number, 0])
    return parameters(page)
