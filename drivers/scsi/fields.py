"""Numbers and texts out of an answer's bytes, each read checked. Pure; any thread.

Every decoder of this package reads through `Fields`, so that no bytes whatever make one raise anything but BadAnswer.
"""

from __future__ import annotations

from collections.abc import Iterator

from drivers.errors import BadAnswer


class Fields:
    """The bytes of an answer, or of a part of it; offsets count from its own start, numbers are big-endian."""

    def __init__(self, data: bytes | memoryview, name: str) -> None:
        self._data = bytes(data)
        #: What the bytes are, for messages: "the mode page 0Fh".
        self.name = name

    def __len__(self) -> int:
        return len(self._data)

    def raw(self, at: int, size_bytes: int) -> bytes:
        """Return exactly that many bytes. Raises BadAnswer when they are not there."""
        if size_bytes < 0 or at < 0 or at + size_bytes > len(self._data):
            raise BadAnswer(f"{self.name} has {len(self._data)} bytes, too few for byte {at + size_bytes - 1}")
        return self._data[at : at + size_bytes]

    def number(self, at: int, size_bytes: int = 1) -> int:
        """Return an unsigned number."""
        return int.from_bytes(self.raw(at, size_bytes), "big")

    def bits(self, at: int, high: int, low: int) -> int:
        """Return the bits `high` … `low` of one byte, 7 being the highest."""
        return (self.number(at) >> low) & ((1 << (high - low + 1)) - 1)

    def bit(self, at: int, bit: int) -> bool:
        """Return one bit of one byte."""
        return bool(self.bits(at, bit, bit))

    def text(self, at: int, size_bytes: int) -> str:
        """Return a text without the spaces and zeros around it; what is not ASCII becomes a question mark."""
        return self.raw(at, size_bytes).decode("ascii", "replace").replace("\ufffd", "?").strip(" \0")

    def part(self, at: int, size_bytes: int, name: str | None = None) -> Fields:
        """Return a part as fields of their own."""
        return Fields(self.raw(at, size_bytes), name or self.name)

    def upto(self, end: int) -> Fields:
        """Return the bytes before `end`, or all when there are fewer: an answer may have been cut to what was asked."""
        return Fields(self._data[: max(0, end)], self.name)

    def rest(self, at: int) -> bytes:
        """Return all bytes from `at` on; none when there are none."""
        return self._data[at:]

    def records(self, at: int, size_bytes: int) -> Iterator[Fields]:
        """Yield the whole records of one size from `at` on; a cut one at the end is left out."""
        if size_bytes < 1:
            raise BadAnswer(f"{self.name} has records of {size_bytes} bytes")
        for start in range(at, len(self._data) - size_bytes + 1, size_bytes):
            yield self.part(start, size_bytes)
