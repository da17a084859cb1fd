"""Any command whatever: the answer is one that SCSI knows, and the device goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drivers.scsi.transport import Status
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.library import create_library
from drivers.vtl.changer import ChangerServer
from drivers.vtl.commands import Nexus
from drivers.vtl.tape import TapeServer
from drivers.vtl.unit import LogicalUnit
from tests.drivers.vtl.bench import MIB

NEXUS = Nexus("fuzz")
KEYS = {0x0, 0x2, 0x3, 0x5, 0x6, 0x7, 0x8, 0xD}
FUZZ = settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def units(tmp_path: Path) -> Iterator[tuple[TapeServer, ChangerServer]]:
    folder = tmp_path / "library"
    create_library(folder, tapes=2, tape_bytes=16 * MIB, drives=1, generation=9)
    VirtualChanger(folder).load(0, 0)
    tape = TapeServer(VirtualDrive(folder, 0))
    tape.inserted()
    changer = ChangerServer(VirtualChanger(folder), [tape], "FUZZ")
    for unit in (tape, changer):
        unit.attach(NEXUS)
    yield tape, changer
    changer.close()
    tape.close()


def opcodes(unit: LogicalUnit) -> list[int]:
    """Return what the unit says that it knows."""
    room = memoryview(bytearray(65536))
    answer = unit.execute(NEXUS, bytes.fromhex("A3 0C 00 00 00 00 00 00 FF FF 00 00"), None, room)
    if answer.sense:
        return opcodes(unit)
    return [room[at] for at in range(4, answer.moved_bytes, 8)]


def check(unit: LogicalUnit, cdb: bytes, out: bytes, room: int) -> None:
    buffer = bytearray(b"\xa5" * (room + 16))
    answer = unit.execute(NEXUS, cdb, memoryview(out), memoryview(buffer)[:room])
    assert answer.status in (Status.GOOD, Status.CHECK_CONDITION, Status.RESERVATION_CONFLICT)
    assert bool(answer.sense) is (answer.status is Status.CHECK_CONDITION)
    if answer.sense:
        is_fixed = answer.sense[0] & 0x7F == 0x70
        assert is_fixed or answer.sense[0] == 0x72
        key = answer.sense[2] & 0x0F if is_fixed else answer.sense[1]
        assert key in KEYS
        # No internal failure: every refusal has its reason.
        code = answer.sense[12:14] if is_fixed else answer.sense[2:4]
        assert code != b"\x44\x00"
    assert answer.moved_bytes <= max(room, len(out))
    assert buffer[room:] == b"\xa5" * 16


COMMANDS = st.lists(
    st.tuples(st.integers(0, 999), st.binary(min_size=15, max_size=15), st.booleans(), st.binary(max_size=64)),
    min_size=1,
    max_size=8,
)


@FUZZ
@given(commands=COMMANDS, which=st.integers(0, 1))
def test_known_commands_with_any_bits(
    units: tuple[TapeServer, ChangerServer], commands: list[tuple[int, bytes, bool, bytes]], which: int
) -> None:
    unit = units[which]
    known = opcodes(unit)
    for number, rest, is_calm, out in commands:
        opcode = known[number % len(known)]
        # Bits where nothing is to be said are refused at once: most commands keep to the others.
        mask = usage(unit, opcode) if is_calm else b"\xff" * 15
        check(unit, bytes([opcode, *(each & bits for each, bits in zip(rest, mask, strict=True))]), out, 256)


def usage(unit: LogicalUnit, opcode: int) -> bytes:
    """Return which bits of bytes 1 to 15 a command looks at, by REPORT SUPPORTED OPERATION CODES."""
    room = memoryview(bytearray(64))
    for action in range(32):
        cdb = bytes([0xA3, 0x0C, 3, opcode, 0, action, 0, 0, 0, 64, 0, 0])
        answer = unit.execute(NEXUS, cdb, None, room)
        if answer.moved_bytes > 4:
            return bytes([room[5] | 0x1F if action else room[5]]) + bytes(room[6 : answer.moved_bytes]).ljust(14, b"\0")
    return bytes(15)


@FUZZ
@given(cdb=st.binary(max_size=16), out=st.binary(max_size=64), which=st.integers(0, 1))
@example(cdb=b"", out=b"", which=0)
@example(cdb=b"\xa3", out=b"", which=1)
def test_any_bytes(units: tuple[TapeServer, ChangerServer], cdb: bytes, out: bytes, which: int) -> None:
    check(units[which], cdb, out, 64)


@FUZZ
@given(
    header=st.binary(min_size=4, max_size=8),
    pages=st.binary(max_size=48),
    number=st.sampled_from([0x01, 0x0A, 0x0F, 0x10, 0x11, 0x1C, 0x1D]),
    which=st.integers(0, 1),
)
def test_any_modes(
    units: tuple[TapeServer, ChangerServer], header: bytes, pages: bytes, number: int, which: int
) -> None:
    """Whatever is selected, the pages keep their form."""
    unit = units[which]
    for out in (header + pages, bytes([0, 0, 0x10, 0, number]) + pages):
        check(unit, bytes([0x15, 0x10, 0, 0, len(out), 0]), out, 0)
    check(unit, bytes([0x1A, 0, 0x3F, 0, 0xFF, 0]), b"", 255)


@FUZZ
@given(body=st.binary(max_size=80), number=st.sampled_from([0x0800, 0x0803, 0x0806, 0x0001, 0x1234]))
def test_any_memory(units: tuple[TapeServer, ChangerServer], body: bytes, number: int) -> None:
    one = number.to_bytes(2, "big") + body
    for out in (one, len(one).to_bytes(4, "big") + one):
        check(units[0], bytes.fromhex("8D 00 00 00 00 00 00 00 00 00") + len(out).to_bytes(4, "big") + b"\0\0", out, 0)
    check(units[0], bytes.fromhex("8C 00 00 00 00 00 00 00 00 00 00 00 FF FF 00 00"), b"", 4096)
