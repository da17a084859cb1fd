"""The two halves of a key: the public recipient and the secret identity. Values; any thread may use them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tapefs.errors import UsageError
from tapefs.format.records import DRIVE_KEY_INFO
from tapefs.keys import bech32

KEY_BYTES = 32
_RECIPIENT, _IDENTITY = "age", "age-secret-key-"
#: Of the 64 hex digits of a SHA-256: enough to tell keys apart, and short enough to compare by eye.
_FINGERPRINT_DIGITS = 32
_FINGERPRINT = re.compile(rf"[0-9a-f]{{{_FINGERPRINT_DIGITS}}}")


@dataclass(frozen=True, slots=True)
class Recipient:
    """The public half: enough to encrypt."""

    public: bytes

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read `age1…`. Raises UsageError."""
        return cls(_parsed(text.strip(), _RECIPIENT, "recipient (age1…)"))

    @property
    def text(self) -> str:
        """As age writes it."""
        return bech32.encode(_RECIPIENT, self.public)

    @property
    def fingerprint(self) -> str:
        """The first 32 hex digits of the SHA-256 of `text`: what stands on tapes."""
        return hashlib.sha256(self.text.encode("ascii")).hexdigest()[:_FINGERPRINT_DIGITS]

    @property
    def key(self) -> X25519PublicKey:
        """For the library."""
        return X25519PublicKey.from_public_bytes(self.public)


@dataclass(frozen=True, slots=True)
class Identity:
    """The secret half. It is not shown by repr(), so that no log and no traceback has it."""

    secret: bytes = field(repr=False)

    @classmethod
    def new(cls) -> Identity:
        """Make one, of the system's random numbers."""
        return cls(X25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read `AGE-SECRET-KEY-1…`. Raises UsageError, which does not repeat the text."""
        return cls(_parsed(text.strip(), _IDENTITY, "secret key (AGE-SECRET-KEY-1…)"))

    @property
    def text(self) -> str:
        """As age writes it."""
        return bech32.encode(_IDENTITY, self.secret).upper()

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(self.key.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """That of the recipient."""
        return self.recipient.fingerprint

    @property
    def key(self) -> X25519PrivateKey:
        """For the library."""
        return X25519PrivateKey.from_private_bytes(self.secret)

    def drive_key(self, volume: str) -> bytes:
        """Return the AES-256 key with which drives encrypt the tape of that UUID: HKDF-SHA256 of the secret."""
        return HKDF(SHA256(), KEY_BYTES, None, (DRIVE_KEY_INFO + volume).encode("ascii")).derive(self.secret)


def is_fingerprint(text: str) -> bool:
    """Can it be a key's fingerprint?"""
    return _FINGERPRINT.fullmatch(text) is not None


def _parsed(text: str, wanted: str, what: str) -> bytes:
    try:
        prefix, data = bech32.decode(text)
        if prefix != wanted:
            raise ValueError("it begins otherwise")
        if len(data) != KEY_BYTES:
            raise ValueError("it is of another length")
    except ValueError as error:
        raise UsageError(f"this is no {what}: {error}") from None
    return data
