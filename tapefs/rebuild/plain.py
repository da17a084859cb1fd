"""The frames of a payload and the plain bytes in them, found without a TRAILER. Blocking; one thread, small memory."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import xxhash
import zstandard

from tapefs.codecs.interface import MAX_FRAME_BYTES
from tapefs.errors import BadStructure
from tapefs.format.records import FrameLine

#: A zstd block of 4 bytes can hold 128 KiB: so much becomes 128 MiB at most.
_PIECE_BYTES = 4096
_MAGIC_BYTES = 4
#: Of the skippable frame that holds the seek table.
_TABLE = (0x184D2A5E).to_bytes(_MAGIC_BYTES, "little")
#: A plain `.tar` says nothing of its frames; any cut will do.
_SLICE_BYTES = 4 << 20


class _Decoder(Protocol):
    """What decodes one frame."""

    @property
    def unused_data(self) -> bytes: ...

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class PlainStream:
    """A payload that is being read."""

    def __init__(
        self,
        codec: str,
        blocks: Iterable[bytes | memoryview],
        opened: Callable[[Iterator[bytes]], Iterator[bytes]] = iter,
    ) -> None:
        """`codec` is as HEADERs name it, `opened` decrypts. Raises BadStructure for one that cannot be read so."""
        readers: dict[str, Callable[[Iterable[bytes]], Iterator[bytes]]] = {
            "zstd": lambda pieces: self._compressed(pieces, _zstd),
            "gzip": lambda pieces: self._compressed(pieces, lambda: zlib.decompressobj(31)),
            "tar": self._sliced,
        }
        if codec not in readers:
            raise BadStructure(f"a payload of the kind {codec} cannot be read without its TRAILER; `{codec}` can")
        self._chunks = readers[codec](opened(self._counted(blocks)))
        self._sha256 = hashlib.sha256()
        self.stored_bytes = 0
        self.blocks = 0
        #: The first block, as it is on tape.
        self.first = b""
        self.plain_bytes = 0
        #: Found since the last look.
        self.frames: list[FrameLine] = []
        self.frame_count = 0

    def chunks(self) -> Iterator[bytes]:
        """Yield the plain stream. Raises BadStructure, and what reading raises."""
        for chunk in self._chunks:
            self.plain_bytes += len(chunk)
            yield chunk

    def sha256(self) -> bytes:
        """Return the SHA-256 of all stored bytes."""
        return self._sha256.digest()

    def _counted(self, blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        for block in blocks:
            data = bytes(block)
            self.first = self.first or data
            self._sha256.update(data)
            self.stored_bytes += len(data)
            self.blocks += 1
            yield data

    def _found(self, at: int, stored: int, plain: int, checksum: bytes) -> None:
        if plain:
            self.frames.append(FrameLine(at=at, stored=stored, plain=plain, sum=checksum))
            self.frame_count += 1

    def _compressed(self, pieces: Iterable[bytes], new: Callable[[], _Decoder]) -> Iterator[bytes]:
        frame: _Decoder | None = None
        at = stored = plain = 0
        checksum = xxhash.xxh3_128()
        rest, is_closed = b"", False
        for data in pieces:
            if is_closed:
                continue  # The seek table.
            rest += data
            while rest:
                if frame is None:
                    if len(rest) < _MAGIC_BYTES:
                        break
                    if rest.startswith(_TABLE):
                        is_closed, rest = True, b""
                        break
                    frame, stored, plain, checksum = new(), 0, 0, xxhash.xxh3_128()
                piece = rest[:_PIECE_BYTES]
                try:
                    text = frame.decompress(piece)
                except (zstandard.ZstdError, zlib.error) as error:
                    raise BadStructure(f"a frame of the payload is damaged: {error}") from error
                used = len(piece) - len(frame.unused_data)
                checksum.update(piece[:used])
                stored, plain, rest = stored + used, plain + len(text), rest[used:]
                if plain > MAX_FRAME_BYTES:
                    raise BadStructure(f"a frame of the payload holds more than {MAX_FRAME_BYTES} bytes")
                if frame.eof:
                    self._found(at, stored, plain, checksum.digest())
                    at, frame = at + stored, None
                yield text
        if frame is not None or rest:
            raise BadStructure("the payload ends within a frame")

    def _sliced(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        at, rest = 0, b""
        for data in pieces:
            rest += data
            while len(rest) >= _SLICE_BYTES:
                self._found(at, _SLICE_BYTES, _SLICE_BYTES, xxhash.xxh3_128_digest(rest[:_SLICE_BYTES]))
                at, rest = at + _SLICE_BYTES, rest[_SLICE_BYTES:]
            yield data
        if rest:
            self._found(at, len(rest), len(rest), xxhash.xxh3_128_digest(rest))


def _zstd() -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=MAX_FRAME_BYTES).decompressobj()
