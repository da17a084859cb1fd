"""`Transport` over iSCSI: a session, and a new one when it broke, which is told as SCSI tells it.

Blocking; used by one thread. A thread of its own looks after the session between commands.

A command that was in flight when the connection broke ends with TransportFailed: nobody knows whether it was done. The
next one makes a new connection, with some patience, or raises DeviceGone; it is not sent, but answered as a device does
when the nexus to its initiator was lost: CHECK CONDITION, UNIT ATTENTION, 29/07, or what the device itself has to tell
of that kind. Whoever drives a tape takes that as "position lost".
"""

from __future__ import annotations

import secrets
import socket
import threading
import time

from drivers.errors import DeviceFailed, DeviceGone
from drivers.iscsi.address import Address
from drivers.iscsi.session import Initiator, Session, open_session
from drivers.scsi.sense import Key, parse_sense
from drivers.scsi.transport import Reply, Status

#: How long connecting and logging in may take.
CONNECT_S = 10.0
_TRY_AGAIN_S = 1.0
#: Targets ping idle sessions every 5 to 30 s, and give them as long to answer.
LOOK_AFTER_S = 2.0
#: What 3 bytes of a READ or WRITE can ask for.
MAX_TRANSFER_BYTES = (1 << 24) - 1

#: Fixed format, current, UNIT ATTENTION, I_T NEXUS LOSS OCCURRED.
_NEXUS_LOST = Reply(Status.CHECK_CONDITION, bytes((0x70, 0, 0x06, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x29, 0x07, 0, 0, 0, 0)))
_TEST_UNIT_READY = bytes(6)
#: Power on, reset, or nexus lost: the first of two bytes that say what happened.
_RESET = 0x29
_INQUIRY, _REQUEST_SENSE, _REPORT_LUNS = 0x12, 0x03, 0xA0
#: Commands that are done although a unit attention waits.
_PAST_ATTENTION = (_INQUIRY, _REQUEST_SENSE, _REPORT_LUNS)
#: What a unit is known by: the standard data, and its serial number.
_IDENTITY = (bytes((_INQUIRY, 0, 0, 0, 36, 0)), bytes((_INQUIRY, 1, 0x80, 0, 255, 0)))


def initiator_name() -> str:
    """Return the name that this host gives itself when no other is set."""
    host = "".join(c if c.isascii() and c.isalnum() else "-" for c in socket.gethostname().lower())
    return f"iqn.2026-01.local.tapefs:{host or 'host'}"


class IscsiTransport:
    """A way to one logical unit of an iSCSI target."""

    max_transfer_bytes = MAX_TRANSFER_BYTES

    def __init__(
        self, address: Address, *, initiator: str = "", connect_s: float = CONNECT_S, patience_s: float = 0.0
    ) -> None:
        """Connect and log in, at once or not at all; `patience_s` is for connections that broke.

        Raises DeviceGone when nobody answers, DeviceFailed when the login is refused.
        """
        self._address = address
        self._connect_s = connect_s
        self._patience_s = patience_s
        #: Trying for long was in vain: until there is a connection again, one try has to do.
        self._is_hopeless = False
        # One for all sessions of this transport: the target drops what it has left of the one before, at once.
        self._initiator = Initiator(initiator or initiator_name(), secrets.randbits(24), secrets.randbits(16))
        self._session: Session | None = None
        #: What was to be told since a reconnect: answers to the next commands.
        self._untold: list[Reply] = []
        #: Held for every call into the session.
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._identity: tuple[bytes, ...] = ()
        self.reconnect()
        self._keeper = threading.Thread(target=self._keep, name=f"iscsi {address.lun}", daemon=True)
        self._keeper.start()

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        """Send a command and wait for its end; see `Transport`."""
        while True:
            if not self.is_connected:
                self._reconnect_patiently()
            with self._lock:
                if self._session is None:
                    continue
                # What is found broken now has not been given this command: a system call that saves a doubt.
                self._session.look_after()
                if not self._session.is_open:
                    continue
                if self._untold and cdb[0] not in _PAST_ATTENTION:
                    return self._untold.pop(0)
                return self._session.execute(cdb, data_in, data_out, timeout_s)

    @property
    def is_connected(self) -> bool:
        """Is there a session that is not known to be broken?"""
        return self._session is not None and self._session.is_open

    def _reconnect_patiently(self) -> None:
        deadline_s = time.monotonic() + self._patience_s
        while True:
            try:
                self.reconnect()
            except DeviceFailed as error:
                # A gateway that starts anew may answer before it knows its targets.
                if self._is_hopeless or self._closed.is_set() or time.monotonic() + _TRY_AGAIN_S > deadline_s:
                    self._is_hopeless = True
                    raise DeviceGone(str(error)) from error
            else:
                self._is_hopeless = False
                return
            self._closed.wait(_TRY_AGAIN_S)

    def reconnect(self) -> None:
        """Make a new session instead of the one there is, if any; the next command learns of it.

        Raises DeviceGone when the unit cannot be reached, or when it is another one now; DeviceFailed.
        """
        with self._lock:
            if self._closed.is_set():
                raise DeviceGone(f"{self._address} is closed")
            is_first = self._session is None
            if self._session is not None:
                self._session.cut()
            session = open_session(self._address, self._initiator, self._connect_s)
            try:
                self._check_identity(session)
                if not is_first:
                    # What came with a session before this one is news still.
                    self._untold += [each for each in self._news_of(session) if each not in self._untold]
            except BaseException:
                session.cut()
                raise
            self._session = session

    def _check_identity(self, session: Session) -> None:
        """Behind the same address there may be another unit after a while: never go on with that one."""
        found = tuple(_ask(session, cdb, self._connect_s) for cdb in _IDENTITY)
        if self._identity and found != self._identity:
            raise DeviceGone(f"another unit answers at {self._address} now than before the connection broke")
        self._identity = found

    def _news_of(self, session: Session) -> list[Reply]:
        """Return what the next commands have to learn: the loss of the nexus, in the device's words if it has some."""
        reply = session.execute(_TEST_UNIT_READY, None, None, self._connect_s)
        sense = parse_sense(reply.sense) if reply.status is Status.CHECK_CONDITION else None
        if sense is None or sense.key != Key.UNIT_ATTENTION:
            return [_NEXUS_LOST]
        return [reply] if sense.asc == _RESET else [_NEXUS_LOST, reply]

    def _keep(self) -> None:
        while not self._closed.wait(LOOK_AFTER_S):
            # Whoever sends a command looks after the session himself.
            if self._lock.acquire(blocking=False):
                try:
                    if self._session is not None:
                        self._session.look_after()
                finally:
                    self._lock.release()

    def close(self) -> None:
        """Log out and let go. Harmless twice."""
        self._closed.set()
        with self._lock:
            if self._session is not None:
                self._session.log_out()
                self._session = None
        if self._keeper is not threading.current_thread():
            self._keeper.join()


def _ask(session: Session, cdb: bytes, timeout_s: float) -> bytes:
    buffer = memoryview(bytearray(cdb[4]))
    reply = session.execute(cdb, buffer, None, timeout_s)
    return bytes(buffer[: reply.moved_bytes]) if reply.status is Status.GOOD else b""
