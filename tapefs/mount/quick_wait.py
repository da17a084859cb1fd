"""Makes pyfuse3 ask the kernel for the next request before it goes to sleep in trio's event loop.

pyfuse3 takes everything of trio through its module attribute `trio`, which is how its asyncio support works, and waits
in `trio.lowlevel.wait_readable` before every request: an epoll_ctl, a pass of the scheduler and an epoll_wait, some 50
µs. While requests come one after the other the next is mostly there already, which a `poll` tells in 1 µs. Measured
with a walk over 3,000 directories of 16 files: 1.44 s without, 0.65 s with it.
"""

from __future__ import annotations

import select
from types import ModuleType

import trio

#: So many requests in a row may be taken without other tasks getting their turn: 2 to 3 ms.
_ROW = 32


class QuickWait:
    """Stands in for `trio.lowlevel.wait_readable`, for one descriptor at a time."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._fd: int | None = None
        self._row = 0

    async def wait_readable(self, fd: int) -> None:
        """Return when `fd` can be read; a checkpoint only if it cannot yet, or it is the turn of the others."""
        if fd != self._fd:
            self._poll = select.poll()
            self._poll.register(fd, select.POLLIN)
            self._fd = fd
        self._row += 1
        if self._row < _ROW and self._poll.poll(0):
            return
        self._row = 0
        await trio.lowlevel.wait_readable(fd)


class _Instead:
    """A module with one attribute replaced."""

    def __init__(self, module: ModuleType, name: str, replacement: object) -> None:
        self._module = module
        setattr(self, name, replacement)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def quick_trio() -> object:
    """Return what pyfuse3 is to take for trio: all of it but one function."""
    return _Instead(trio, "lowlevel", _Instead(trio.lowlevel, "wait_readable", QuickWait().wait_readable))
