"""Reading what is encrypted on tape, with the keys that are unlocked in this process. Any thread may use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from catalog.records import Segment
from tapefs.errors import HomeError, KeyMissing
from tapefs.home import Home
from tapefs.keys import age, chunks
from tapefs.keys.identity import Identity
from tapefs.keys.store import KeyStore


def identity_of(home: Home, fingerprint: str) -> Identity:
    """Return the secret of a key. Raises KeyMissing, which names the key and says what to do."""
    if home.keyring.has(fingerprint):
        return home.keyring.get(fingerprint)
    try:
        key = KeyStore(home.keys).of_fingerprint(fingerprint)
    except HomeError as error:
        raise KeyMissing(f"it is encrypted with key {fingerprint}: {error}", fingerprint) from error
    if key is None:
        raise KeyMissing(
            f"it is encrypted with key {fingerprint}, which is not here: `tapefs key import` brings it", fingerprint
        )
    raise KeyMissing(
        f"it is encrypted with key {key.title}, which is locked: `tapefs key unlock {key.title}`", fingerprint
    )


def open_payload(home: Home, segment: Segment) -> chunks.Unsealer | None:
    """Return what decrypts the payload of a segment at any place; None when it is not encrypted.

    Raises KeyMissing, and BadStructure when the header is damaged.
    """
    if not segment.key_fingerprint:
        return None
    opening = age.open_with(segment.preamble, [identity_of(home, segment.key_fingerprint)])
    return chunks.Unsealer(opening, segment.stored_bytes)


def open_file(home: Home, pieces: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield what a whole tape file holds, in order: decrypted if it is encrypted, else as it is.

    `pieces` are of any length, each used before the next is taken. Raises KeyMissing, BadStructure, and what they
    raise.
    """
    source = iter(pieces)
    first = bytes(next(source, b""))
    if not age.is_age(first):
        yield first
        yield from map(bytes, source)
        return
    # A header of ours is in the first block, which has 4 KiB at least.
    clear = age.parse(first).clear
    identities = home.keyring.identities() if clear is None else [identity_of(home, clear.fingerprint)]
    yield from chunks.unsealed(_joined(first, source), identities)


def preamble_of(start: bytes) -> bytes:
    """Return what `Segment.preamble` is, of a payload that begins with `start`, its first block.

    Raises BadStructure.
    """
    end = age.parse(start).length + age.NONCE_BYTES
    return start[:end]


def _joined(first: bytes, rest: Iterator[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    yield first
    yield from rest
