"""What stands behind an age header: chunks of 64 KiB, each with a tag of 16 bytes, the last one marked as such.

Chunk i of the plain bytes lies at `length of header and nonce + i * 65,552`, so that any place can be read by itself. A
sealer and an unsealer belong to one thread each; the library releases the GIL while it encrypts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tapefs.errors import BadStructure
from tapefs.keys import age
from tapefs.keys.identity import Identity

CHUNK_BYTES = 64 * 1024
TAG_BYTES = 16
SEALED_BYTES = CHUNK_BYTES + TAG_BYTES
#: By another name, because in a class that has a field `bytes` that is what `bytes` means.
_Octets = bytes


class ByteSink(Protocol):
    """Takes a stream of bytes, which do not change afterwards."""

    def write(self, data: _Octets | memoryview) -> object:
        """Take in bytes."""
        ...


class Sealer:
    """Encrypts a stream on its way to `sink`. What the sink raises passes through."""

    def __init__(self, sink: ByteSink, opening: age.Opening) -> None:
        self._sink = sink
        self._cipher = ChaCha20Poly1305(opening.key)
        self._preamble = opening.preamble
        self._pending = bytearray()
        self._number = 0
        #: Plain bytes taken in so far.
        self.bytes = 0

    def write(self, data: _Octets | memoryview) -> None:
        """Take in bytes. A chunk goes on only when another byte comes behind it: the last one is marked."""
        self.bytes += len(data)
        pending, view = self._pending, memoryview(data)
        if pending:
            taken = min(CHUNK_BYTES - len(pending), len(view))
            pending += view[:taken]
            view = view[taken:]
            if not view:
                return
            self._seal(memoryview(bytes(pending)), 1)
            pending.clear()
        whole = max(0, (len(view) - 1) // CHUNK_BYTES)
        if whole:
            self._seal(view[: whole * CHUNK_BYTES], whole)
        pending += view[whole * CHUNK_BYTES :]

    def finish(self) -> None:
        """Write the last chunk; nothing may come behind it."""
        self._begin()
        self._sink.write(self._cipher.encrypt(_nonce(self._number, is_last=True), bytes(self._pending), None))
        self._pending.clear()

    def _begin(self) -> None:
        if self._preamble:
            self._sink.write(self._preamble)
            self._preamble = b""

    def _seal(self, view: memoryview, count: int) -> None:
        """Encrypt whole chunks into one piece: the fewer pieces, the less is copied behind us."""
        self._begin()
        sealed = bytearray(count * SEALED_BYTES)
        room = memoryview(sealed)
        for place in range(count):
            plain = view[place * CHUNK_BYTES : (place + 1) * CHUNK_BYTES]
            into = room[place * SEALED_BYTES : (place + 1) * SEALED_BYTES]
            self._cipher.encrypt_into(_nonce(self._number + place, is_last=False), plain, None, into)
        self._number += count
        self._sink.write(room.toreadonly())


class Places:
    """Where the chunks of a stream of known length lie. No key is needed to know that."""

    def __init__(self, preamble_bytes: int, stored_bytes: int) -> None:
        """`stored_bytes`: header, nonce and chunks. Raises BadStructure when nothing encrypted can be so long."""
        self._begin = preamble_bytes
        self._stored = stored_bytes
        count, rest = divmod(stored_bytes - self._begin, SEALED_BYTES)
        #: Number of the last chunk.
        self.last = count if rest else count - 1
        # Only a stream of nothing has an empty chunk.
        if self.last < 0 or 0 < rest < TAG_BYTES or (rest == TAG_BYTES and count):
            raise BadStructure(f"{stored_bytes} bytes cannot be an encrypted stream: it is cut short")
        #: Bytes before encryption.
        self.plain_bytes = stored_bytes - self._begin - (self.last + 1) * TAG_BYTES

    def extent(self, offset: int, length: int) -> tuple[int, int]:
        """Return which stored bytes (from, up to) hold plain ones; whole chunks. Raises BadStructure beyond the end."""
        if not 0 <= offset <= offset + length <= self.plain_bytes:
            raise BadStructure("it reaches beyond the encrypted stream")
        start = self.chunk_at(offset)
        return start, self._place((offset + length - 1) // CHUNK_BYTES + 1) if length else start

    def chunk_at(self, offset: int) -> int:
        """Return where the chunk begins in which a plain byte lies."""
        return self._place(offset // CHUNK_BYTES)

    def _place(self, chunk: int) -> int:
        return min(self._begin + chunk * SEALED_BYTES, self._stored)


class Unsealer:
    """Decrypts any part of a stream of known length. Pure; what to read is the caller's affair."""

    def __init__(self, opening: age.Opening, stored_bytes: int) -> None:
        """`stored_bytes`: header, nonce and chunks. Raises BadStructure when nothing encrypted can be so long."""
        self._cipher = ChaCha20Poly1305(opening.key)
        self.places = Places(len(opening.preamble), stored_bytes)

    def open(self, stored: _Octets | memoryview, offset: int, length: int) -> _Octets:
        """Decrypt what `places.extent` said, and return the plain bytes from `offset` on. Raises BadStructure."""
        first = offset // CHUNK_BYTES
        view, pieces = memoryview(stored), []
        for place, start in enumerate(range(0, len(view), SEALED_BYTES), first):
            pieces.append(self._chunk(place, view[start : start + SEALED_BYTES]))
        plain = b"".join(pieces)
        start = offset - first * CHUNK_BYTES
        return plain if not start and len(plain) == length else plain[start : start + length]

    def _chunk(self, number: int, sealed: memoryview) -> _Octets:
        return _decrypted(self._cipher, number, sealed, is_last=number == self.places.last)


def sealed(data: bytes, opening: age.Opening) -> bytes:
    """Return an age file of some bytes."""
    out = bytearray()
    sealer = Sealer(_Collected(out), opening)
    sealer.write(data)
    sealer.finish()
    return bytes(out)


def unsealed(pieces: Iterable[bytes | memoryview], identities: Iterable[Identity]) -> Iterator[bytes]:
    """Yield the plain bytes of an age file that comes in pieces of any length, each used before the next is taken.

    Raises KeyMissing, and BadStructure where it is damaged or cut short; what was yielded before is authentic.
    """
    source, held = iter(pieces), bytearray()
    for piece in source:
        held += piece
        if len(held) >= age.LARGEST_HEADER_BYTES + age.NONCE_BYTES:
            break
    opening = age.open_with(bytes(held[: age.LARGEST_HEADER_BYTES + age.NONCE_BYTES]), identities)
    del held[: len(opening.preamble)]
    yield from _plain(opening, held, source)


def unsealed_with_passphrase(data: bytes, passphrase: bytes) -> bytes:
    """Return what a passphrase opens. Raises WrongPassphrase, BadStructure."""
    opening = age.open_with_passphrase(data, passphrase)
    return b"".join(_plain(opening, bytearray(data[len(opening.preamble) :]), iter(())))


def _plain(opening: age.Opening, held: bytearray, source: Iterator[bytes | memoryview]) -> Iterator[bytes]:
    cipher, number = ChaCha20Poly1305(opening.key), 0
    while True:
        # One byte more than a chunk: only then it is known not to be the last.
        while len(held) <= SEALED_BYTES and (piece := next(source, None)) is not None:
            held += piece
        is_last = len(held) <= SEALED_BYTES
        plain = _decrypted(cipher, number, bytes(held[:SEALED_BYTES]), is_last=is_last)
        if is_last and number and not plain:
            raise BadStructure("the encrypted stream ends with an empty chunk")
        yield plain
        if is_last:
            return
        del held[:SEALED_BYTES]
        number += 1


def _decrypted(cipher: ChaCha20Poly1305, number: int, sealed: bytes | memoryview, *, is_last: bool) -> bytes:
    try:
        return cipher.decrypt(_nonce(number, is_last=is_last), sealed, None)
    except InvalidTag:
        where = "the last chunk" if is_last else f"chunk {number}"
        raise BadStructure(f"{where} of the encrypted stream is damaged, or the stream is cut short") from None


def _nonce(number: int, *, is_last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\1" if is_last else b"\0")


class _Collected:
    def __init__(self, out: bytearray) -> None:
        self._out = out

    def write(self, data: bytes | memoryview) -> None:
        self._out += data
