"""Beginning a tape anew, all of whose sets have expired, by the rules of its pool. Runs in the drive's thread."""

from __future__ import annotations

from catalog.ids import VolumeId
from catalog.ledger import Ledger
from drivers.interface import Drive
from tapefs.errors import UsageError, WrongTape
from tapefs.keys.policy import TapeKeys
from tapefs.tape.tending import Order, Task, tend


def begin_anew(drive: Drive, ledger: Ledger, volume_id: VolumeId, now_ns: int, keys: TapeKeys) -> VolumeId:
    """Give up what the threaded tape holds, write a new label over its old one, and return its new id.

    It must be that very volume by its label. Raises WrongTape when it is another, NotNow when a set on it lives after
    all; with both nothing is changed. Else as `tapefs.tape.tending.tend`.
    """
    try:
        return tend(drive, ledger, volume_id, Order(Task.RELABEL, identity=volume_id), now_ns, keys).volume.volume_id
    except UsageError as error:
        raise WrongTape(f"the tape to be begun anew is another one: {error}") from error
