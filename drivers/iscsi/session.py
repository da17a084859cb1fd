"""One iSCSI session over one connection: log in, send commands one at a time, and be over for good when it breaks.

Blocking; one call at a time, from any thread. Waiting and copying give the interpreter free.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

from drivers.errors import DeviceFailed, DeviceGone, TransportFailed
from drivers.iscsi import libiscsi as lib
from drivers.iscsi.address import Address
from drivers.scsi.transport import Reply, Status

#: A host that is gone says nothing: without an answer to what was sent for so long the connection is broken. The peer's
#: kernel answers, however long its drive takes.
SILENCE_S = 30
#: How long a logout may take before the connection is just cut.
LOGOUT_S = 2.0
#: Portals that send us on to another one, at most.
_REDIRECTS = 4
#: libiscsi looks after its own affairs when it is called without an event.
_LOOK_S = 1.0
_CDB_BYTES = 16
_PROBE_S = 2.0


@dataclass(frozen=True, slots=True)
class Initiator:
    """Who we are in a session. The same name and qualifier are the same initiator port, also after a reconnect."""

    name: str
    #: 24 bits by chance and 16 that count: together they tell our sessions from each other.
    isid_random: int
    isid_qualifier: int


class Session:
    """A session that is logged in; made with `open_session`."""

    def __init__(self, address: Address, initiator: Initiator) -> None:
        """Only prepare; no byte is sent. Raises DeviceFailed without libiscsi."""
        self._library = lib.libiscsi()
        self._address = address
        self._context: int | None = self._library.iscsi_create_context(initiator.name.encode())
        if self._context is None:
            raise DeviceFailed(f"libiscsi refuses the initiator name {initiator.name!r}")
        # Held here: the library has only its address.
        self._callback = lib.Callback(self._called)
        self._poll = select.poll()
        self._polled: int | None = None
        self._socket: socket.socket | None = None
        #: What the library said of an earlier call; it never takes that back.
        self._stale = b""
        #: Number of the call that is waited for, and how it ended.
        self._call = 0
        self._status: int | None = None
        self._prepare(initiator)

    def _prepare(self, initiator: Initiator) -> None:
        library, context, chap = self._library, self._context, self._address.chap
        library.iscsi_set_session_type(context, lib.SESSION_NORMAL)
        library.iscsi_set_header_digest(context, lib.DIGEST_NONE)
        library.iscsi_set_targetname(context, self._address.target.encode())
        library.iscsi_set_isid_random(context, initiator.isid_random, initiator.isid_qualifier)
        # A command that is sent again on a new connection would be done twice, at another place of the tape.
        library.iscsi_set_noautoreconnect(context, 1)
        if chap is not None:
            library.iscsi_set_initiator_username_pwd(context, chap.user.encode(), chap.secret.encode())
            if chap.target_user:
                library.iscsi_set_target_username_pwd(context, chap.target_user.encode(), chap.target_secret.encode())

    @property
    def is_open(self) -> bool:
        """Is the session still good, as far as is known?"""
        return self._context is not None

    # -- log in and out ------------------------------------------------------------------------------------------------

    def log_in(self, portal: str, timeout_s: float) -> str | None:
        """Connect to `portal` and log in; return None, or the portal that the target wants us to go to instead.

        Raises DeviceGone when nobody answers, DeviceFailed when the login is refused; the session is over then.
        """
        try:
            status = self._log_in(portal, time.monotonic() + timeout_s)
            reason, elsewhere = self._reason(), self._elsewhere()
        except TimeoutError:
            self.cut()
            raise DeviceGone(f"{self._address} did not answer within {timeout_s:g} s") from None
        except BaseException:
            self.cut()
            raise
        if status == Status.GOOD:
            return None
        self.cut()
        if status == lib.STATUS_REDIRECT and elsewhere:
            return elsewhere
        raise DeviceFailed(f"cannot log in to {self._address}: {reason}")

    def _log_in(self, portal: str, deadline_s: float) -> int:
        started = self._library.iscsi_connect_async(self._context, portal.encode(), self._callback, self._next())
        if started != 0 or self._wait(deadline_s) != Status.GOOD:
            raise DeviceGone(f"cannot reach {self._address}: {_why_not(portal) or self._reason()}")
        self._own_socket()
        started = self._library.iscsi_login_async(self._context, self._callback, self._next())
        return self._wait(deadline_s) if started == 0 else lib.STATUS_ERROR

    def _elsewhere(self) -> str:
        return (self._library.iscsi_get_target_address(self._context) or b"").decode(errors="replace")

    def _own_socket(self) -> None:
        """Have the kernel notice a peer that is gone, also while nothing is sent for hours."""
        self._socket = socket.socket(fileno=os.dup(self._library.iscsi_get_fd(self._context)))
        options = [
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S // 3),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, SILENCE_S // 6),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
            (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_S * 1000),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        ]
        for level, option, value in options:
            self._socket.setsockopt(level, option, value)

    def log_out(self) -> None:
        """Say goodbye, shortly, and close the connection. Harmless when it is over already."""
        if self._context is None:
            return
        try:
            if self._library.iscsi_logout_async(self._context, self._callback, self._next()) == 0:
                with suppress(TimeoutError):
                    self._wait(time.monotonic() + LOGOUT_S)
        finally:
            self.cut()

    def cut(self) -> None:
        """Close the connection as it is. What was in flight is forgotten, and no memory of it is touched any more."""
        context, self._context = self._context, None
        self._next()
        if context is not None:
            self._library.iscsi_destroy_context(context)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- commands ------------------------------------------------------------------------------------------------------

    def execute(
        self, cdb: bytes, data_in: memoryview | None, data_out: bytes | memoryview | None, timeout_s: float
    ) -> Reply:
        """Send a command and wait for its end, as `Transport.execute` says.

        Raises TransportFailed when that is not known; the session is over then.
        """
        if not 1 <= len(cdb) <= _CDB_BYTES:
            raise ValueError(f"a command has 1 to {_CDB_BYTES} bytes, not {len(cdb)}")
        if self._context is None:
            raise TransportFailed(f"the session with {self._address} is over")
        data = data_in if data_in is not None else data_out
        if data_in is not None and data_out is not None:
            raise ValueError("a command moves data one way")
        if data is None:
            return self._execute(cdb, lib.XFER_NONE, None, timeout_s)
        held = lib.Held(data, writable=data_in is not None)
        try:
            return self._execute(cdb, lib.XFER_READ if data_in is not None else lib.XFER_WRITE, held, timeout_s)
        finally:
            held.release()

    def _execute(self, cdb: bytes, direction: int, held: lib.Held | None, timeout_s: float) -> Reply:
        library = self._library
        size_bytes = held.size_bytes if held is not None else 0
        task = library.scsi_create_task(len(cdb), cdb, direction if size_bytes else lib.XFER_NONE, size_bytes)
        if task is None:
            raise MemoryError("libiscsi has no memory for a command")
        try:
            if held is not None and size_bytes:
                add = library.scsi_task_add_data_in_buffer
                if direction == lib.XFER_WRITE:
                    add = library.scsi_task_add_data_out_buffer
                if add(task, size_bytes, held.address) != 0:
                    raise MemoryError("libiscsi has no memory for the data of a command")
            self._run(task, timeout_s)
            return _reply(lib.Task.from_address(task))
        finally:
            library.scsi_free_scsi_task(task)

    def _run(self, task: int, timeout_s: float) -> None:
        """Have the command done. When this raises, the library has let go of the task and of its data."""
        try:
            sent = self._library.iscsi_scsi_command_async(
                self._context, self._address.lun, task, self._callback, None, self._next()
            )
            status = self._wait(time.monotonic() + timeout_s) if sent == 0 else lib.STATUS_ERROR
        except TimeoutError:
            self.cut()
            raise TransportFailed(f"{self._address} did not answer a command within {timeout_s:g} s") from None
        except BaseException:
            self.cut()
            raise
        if status >= lib.STATUS_REDIRECT:
            reason = self._reason()
            self.cut()
            raise TransportFailed(f"the connection to {self._address} broke: {reason}")

    # -- waiting -------------------------------------------------------------------------------------------------------

    def look_after(self) -> None:
        """Between commands: answer what the target asks, and notice when it has gone. Costs a system call.

        A target that gets no answer to its pings takes the session for dead, and with it the place on the tape.
        """
        if self._context is None or self._socket is None:
            return
        try:
            arrived = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            arrived = b""
        if not arrived or self._library.iscsi_service(self._context, select.POLLIN) < 0:
            self.cut()
            return
        if self._library.iscsi_which_events(self._context) & select.POLLOUT:
            self._library.iscsi_service(self._context, select.POLLOUT)

    def _next(self) -> int:
        """Begin a call: what still comes for older ones is not for it."""
        self._call += 1
        self._status = None
        self._stale = self._error()
        return self._call

    def _called(self, _context: int | None, status: int, _data: int | None, call: int | None) -> None:
        # A connection that was made calls once more when it breaks: that belongs to no call any more.
        if call == self._call and self._status is None:
            self._status = status & 0xFFFFFFFF

    def _wait(self, deadline_s: float) -> int:
        """Work until the call has ended; return its status. Raises TimeoutError."""
        library, context = self._library, self._context
        while self._status is None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self._watch(library.iscsi_get_fd(context), library.iscsi_which_events(context))
            ready = self._poll.poll(min(left_s, _LOOK_S) * 1000)
            if library.iscsi_service(context, ready[0][1] if ready else 0) < 0 and self._status is None:
                self._status = lib.STATUS_ERROR
        return self._status

    def _watch(self, descriptor: int, events: int) -> None:
        if descriptor != self._polled and self._polled is not None:
            self._poll.unregister(self._polled)
            self._polled = None
        if descriptor >= 0:
            self._poll.register(descriptor, events)
            self._polled = descriptor

    def _error(self) -> bytes:
        return (self._library.iscsi_get_error(self._context) or b"") if self._context is not None else b""

    def _reason(self) -> str:
        text = self._error()
        return text.decode(errors="replace").strip() if text and text != self._stale else "the target closed it"


def _why_not(portal: str) -> str:
    """Ask the kernel why there is no connection, as libiscsi does not say it; empty when there is one now."""
    host, _, port = portal.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _reply(task: lib.Task) -> Reply:
    """Read what the device answered. Raises DeviceFailed for what no device may say."""
    try:
        status = Status(task.status)
    except ValueError:
        raise DeviceFailed(
            f"the device ended a command with status {task.status:#x}, which SCSI does not have"
        ) from None
    moved = task.expxferlen
    if task.residual_status == lib.RESIDUAL_UNDERFLOW:
        moved = max(0, moved - task.residual)
    sense = b""
    if status is Status.CHECK_CONDITION and task.datain_data and task.datain_size > 2:
        raw = ctypes.string_at(task.datain_data, task.datain_size)
        sense = raw[2 : 2 + int.from_bytes(raw[:2], "big")]
    return Reply(status, sense, moved)


def open_session(address: Address, initiator: Initiator, timeout_s: float) -> Session:
    """Connect and log in, where the target sends us. Raises DeviceGone, DeviceFailed."""
    portal = address.portal
    for _ in range(_REDIRECTS):
        session = Session(address, initiator)
        elsewhere = session.log_in(portal, timeout_s)
        if elsewhere is None:
            return session
        # The group's number behind the comma means nothing to a client.
        portal = elsewhere.split(",")[0]
    raise DeviceFailed(f"{address} sends us from portal to portal, lastly to {portal}")
