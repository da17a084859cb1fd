"""Programs of others that drive a device: run with a deadline, their whole output read. Blocking; any thread.

No argument passes a shell. A program that outlives its deadline is killed with all its children; then nobody
knows whether the device has done what was asked.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from drivers.errors import DeviceFailed, TransportFailed

#: A killed program may hang in the kernel until its device answers: so long it is waited for.
KILL_S = 5.0
#: So much of an answer is shown when it makes no sense.
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Ended:
    """What came of a program."""

    #: Exit code; negative: the signal that ended it.
    code: int
    #: Standard output and standard error, bytes that are no UTF-8 replaced.
    output: str
    errors: str

    @property
    def text(self) -> str:
        """All that it said."""
        return self.output + self.errors

    @property
    def shown(self) -> str:
        """The end of what it said, in one line, for a message."""
        words = " ".join(self.text.split())
        if not words:
            return "it said nothing"
        return words if len(words) <= _SHOWN_CHARACTERS else f"... {words[-_SHOWN_CHARACTERS:]}"


class Runner(Protocol):
    """Something that runs a program; the tests have one without processes."""

    #: How people know the program.
    name: str

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        """Run it to its end. Raises DeviceFailed when it cannot be started, TransportFailed after `timeout_s`."""
        ...


class Program:
    """A program by its path, or by its name in PATH; implements `Runner`."""

    def __init__(self, name: str, *, hint: str) -> None:
        """`hint` says where to get the program when there is none."""
        self.name = name
        self._hint = hint

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        """Run it to its end. See `Runner`."""
        path = shutil.which(self.name)
        if path is None:
            raise DeviceFailed(f"there is no program {self.name}: {self._hint}")
        try:
            process = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceFailed(f"cannot start {path}: {error.strerror}") from error
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            _kill(process)
            words = " ".join([self.name, *arguments])
            raise TransportFailed(
                f"`{words}` did not end in {timeout_s:.0f} s and was killed: look at the device before you go on"
            ) from error
        except BaseException:
            _kill(process)
            raise
        return Ended(process.returncode, output.decode(errors="replace"), errors.decode(errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and what it has started; one that hangs in the kernel is left behind."""
    with contextlib.suppress(ProcessLookupError):  # It may have ended meanwhile.
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=KILL_S)
    except subprocess.TimeoutExpired:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
