"""Does anybody have a file open for writing? The kernel knows: it grants a read lease only when nobody has.

While a lease is held, whoever opens the file for writing waits until it is given back, so what was compared stays so.
Linux; the file must be the caller's own, or the caller must be root. Not every filesystem has leases.
"""

from __future__ import annotations

import errno
import fcntl
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

#: Writers that wait for the lease are told of by this signal; its default action would end the process.
_SIGNAL = signal.SIGIO


class LeaseRefused(Exception):
    """There is no lease to be had; the message says why, for a report."""


@contextmanager
def deaf_to_writers() -> Iterator[None]:
    """Ignore the signal that comes when a writer waits for a lease. Main thread only: it is about signals."""
    if threading.current_thread() is not threading.main_thread():
        raise AssertionError("leases are taken in the main thread")
    before = signal.signal(_SIGNAL, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(_SIGNAL, before)


def take_read_lease(fd: int) -> None:
    """Lease the file that is open for reading as `fd`; closing gives it back. Within `deaf_to_writers`.

    Raises LeaseRefused.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            raise LeaseRefused("somebody has it open for writing") from None
        raise LeaseRefused(f"whether somebody writes to it cannot be told: {error.strerror}") from error
