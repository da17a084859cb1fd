"""What goes on in a drive while its server answers: threading, measuring a new cartridge, a long erase, cleaning.

One thing at a time. It goes on in a thread of its own; any thread asks how far it is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from drivers.vtl.sense import BECOMING_READY, CLEANING_CARTRIDGE, ERASE_IN_PROGRESS, OPERATION_IN_PROGRESS, Key, Sense

#: How soon an end of the server is noticed.
_STEP_S = 0.05


class Interrupted(Exception):
    """The server ends: what goes on is not finished. Never leaves the thread."""


class LengthyWork:
    """The one thing that goes on, if any."""

    def __init__(self) -> None:
        self._closing = threading.Event()
        self._is_on = False
        self._erases = self._cleans = False
        #: How far it is; None: nobody knows.
        self._share: float | None = None

    def __bool__(self) -> bool:
        return self._is_on

    def begin(self, work: Callable[[], None], *, erases: bool = False, cleans: bool = False) -> None:
        """Have `work` done by a thread; commands are answered with "becoming ready" or "in progress" until then."""
        self.start(erases=erases, cleans=cleans)
        threading.Thread(target=self._run, args=(work,), name="vtl drive", daemon=True).start()

    def start(self, *, erases: bool = False, cleans: bool = False) -> None:
        """Something begins in the thread of the caller, who says when it ends."""
        self._erases, self._cleans, self._share, self._is_on = erases, cleans, None, True

    def end(self) -> None:
        """It is over."""
        self._is_on = False

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Interrupted:
            pass
        finally:
            self.end()

    def wait(self, seconds: float) -> None:
        """Let that time pass, told as progress; holds no lock. Raises Interrupted."""
        begun_s = time.monotonic()
        while (passed_s := time.monotonic() - begun_s) < seconds:
            self._share = passed_s / seconds
            if self._closing.wait(min(_STEP_S, seconds - passed_s)):
                raise Interrupted
        self._share = None

    @property
    def is_closing(self) -> bool:
        """Tell whether the server ends."""
        return self._closing.is_set()

    def close(self) -> None:
        """Have it end soon."""
        self._closing.set()

    def refusal(self) -> Sense:
        """Return what a command is told that must wait for it."""
        if self._cleans:
            return Sense(Key.NOT_READY, CLEANING_CARTRIDGE)
        return Sense(Key.NOT_READY, OPERATION_IN_PROGRESS if self._erases else BECOMING_READY, progress=self._share)

    def told(self) -> Sense:
        """Return what REQUEST SENSE tells."""
        return Sense(Key.NO_SENSE, ERASE_IN_PROGRESS, progress=self._share) if self._erases else self.refusal()
