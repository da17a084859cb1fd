"""The target: listens, lets initiators log in, and gives each a session in a thread of its own.

`start`, `stop` and `wait` belong to one thread. Loopback needs no password; any other address does.
"""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import threading
from dataclasses import dataclass, field

from drivers.vtl.missing import MissingUnit
from drivers.vtl.portal.chap import Credentials
from drivers.vtl.portal.login import LoggedIn, Login, LoginFailed
from drivers.vtl.portal.pdu import ProtocolError
from drivers.vtl.portal.session import Served, Session
from drivers.vtl.portal.wire import Wire
from drivers.vtl.unit import LogicalUnit

log = logging.getLogger(__name__)

#: Connections at once, those that are logging in included.
MAX_CONNECTIONS = 32
_LOGIN_PATIENCE_S = 15.0
_SEND_PATIENCE_S = 60.0
#: How long a session whose initiator has come back may take to end.
_REINSTATE_PATIENCE_S = 30.0
_NAME = re.compile(r"(iqn\.[0-9]{4}-[0-9]{2}\.[a-z0-9.-]+(:[!-~]+)?|eui\.[0-9A-Fa-f]{16}|naa\.[0-9A-Fa-f]{16,32})")


def check_name(name: str) -> None:
    """Raise ValueError with a sentence when that is no iSCSI name."""
    if not _NAME.fullmatch(name) or len(name) > 223 or name != name.lower():
        raise ValueError(f"{name!r} is no iSCSI name: use one such as iqn.2026-01.com.example:vtl, in small letters")


@dataclass(eq=False, slots=True)
class _Connection:
    """One connection, from accept to its end."""

    wire: Wire
    session: Session | None = None
    #: Name and ISID of a normal session.
    port: tuple[str, bytes] | None = None
    ended: threading.Event = field(default_factory=threading.Event)


class Target:
    """Serves logical units under one name."""

    def __init__(self, name: str, units: dict[int, LogicalUnit], credentials: Credentials | None = None) -> None:
        """`units` by LUN; there is a LUN 0. Raises ValueError for a name that is none."""
        check_name(name)
        missing = MissingUnit()
        for unit in (missing, *units.values()):
            unit.luns = sorted(units)
        self._served = Served(name, units, missing)
        self._credentials = credentials
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._session_id = 0
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._is_stopping = False

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen; return the address, with the port that the system chose for port 0. Raises ValueError, OSError."""
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        if self._credentials is None and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
            raise ValueError(
                f"{host} can be reached by others, who could read and write the tapes: "
                "give a user and password for CHAP, or listen on 127.0.0.1"
            )
        self._listener = socket.create_server(address[:2], family=family, backlog=16)
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), name="vtl accept", daemon=True)
        self._thread.start()
        bound = self._listener.getsockname()
        return str(bound[0]), int(bound[1])

    def stop(self) -> None:
        """Say goodbye to all initiators, and return when what their commands had begun is done. Harmless twice."""
        with self._lock:
            self._is_stopping = True
            connections = list(self._connections)
        listener, self._listener = self._listener, None
        if listener is not None:
            # Closing alone would leave `accept` waiting.
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if self._thread is not None:
            self._thread.join()
        for each in connections:
            if each.session is not None:
                each.session.say_goodbye()
            else:
                each.wire.shut()
        for each in connections:
            each.ended.wait()

    # -- connections ---------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                if self._is_stopping:
                    return
                # The peer has gone already, or there are no descriptors left for a moment.
                log.warning("an initiator could not be let in", exc_info=True)
                if listener.fileno() < 0:
                    return
                threading.Event().wait(0.1)
                continue
            self._let_in(accepted)

    def _let_in(self, accepted: socket.socket) -> None:
        try:
            connection = _Connection(Wire(accepted, patience_s=_SEND_PATIENCE_S))
        except OSError:
            accepted.close()
            return
        with self._lock:
            if self._is_stopping or len(self._connections) >= MAX_CONNECTIONS:
                accepted.close()
                return
            self._connections.append(connection)
        try:
            threading.Thread(target=self._serve, args=(connection,), name="vtl session", daemon=True).start()
        except RuntimeError:
            log.warning("an initiator could not be let in: there are too many threads")
            self._forget(connection)

    def _serve(self, connection: _Connection) -> None:
        try:
            login = self._log_in(connection)
            session = Session(connection.wire, login, self._served)
            with self._lock:
                connection.session = session
                if self._is_stopping:
                    return
            session.run()
        except (LoginFailed, ProtocolError) as error:
            log.info("an initiator was sent away: %s", error)
        except ConnectionError as error:
            log.debug("an initiator has gone: %s", error)
        except Exception:  # The boundary of a session: a bug ends it, and no other.
            log.exception("a session failed")
        finally:
            self._forget(connection)

    def _forget(self, connection: _Connection) -> None:
        connection.wire.shut()
        connection.wire.close()
        with self._lock:
            self._connections.remove(connection)
        connection.ended.set()

    def _log_in(self, connection: _Connection) -> LoggedIn:
        connection.wire.wait_at_most(_LOGIN_PATIENCE_S)
        with self._lock:
            self._session_id = self._session_id % 0xFFFF + 1
            number = self._session_id

        def admit(initiator: str, isid: bytes, is_discovery: bool) -> str | None:
            return None if is_discovery else self._reinstate(connection, (initiator, isid))

        login = Login(connection.wire, self._served.name, self._credentials, session_id=number, admit=admit).run()
        connection.wire.wait_at_most(0)
        return login

    def _reinstate(self, connection: _Connection, port: tuple[str, bytes]) -> str | None:
        """End the session that the same initiator port had; tell why that fails, or None."""
        with self._lock:
            earlier = [each for each in self._connections if each.port == port]
            connection.port = port
        for each in earlier:
            each.wire.shut()
            if not each.ended.wait(_REINSTATE_PATIENCE_S):
                connection.port = None
                return "the initiator's earlier session is still busy"
        return None
