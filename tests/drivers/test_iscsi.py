"""The iSCSI transport, judged by Debian's tgt: what the device answers, what becomes of a connection that breaks."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from drivers.errors import DeviceFailed, DeviceGone, TransportFailed
from drivers.iscsi import transport as transport_module
from drivers.iscsi.address import Chap, parse_url
from drivers.iscsi.transport import IscsiTransport
from drivers.scsi.transport import Reply, Status
from tests.drivers.tgt import Tgt, need_libiscsi, need_tgt

KIB = 1024
MIB = 1024 * KIB
LUN = 1
TEST_UNIT_READY = bytes(6)
REWIND = bytes((0x01, 0, 0, 0, 0, 0))
#: To the end of data.
SPACE_TO_END = bytes((0x11, 3, 0, 0, 0, 0))
INQUIRY = bytes((0x12, 0, 0, 0, 96, 0))
#: A command that tgt's tape does not have.
LOCATE = bytes((0x92,)) + bytes(15)
RESET = (0x06, 0x29, 0x00)
#: What the first command after a reconnect is told, in the words of the device or in ours.
LOST = (RESET, (0x06, 0x29, 0x07))
SHORT_S = 5.0


@pytest.fixture
def tgt(tmp_path: Path) -> Iterator[Tgt]:
    need_tgt()
    target = Tgt(tmp_path / "tgt")
    try:
        target.add_target()
        target.add_drive(LUN, target.make_tape("TP0001L6", 64))
        yield target
    finally:
        target.stop()


@pytest.fixture
def fresh(tgt: Tgt) -> Iterator[IscsiTransport]:
    """A transport that has just logged in."""
    transport = IscsiTransport(parse_url(tgt.url(LUN)))
    yield transport
    transport.close()


@pytest.fixture
def transport(fresh: IscsiTransport) -> IscsiTransport:
    """A transport whose device has told that it was powered on."""
    assert key(run(fresh, TEST_UNIT_READY)) == RESET
    return fresh


def run(transport: IscsiTransport, cdb: bytes, timeout_s: float = SHORT_S) -> Reply:
    return transport.execute(cdb, timeout_s=timeout_s)


def key(reply: Reply) -> tuple[int, int, int]:
    """Return sense key, code and qualifier of fixed sense data."""
    assert reply.status is Status.CHECK_CONDITION
    assert reply.sense[0] & 0x7F == 0x70
    return reply.sense[2] & 0x0F, reply.sense[12], reply.sense[13]


def write(transport: IscsiTransport, block: bytes | memoryview) -> Reply:
    return transport.execute(bytes((0x0A, 0, *len(block).to_bytes(3, "big"), 0)), data_out=block, timeout_s=SHORT_S)


def read(transport: IscsiTransport, buffer: memoryview) -> Reply:
    return transport.execute(bytes((0x08, 0, *len(buffer).to_bytes(3, "big"), 0)), data_in=buffer, timeout_s=SHORT_S)


def filemarks(transport: IscsiTransport, count: int) -> Reply:
    return run(transport, bytes((0x10, 0, *count.to_bytes(3, "big"), 0)))


def block_of(size: int) -> bytes:
    """Return bytes that do not repeat within a sector."""
    return bytes(i * 7 % 251 for i in range(min(size, 251 * 16))).ljust(1, b"x") * (size // (251 * 16) + 1)


# -- what the device answers ---------------------------------------------------------------------------------------


def test_the_device_tells_who_it_is_and_that_it_was_powered_on(fresh: IscsiTransport) -> None:
    buffer = memoryview(bytearray(96))
    reply = fresh.execute(INQUIRY, data_in=buffer, timeout_s=SHORT_S)
    assert reply.status is Status.GOOD
    # It has less to say than it was asked for.
    assert 36 <= reply.moved_bytes < 96
    assert bytes(buffer[8:32]) == b"IET     VIRTUAL-TAPE    "
    assert not any(buffer[reply.moved_bytes :])
    assert key(run(fresh, TEST_UNIT_READY)) == RESET
    assert run(fresh, TEST_UNIT_READY) == Reply(Status.GOOD, b"", 0)


def test_blocks_of_all_sizes_come_back(transport: IscsiTransport) -> None:
    blocks = [block_of(size)[:size] for size in (1, 2, 511, 512, 4 * KIB + 1, 64 * KIB, 256 * KIB, 512 * KIB + 3, MIB)]
    for block in blocks:
        assert write(transport, block) == Reply(Status.GOOD, b"", len(block))
    assert filemarks(transport, 1).status is Status.GOOD
    assert run(transport, REWIND).status is Status.GOOD
    for block in blocks:
        buffer = memoryview(bytearray(len(block)))
        assert read(transport, buffer) == Reply(Status.GOOD, b"", len(block))
        assert buffer == block


def test_data_lie_where_the_caller_has_them(transport: IscsiTransport) -> None:
    """Read-only, writable, in the middle of something larger: no copy is needed to send them, none to get them."""
    whole = bytearray(block_of(3000)[:3000])
    inner = memoryview(whole)[1000:2000]
    pieces: list[bytes | memoryview] = [bytes(whole), inner, memoryview(bytes(whole))[500:]]
    for piece in pieces:
        assert write(transport, piece).moved_bytes == len(piece)
    run(transport, REWIND)
    for piece in pieces:
        into = bytearray(5000)
        assert read(transport, memoryview(into)[100 : 100 + len(piece)]).status is Status.GOOD
        assert bytes(into) == bytes(100) + bytes(piece) + bytes(5000 - 100 - len(piece))
    with pytest.raises(BufferError):
        read(transport, memoryview(b"read-only"))
    with pytest.raises(BufferError):
        write(transport, memoryview(bytes(whole))[::2])
    # Nothing of that was sent, and the buffers are free again.
    assert run(transport, TEST_UNIT_READY).status is Status.GOOD
    inner.release()
    whole.clear()


def test_a_filemark_and_the_end_are_told_by_sense(transport: IscsiTransport) -> None:
    write(transport, b"one")
    filemarks(transport, 1)
    run(transport, REWIND)
    buffer = memoryview(bytearray(3))
    assert read(transport, buffer).status is Status.GOOD
    reply = read(transport, buffer)
    assert key(reply) == (0, 0, 0x01)
    assert reply.sense[2] & 0x80, "the filemark bit"
    assert int.from_bytes(reply.sense[3:7], "big") == 3
    assert key(read(transport, buffer))[0] == 8


def test_a_shorter_block_comes_with_sense_and_residual(transport: IscsiTransport) -> None:
    """Whoever reads with a large buffer gets the block and the sense that says how long it was."""
    block = block_of(1000)[:1000]
    write(transport, block)
    run(transport, REWIND)
    buffer = memoryview(bytearray(4 * KIB))
    reply = read(transport, buffer)
    assert key(reply) == (0, 0, 0)
    assert reply.sense[2] & 0x20, "the bit for a wrong length"
    assert int.from_bytes(reply.sense[3:7], "big") == 4 * KIB - 1000
    # Up to version 1.0.93 this target mixes up length and residual of such reads.
    assert reply.moved_bytes in (1000, 4 * KIB - 1000)
    assert buffer[:1000] == block


def test_a_command_that_the_device_does_not_have(transport: IscsiTransport) -> None:
    assert key(run(transport, LOCATE)) == (0x05, 0x20, 0x00)
    assert run(transport, TEST_UNIT_READY).status is Status.GOOD


def test_an_empty_drive_says_so(tgt: Tgt, transport: IscsiTransport) -> None:
    tgt.update(LUN, "online=0")
    assert key(run(transport, TEST_UNIT_READY)) == (0x02, 0x3A, 0x00)


def test_mistakes_of_the_caller_send_nothing(transport: IscsiTransport) -> None:
    for cdb in (b"", bytes(17)):
        with pytest.raises(ValueError, match="1 to 16 bytes"):
            run(transport, cdb)
    buffer = memoryview(bytearray(10))
    with pytest.raises(ValueError, match="one way"):
        transport.execute(TEST_UNIT_READY, data_in=buffer, data_out=b"x", timeout_s=1)
    assert run(transport, TEST_UNIT_READY).status is Status.GOOD


def test_close_logs_out_and_is_final(tgt: Tgt, transport: IscsiTransport) -> None:
    transport.close()
    transport.close()
    with pytest.raises(DeviceGone, match="is closed"):
        run(transport, TEST_UNIT_READY)
    again = IscsiTransport(parse_url(tgt.url(LUN)))
    again.close()


# -- a connection that breaks --------------------------------------------------------------------------------------


def test_a_target_that_is_killed_in_the_middle(tgt: Tgt, transport: IscsiTransport) -> None:
    """The write that was under way has an unknown end, and says so at once; nothing hangs, nothing is sent twice."""
    write(transport, b"kept")
    tgt.pause()
    threading.Timer(0.3, tgt.kill).start()
    before_s = time.monotonic()
    with pytest.raises(TransportFailed, match="broke") as failure:
        transport.execute(bytes((0x0A, 0, 0, 0, 4, 0)), data_out=b"lost", timeout_s=60)
    assert not isinstance(failure.value, DeviceGone)
    assert 0.2 < time.monotonic() - before_s < 30
    for _ in range(2):
        # Where the connection breaks only while the login is under way, libiscsi words it differently.
        with pytest.raises(DeviceGone, match=r"Connection refused|Can not reconnect"):
            run(transport, TEST_UNIT_READY)


def test_a_target_that_stands_still_costs_the_time_given(tgt: Tgt, transport: IscsiTransport) -> None:
    tgt.pause()
    before_s = time.monotonic()
    with pytest.raises(TransportFailed, match=r"did not answer a command within 0\.5 s"):
        run(transport, TEST_UNIT_READY, timeout_s=0.5)
    assert time.monotonic() - before_s < 30
    tgt.go_on()
    assert key(run(transport, TEST_UNIT_READY)) in LOST
    assert run(transport, TEST_UNIT_READY).status is Status.GOOD


def test_large_data_to_a_target_that_stands_still(tgt: Tgt, transport: IscsiTransport) -> None:
    """What the library had not sent yet is forgotten: the caller's memory is his again."""
    tgt.pause()
    block = bytearray(8 * MIB)
    with pytest.raises(TransportFailed, match=r"within 0\.5 s"):
        transport.execute(
            bytes((0x0A, 0, *len(block).to_bytes(3, "big"), 0)), data_out=memoryview(block), timeout_s=0.5
        )
    block.clear()


def test_after_a_break_the_next_command_is_not_done(tgt: Tgt, transport: IscsiTransport) -> None:
    """The drive may have moved, and another one may have used it: whoever writes must first learn of the break."""
    write(transport, b"first")
    tgt.pause()
    with pytest.raises(TransportFailed):
        run(transport, TEST_UNIT_READY, timeout_s=0.3)
    tgt.go_on()
    assert key(write(transport, b"never")) in LOST
    assert transport.is_connected
    assert run(transport, REWIND).status is Status.GOOD
    buffer = memoryview(bytearray(5))
    assert read(transport, buffer).status is Status.GOOD
    assert buffer == b"first"
    assert key(read(transport, buffer))[0] == 8


def test_a_reconnect_by_hand_is_told_as_well(transport: IscsiTransport) -> None:
    for _ in range(2):
        transport.reconnect()
    assert transport.execute(INQUIRY, data_in=memoryview(bytearray(96)), timeout_s=SHORT_S).status is Status.GOOD
    assert key(run(transport, TEST_UNIT_READY)) in LOST
    assert run(transport, TEST_UNIT_READY).status is Status.GOOD


def test_a_target_that_was_started_again_is_found(tgt: Tgt, transport: IscsiTransport) -> None:
    tape = tgt.folder / "TP0001L6"
    write(transport, b"kept")
    port = tgt.port
    tgt.kill()
    with pytest.raises(DeviceGone):
        run(transport, TEST_UNIT_READY)
    tgt.start(port)
    tgt.add_target()
    tgt.add_drive(LUN, tape)
    assert key(write(transport, b"never")) in LOST
    buffer = memoryview(bytearray(4))
    assert read(transport, buffer).status is Status.GOOD
    assert buffer == b"kept"


def test_a_target_that_is_away_for_a_moment_is_waited_for(tgt: Tgt) -> None:
    """A gateway that starts anew answers before it knows its targets, too."""
    transport = IscsiTransport(parse_url(tgt.url(LUN)), patience_s=20)
    write(transport, b"attention")
    port = tgt.port
    tgt.kill()

    def come_back() -> None:
        tgt.start(port)
        time.sleep(0.7)
        tgt.add_target()
        tgt.add_drive(LUN, tgt.folder / "TP0001L6")

    later = threading.Timer(0.3, come_back)
    later.start()
    assert key(run(transport, TEST_UNIT_READY)) in LOST
    later.join()
    transport.close()


def test_patience_ends_and_then_is_over(tgt: Tgt) -> None:
    transport = IscsiTransport(parse_url(tgt.url(LUN)), patience_s=2.5)
    tgt.kill()
    before_s = time.monotonic()
    with pytest.raises(DeviceGone, match="Connection refused"):
        run(transport, TEST_UNIT_READY)
    assert 1.5 < time.monotonic() - before_s < 30
    took_s = []
    for _ in range(3):
        before_s = time.monotonic()
        with pytest.raises(DeviceGone, match="Connection refused"):
            run(transport, TEST_UNIT_READY)
        took_s.append(time.monotonic() - before_s)
    assert min(took_s) < 2
    transport.close()


def test_another_device_behind_the_address_is_refused(tgt: Tgt, transport: IscsiTransport) -> None:
    tgt.update(LUN, "scsi_sn=ANOTHER")
    with pytest.raises(DeviceGone, match="another unit answers"):
        transport.reconnect()
    tgt.update(LUN, "scsi_sn=beaf11")


def test_a_break_between_commands_is_noticed(
    tgt: Tgt, transport: IscsiTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was in flight, so nothing is unknown: the next command finds no connection and tries to make one."""
    monkeypatch.setattr(transport_module, "LOOK_AFTER_S", 0.02)
    transport.close()
    again = IscsiTransport(parse_url(tgt.url(LUN)))
    tgt.kill()
    deadline_s = time.monotonic() + 60
    while again.is_connected and time.monotonic() < deadline_s:
        time.sleep(0.01)
    with pytest.raises(DeviceGone):
        run(again, TEST_UNIT_READY)
    again.close()


def test_nobody_answers() -> None:
    need_libiscsi()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        address = parse_url(f"iscsi://127.0.0.1:{port}/iqn.2026-11.test:none/1")
        before_s = time.monotonic()
        with pytest.raises(DeviceGone, match=r"did not answer within 0\.5 s"):
            IscsiTransport(address, connect_s=0.5)
        assert time.monotonic() - before_s < 30
    with pytest.raises(DeviceGone, match="Connection refused"):
        IscsiTransport(address)


def test_a_target_that_is_not_there(tgt: Tgt) -> None:
    address = replace(parse_url(tgt.url(LUN)), target="iqn.2026-11.test:other")
    with pytest.raises(DeviceFailed, match=r"cannot log in to .*Target not found"):
        IscsiTransport(address)


# -- CHAP ----------------------------------------------------------------------------------------------------------

US = ("backup", "our-own-secret1")
THEM = ("library", "their-own-secret")


def open_with(tgt: Tgt, chap: Chap | None) -> None:
    transport = IscsiTransport(replace(parse_url(tgt.url(LUN)), chap=chap))
    assert transport.execute(INQUIRY, data_in=memoryview(bytearray(96)), timeout_s=SHORT_S).status is Status.GOOD
    transport.close()


def test_chap(tgt: Tgt) -> None:
    tgt.require(*US)
    open_with(tgt, Chap(*US))
    for wrong in (None, Chap("backup", "another-secret1"), Chap("somebody", US[1])):
        with pytest.raises(DeviceFailed, match=r"cannot log in to .*Authentication failure") as failure:
            open_with(tgt, wrong)
        assert "secret1" not in str(failure.value)


def test_mutual_chap(tgt: Tgt) -> None:
    tgt.require(*US, outgoing=THEM)
    open_with(tgt, Chap(*US, *THEM))
    with pytest.raises(DeviceFailed, match="cannot log in to"):
        open_with(tgt, Chap(*US, THEM[0], "what-it-is-not12"))
    with pytest.raises(DeviceFailed, match="cannot log in to"):
        open_with(tgt, Chap(US[0], "another-secret1", *THEM))


def test_a_target_that_does_not_prove_itself_is_refused(tgt: Tgt) -> None:
    """Who asks for a proof gets one, or no session: also when the target lets everybody in."""
    with pytest.raises(DeviceFailed, match=r"cannot log in to .*did not return CHAP_N"):
        open_with(tgt, Chap(*US, *THEM))
    tgt.require(*US)
    with pytest.raises(DeviceFailed, match=r"cannot log in to .*Authentication failure"):
        open_with(tgt, Chap(*US, *THEM))


# -- addresses -----------------------------------------------------------------------------------------------------


def test_addresses_are_read() -> None:
    address = parse_url("iscsi://vtl.example/iqn.2026-11.test:lib/3")
    assert (address.host, address.port, address.target, address.lun) == (
        "vtl.example",
        3260,
        "iqn.2026-11.test:lib",
        3,
    )
    assert str(address) == "iscsi://vtl.example:3260/iqn.2026-11.test:lib/3"
    assert parse_url("iscsi://[2001:db8::1]:860/eui.02004567A425678D/0").portal == "[2001:db8::1]:860"
    assert parse_url("iscsi://h/iqn.2026-11.test%3Alib/0").target == "iqn.2026-11.test:lib"
    with_login = parse_url("iscsi://me%s%cret@h/iqn.2026-11.test:lib/0")
    assert with_login.chap == Chap("me", "s%cret")
    assert "cret" not in f"{with_login} {with_login!r}"


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/dev/nst0", "is no address of a drive"),
        ("iscsi://h/iqn.2026-11.test:lib", "is no address of a drive"),
        ("iscsi://h/iqn.2026-11.test:lib/x", "is no address of a drive"),
        ("iscsi://h:99999/iqn.2026-11.test:lib/1", "there is no port 99999"),
        ("iscsi://h/iqn.2026-11.test:lib/16384", "a LUN is at most 16383"),
        ("iscsi://h/library/1", "is no iSCSI name"),
        ("iscsi://me@h/iqn.2026-11.test:lib/1", "has a user but no password"),
        ("iscsi://me%hidden@h/library/1", "'iscsi://me%…@h/library/1': 'library' is no iSCSI name"),
    ],
)
def test_addresses_that_are_none(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as failure:
        parse_url(url)
    assert "hidden" not in str(failure.value)


def test_chap_needs_what_it_needs() -> None:
    with pytest.raises(ValueError, match="a user and a secret"):
        Chap("me", "")
    with pytest.raises(ValueError, match="both"):
        Chap("me", "secret", "them")
    with pytest.raises(ValueError, match="two different secrets"):
        Chap("me", "secret", "them", "secret")
    with pytest.raises(ValueError, match="at most 255 bytes"):
        Chap("me", "s" * 256)
