"""CHAP (RFC 1994, as RFC 7143 uses it), one way and mutual. Belongs to one login."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from dataclasses import dataclass

from drivers.vtl.portal.pdu import ProtocolError

#: Algorithms by number, as IANA has them.
_ALGORITHMS = {"5": "md5", "7": "sha256"}
_CHALLENGE_BYTES = 16
_MAX_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who may log in, and who this target is for initiators that ask."""

    user: str
    password: bytes
    #: For mutual CHAP; "" when the target cannot prove who it is.
    own_user: str = ""
    own_password: bytes = b""


class Refused(Exception):
    """The initiator is not who it should be. Never leaves the portal."""


class Chap:
    """One exchange: the initiator offers algorithms, is challenged, and answers."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._algorithm = ""
        self._identifier = b""
        self._challenge = b""
        self.is_done = False

    def answer(self, pairs: dict[str, str]) -> dict[str, str]:
        """Return what to send for the keys that came; `is_done` then tells whether that was all.

        Raises Refused, ProtocolError.
        """
        if "CHAP_A" in pairs and not self._challenge:
            return self._begin(pairs["CHAP_A"])
        if "CHAP_R" in pairs and self._challenge:
            return self._finish(pairs)
        raise ProtocolError("CHAP out of order")

    def _begin(self, offered: str) -> dict[str, str]:
        number = next((each for each in offered.split(",") if each in _ALGORITHMS), None)
        if number is None:
            raise Refused(f"no algorithm of CHAP in common: {offered[:40]!r}")
        self._algorithm = _ALGORITHMS[number]
        self._identifier, self._challenge = os.urandom(1), os.urandom(_CHALLENGE_BYTES)
        return {"CHAP_A": number, "CHAP_I": str(self._identifier[0]), "CHAP_C": "0x" + self._challenge.hex()}

    def _finish(self, pairs: dict[str, str]) -> dict[str, str]:
        mine = self._credentials
        expected = self._response(self._identifier, mine.password, self._challenge)
        is_user = hmac.compare_digest(pairs.get("CHAP_N", "").encode(), mine.user.encode())
        if not (hmac.compare_digest(_binary(pairs["CHAP_R"]), expected) and is_user):
            raise Refused("wrong user or password")
        self.is_done = True
        return self._prove(pairs) if "CHAP_C" in pairs else {}

    def _prove(self, pairs: dict[str, str]) -> dict[str, str]:
        """Answer the initiator's challenge."""
        mine = self._credentials
        if not mine.own_user:
            raise Refused("the initiator wants mutual CHAP, for which this target has no user")
        challenge = _binary(pairs["CHAP_C"])
        if challenge == self._challenge:
            raise Refused("the challenge was sent back")
        text = pairs.get("CHAP_I", "")
        if not (text.isascii() and text.isdigit() and int(text) < 256):
            raise ProtocolError("CHAP_I is no number of eight bits")
        answer = self._response(bytes([int(text)]), mine.own_password, challenge)
        return {"CHAP_N": mine.own_user, "CHAP_R": "0x" + answer.hex()}

    def _response(self, identifier: bytes, password: bytes, challenge: bytes) -> bytes:
        return hashlib.new(self._algorithm, identifier + password + challenge, usedforsecurity=False).digest()


def _binary(text: str) -> bytes:
    """Read a binary value in hexadecimal or base64. Raises ProtocolError."""
    kind, body = text[:2].lower(), text[2:]
    try:
        if len(body) > 2 * _MAX_BYTES:
            raise ProtocolError("a binary value of CHAP is too long")
        if kind == "0x":
            return bytes.fromhex(body if len(body) % 2 == 0 else "0" + body)
        if kind == "0b":
            return base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        pass
    raise ProtocolError("a binary value of CHAP is neither hexadecimal nor base64")
