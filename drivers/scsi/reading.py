"""Reading blocks of any length, and what the drive tells of their lengths. Blocking."""

from __future__ import annotations

from drivers.errors import BadAnswer, TransportFailed
from drivers.scsi import cdb as commands
from drivers.scsi.cdb import Space
from drivers.scsi.device import Done
from drivers.scsi.outcomes import Doing
from drivers.scsi.session import DriveSession


class BlockReader:
    """Reads where the head stands."""

    def __init__(self, session: DriveSession) -> None:
        self._session = session
        #: Length of the last block that was read, 0 before.
        self._last_bytes = 0

    def read(self, view: memoryview) -> int:
        """Return the length of the next block, which is in `view` then, or 0 for a filemark, which is passed.

        Again when the way to the drive broke meanwhile. Raises EndOfData, ReadFailed, and ValueError for a block larger
        than `view`, before which the head then stands.
        """
        session = self._session
        before = session.known_block()
        try:
            return self._read_once(view, before)
        except TransportFailed as broken:
            session.go_back(broken, before, also=(before + 1,))
            return self._read_once(view, before)

    def _read_once(self, view: memoryview, block: int) -> int:
        # A drive that is told to suppress lengths cuts what is too long without a word: only where blocks are shorter.
        suppress = 0 < self._last_bytes < view.nbytes
        done = self._read_command(view, suppress)
        if suppress and _is_plain(done) and done.moved_bytes == view.nbytes:
            self._step_back(block)
            done = self._read_command(view, False)
        length = self._length(done, view.nbytes)
        if length > view.nbytes:
            self._step_back(block)
            raise ValueError(f"block {block} has {length} bytes, the buffer only {view.nbytes}: use a larger one")
        self._session.block = block + 1
        self._last_bytes = length or self._last_bytes
        return length

    def _read_command(self, view: memoryview, suppress: bool) -> Done:
        cdb = commands.read_6(view.nbytes, suppress_length=suppress)
        return self._session.command(cdb, Doing.READ, data_in=view)

    def _length(self, done: Done, asked_bytes: int) -> int:
        """Return how long the block is that was read, 0 for a filemark."""
        sense = done.sense
        if sense is not None and sense.filemark:
            return 0
        if sense is None or not sense.incorrect_length:
            return done.moved_bytes
        if sense.information is None:
            raise BadAnswer(f"{self._session.device.name} read a block of another length and does not tell which")
        return asked_bytes - sense.information

    def _step_back(self, block: int) -> None:
        self._session.command(commands.space_6(Space.BLOCKS, -1), Doing.MOVE, block=block)
        self._session.block = block


def _is_plain(done: Done) -> bool:
    """Tell whether a block was read of which the drive says nothing of its length."""
    return done.sense is None or not (done.sense.filemark or done.sense.incorrect_length)
