"""SCSI commands through the Linux kernel: SG_IO on /dev/sgN, or on /dev/nstN, as a `Transport`.

All calls block. A command cannot be interrupted: its thread waits in the kernel for the device, or for the timeout.
On /dev/sgN whoever may open the node for writing may send any command; on /dev/nstN that takes CAP_SYS_RAWIO.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from drivers.errors import DeviceFailed, DeviceGone, DriveInUse, TransportFailed
from drivers.scsi.transport import Reply, Status

_SG_IO = 0x2285
_SG_SET_RESERVED_SIZE = 0x2275
_SG_GET_RESERVED_SIZE = 0x2272

_NO_DATA = -1
_TO_DEVICE = -2
_FROM_DEVICE = -3
_DIRECT_IO = 1
_SENSE_BYTES = 252

#: Larger transfers are asked for only if the kernel reserved a buffer for them.
MAX_TRANSFER_BYTES = 1024 * 1024
#: Below a page or so copying costs nothing.
_DIRECT_FROM_BYTES = 64 * 1024

#: Host adapter codes (DID_...) after which the device is not there.
_GONE = {0x01: "no connection to the device", 0x04: "the device does not answer", 0x10: "the path to the device failed"}
_BROKEN = {
    0x02: "the bus stayed busy",
    0x03: "no answer in time",
    0x05: "the command was aborted",
    0x06: "a parity error on the bus",
    0x07: "an error in the host adapter",
    0x08: "the bus was reset",
    0x09: "an unexpected interrupt",
    0x0E: "the connection was disrupted",
    0x0F: "the path failed fast",
}
#: Driver codes without the suggestion bits; 8 only says that there is sense.
_DRIVER_SENSE = 0x08
_DRIVER_TIMEOUT = 0x06
_SECONDS_BETWEEN_TRIES = (0.05, 0.2, 1.0, 3.0, 3.0)


class Header(ctypes.Structure):
    """`struct sg_io_hdr` of <scsi/sg.h>: 88 bytes where pointers have eight."""

    _fields_ = (
        ("interface_id", ctypes.c_int),
        ("dxfer_direction", ctypes.c_int),
        ("cmd_len", ctypes.c_ubyte),
        ("mx_sb_len", ctypes.c_ubyte),
        ("iovec_count", ctypes.c_ushort),
        ("dxfer_len", ctypes.c_uint),
        ("dxferp", ctypes.c_void_p),
        ("cmdp", ctypes.c_void_p),
        ("sbp", ctypes.c_void_p),
        ("timeout", ctypes.c_uint),
        ("flags", ctypes.c_uint),
        ("pack_id", ctypes.c_int),
        ("usr_ptr", ctypes.c_void_p),
        ("status", ctypes.c_ubyte),
        ("masked_status", ctypes.c_ubyte),
        ("msg_status", ctypes.c_ubyte),
        ("sb_len_wr", ctypes.c_ubyte),
        ("host_status", ctypes.c_ushort),
        ("driver_status", ctypes.c_ushort),
        ("resid", ctypes.c_int),
        ("duration", ctypes.c_uint),
        ("info", ctypes.c_uint),
    )


class SgIo:
    """A device node as a `Transport`. One thread at a time."""

    max_transfer_bytes: int

    def __init__(
        self,
        node: Path,
        *,
        through: Callable[[], int] | None = None,
        ioctl: Callable[[int, int, Header], int] = fcntl.ioctl,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open `node`, or use the descriptor that `through` gives, which is another's to open and close.

        Raises DriveInUse when another process holds it by `lock`, DeviceGone, DeviceFailed.
        """
        self._node = node
        self._ioctl = ioctl
        self._sleep = sleep
        self._through = through
        self._descriptor: int | None = _open(node) if through is None else None
        self._closed = False
        self._sense = ctypes.create_string_buffer(_SENSE_BYTES)
        self._landing = mmap.mmap(-1, mmap.PAGESIZE)
        self.max_transfer_bytes = MAX_TRANSFER_BYTES
        if through is None:
            self._reserve()

    def _reserve(self) -> None:
        """Have the kernel keep a buffer for the largest transfer now: later there may be no memory in one piece."""
        descriptor = self._fd()
        try:
            fcntl.ioctl(descriptor, _SG_SET_RESERVED_SIZE, MAX_TRANSFER_BYTES.to_bytes(4, "little"))
            got = int.from_bytes(fcntl.ioctl(descriptor, _SG_GET_RESERVED_SIZE, bytes(4)), "little")
        except OSError as error:
            raise _as_failure(self._node, error) from error
        self.max_transfer_bytes = max(64 * 1024, min(got, MAX_TRANSFER_BYTES))

    def lock(self) -> None:
        """Hold the node against other processes that ask for it in the same way. Raises DriveInUse."""
        try:
            fcntl.flock(self._fd(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DriveInUse(f"{self._node} is in use by another process") from None

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        """Send a command and wait for its end. See `Transport.execute`."""
        command = ctypes.create_string_buffer(cdb, len(cdb))
        header = Header(
            interface_id=ord("S"),
            dxfer_direction=_NO_DATA,
            cmd_len=len(cdb),
            mx_sb_len=_SENSE_BYTES,
            cmdp=ctypes.addressof(command),
            sbp=ctypes.addressof(self._sense),
            timeout=min(max(1, round(timeout_s * 1000)), 2**32 - 1),
        )
        # Kept until the command is done: the kernel reads and writes there.
        data: object = None
        if data_in is not None and data_in.nbytes:
            header.dxfer_direction, header.dxfer_len = _FROM_DEVICE, data_in.nbytes
            data = (ctypes.c_ubyte * data_in.nbytes).from_buffer(self._landing_for(data_in.nbytes))
            header.dxferp = ctypes.addressof(data)
        elif data_out is not None and len(data_out):
            header.dxfer_direction, header.dxfer_len = _TO_DEVICE, memoryview(data_out).nbytes
            data, header.dxferp = _address(data_out)
        if header.dxfer_len >= _DIRECT_FROM_BYTES:
            # The kernel copies instead where it cannot: on sg it must be allowed, and the buffer be aligned.
            header.flags = _DIRECT_IO
        self._send(header)
        del data
        reply = self._reply(header)
        if data_in is not None:
            data_in[: reply.moved_bytes] = memoryview(self._landing)[: reply.moved_bytes]
        return reply

    def _landing_for(self, size_bytes: int) -> mmap.mmap:
        """Return where data arrive. The kernel copies as much as was asked for, also what no device has sent.

        Pages of their own can be a target of direct transfers, which the caller's bytes seldom are.
        """
        if len(self._landing) < size_bytes:
            self._landing = mmap.mmap(-1, size_bytes)
        return self._landing

    def _send(self, header: Header) -> None:
        # sg lets a signal interrupt the wait and then has the call made again: the command would be sent twice.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            for seconds in _SECONDS_BETWEEN_TRIES:
                try:
                    self._ioctl(self._fd(), _SG_IO, header)
                except OSError as error:
                    # Memory is looked for before the command is sent: nothing has been done.
                    if error.errno != errno.ENOMEM:
                        raise _as_failure(self._node, error) from error
                    self._sleep(seconds)
                else:
                    return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise DeviceFailed(
            f"{self._node}: the kernel has no memory to transfer {header.dxfer_len} bytes at once:"
            " load the sg module with def_reserved_size=1048576, or use smaller blocks"
        )

    def _reply(self, header: Header) -> Reply:
        if header.host_status in _GONE:
            raise DeviceGone(f"{self._node}: {_GONE[header.host_status]}")
        if header.host_status in _BROKEN:
            raise TransportFailed(f"{self._node}: {_BROKEN[header.host_status]}")
        if header.host_status:
            raise TransportFailed(f"{self._node}: the host adapter reports code {header.host_status:#x}")
        driver = header.driver_status & 0x0F
        if driver == _DRIVER_TIMEOUT:
            raise TransportFailed(f"{self._node}: no answer in time")
        if driver not in (0, _DRIVER_SENSE):
            raise TransportFailed(f"{self._node}: the kernel's driver reports code {header.driver_status:#x}")
        try:
            # The lowest bit and the two highest are reserved.
            status = Status(header.status & 0x3E)
        except ValueError:
            raise TransportFailed(f"{self._node}: the device answers with status {header.status:#x}") from None
        sense = self._sense.raw[: header.sb_len_wr]
        if driver == _DRIVER_SENSE and sense and status is Status.GOOD:
            # Some adapters fetch the sense themselves and forget to say why.
            status = Status.CHECK_CONDITION
        # A negative residual says that more was offered than asked for; what arrived is all that was asked for.
        return Reply(
            status, sense if status is Status.CHECK_CONDITION else b"", header.dxfer_len - max(0, header.resid)
        )

    def close(self) -> None:
        """Let go of the node. Harmless twice."""
        self._closed = True
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _fd(self) -> int:
        if self._descriptor is not None:
            return self._descriptor
        if self._closed or self._through is None:
            raise DeviceFailed(f"{self._node} is closed")
        return self._through()


def _address(data: bytes | memoryview) -> tuple[object, int]:
    """Return what keeps the bytes where they are, and where."""
    if isinstance(data, memoryview) and not data.readonly and data.contiguous:
        view = (ctypes.c_ubyte * data.nbytes).from_buffer(data)
        return view, ctypes.addressof(view)
    kept = ctypes.c_char_p(bytes(data))
    address = ctypes.cast(kept, ctypes.c_void_p).value
    assert address is not None  # noqa: S101 - of a bytes object, which is somewhere
    return kept, address


def _open(node: Path) -> int:
    try:
        return os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _as_failure(node, error) from error


def _as_failure(node: Path, error: OSError) -> DeviceFailed | DriveInUse:
    """Return what a failed system call on a device node means."""
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return DeviceGone(f"{node}: there is no such device, or it is not connected any more")
    if error.errno == errno.EBUSY:
        return DriveInUse(f"{node} is in use by another process")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeviceFailed(
            f"{node}: no permission: add this user to the group that owns it, on Debian with: adduser USER tape"
        )
    return TransportFailed(f"{node}: {error.strerror}")
