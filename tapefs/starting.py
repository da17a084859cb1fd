"""For the start of processes. In the main thread, before there are others."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports() -> Iterator[None]:
    """Import much at once without looking for garbage, of which there is none.

    The sidecar's 800 modules take 0.52 s instead of 0.63 s.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
