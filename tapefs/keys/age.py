"""Headers of the age format, version 1: who can read what follows, and the key of its chunks.

    age-encryption.org/v1
    -> tapefs payload 7e5d… 0a1b…          ours: what follows, its uuid, the key's fingerprint; others pass over it
                                           (no body: an empty line)
    -> X25519 <ephemeral share>
    <wrapped file key>
    --- <HMAC of all before it>

then 16 bytes, and chunks (`chunks`). The header is authenticated with the file key, our line with it. Pure functions;
any thread may use them.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import os
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tapefs.errors import BadStructure, KeyMissing, WrongPassphrase
from tapefs.keys.identity import KEY_BYTES, Identity, Recipient

VERSION_LINE = b"age-encryption.org/v1\n"
NONCE_BYTES = 16
#: No header that we write has more than 400 bytes, and nobody needs more than this.
LARGEST_HEADER_BYTES = 64 << 10

_FILE_KEY_BYTES = 16
_X25519, _SCRYPT, _OURS = "X25519", "scrypt", "tapefs"
_X25519_INFO = b"age-encryption.org/v1/X25519"
_SCRYPT_SALT = b"age-encryption.org/v1/scrypt"
_SCRYPT_SALT_BYTES = 16
#: A second of work and 256 MiB for every try, as age itself has it.
SCRYPT_LOG_N = 18
#: Others may have taken more trouble; above this a file would only be there to keep us busy (age refuses 23).
_MOST_SCRYPT_LOG_N = 22
_COLUMNS = 64
_NO_NONCE = bytes(12)
_MAC_LINE = re.compile(rb"^--- ([A-Za-z0-9+/]{43})\n", re.MULTILINE)


class Stanza(NamedTuple):
    """One recipient of a header, or what else somebody has put there."""

    kind: str
    arguments: tuple[str, ...]
    body: bytes = b""

    def lines(self) -> bytes:
        """Return it as it stands in a header."""
        text = _to_base64(self.body)
        rows = [text[start : start + _COLUMNS] for start in range(0, len(text) + 1, _COLUMNS)]
        return "\n".join([" ".join(["->", self.kind, *self.arguments]), *rows, ""]).encode("ascii")


class Clear(NamedTuple):
    """What everybody may read of an encrypted tape file."""

    #: `payload`, `trailer` or `index`.
    what: str
    #: UUID of the segment or the index.
    uuid: str
    #: Of the key.
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Header:
    """A header that was read; nothing in it is authentic before `file_key_for` has returned."""

    stanzas: tuple[Stanza, ...]
    #: All before the HMAC, up to and with `---`, and the HMAC.
    signed: bytes
    mac: bytes
    #: How long it is, with its last newline.
    length: int

    @property
    def clear(self) -> Clear | None:
        """What our line says; None for what others have written."""
        for stanza in self.stanzas:
            if stanza.kind == _OURS and len(stanza.arguments) == len(Clear._fields):
                return Clear(*stanza.arguments)
        return None


class Opening(NamedTuple):
    """What the chunks behind a header are read or written with."""

    #: Header and nonce, as they stand in front of the chunks.
    preamble: bytes
    #: The key of the chunks.
    key: bytes


def new_opening(recipient: Recipient, clear: Clear | None = None) -> Opening:
    """Return a new header for one recipient, and the key for the chunks behind it."""
    file_key = os.urandom(_FILE_KEY_BYTES)
    ours = [] if clear is None else [Stanza(_OURS, tuple(clear))]
    return _opened(file_key, [*ours, _wrapped_for(recipient, file_key)])


def new_passphrase_opening(passphrase: bytes, log_n: int = SCRYPT_LOG_N) -> Opening:
    """Return a new header for who knows a passphrase. Takes a second, by intention."""
    file_key, salt = os.urandom(_FILE_KEY_BYTES), os.urandom(_SCRYPT_SALT_BYTES)
    body = ChaCha20Poly1305(_stretched(passphrase, salt, log_n)).encrypt(_NO_NONCE, file_key, None)
    return _opened(file_key, [Stanza(_SCRYPT, (_to_base64(salt), str(log_n)), body)])


def open_with(data: bytes, identities: Iterable[Identity]) -> Opening:
    """Return how to read what begins with `data`. Raises KeyMissing when none of the identities fits, BadStructure."""
    header = parse(data)
    for identity in identities:
        file_key = _unwrapped(header, identity)
        if file_key is not None:
            return _opening_of(header, file_key, data)
    clear = header.clear
    which = f"key {clear.fingerprint}" if clear else "a key that is not at hand"
    raise KeyMissing(f"it is encrypted with {which}", clear.fingerprint if clear else "")


def open_with_passphrase(data: bytes, passphrase: bytes) -> Opening:
    """Return how to read what begins with `data`. Raises WrongPassphrase, BadStructure."""
    header = parse(data)
    if len(header.stanzas) != 1 or header.stanzas[0].kind != _SCRYPT:
        raise BadStructure("this is not encrypted with a passphrase")
    _, arguments, body = header.stanzas[0]
    try:
        salt, log_n = _from_base64(arguments[0]), int(arguments[1])
    except (IndexError, ValueError) as error:
        raise BadStructure(f"the age header is damaged: {error}") from None
    if len(arguments) != 2 or not 1 <= log_n <= _MOST_SCRYPT_LOG_N or len(salt) != _SCRYPT_SALT_BYTES:
        raise BadStructure("the age header is damaged, or its passphrase takes more work than is reasonable")
    try:
        file_key = ChaCha20Poly1305(_stretched(passphrase, salt, log_n)).decrypt(_NO_NONCE, body, None)
    except InvalidTag:
        raise WrongPassphrase("the passphrase is wrong") from None
    return _opening_of(header, file_key, data)


def parse(data: bytes) -> Header:
    """Read the header that `data` begins with. Raises BadStructure."""
    if not data.startswith(VERSION_LINE):
        raise BadStructure("this is not encrypted in the age format, version 1")
    end = _MAC_LINE.search(data, 0, LARGEST_HEADER_BYTES)
    if end is None:
        raise BadStructure("the age header is cut short or damaged")
    try:
        stanzas = tuple(_stanzas(data[len(VERSION_LINE) : end.start()].decode("ascii").split("\n")))
        mac = _from_base64(end[1].decode("ascii"))
    except ValueError as error:
        raise BadStructure(f"the age header is damaged: {error}") from None
    return Header(stanzas, data[: end.start() + len(b"---")], mac, end.end())


def is_age(data: bytes) -> bool:
    """Does it begin like an age file?"""
    return data.startswith(VERSION_LINE)


def _opened(file_key: bytes, stanzas: Sequence[Stanza]) -> Opening:
    signed = VERSION_LINE + b"".join(stanza.lines() for stanza in stanzas) + b"---"
    nonce = os.urandom(NONCE_BYTES)
    preamble = signed + b" " + _to_base64(_mac(file_key, signed)).encode("ascii") + b"\n" + nonce
    return Opening(preamble, _payload_key(file_key, nonce))


def _opening_of(header: Header, file_key: bytes, data: bytes) -> Opening:
    """Check the header and return the key of the chunks behind it. Raises BadStructure."""
    if len(file_key) != _FILE_KEY_BYTES or not hmac.compare_digest(_mac(file_key, header.signed), header.mac):
        raise BadStructure("the age header is damaged: its HMAC is wrong")
    preamble = data[: header.length + NONCE_BYTES]
    if len(preamble) < header.length + NONCE_BYTES:
        raise BadStructure("the tape file ends within its age header")
    return Opening(preamble, _payload_key(file_key, preamble[header.length :]))


def _mac(file_key: bytes, signed: bytes) -> bytes:
    return hmac.digest(HKDF(SHA256(), 32, None, b"header").derive(file_key), signed, "sha256")


def _payload_key(file_key: bytes, nonce: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, nonce, b"payload").derive(file_key)


def _wrapped_for(recipient: Recipient, file_key: bytes) -> Stanza:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    key = _wrapping_key(ephemeral.exchange(recipient.key), share, recipient.public)
    return Stanza(_X25519, (_to_base64(share),), ChaCha20Poly1305(key).encrypt(_NO_NONCE, file_key, None))


def _unwrapped(header: Header, identity: Identity) -> bytes | None:
    """Return the file key, None if no stanza is for this identity. Raises BadStructure."""
    for stanza in header.stanzas:
        if stanza.kind != _X25519:
            continue
        try:
            share = _from_base64(*stanza.arguments)
            shared = identity.key.exchange(X25519PublicKey.from_public_bytes(share))
            key = _wrapping_key(shared, share, identity.recipient.public)
            return ChaCha20Poly1305(key).decrypt(_NO_NONCE, stanza.body, None)
        except InvalidTag:
            continue
        except (TypeError, ValueError) as error:
            raise BadStructure(f"the age header is damaged: {error}") from None
    return None


def _wrapping_key(shared: bytes, share: bytes, recipient: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, share + recipient, _X25519_INFO).derive(shared)


def _stretched(passphrase: bytes, salt: bytes, log_n: int) -> bytes:
    # 128 * r * n bytes of memory, and a little beside it.
    room = (1 << log_n) * 128 * 8 + (1 << 20)
    return hashlib.scrypt(passphrase, salt=_SCRYPT_SALT + salt, n=1 << log_n, r=8, p=1, maxmem=room, dklen=KEY_BYTES)


def _stanzas(lines: list[str]) -> Iterable[Stanza]:
    """Yield the stanzas of the lines between the version and the HMAC. Raises ValueError."""
    rest = iter(lines[:-1])  # What is behind the last newline is nothing.
    for line in rest:
        words = line.split(" ")
        if words[0] != "->" or len(words) < 2 or not all(words):
            raise ValueError("a line is not what should be there")
        body = ""
        for row in rest:
            body += row
            if len(row) < _COLUMNS:
                break
            if len(row) > _COLUMNS:
                raise ValueError("a line is too long")
        else:
            raise ValueError("it ends too early")
        yield Stanza(words[1], tuple(words[2:]), _from_base64(body))


def _to_base64(data: bytes) -> str:
    return b64encode(data).decode("ascii").rstrip("=")


def _from_base64(text: str) -> bytes:
    """Return the bytes of a text without padding, in its one canonical form. Raises ValueError."""
    try:
        data = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    if _to_base64(data) != text:
        raise ValueError("its base64 is not canonical")
    return data
