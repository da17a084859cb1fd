"""What is left off where a set is of somebody else's making: nothing in it shall gain rights by being restored.

Set-id bits of files, attributes `security.*` (capabilities) and `trusted.*`, and device nodes. Functions without state.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from tapefs.restore.attributes import Attributes, Refused, Xattrs

_WHY = "the set was made by another installation; --special brings them back"
SET_ID_BITS = Refused("set-id bits", _WHY)
DEVICES = Refused("device nodes", _WHY)
_PRIVILEGED = {b"security.": Refused("attributes security.*", _WHY), b"trusted.": Refused("attributes trusted.*", _WHY)}


class Tamed(NamedTuple):
    """Attributes that give nobody rights."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


def tame(attributes: Attributes, xattrs: Xattrs) -> tuple[Attributes, Xattrs, list[Refused]]:
    """Return what may be set, and what is left off."""
    left_off: list[Refused] = []
    mode = attributes.mode
    if not stat.S_ISDIR(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
        mode &= ~(stat.S_ISUID | stat.S_ISGID)
        left_off.append(SET_ID_BITS)
    kept = [(name, value) for name, value in xattrs if not name.startswith(tuple(_PRIVILEGED))]
    for prefix, refused in _PRIVILEGED.items():
        if any(name.startswith(prefix) for name, _ in xattrs):
            left_off.append(refused)
    return Tamed(mode, attributes.uid, attributes.gid, attributes.mtime_ns), kept, left_off
