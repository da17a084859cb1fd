"""The names file of a set: made when it is missing, and made anew when it is damaged. Blocking; one thread.

It is a pure function of the index, so whoever searches may make it, and nothing is lost with it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import IO, TypeVar

from catalog.errors import Conflict, Damaged, NotFound, StorageFailed, WrongVersion
from catalog.ids import DirectoryNo, EntryNo, SetId
from catalog.names.builder import build_names, nameless_names
from catalog.names.reader import Block, NamesReader
from tapefs.home import Home

T = TypeVar("T")


class SetNames:
    """Searches the names that a set has written. Every method may raise CatalogError."""

    def __init__(self, home: Home, set_id: SetId, look_around: Callable[[], None]) -> None:
        """`look_around` is called while a file is made, and may raise. Raises NotFound when the set has no index."""
        self._look_around = look_around
        self.set_id = set_id
        self._index, self._path = home.index(set_id), home.names(set_id)
        self._is_new = False
        self._reader = self._open()

    def blocks_with(self, prefixes: Iterable[bytes]) -> Sequence[int]:
        """Return the blocks, ascending, that may hold names which begin with any of the prefixes."""
        found = [self._reader.blocks_with(prefix) for prefix in prefixes]
        return found[0] if len(found) == 1 else sorted(set().union(*found))

    def first_name(self, number: int) -> bytes:
        """Return the first name of a block, without reading that."""
        return self._reader.first_name(number)

    def block(self, number: int) -> Block:
        """Return a block."""
        return self._sure(lambda: self._reader.block(number))

    def with_numbers(self, number: int, block: Block) -> Block:
        """Return the block with its numbers in memory."""

        def load() -> Block:
            found = block if block.is_of(self._reader) else self._reader.block(number)
            found.load()
            return found

        return self._sure(load)

    def run_of(self, entry: EntryNo) -> tuple[EntryNo, DirectoryNo]:
        """Return the first entry of the run that an entry of the set's own is in, and the directory."""
        return self._sure(lambda: self._reader.run_of(entry))

    def close(self) -> None:
        """Let go of the file; harmless twice."""
        self._reader.close()

    def _sure(self, work: Callable[[], T]) -> T:
        """Do it; if the file proves damaged make it anew, once, and do it again."""
        try:
            return work()
        except Damaged as error:
            if self._is_new:
                raise
            _warn("a names file is damaged and is made anew", self.set_id, error)
        self._reader.close()
        self._reader = self._make()
        return work()

    def _open(self) -> NamesReader:
        try:
            reader = NamesReader(self._path)
            if reader.set_id == self.set_id:
                return reader
            reader.close()
            _warn("a names file is of another set and is made anew", self.set_id)
        except NotFound:
            pass
        except (Damaged, WrongVersion) as error:
            _warn("a names file is damaged and is made anew", self.set_id, error)
        return self._make()

    def _make(self) -> NamesReader:
        self._is_new = True
        # Somebody else may be making it, or we may not write there: then we make it for ourselves.
        with suppress(Conflict, StorageFailed):
            build_names(self._index, self._path, self._look_around)
            return NamesReader(self._path)
        file: IO[bytes] = nameless_names(self._index, self._look_around)
        return NamesReader(self._path, file)


def write_names(home: Home, set_id: SetId) -> None:
    """Make the names file of a new set. Never raises CatalogError: a search makes what is missing."""
    try:
        build_names(home.index(set_id), home.names(set_id))
    except (Conflict, Damaged, NotFound, StorageFailed, WrongVersion) as error:
        _warn("the names file could not be written; the next search makes it", set_id, error)


def _warn(event: str, set_id: SetId, error: Exception | None = None) -> None:
    # Here, because it takes longer to import than most searches do, and a command has not set it up.
    import structlog

    if not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    structlog.get_logger(__name__).warning(event, set=set_id, error=str(error or ""))
