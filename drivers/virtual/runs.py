"""The block sizes of one tape file, run-length encoded, with byte offsets. Belongs to its cartridge's thread."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class BlockRuns:
    """Sizes of consecutive blocks. A payload is two runs however long it is: full blocks and a short last one."""

    __slots__ = ("_first_blocks", "_first_bytes", "_sizes", "blocks", "bytes")

    def __init__(self, runs: Iterable[tuple[int, int]] = ()) -> None:
        self._first_blocks: list[int] = []
        self._first_bytes: list[int] = []
        self._sizes: list[int] = []
        #: Number of blocks, and of bytes in all of them.
        self.blocks = 0
        self.bytes = 0
        for size_bytes, count in runs:
            self.extend(size_bytes, count)

    def extend(self, size_bytes: int, count: int = 1) -> None:
        """Add `count` blocks of one size at the end."""
        if not self._sizes or self._sizes[-1] != size_bytes:
            self._first_blocks.append(self.blocks)
            self._first_bytes.append(self.bytes)
            self._sizes.append(size_bytes)
        self.blocks += count
        self.bytes += size_bytes * count

    def at(self, block: int) -> tuple[int, int]:
        """Return byte offset and size of an existing block."""
        run = bisect_right(self._first_blocks, block) - 1
        size_bytes = self._sizes[run]
        return self._first_bytes[run] + (block - self._first_blocks[run]) * size_bytes, size_bytes

    def offset(self, block: int) -> int:
        """Return the byte offset of a block; that of the end for the block behind the last."""
        return self.bytes if block == self.blocks else self.at(block)[0]

    def cut(self, blocks: int) -> None:
        """Keep only the first `blocks` blocks."""
        self.bytes = self.offset(blocks)
        self.blocks = blocks
        while self._first_blocks and self._first_blocks[-1] >= blocks:
            self._first_blocks.pop()
            self._first_bytes.pop()
            self._sizes.pop()

    def pairs(self) -> list[tuple[int, int]]:
        """Return (size, count) of every run."""
        bounds = [*self._first_blocks, self.blocks]
        return [(size, bounds[run + 1] - bounds[run]) for run, size in enumerate(self._sizes)]
