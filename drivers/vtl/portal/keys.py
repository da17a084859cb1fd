"""Text keys of iSCSI: their format, and what is negotiated by them. Pure; belongs to one session."""

from __future__ import annotations

from dataclasses import dataclass

from drivers.vtl.portal.pdu import ProtocolError

#: Bytes of keys that a peer may send in one go.
MAX_TEXT_BYTES = 64 * 1024
_MAX_KEYS = 256
_MAX_KEY_BYTES = 63

#: What this target takes: the largest data segment, burst, and unsolicited burst.
RECEIVE_BYTES = 1024 * 1024
_BURST_BYTES = 2**24 - 1
_FIRST_BURST_BYTES = RECEIVE_BYTES
_LEAST_BYTES = 512


def parse_keys(data: bytes) -> dict[str, str]:
    """Return the keys of a text segment, in order. Raises ProtocolError."""
    pairs: dict[str, str] = {}
    for item in data.split(b"\0"):
        if not item:
            continue
        key, found, value = item.partition(b"=")
        if not found or not 0 < len(key) <= _MAX_KEY_BYTES:
            raise ProtocolError("text that is no KEY=VALUE")
        try:
            name, text = key.decode("ascii"), value.decode("utf-8")
        except UnicodeDecodeError:
            raise ProtocolError("a text key that is no text") from None
        if name in pairs or len(pairs) >= _MAX_KEYS:
            raise ProtocolError(f"text key {name!r} comes twice, or too many keys")
        pairs[name] = text
    return pairs


def format_keys(pairs: dict[str, str]) -> bytes:
    """Return the text segment of some keys."""
    return b"".join(f"{key}={value}".encode() + b"\0" for key, value in pairs.items())


@dataclass(slots=True)
class Operational:
    """What was agreed upon; RFC 7143's defaults until then."""

    #: The largest data segment that the initiator takes.
    send_bytes: int = 8192
    max_burst_bytes: int = 262_144
    first_burst_bytes: int = 65_536
    initial_r2t: bool = True
    immediate_data: bool = True


class Negotiation:
    """Answers the operational keys of a login."""

    def __init__(self) -> None:
        self.result = Operational()
        self._declared = False

    def answer(self, pairs: dict[str, str]) -> dict[str, str]:
        """Return the answers to some keys that the initiator offers. Raises ProtocolError for senseless values."""
        answers: dict[str, str] = {}
        for key, value in pairs.items():
            answer = self._one(key, value)
            if answer is not None:
                answers[key] = answer
        if not self._declared:
            self._declared = True
            answers["MaxRecvDataSegmentLength"] = str(RECEIVE_BYTES)
        # An unsolicited burst is a burst.
        self.result.first_burst_bytes = min(self.result.first_burst_bytes, self.result.max_burst_bytes)
        return answers

    def _one(self, key: str, value: str) -> str | None:
        """Return the answer to one key, None for a declaration that wants none."""
        if key in _DECLARATIONS:
            return None
        if key == "MaxRecvDataSegmentLength":
            self.result.send_bytes = min(_number(key, value, _LEAST_BYTES, 2**24 - 1), _BURST_BYTES)
            return None
        if key in _FIXED:
            return _FIXED[key]
        if key in ("HeaderDigest", "DataDigest"):
            return "None" if "None" in value.split(",") else "Reject"
        if key in _BOOLEANS:
            return self._boolean(key, value)
        if key in _LENGTHS:
            return self._length(key, value)
        if key == "DefaultTime2Wait":
            return str(_number(key, value, 0, 3600))
        return "NotUnderstood"

    def _boolean(self, key: str, value: str) -> str:
        if value not in ("Yes", "No"):
            return "Reject"
        if key == "InitialR2T":
            self.result.initial_r2t = value == "Yes"
        elif key == "ImmediateData":
            self.result.immediate_data = value == "Yes"
        else:
            return "Yes"
        return value

    def _length(self, key: str, value: str) -> str:
        asked = _number(key, value, _LEAST_BYTES, 2**24 - 1)
        if key == "MaxBurstLength":
            self.result.max_burst_bytes = min(asked, _BURST_BYTES)
            return str(self.result.max_burst_bytes)
        self.result.first_burst_bytes = min(asked, _FIRST_BURST_BYTES)
        return str(self.result.first_burst_bytes)


_DECLARATIONS = frozenset(
    (
        "InitiatorName",
        "InitiatorAlias",
        "TargetName",
        "TargetAlias",
        "SessionType",
        "AuthMethod",
        "TargetPortalGroupTag",
    )
)
_BOOLEANS = frozenset(("InitialR2T", "ImmediateData", "DataPDUInOrder", "DataSequenceInOrder"))
_LENGTHS = frozenset(("MaxBurstLength", "FirstBurstLength"))
#: Keys with one answer, whatever is offered.
_FIXED = {
    "MaxConnections": "1",
    "MaxOutstandingR2T": "1",
    "ErrorRecoveryLevel": "0",
    # Nothing of a session is kept when its connection breaks.
    "DefaultTime2Retain": "0",
    "IFMarker": "No",
    "OFMarker": "No",
    "IFMarkInt": "Irrelevant",
    "OFMarkInt": "Irrelevant",
    "TaskReporting": "RFC3720",
    "iSCSIProtocolLevel": "1",
}


def _number(key: str, value: str, least: int, most: int) -> int:
    try:
        number = int(value, 0)
    except ValueError:
        raise ProtocolError(f"{key} is no number") from None
    if not least <= number <= most:
        raise ProtocolError(f"{key} is not between {least} and {most}")
    return number
