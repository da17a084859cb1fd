"""Has the index of a set built while the set is written, by a process that follows the local trailers.

Told of segments by the thread that writes trailers, of the end by the intake thread, when that one has ended. Without
the process, or when it fails, nothing is lost: the index is built at the end, as after a crash.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import msgspec
import structlog

from catalog.ids import SegmentId
from catalog.records import BackupSet
from tapefs.home import Home
from tapefs.sets.finish import promised_by
from tapefs.sets.follower import SPOILT, Begun, Sealed, Task, Word
from tapefs.standing_back import coming_forward

log = structlog.get_logger(__name__)

#: From so many lines on: starting the process takes as long as 10,000 lines do when all else is done.
_WORTH_A_PROCESS = 20_000
_PATIENCE_S = 5.0


class EarlyIndex:
    """The index of one set in the making. A context manager: at its end nothing runs any more."""

    def __init__(self, home: Home, backup_set: BackupSet, committed: Iterable[Path] = ()) -> None:
        """`committed` are the trailers of segments that the set has already, in order."""
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        self._lines = 0
        self._words: list[Word] = [
            Task(home=str(home.path), set_id=backup_set.set_id, parent_id=backup_set.parent_id),
            *(Begun(growing=str(trailer), whole=str(trailer)) for trailer in committed),
        ]

    def __enter__(self) -> EarlyIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def begin(self, growing: Path, whole: Path) -> None:
        """A segment was begun: where its trailer grows, and will lie."""
        self._say(Begun(growing=str(growing), whole=str(whole)))

    def grown(self, lines: int) -> None:
        """So many lines have gone into the trailer."""
        self._lines += lines
        if self._process is None and not self._is_over and self._lines >= _WORTH_A_PROCESS:
            self._start()

    def finish(self, backup_set: BackupSet, segments: Iterable[SegmentId]) -> None:
        """The set is SEALED and has these segments, in order: wait for the index if it is being built."""
        self._say(Sealed(promised=promised_by(backup_set), segments=list(segments)))
        if self._process is None:
            return
        status = self._process.wait()
        if status == SPOILT:
            log.info("a segment was written anew, and the index is", set=backup_set.set_id)
        elif status:
            log.warning("the index could not be built early and is built now", set=backup_set.set_id, status=status)
        self._end()

    def _say(self, word: Word) -> None:
        if self._is_over:
            return
        self._words.append(word)
        if self._process is not None:
            self._tell(self._process)

    def _start(self) -> None:
        try:
            with coming_forward():  # It decides itself how far it stands back.
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tapefs.sets.follower"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
                )
        except OSError as error:
            log.warning("no process can be started to build the index early", error=str(error))
            self._is_over = True
            return
        self._tell(self._process)

    def _tell(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdin is None:
            raise AssertionError("the process was started with a pipe")
        try:
            process.stdin.write(b"".join(msgspec.json.encode(word) + b"\n" for word in self._words))
            process.stdin.flush()
        except BrokenPipeError:
            self._is_over = True  # It has ended, and `finish` sees why.
        self._words.clear()

    def _end(self) -> None:
        """Have the process end, if it runs; harmless twice."""
        self._is_over = True
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=_PATIENCE_S)  # Closes its input, by which it knows.
        except subprocess.TimeoutExpired:
            log.warning("the process that builds the index does not end and is killed")
            process.kill()
            process.wait()
