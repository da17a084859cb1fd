"""Tape files in order, a head between their blocks, and its motions: for media and drives that keep a tape as files.

Blocking; one owner, one thread. A logical block is a block or a filemark. The last file is open, and often empty.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import Any, Generic, TypeVar

from drivers.errors import EndOfData
from drivers.interface import BlockNo, FileNo, Position
from drivers.virtual.runs import BlockRuns


class TapeFile:
    """A tape file and where it starts."""

    __slots__ = ("filemark", "first_block", "first_byte", "runs")

    def __init__(self, first_block: int, first_byte: int) -> None:
        self.first_block = first_block
        self.first_byte = first_byte
        self.runs = BlockRuns()
        self.filemark = False


F = TypeVar("F", bound=TapeFile)


class TapeFiles(Generic[F]):
    """The files and the head. Who has one sets the head to the beginning when the files are there."""

    _files: list[F]
    #: File, block within it, and byte within it.
    _file: int
    _block: int
    _byte: int

    @property
    def end_block(self) -> int:
        """Return the logical block at the end of data."""
        return self._files[-1].first_block + self._files[-1].runs.blocks

    @property
    def head_block(self) -> int:
        """Return the logical block that the next read or write touches."""
        return self._files[self._file].first_block + self._block

    @property
    def head_file(self) -> int:
        """Return the filemarks before the head."""
        return self._file

    @property
    def head_byte(self) -> int:
        """Return the bytes of the blocks before the head."""
        return self._files[self._file].first_byte + self._byte

    def seek(self, block: int) -> None:
        """Put the head before an existing logical block or at the end of data."""
        self._file = self._file_of(block)
        target = self._files[self._file]
        self._block = block - target.first_block
        self._byte = target.runs.offset(self._block)

    def block_behind_filemarks(self, count: int) -> int | None:
        """Return the block behind the `count`-th filemark from the head on, None when there are fewer."""
        number = self._file + count
        return self._files[number].first_block if number < len(self._files) else None

    def next_size(self) -> int | None:
        """Return the size of the next block, 0 for a filemark, None at the end of data."""
        current = self._files[self._file]
        if self._block < current.runs.blocks:
            return current.runs.at(self._block)[1]
        return 0 if current.filemark else None

    def pass_filemark(self) -> None:
        """Move the head over the filemark that `next_size` told of."""
        self._file, self._block, self._byte = self._file + 1, 0, 0

    def _file_of(self, block: int) -> int:
        return bisect_right(self._files, block, key=lambda each: each.first_block) - 1


M = TypeVar("M", bound=TapeFiles[Any])


class MovesOverFiles(ABC, Generic[M]):
    """The motions of a drive whose tapes are files; see `drivers.interface.Drive`."""

    @abstractmethod
    def _at_hand(self) -> M:
        """Return the tape that is threaded, its place being known. Raises NotReady, PositionLost."""

    @abstractmethod
    def _go(self, tape: M, block: int) -> None:
        """Take the head to an existing logical block or the end of data."""

    def position(self) -> Position:
        """Return where the head stands. See `Drive.position`."""
        tape = self._at_hand()
        return Position(BlockNo(tape.head_block), FileNo(tape.head_file))

    def locate(self, block: BlockNo) -> None:
        """Go to a logical block. See `Drive.locate`."""
        if block < 0:
            raise ValueError(f"there is no logical block {block}")
        tape = self._at_hand()
        self._go(tape, min(block, tape.end_block))
        if block > tape.end_block:
            raise EndOfData(f"block {block} is behind the end of data, which is at block {tape.end_block}")

    def space_filemarks(self, count: int) -> None:
        """Go forwards over filemarks. See `Drive.space_filemarks`."""
        if count < 0:
            raise ValueError(f"cannot space over {count} filemarks")
        if count == 0:
            return
        tape = self._at_hand()
        block = tape.block_behind_filemarks(count)
        self._go(tape, tape.end_block if block is None else block)
        if block is None:
            raise EndOfData(f"there are fewer than {count} filemarks before the end of data")

    def seek_end(self) -> None:
        """Go to the end of data. See `Drive.seek_end`."""
        tape = self._at_hand()
        self._go(tape, tape.end_block)
