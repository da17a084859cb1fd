"""Names of Unix sockets that fit into a socket address, however deep the state folder lies. Blocking, microseconds."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: `sun_path` holds 108 bytes with the closing zero.
SOCKET_PATH_BYTES = 107


@contextmanager
def socket_name(path: Path) -> Iterator[str]:
    """Yield a name for `bind` or `connect`: the path itself, or one by its folder's descriptor. Raises OSError."""
    if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
