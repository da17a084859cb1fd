"""The iSCSI target, PDU by PDU: what RFC 7143 wants, and what it forbids."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.faults import Delay, FaultyDrive
from drivers.virtual.library import create_library
from drivers.vtl.portal.chap import Credentials
from drivers.vtl.portal.target import Target
from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import MIB
from tests.drivers.vtl.initiator import NAME as INITIATOR
from tests.drivers.vtl.initiator import NO_TAG, Initiator
from tests.drivers.vtl.served import NAME, Serving, serving

TUR = "00 00 00 00 00 00"
LOAD = "1B 00 00 00 01 00"
REWIND = "01 00 00 00 00 00"
GOOD, CHECK, TASK_SET_FULL = 0x00, 0x02, 0x28
KIB = 1024


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    folder = tmp_path / "library"
    create_library(folder, tapes=3, tape_bytes=64 * MIB, drives=2, generation=9)
    VirtualChanger(folder).load(0, 0)
    with serving(folder) as served:
        yield served


def connect(served: Serving, number: int = 1) -> Initiator:
    return Initiator(served.host, served.port, bytes.fromhex("80 00 00 00 00") + bytes([number]))


def ready(served: Serving, **keys: str) -> Initiator:
    """Return an initiator that has logged in, with the tape threaded and no unit attention left."""
    initiator = connect(served)
    initiator.login(NAME, **keys)
    assert initiator.run(1, TUR)[2][12] == 0x29
    assert initiator.run(1, LOAD)[0] == GOOD
    return initiator


def works(served: Serving) -> bool:
    with connect(served, 99) as other:
        other.login(NAME)
        return other.run(0, "12 00 00 00 24 00", room=36)[1][0] == 0x08


# -- login ----------------------------------------------------------------------------------------------------------


def test_operational_keys(served: Serving) -> None:
    with connect(served) as initiator:
        got = initiator.login(
            NAME,
            HeaderDigest="CRC32C,None",
            DataDigest="None",
            InitialR2T="No",
            ImmediateData="Yes",
            MaxBurstLength="65536",
            FirstBurstLength="262144",
            MaxConnections="8",
            MaxOutstandingR2T="4",
            ErrorRecoveryLevel="2",
            DefaultTime2Retain="20",
            X_org_example="1",
        )
        answers = got.keys()
        assert answers == {
            "TargetPortalGroupTag": "1",
            "HeaderDigest": "None",
            "DataDigest": "None",
            "InitialR2T": "No",
            "ImmediateData": "Yes",
            "MaxBurstLength": "65536",
            "FirstBurstLength": "262144",
            "MaxConnections": "1",
            "MaxOutstandingR2T": "1",
            "ErrorRecoveryLevel": "0",
            "DefaultTime2Retain": "0",
            "X_org_example": "NotUnderstood",
            "MaxRecvDataSegmentLength": "1048576",
        }
        assert got.head[14:16] != b"\0\0"
        assert (got.word(28), got.word(32)) == (100, 131)


@pytest.mark.parametrize(
    ("keys", "flags", "version", "tsih", "status"),
    [
        ({"InitiatorName": INITIATOR, "TargetName": "iqn.2026-01.org.tapefs:other"}, 0x87, 0, 0, 0x0203),
        ({"InitiatorName": INITIATOR}, 0x87, 0, 0, 0x0207),
        ({"TargetName": NAME}, 0x87, 0, 0, 0x0207),
        ({"InitiatorName": INITIATOR, "TargetName": NAME, "SessionType": "Odd"}, 0x87, 0, 0, 0x0209),
        ({"InitiatorName": INITIATOR, "TargetName": NAME}, 0x87, 1, 0, 0x0205),
        ({"InitiatorName": INITIATOR, "TargetName": NAME}, 0x87, 0, 7, 0x020A),
        ({"InitiatorName": INITIATOR, "TargetName": NAME, "AuthMethod": "CHAP"}, 0x81, 0, 0, 0x0201),
        ({"InitiatorName": INITIATOR, "TargetName": NAME}, 0x84, 0, 0, 0x0200),
        ({"InitiatorName": INITIATOR, "TargetName": NAME}, 0x8F, 0, 0, 0x0200),
    ],
)
def test_logins_that_fail_are_told_why(
    served: Serving, keys: dict[str, str], flags: int, version: int, tsih: int, status: int
) -> None:
    with connect(served) as initiator:
        got = initiator.login_pdu(keys, flags=flags, version=version, tsih=tsih)
        assert (got.opcode, got.word(36) >> 16) == (0x23, status)
        assert initiator.is_cut_off()


def test_chap_cannot_be_skipped(tmp_path: Path) -> None:
    with serving(tmp_path / "library", Credentials("joe", b"secret of joe")) as served, connect(served) as initiator:
        got = initiator.login_pdu({"InitiatorName": INITIATOR, "TargetName": NAME}, flags=0x87)
        assert got.word(36) >> 16 == 0x0201
    with serving(tmp_path / "library", Credentials("joe", b"secret of joe")) as served, connect(served) as initiator:
        got = initiator.login_pdu(
            {"InitiatorName": INITIATOR, "TargetName": NAME, "AuthMethod": "CHAP,None"}, flags=0x83
        )
        assert (got.flags & 0x80, got.keys()["AuthMethod"]) == (0, "CHAP")
        got = initiator.login_pdu({"CHAP_A": "5"}, flags=0x03)
        assert set(got.keys()) == {"CHAP_A", "CHAP_I", "CHAP_C"}
        got = initiator.login_pdu({"CHAP_N": "joe", "CHAP_R": "0x" + "00" * 16}, flags=0x83)
        assert got.word(36) >> 16 == 0x0201
        assert initiator.is_cut_off()


def test_nobody_else_may_come_without_a_password() -> None:
    target = Target(NAME, {})
    with pytest.raises(ValueError, match="can be reached by others"):
        target.start("0.0.0.0", 0)


def test_discovery(served: Serving) -> None:
    with connect(served) as initiator:
        got = initiator.login_pdu({"InitiatorName": INITIATOR, "SessionType": "Discovery"}, flags=0x87)
        assert got.word(36) == 0
        initiator.send(struct.pack(">BBxx4x8xIIII16x", 0x44, 0x80, 5, NO_TAG, 100, 0), b"SendTargets=All\0")
        answer = initiator.receive()
        assert (answer.opcode, answer.word(16)) == (0x24, 5)
        assert answer.keys() == {"TargetName": NAME, "TargetAddress": f"127.0.0.1:{served.port},1"}
        initiator.command(0, TUR)
        assert initiator.receive().opcode == 0x3F


# -- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("immediate", ["Yes", "No"])
@pytest.mark.parametrize("initial_r2t", ["Yes", "No"])
def test_blocks_by_every_way(served: Serving, immediate: str, initial_r2t: str) -> None:
    keys = {
        "ImmediateData": immediate,
        "InitialR2T": initial_r2t,
        "FirstBurstLength": "8192",
        "MaxBurstLength": "16384",
        "MaxRecvDataSegmentLength": "5000",
    }
    block = os.urandom(50_001)
    with ready(served, **keys) as initiator:
        first = block[:3000] if immediate == "Yes" else b""
        unsolicited = initial_r2t == "No"
        tag = initiator.command(
            1, b"\x0a\0" + len(block).to_bytes(3, "big"), out=first, expected=len(block), final=not unsolicited
        )
        at = len(first)
        if unsolicited:
            initiator.data_out(tag, NO_TAG, 0, at, block[at : at + 1001], final=False)
            initiator.data_out(tag, NO_TAG, 1, at + 1001, block[at + 1001 : 8192], final=True)
            at = 8192
        bursts = 0
        while at < len(block):
            asked = initiator.receive()
            assert (asked.opcode, asked.word(16), asked.word(36), asked.word(40)) == (0x31, tag, bursts, at)
            assert asked.word(44) == min(16384, len(block) - at)
            initiator.data_out(tag, asked.word(20), 0, at, block[at : at + asked.word(44)], final=True)
            at += asked.word(44)
            bursts += 1
        assert initiator.result() == (GOOD, b"", b"", 0)
        assert initiator.run(1, REWIND)[0] == GOOD
        assert initiator.run(1, b"\x08\0" + len(block).to_bytes(3, "big"), room=len(block)) == (GOOD, block, b"", 0)


def test_residuals(served: Serving) -> None:
    with ready(served) as initiator:
        assert initiator.run(1, "12 00 00 00 24 00", room=100)[3] == 64
        status, data, _, residual = initiator.run(1, "12 00 00 00 24 00", room=10)
        assert (status, len(data), residual) == (GOOD, 10, -26)
        assert initiator.run(1, "0A 00 00 00 64 00", out=bytes(120))[3] == 20
        assert initiator.run(1, REWIND)[0] == GOOD
        status, data, sense, residual = initiator.run(1, "08 00 00 01 00 00", room=256)
        assert (status, len(data), sense[2], residual) == (CHECK, 100, 0x20, 156)
        status, data, sense, residual = initiator.run(1, "08 00 00 01 00 00", room=256)
        assert (status, data, sense[2], sense[13], residual) == (CHECK, b"", 0x08, 0x05, 256)


def test_a_command_that_is_too_large_is_refused(served: Serving) -> None:
    with ready(served) as initiator:
        initiator.command(1, "0A 00 00 10 00 00", out=bytes(4096), expected=2**31)
        status, _, sense, _ = initiator.result()
        assert (status, sense[12]) == (CHECK, 0x24)
        assert initiator.run(1, "08 00 FF FF FF 00", room=2**32 - 1)[0] == CHECK


def test_a_session_has_only_so_much_room(served: Serving) -> None:
    with ready(served) as initiator:
        for _ in range(4):
            initiator.command(1, "0A 00 FF FF FF 00", expected=2**24 - 1)
            assert initiator.receive().opcode == 0x31
        initiator.command(1, "0A 00 FF FF FF 00", expected=2**24 - 1)
        assert initiator.result()[0] == TASK_SET_FULL
        assert works(served)


def test_commands_are_done_in_order(served: Serving) -> None:
    """A write that still waits for its data keeps what comes behind it waiting, on the same unit only."""
    with ready(served) as initiator:
        write = initiator.command(1, "0A 00 00 10 00 00", expected=4096)
        asked = initiator.receive()
        assert asked.opcode == 0x31
        where = initiator.command(1, "34 06 00 00 00 00 00 00 00 00", room=32)
        assert initiator.run(0, "12 00 00 00 24 00", room=36)[1][0] == 0x08
        initiator.data_out(write, asked.word(20), 0, 0, bytes(4096), final=True)
        first = initiator.receive()
        assert (first.opcode, first.word(16)) == (0x21, write)
        second = initiator.receive()
        assert (second.word(16), second.data[15]) == (where, 1)


# -- sessions -------------------------------------------------------------------------------------------------------


def test_pings_are_answered_while_the_tape_moves(tmp_path: Path) -> None:
    folder = tmp_path / "library"
    create_library(folder, tapes=1, tape_bytes=64 * MIB, drives=1, generation=9)
    VirtualChanger(folder).load(0, 0)
    tape = TapeServer(FaultyDrive(VirtualDrive(folder, 0), [Delay(operation="rewind", seconds=0.3)]))
    target = Target(NAME, {0: tape})
    host, port = target.start("127.0.0.1", 0)
    try:
        with Initiator(host, port) as initiator:
            initiator.login(NAME)
            initiator.run(0, TUR)
            initiator.run(0, LOAD)
            rewind = initiator.command(0, REWIND)
            initiator.ping(b"hello")
            answer = initiator.receive()
            assert (answer.opcode, answer.word(16), answer.data) == (0x20, 0x9999, b"hello")
            assert initiator.receive().word(16) == rewind
    finally:
        target.stop()
        tape.close()


def test_logout(served: Serving) -> None:
    with ready(served) as initiator:
        initiator.send(struct.pack(">BBxx4x8xIIII16x", 0x46, 0x80, 9, 0, initiator.number, 0))
        answer = initiator.receive()
        assert (answer.opcode, answer.head[2], answer.word(16)) == (0x26, 0, 9)
        assert initiator.is_cut_off()


def test_an_initiator_that_comes_back_replaces_its_session(served: Serving) -> None:
    with ready(served) as first, connect(served) as second:
        second.login(NAME)
        assert first.is_cut_off()
        assert second.run(1, TUR)[2][12:14] == b"\x29\x07"


def test_shutdown_says_goodbye(served: Serving) -> None:
    with ready(served) as initiator:
        served.target.stop()
        message = initiator.receive()
        assert (message.opcode, message.head[36]) == (0x32, 2)
        assert initiator.is_cut_off()


def test_task_management(served: Serving) -> None:
    with ready(served) as initiator:
        tag = initiator.command(1, "0A 00 00 10 00 00", expected=4096)
        assert initiator.receive().opcode == 0x31
        for wanted, response in ((tag, 0), (tag, 1)):
            got = initiator.manage(1, 1, wanted)
            assert (got.opcode, got.head[2]) == (0x22, response)
        assert initiator.run(1, TUR)[0] == GOOD
        assert initiator.manage(5, 9).head[2] == 2
        assert initiator.manage(8, 1).head[2] == 5
        assert initiator.manage(5, 1).head[2] == 0
        assert initiator.run(1, TUR)[2][12:14] == b"\x29\x03"
        assert initiator.manage(6, 0).head[2] == 0
        assert initiator.run(1, TUR)[2][12:14] == b"\x29\x03"
        assert initiator.run(0, TUR)[2][12] == 0x29


def test_units_that_are_not_there(served: Serving) -> None:
    with ready(served) as initiator:
        assert initiator.run(9, "12 00 00 00 24 00", room=36)[1][0] == 0x7F
        status, _, sense, _ = initiator.run(9, TUR)
        assert (status, sense[12]) == (CHECK, 0x25)
        luns = initiator.run(9, "A0 00 00 00 00 00 00 00 01 00 00 00", room=256)[1]
        assert [luns[at + 1] for at in range(8, len(luns), 8)] == [0, 1, 2]


def test_old_command_numbers_are_ignored(served: Serving) -> None:
    with ready(served) as initiator:
        initiator.command(1, TUR, number=initiator.number - 1)
        initiator.command(1, TUR, number=initiator.number + 40)
        tag = initiator.command(1, TUR)
        assert initiator.receive().word(16) == tag


# -- rules that are broken --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how", ["gap", "tag", "offset", "data number", "transfer tag", "burst", "unwanted", "login again"]
)
def test_who_breaks_a_rule_is_cut_off_and_no_other(served: Serving, how: str) -> None:
    with ready(served, InitialR2T="Yes", MaxBurstLength="4096") as initiator:
        if how == "gap":
            initiator.command(1, TUR, number=initiator.number + 1)
        elif how == "unwanted":
            initiator.command(1, "0A 00 00 20 00 00", out=bytes(10), expected=8192, final=False)
        elif how == "login again":
            initiator.send(struct.pack(">BB46x", 0x43, 0x87))
            assert initiator.receive().opcode == 0x3F
            return
        else:
            tag = initiator.command(1, "0A 00 00 20 00 00", expected=8192)
            transfer = initiator.receive().word(20)
            if how == "tag":
                initiator.tag -= 1
                initiator.command(1, TUR)
            elif how == "offset":
                initiator.data_out(tag, transfer, 0, 10, bytes(4096), final=True)
            elif how == "data number":
                initiator.data_out(tag, transfer, 1, 0, bytes(4096), final=True)
            elif how == "transfer tag":
                initiator.data_out(tag, transfer + 1, 0, 0, bytes(4096), final=True)
            else:
                initiator.data_out(tag, transfer, 0, 0, bytes(5000), final=True)
        assert initiator.is_cut_off()
    assert works(served)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.binary(min_size=1, max_size=200))
def test_noise_instead_of_a_login(served: Serving, data: bytes) -> None:
    with connect(served) as initiator:
        initiator.socket.sendall(data.ljust(48, b"\0"))
        initiator.end()
        assert initiator.is_cut_off()


@FUZZ
@given(
    opcode=st.sampled_from([0x00, 0x01, 0x02, 0x04, 0x05, 0x06, 0x10, 0x1C, 0x3F]),
    immediate=st.booleans(),
    rest=st.binary(min_size=47, max_size=47),
    data=st.binary(max_size=64),
    right_number=st.booleans(),
)
def test_noise_after_the_login(
    served: Serving, opcode: int, immediate: bool, rest: bytes, data: bytes, right_number: bool
) -> None:
    """Whatever comes, the target answers or cuts off, and serves others."""
    with connect(served) as initiator:
        initiator.login(NAME)
        head = bytearray(bytes([opcode | 0x40 * immediate]) + rest)
        if right_number:
            head[24:28] = initiator.number.to_bytes(4, "big")
        if head[1] & 0x20 and opcode == 0x01:
            head[20:24] = len(data).to_bytes(4, "big")
        initiator.send(bytes(head), data)
        initiator.end()
        assert initiator.is_cut_off()
    assert works(served)
