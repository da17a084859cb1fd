"""SG_IO by itself: the header's bytes, and what the kernel's answers mean. No device is needed."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.errors import DeviceFailed, DeviceGone, DriveError, DriveInUse, TransportFailed
from drivers.scsi.transport import Reply, Status
from drivers.st.sg_io import Header, SgIo

NODE = Path("/dev/sg7")
READ_6 = bytes.fromhex("080000040000")
SENSE = bytes.fromhex("70000300000000 0a 00000000 1100 00000000")

Answer = Callable[[Header], None]


def device(answer: Answer, waits: list[float] | None = None) -> SgIo:
    """Return a device whose kernel answers so."""

    def ioctl(descriptor: int, request: int, header: Header) -> int:
        assert (descriptor, request) == (99, 0x2285)
        answer(header)
        return 0

    return SgIo(NODE, through=lambda: 99, ioctl=ioctl, sleep=(waits if waits is not None else []).append)


def good(header: Header) -> None:
    """Answer that all went well."""


def test_the_header_is_what_the_kernel_reads() -> None:
    """By <scsi/sg.h> on 64 bits: 88 bytes, written out by hand here."""
    seen: list[bytes] = []
    buffer = memoryview(bytearray(1024))
    device(lambda header: seen.append(bytes(header))).execute(READ_6, data_in=buffer, timeout_s=900)
    (raw,) = seen
    assert len(raw) == 88
    fixed = struct.unpack_from("=iiBBHI", raw)
    assert fixed == (ord("S"), -3, 6, 252, 0, 1024)
    data, command, sense, timeout_ms, flags = struct.unpack_from("=QQQII", raw, 16)
    assert (timeout_ms, flags) == (900_000, 0)
    # Pages of their own, for direct transfers.
    assert data
    assert data % 4096 == 0
    assert command
    assert sense
    assert raw[48:] == bytes(40)


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_what_is_sent_is_what_was_given(kind: type[bytes]) -> None:
    data = kind(os.urandom(200_000))
    seen: list[tuple[int, int, bytes]] = []

    def answer(header: Header) -> None:
        assert header.dxferp
        seen.append((header.dxfer_direction, header.flags, ctypes.string_at(header.dxferp, header.dxfer_len)))

    device(answer).execute(b"\x0a\0\0\0\0\0", data_out=memoryview(data), timeout_s=1)
    assert seen == [(-2, 1, bytes(data))]


def test_a_part_of_a_buffer_is_filled_in_place() -> None:
    buffer = bytearray(b"." * 10)

    def answer(header: Header) -> None:
        assert header.dxfer_len == 6
        # As the kernel does: it copies what it has, not what came.
        ctypes.memmove(header.dxferp or 0, b"abcd\0\0", 6)
        header.resid = 2

    reply = device(answer).execute(READ_6, data_in=memoryview(buffer)[3:9], timeout_s=1)
    assert reply == Reply(Status.GOOD, b"", 4)
    assert bytes(buffer) == b"...abcd..."


def test_sense_comes_with_a_check_condition() -> None:
    def answer(header: Header) -> None:
        ctypes.memmove(header.sbp or 0, SENSE, len(SENSE))
        header.status, header.sb_len_wr, header.driver_status = 0x02, len(SENSE), 0x08

    assert device(answer).execute(READ_6, timeout_s=1) == Reply(Status.CHECK_CONDITION, SENSE, 0)


def test_sense_without_a_status_is_a_check_condition_too() -> None:
    def answer(header: Header) -> None:
        ctypes.memmove(header.sbp or 0, SENSE, len(SENSE))
        header.sb_len_wr, header.driver_status = len(SENSE), 0x08

    assert device(answer).execute(READ_6, timeout_s=1) == Reply(Status.CHECK_CONDITION, SENSE, 0)


def test_old_sense_does_not_come_again() -> None:
    def failing(header: Header) -> None:
        ctypes.memmove(header.sbp or 0, SENSE, len(SENSE))
        header.status, header.sb_len_wr = 0x02, len(SENSE)

    answers = [failing, good]

    def answer(header: Header) -> None:
        answers.pop(0)(header)

    sg = device(answer)
    sg.execute(READ_6, timeout_s=1)
    assert sg.execute(READ_6, timeout_s=1) == Reply(Status.GOOD)


@pytest.mark.parametrize("status", [Status.BUSY, Status.RESERVATION_CONFLICT, Status.TASK_SET_FULL])
def test_other_statuses(status: Status) -> None:
    assert device(lambda header: setattr(header, "status", int(status))).execute(READ_6, timeout_s=1).status is status


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("host_status", 0x01, DeviceGone),
        ("host_status", 0x04, DeviceGone),
        ("host_status", 0x03, TransportFailed),
        ("host_status", 0x08, TransportFailed),
        ("host_status", 0x77, TransportFailed),
        ("driver_status", 0x06, TransportFailed),
        ("driver_status", 0x05, TransportFailed),
        ("status", 0x3E, TransportFailed),
    ],
)
def test_ways_that_break(field: str, value: int, error: type[DriveError]) -> None:
    with pytest.raises(error, match="/dev/sg7") as caught:
        device(lambda header: setattr(header, field, value)).execute(READ_6, timeout_s=1)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (errno.ENODEV, DeviceGone, "not connected"),
        (errno.ENXIO, DeviceGone, "not connected"),
        (errno.EPERM, DeviceFailed, "adduser USER tape"),
        (errno.EBUSY, DriveInUse, "in use"),
        (errno.EIO, TransportFailed, "Input/output error"),
    ],
)
def test_calls_that_fail(code: int, error: type[DriveError], says: str) -> None:
    def answer(header: Header) -> None:
        raise OSError(code, os.strerror(code))

    with pytest.raises(error, match=says) as caught:
        device(answer).execute(READ_6, timeout_s=1)
    assert type(caught.value) is error


def test_without_memory_it_waits_and_tries_again() -> None:
    waits: list[float] = []

    def answer(header: Header) -> None:
        if len(waits) < 3:
            raise OSError(errno.ENOMEM, "no memory")

    assert device(answer, waits).execute(READ_6, timeout_s=1) == Reply(Status.GOOD)
    assert waits == [0.05, 0.2, 1.0]


def test_without_memory_for_long_it_says_what_to_do() -> None:
    def answer(header: Header) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    with pytest.raises(DeviceFailed, match=r"4096 bytes at once.*def_reserved_size"):
        device(answer).execute(READ_6, data_in=memoryview(bytearray(4096)), timeout_s=1)


def test_close_is_harmless_twice_and_final() -> None:
    sg = device(good)
    sg.close()
    sg.close()
    with pytest.raises(DeviceFailed, match="closed"):
        sg.execute(READ_6, timeout_s=1)


def test_a_node_that_is_not_there() -> None:
    with pytest.raises(DeviceGone, match="no such device"):
        SgIo(Path("/dev/sg-that-is-not-there"))
