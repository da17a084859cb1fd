"""Going to a logical block, also on drives that lack the newer commands for it. Blocking."""

from __future__ import annotations

from drivers.errors import BadAnswer, NotSupported
from drivers.scsi import cdb as commands
from drivers.scsi.cdb import Space
from drivers.scsi.outcomes import Doing
from drivers.scsi.session import DriveSession

#: As many blocks or filemarks go into one SPACE(6), and so far goes LOCATE(10).
MOST_SPACED = 2**23 - 1
_MOST_LOCATED_10 = 2**32 - 1


def locate(session: DriveSession, block: int) -> None:
    """Go to a logical block by the best command that the drive knows. Raises as `DriveSession.command`."""
    try:
        session.command(commands.locate_16(block), Doing.MOVE, block=block)
    except NotSupported:
        try:
            if block > _MOST_LOCATED_10:
                raise
            session.command(commands.locate_10(block), Doing.MOVE, block=block)
        except NotSupported:
            _walk_to(session, block)


def _walk_to(session: DriveSession, block: int) -> None:
    """Go to a block on a drive that cannot locate: from the beginning, filemark by filemark."""
    session.command(commands.rewind(), Doing.MOVE)
    left = block
    while left > 0:
        asked = min(left, MOST_SPACED)
        sense = session.command(commands.space_6(Space.BLOCKS, asked), Doing.MOVE, block=block).sense
        if sense is None or not sense.filemark:
            left -= asked
            continue
        if sense.information is None:
            raise BadAnswer(f"{session.device.name} met a filemark and does not tell after how many blocks")
        # What is left of what was asked; the filemark is one block of the rest.
        left -= asked - sense.information + 1
