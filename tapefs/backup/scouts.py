"""Which directories of the base are as they were, with all that is in them. Intake thread, and processes beside it.

As many processes as there are processors look ahead of the walk (see `scout`). The walk itself lends a hand while it
has to wait for their word.
"""

from __future__ import annotations

import gc
import mmap
import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec
import structlog

from catalog.ids import DirectoryNo
from catalog.index.reader import IndexReader
from catalog.records import Job
from tapefs.backup.scout import LEAST_RANGE, MOST_TOKENS, TOKEN_BYTES, Scout, Task

log = structlog.get_logger(__name__)

#: Under this many directories a process would begin when all is done.
_WORTH_A_PROCESS = 1500
_MOST_PROCESSES = 7
_WAIT_S = 0.25


class Scouts:
    """Everything that looks ahead. `close` ends it."""

    def __init__(self, index: Path, job: Job, sources: list[bytes], began_ns: int, fresh_ns: int) -> None:
        """Start the processes. Raises OSError, and what opening an index raises."""
        self._processes: list[subprocess.Popen[bytes]] = []
        self._is_ended = self._has_failed = False
        with ExitStack() as stack:
            reader = stack.enter_context(IndexReader(index))
            count = reader.directories_end
            descriptor = os.memfd_create("tapefs-scouts", os.MFD_CLOEXEC)
            stack.callback(os.close, descriptor)
            os.ftruncate(descriptor, count)
            self._memory = stack.enter_context(mmap.mmap(descriptor, count))
            spread = max(LEAST_RANGE, -(-count // MOST_TOKENS))
            tokens = _pipe_of(-(-count // spread))
            stack.callback(os.close, tokens)
            task = Task(
                index=str(index), job=job, sources=sources, began_ns=began_ns, fresh_ns=fresh_ns, memory=descriptor,
                tokens=tokens, range=spread,
            )  # fmt: skip
            stack.callback(self._end)
            if count >= _WORTH_A_PROCESS:
                try:
                    self._start(task, len(os.sched_getaffinity(0)) - 1)
                except OSError as error:
                    log.warning("no further process can be started to look ahead", error=str(error))
            self._scout = Scout(task, reader, self._memory)
            self._stack = stack.pop_all()

    def is_same(self, number: DirectoryNo, look_around: Callable[[], None]) -> bool:
        """Is a directory of the base as it was, with all that is in it? Its own attributes are not looked at.

        May take as long as looking at the whole tree; `look_around` is called meanwhile. Raises Damaged.
        """
        collects = gc.isenabled()
        # Looking for cycles, of which there are none, took a tenth of the time.
        gc.disable()
        try:
            while not self._memory[number]:
                if self._is_ended:
                    return not self._has_failed
                look_around()
                if not self._scout.step():
                    self._wait(look_around)
        finally:
            if collects:
                gc.enable()
        return False

    def close(self) -> None:
        """End everything; harmless twice."""
        self._stack.close()

    def _start(self, task: Task, count: int) -> None:
        # A file, not a pipe: nobody waits for a process that does not read.
        with open(os.memfd_create("tapefs-scout-task", os.MFD_CLOEXEC), "wb") as text:
            text.write(msgspec.json.encode(task))
            text.flush()
            for _ in range(min(count, _MOST_PROCESSES)):
                with open(f"/proc/self/fd/{text.fileno()}", "rb") as stdin:
                    self._processes.append(
                        subprocess.Popen(
                            [sys.executable, "-m", "tapefs.backup.scout"], stdin=stdin, stdout=subprocess.DEVNULL,
                            pass_fds=(task.memory, task.tokens),
                        )
                    )  # fmt: skip

    def _wait(self, look_around: Callable[[], None]) -> None:
        """There are no tokens left: wait for what the others have at hand."""
        for process in self._processes:
            while process.poll() is None and not _ends_within(process.pid, _WAIT_S):
                look_around()
            if code := process.wait():
                # What it had at hand nobody has looked at: the walk looks at everything.
                log.warning("a process that looks ahead has failed; the backup goes on without it", status=code)
                self._has_failed = True
        self._is_ended = True

    def _end(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for a child that has not been waited for. Not by `wait` with a time limit: that sleeps 0.1 s too long."""
    descriptor = os.pidfd_open(pid)
    try:
        # Not `select`, which takes no descriptors from 1,024 on.
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def _pipe_of(count: int) -> int:
    """Return the end to read of a pipe that holds that many tokens, and nothing more will come."""
    source, sink = os.pipe2(os.O_CLOEXEC)
    with open(sink, "wb") as file:
        file.write(b"".join(number.to_bytes(TOKEN_BYTES, "little") for number in range(count)))
    return source
