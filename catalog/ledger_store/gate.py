"""A gate that many may pass at once, or one alone.

LMDB's map may be resized, and an environment closed, only while no transaction of the process is open.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """Many transactions, or one thread that changes what they stand on. Not re-entrant."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        #: Threads that want to be or are alone; newcomers wait for them, so that they do not starve.
        self._alone = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Pass together with others; waits while somebody is or wants to be alone."""
        with self._condition:
            while self._alone:
                self._condition.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Wait until nobody is inside and keep everybody out, others that want to be alone included."""
        with self._condition:
            self._alone += 1
            try:
                while self._inside:
                    self._condition.wait()
                yield
            finally:
                self._alone -= 1
                self._condition.notify_all()
