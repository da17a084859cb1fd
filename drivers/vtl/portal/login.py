"""The login phase: security, then operational parameters. The thread of its connection.

Raises LoginFailed when the initiator was told why it cannot log in, ProtocolError, ConnectionError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from drivers.vtl.portal.chap import Chap, Credentials, Refused
from drivers.vtl.portal.keys import MAX_TEXT_BYTES, Negotiation, Operational, format_keys, parse_keys
from drivers.vtl.portal.pdu import Header, Opcode, ProtocolError, header
from drivers.vtl.portal.wire import Wire, padding

_SECURITY, _OPERATIONAL, _FULL_FEATURE = 0, 1, 3
_TRANSIT, _CONTINUE = 0x80, 0x40
#: A login is done in a few PDUs.
_MAX_PDUS = 64
_MAX_NAME_BYTES = 223
#: Commands that an initiator may have under way.
WINDOW = 32

#: Status class and detail, as RFC 7143 numbers them.
INITIATOR_ERROR = 0x0200
AUTHENTICATION_FAILED = 0x0201
TARGET_NOT_FOUND = 0x0203
UNSUPPORTED_VERSION = 0x0205
MISSING_PARAMETER = 0x0207
SESSION_TYPE_UNSUPPORTED = 0x0209
SESSION_DOES_NOT_EXIST = 0x020A
OUT_OF_RESOURCES = 0x0302


class LoginFailed(Exception):
    """The initiator may not log in, and knows it. Never leaves the portal."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """Who has logged in, for what."""

    initiator: str
    isid: bytes
    is_discovery: bool
    operational: Operational
    #: Serial numbers with which the session goes on.
    status_number: int
    command_number: int


class Login:
    """One login on a fresh connection."""

    def __init__(
        self,
        wire: Wire,
        target: str,
        credentials: Credentials | None,
        *,
        session_id: int,
        admit: Callable[[str, bytes, bool], str | None],
    ) -> None:
        """`session_id` is the TSIH that the session gets.

        `admit` is asked last, with name, ISID, and whether it is a discovery; it tells why not, or None.
        """
        self._admit = admit
        self._wire = wire
        self._target = target
        self._session_id = session_id
        self._chap = Chap(credentials) if credentials is not None else None
        #: Security is settled.
        self._is_trusted = credentials is None
        self._negotiation = Negotiation()
        self._names: dict[str, str] = {}
        self._stage = -1
        self._status_number = 0
        self._request: Header | None = None
        self._has_answered = False

    def run(self) -> LoggedIn:
        """Do it."""
        text = b""
        for _ in range(_MAX_PDUS):
            request = self._read()
            text += self._wire.read_data(request.data_bytes, MAX_TEXT_BYTES - len(text))
            if request.flags & _CONTINUE:
                if request.flags & _TRANSIT:
                    raise ProtocolError("a login that both goes on and ends")
                self._send({}, flags=self._stage << 2)
                continue
            if self._step(request, parse_keys(text)):
                return self._result(request)
            text = b""
        raise ProtocolError("a login that does not end")

    def _read(self) -> Header:
        request = self._wire.read_header()
        if request.opcode != Opcode.LOGIN:
            raise ProtocolError(f"PDU {request.opcode:#04x} before the login")
        first, self._request = self._request, request
        if first is None:
            self._status_number = request.words[2]
            self._stage = request.flags >> 2 & 3
        elif (first.lun[:6], first.tag) != (request.lun[:6], request.tag):
            raise ProtocolError("a login changes its session or its tag")
        if request.raw[3] > 0:
            raise self._failure("unknown version of iSCSI", UNSUPPORTED_VERSION)
        if request.lun[6:] != bytes(2):
            raise self._failure("a second connection", SESSION_DOES_NOT_EXIST)
        if request.flags >> 2 & 3 != self._stage or self._stage not in (_SECURITY, _OPERATIONAL):
            raise self._failure("stages of the login out of order", INITIATOR_ERROR)
        return request

    def _step(self, request: Header, pairs: dict[str, str]) -> bool:
        """Answer one request; tell whether that was the last."""
        self._learn_names(pairs)
        answers = {} if self._has_answered or self._is_discovery else {"TargetPortalGroupTag": "1"}
        self._has_answered = True
        if self._stage == _SECURITY:
            answers |= self._secure(pairs)
        else:
            if not self._is_trusted:
                raise self._failure("it skips CHAP", AUTHENTICATION_FAILED)
            answers |= self._negotiation.answer(pairs)
        wanted, flags = request.flags & 3, self._stage << 2
        if request.flags & _TRANSIT:
            if wanted <= self._stage or wanted not in (_OPERATIONAL, _FULL_FEATURE):
                raise self._failure("stages of the login out of order", INITIATOR_ERROR)
            if self._is_trusted:
                if wanted == _FULL_FEATURE:
                    self._ask_admittance(request)
                flags |= _TRANSIT | wanted
                self._stage = wanted
        self._send(answers, flags=flags)
        return self._stage == _FULL_FEATURE

    def _learn_names(self, pairs: dict[str, str]) -> None:
        for key in ("InitiatorName", "TargetName", "SessionType"):
            value = pairs.get(key)
            if value is None:
                continue
            if self._names.setdefault(key, value) != value or len(value.encode()) > _MAX_NAME_BYTES:
                raise self._failure(f"{key} changes or is too long", INITIATOR_ERROR)
        if not self._names.get("InitiatorName"):
            raise self._failure("it has no name", MISSING_PARAMETER)
        if self._names.get("SessionType", "Normal") not in ("Normal", "Discovery"):
            raise self._failure("unknown type of session", SESSION_TYPE_UNSUPPORTED)
        if self._is_discovery:
            return
        if "TargetName" not in self._names:
            raise self._failure("it names no target", MISSING_PARAMETER)
        if self._names["TargetName"] != self._target:
            raise self._failure(f"there is no target {self._names['TargetName']!r}", TARGET_NOT_FOUND)

    @property
    def _is_discovery(self) -> bool:
        return self._names.get("SessionType") == "Discovery"

    def _secure(self, pairs: dict[str, str]) -> dict[str, str]:
        answers = {}
        if "AuthMethod" in pairs:
            wanted = "None" if self._chap is None else "CHAP"
            if wanted not in pairs["AuthMethod"].split(","):
                raise self._failure(f"it offers {pairs['AuthMethod'][:40]!r}, not {wanted}", AUTHENTICATION_FAILED)
            answers["AuthMethod"] = wanted
        known = {key: value for key, value in pairs.items() if key.startswith("CHAP_")}
        if known and self._chap is not None and not self._chap.is_done:
            try:
                answers |= self._chap.answer(known)
            except Refused as error:
                raise self._failure(str(error), AUTHENTICATION_FAILED) from error
            self._is_trusted = self._chap.is_done
        rest = {key: value for key, value in pairs.items() if key not in known and key != "AuthMethod"}
        # Some initiators negotiate in the stage of security.
        if any(key not in ("InitiatorName", "InitiatorAlias", "TargetName", "SessionType") for key in rest):
            answers |= self._negotiation.answer(rest)
        return answers

    def _result(self, request: Header) -> LoggedIn:
        return LoggedIn(
            self._names["InitiatorName"],
            request.lun[:6],
            self._is_discovery,
            self._negotiation.result,
            self._status_number,
            request.command_number,
        )

    def _ask_admittance(self, request: Header) -> None:
        reason = self._admit(self._names["InitiatorName"], request.lun[:6], self._is_discovery)
        if reason is not None:
            raise self._failure(reason, OUT_OF_RESOURCES)

    def _failure(self, message: str, status: int) -> LoginFailed:
        self._send({}, flags=max(self._stage, 0) << 2 & 0x0C, status=status)
        return LoginFailed(message, status)

    def _send(self, pairs: dict[str, str], *, flags: int, status: int = 0) -> None:
        if self._request is None:
            raise AssertionError("an answer before the first request")
        data = format_keys(pairs)
        request, command_number = self._request, self._request.command_number
        is_last = bool(flags & _TRANSIT) and flags & 3 == _FULL_FEATURE
        head = header(
            Opcode.LOGIN_RESPONSE,
            flags=flags,
            data_bytes=len(data),
            lun=request.lun[:6] + (self._session_id if is_last else 0).to_bytes(2, "big"),
            tag=request.tag,
            numbers=(self._status_number, command_number, (command_number + WINDOW - 1) % 2**32),
            last=(status << 16, 0, 0),
        )
        self._status_number = (self._status_number + 1) % 2**32
        with self._wire.lock:
            self._wire.send([head, data, padding(len(data))])
