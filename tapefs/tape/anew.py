"""Beginning a tape anew, all of whose sets have expired, by the rules of its pool. Runs in the drive's thread."""

from __future__ import annotations

from catalog.ids import VolumeId
from catalog.ledger import Ledger
from drivers.interface import Drive
from tapefs.keys.policy import TapeKeys
from tapefs.tape.label import check_label
from tapefs.tape.tending import Order, Task, give_up


def begin_anew(drive: Drive, ledger: Ledger, volume_id: VolumeId, now_ns: int, keys: TapeKeys) -> VolumeId:
    """Give up what the threaded tape holds, and return its new id: it is BLANK then, over its old content.

    It must be that very volume by its label. Raises TapeError when it is another, or holds what the ledger does not
    know, NotNow when a set on it lives after all; with these nothing is changed. Else as `tapefs.tape.tending.give_up`.
    """
    check_label(drive, ledger.volume(volume_id))
    new, _ = give_up(drive, ledger, volume_id, Order(Task.RELABEL, identity=volume_id), now_ns, keys)
    return new.volume_id
