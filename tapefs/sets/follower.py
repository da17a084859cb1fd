"""Builds the index of a set while its segments are being written. A process of its own beside the mover.

`python -m tapefs.sets.follower` is told on its standard input, a line of JSON each: for which set, where the local
trailer of each segment grows, in order, and in the end what the set says of itself. Nothing is to be seen of the index
before that. What goes wrong here costs time only: whoever has started the process builds the index himself then.

The main thread builds, another one listens: when nothing more can come, the mover has ended or wants no index, and so
nobody is left who would wait for this process.
"""

from __future__ import annotations

import gc
import os
import queue
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from catalog.ids import SegmentId, SetId
from catalog.index.model import Totals
from catalog.index.reader import IndexReader
from tapefs.home import open_home
from tapefs.search.names import write_names
from tapefs.sets.build import Promised, build_index
from tapefs.standing_back import stand_back

#: Exit codes: a segment was given up whose lines have been taken in; nothing more is wanted.
SPOILT, NOT_WANTED = 3, 4

_PIECE_BYTES = 256 * 1024
#: How long to wait for a trailer to grow. It comes in pieces of some 50 KiB, every second or so.
_WAIT_S = 0.05


class Task(msgspec.Struct, frozen=True, kw_only=True, tag="task"):
    """The first line: state folder, set, and the set that it builds on."""

    home: str
    set_id: SetId
    parent_id: SetId | None = None


class Begun(msgspec.Struct, frozen=True, kw_only=True, tag="begun"):
    """A segment was begun, behind those before it; where its local trailer grows, and lies once it is whole."""

    growing: str
    whole: str


class Sealed(msgspec.Struct, frozen=True, kw_only=True, tag="sealed"):
    """The set is sealed, and has these segments, in order."""

    promised: Promised
    segments: list[SegmentId]


Word = Task | Begun | Sealed


class _Spoilt(Exception):
    """A segment was given up."""


class _NotWanted(Exception):
    """The other end is closed."""


class _Words:
    """What is said on the standard input, heard by a thread of its own."""

    def __init__(self) -> None:
        self._words: queue.SimpleQueue[Word | None] = queue.SimpleQueue()
        self._is_over = False
        self._is_sealed = False
        threading.Thread(target=self._listen, daemon=True).start()

    def check(self) -> None:
        """Raise _NotWanted if nothing more can come."""
        if self._is_over:
            raise _NotWanted

    def next(self) -> Word:
        """Wait for the next one. Raises _NotWanted."""
        word = self._words.get()
        if word is None:
            raise _NotWanted
        return word

    def _listen(self) -> None:
        decoder = msgspec.json.Decoder(Word)
        for line in _lines(sys.stdin.fileno()):
            word = decoder.decode(line)
            self._is_sealed = isinstance(word, Sealed)
            self._words.put(word)
        self._is_over = True
        self._words.put(None)
        if self._is_sealed:
            # The mover is gone, and the next one builds the index: it must find nobody at it.
            os._exit(NOT_WANTED)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Yield whole lines. Not from a buffered file: nobody may wait in one while the process ends."""
    text = b""
    while piece := os.read(descriptor, _PIECE_BYTES):
        *lines, text = (text + piece).split(b"\n")
        yield from lines


class _Trailers:
    """The trailers of a set, read while they are written."""

    def __init__(self, words: _Words) -> None:
        self._words = words
        self._growing: dict[Path, Path] = {}
        self._read: list[SegmentId] = []
        self._sealed: Sealed | None = None

    def paths(self) -> Iterator[Path]:
        """Yield them in order until the set is sealed. Raises _NotWanted."""
        while isinstance(word := self._words.next(), Begun):
            whole = Path(word.whole)
            self._growing = {whole: Path(word.growing)}
            self._read.append(SegmentId(whole.stem))
            yield whole
        if not isinstance(word, Sealed):
            raise AssertionError("a process has one task")
        self._sealed = word

    def pieces(self, trailer: Path) -> Generator[bytes, None, None]:
        """Yield what is there of a trailer and what comes, to its end. Raises _Spoilt, _NotWanted, OSError."""
        with self._open(trailer) as file:
            while True:
                # Asked first: what is whole does not grow afterwards.
                is_whole = _is_at(trailer, file)
                while piece := file.read(_PIECE_BYTES):
                    self._words.check()
                    yield piece
                if is_whole:
                    return
                if not os.fstat(file.fileno()).st_nlink:
                    raise _Spoilt
                self._words.check()
                time.sleep(_WAIT_S)

    def check(self, totals: Totals) -> None:
        """Raise BadStructure unless the trailers gave what the set says of itself, _Spoilt if they are others."""
        if self._sealed is None:
            raise AssertionError("the set is not sealed")
        if self._read != self._sealed.segments:
            raise _Spoilt
        self._sealed.promised.check(totals)

    def _open(self, trailer: Path) -> BinaryIO:
        # It may get its name between two looks.
        for path in (trailer, self._growing[trailer], trailer):
            try:
                return path.open("rb", buffering=0)
            except FileNotFoundError:
                continue
        raise _Spoilt


def _is_at(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _build(task: Task, words: _Words) -> None:
    home = open_home(Path(task.home))
    stand_back(home.settings.backup.niceness)
    trailers = _Trailers(words)
    with ExitStack() as stack:
        base = None if task.parent_id is None else stack.enter_context(IndexReader(home.index(task.parent_id)))
        path = home.index(task.set_id)
        build_index(path, task.set_id, trailers.paths(), base, pieces=trailers.pieces, check=trailers.check)
    write_names(home, task.set_id)


def main() -> None:
    """Be the process; its exit code is 0 when the index is in place."""
    # Entries make no cycles; looking for some takes a tenth of the time.
    gc.disable()
    words = _Words()
    try:
        task = words.next()
        if not isinstance(task, Task):
            raise AssertionError("the task comes first")
        _build(task, words)
    except _Spoilt:
        sys.exit(SPOILT)
    except _NotWanted:
        sys.exit(NOT_WANTED)


if __name__ == "__main__":
    main()
