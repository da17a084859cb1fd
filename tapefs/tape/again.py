"""Reading on after a reset of the drive: the tape is loaded and known again before anything more is read from it.

Blocking; the thread that has the drive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from catalog.records import Volume
from drivers.errors import PositionLost
from drivers.interface import Drive
from tapefs.tape.label import check_label

T = TypeVar("T")

log = structlog.get_logger(__name__)


def or_once_more(
    drive: Drive, volume: Volume, work: Callable[[], T], before_again: Callable[[], None] = lambda: None
) -> T:
    """Do what reads the tape in the drive; if the drive is reset meanwhile, once more.

    Raises as `work` does, TapeError when the tape is another one by then.
    """
    try:
        return work()
    except PositionLost as error:
        log.warning("the drive was reset, the tape is checked and read on", tape=volume.label, error=str(error))
    before_again()
    load_known(drive, volume)
    return work()


def load_known(drive: Drive, volume: Volume) -> None:
    """Thread the tape in the drive, and see by its label that it is the one. Raises TapeError, drive errors."""
    drive.load()
    check_label(drive, volume)
