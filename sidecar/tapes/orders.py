"""What can be asked to be done with a tape. Pure data.

What a mover is told is one of its messages, whose `id` is put in when it is. What the drive's task does by itself has a
class here.
"""

from __future__ import annotations

import msgspec

from catalog.ids import VolumeId
from tapefs.mover.messages import Identify, ImportTaf, Reclaim, Tend


class PutBack(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Bring the tape of a drive that rests back to its slot."""

    volume_id: VolumeId


Command = Identify | Tend | Reclaim | ImportTaf | PutBack
#: These may be done once more.
REPEATABLE = (Identify, Reclaim, PutBack)


def kind_of(command: Command) -> str:
    """Return what people call it."""
    if isinstance(command, PutBack):
        return "unload"
    if isinstance(command, ImportTaf):
        return "import"
    if isinstance(command, Reclaim):
        return "reclaim"
    return command.task if isinstance(command, Tend) else "identify"
