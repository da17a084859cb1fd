"""Which filemarks of a tape have been seen: itdt tells the block, not the file. Pure; one thread."""

from __future__ import annotations

from bisect import bisect_right


class Marks:
    """All filemarks from the beginning of the tape up to `explored`."""

    def __init__(self) -> None:
        #: What lies before this block is known.
        self.explored = 0
        self._ends: list[int] = []

    def before(self, block: int) -> int:
        """Return how many filemarks lie before a block that is explored."""
        return bisect_right(self._ends, block)

    def passed(self, begin: int, end: int) -> None:
        """From `begin` the head went forwards over exactly one filemark, behind which it stands at `end`."""
        if begin <= self.explored < end:
            self._ends.append(end)
            self.explored = end

    def no_mark(self, block: int) -> None:
        """A block that is no filemark was read or written."""
        if block == self.explored:
            self.explored = block + 1

    def none_before(self, block: int) -> None:
        """There is no filemark from what is explored up to `block`."""
        self.explored = max(self.explored, block)

    def cut(self, block: int) -> None:
        """From `block` on there is nothing any more."""
        self._ends = [end for end in self._ends if end <= block]
        self.explored = min(self.explored, block)
