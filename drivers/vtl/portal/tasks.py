"""Commands on their way to a logical unit. The thread of the session puts them in; it or a worker does them.

A unit gets the commands of a session one by one, in the order in which they came. The session's own thread does what is
quick, for that saves 0.1 ms each; what may take long, or has to wait for another session, a worker does, so that the
session still hears its initiator.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from drivers.vtl.unit import LogicalUnit

_EMPTY = memoryview(b"")


@dataclass(slots=True, eq=False)
class Task:
    """One command, or a job of the session that waits for its turn."""

    tag: int
    lun: int
    cdb: bytes
    #: Bytes that the initiator expects to be moved.
    expected_bytes: int = 0
    reads: bool = False
    #: Room for what is written, and how much of it has come.
    data: memoryview = _EMPTY
    received_bytes: int = 0
    #: Bytes that come without being asked for.
    unsolicited_bytes: int = 0
    #: Tag of the burst that was asked for, where it ends, and the number of the next PDU of it.
    transfer_tag: int = 0
    burst_end: int = 0
    data_number: int = 0
    #: Bursts asked for.
    bursts: int = 0
    is_aborted: bool = False
    job: Callable[[], None] | None = None

    @property
    def is_ready(self) -> bool:
        """Is all there that it needs?"""
        return self.received_bytes == len(self.data)


class UnitQueue:
    """The commands of one session for one unit."""

    def __init__(self, unit: LogicalUnit, run: Callable[[UnitQueue, Task], None]) -> None:
        """`run` does a task and answers it; it raises nothing."""
        self.unit = unit
        self._run = run
        self._tasks: deque[Task] = deque()
        self._condition = threading.Condition()
        self._is_busy = False
        self._is_closed = False
        self._worker: threading.Thread | None = None
        self._room = memoryview(b"")

    def room(self, size_bytes: int) -> memoryview:
        """Return a buffer for what the task that is being done reads; the next task gets the same."""
        if len(self._room) < size_bytes:
            self._room = memoryview(bytearray(size_bytes))
        return self._room[:size_bytes]

    def put(self, task: Task) -> None:
        """Add a task behind all others; `go` follows."""
        with self._condition:
            self._tasks.append(task)

    def go(self) -> None:
        """Do here what is ready and quick, and leave the rest to the worker."""
        while (task := self._next_quick()) is not None:
            try:
                self._run(self, task)
            finally:
                self.unit.lock.release()
                with self._condition:
                    self._is_busy = False

    def _next_quick(self) -> Task | None:
        with self._condition:
            if self._is_busy or self._is_closed or not self._tasks or not self._tasks[0].is_ready:
                return None
            task = self._tasks[0]
            if task.job is None and self.unit.is_quick(task.cdb) and self.unit.lock.acquire(blocking=False):
                self._is_busy = True
                return self._tasks.popleft()
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="vtl unit", daemon=True)
                self._worker.start()
            self._condition.notify()
            return None

    def _work(self) -> None:
        while (task := self._wait_next()) is not None:
            try:
                self._run(self, task)
            finally:
                with self._condition:
                    self._is_busy = False

    def _wait_next(self) -> Task | None:
        with self._condition:
            self._condition.wait_for(self._has_work)
            if self._is_closed:
                return None
            self._is_busy = True
            return self._tasks.popleft()

    def _has_work(self) -> bool:
        return self._is_closed or (not self._is_busy and bool(self._tasks) and self._tasks[0].is_ready)

    def abort(self, matches: Callable[[Task], bool]) -> list[Task]:
        """Drop the tasks that have not begun and match; return them."""
        with self._condition:
            dropped = [each for each in self._tasks if each.job is None and matches(each)]
            for each in dropped:
                each.is_aborted = True
                self._tasks.remove(each)
            return dropped

    def close(self) -> None:
        """Drop what has not begun, and return when what has begun is done."""
        with self._condition:
            self._is_closed = True
            self._tasks.clear()
            self._condition.notify()
        if self._worker is not None:
            self._worker.join()
