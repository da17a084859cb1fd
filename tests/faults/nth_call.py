"""The preloaded library that makes the n-th writing call below a folder fail, or all from there on."""

from __future__ import annotations

import ctypes
import errno
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("nth_call.c")
#: What happens at the n-th call, and whether it happens to all later ones, too.
KINDS = {
    "EIO": (errno.EIO, False),
    "ENOSPC": (errno.ENOSPC, False),
    "short": (-1, False),
    "full": (errno.ENOSPC, True),
    "dead": (errno.EIO, True),
}


def build(folder: Path) -> Path:
    """Compile the library; its path is for LD_PRELOAD."""
    library = folder / "nth_call.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


class NthCall:
    """The library in this process, which must have it preloaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.nth_disarm.restype = ctypes.c_long
        self._library.nth_struck.restype = ctypes.c_char_p

    def arm(self, folder: Path, number: int, kind: str) -> None:
        """The call of that number below the folder fails, counted from 1 and from now on."""
        self._library.nth_arm(bytes(folder), ctypes.c_long(number), *KINDS[kind])

    def disarm(self) -> tuple[int, str]:
        """Return how many calls were counted, and which one was struck; empty for none."""
        seen = self._library.nth_disarm()
        return seen, self._library.nth_struck().decode()
