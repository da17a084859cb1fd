"""Importing TAF's sets from the volume in the drive, for the sidecar. Main thread of the mover."""

from __future__ import annotations

from catalog.ledger import Ledger
from drivers.interface import Drive, HoldsFiles
from tapefs.errors import UsageError, WrongTape
from tapefs.home import Home
from tapefs.mover.messages import Done, ImportTaf
from tapefs.mover.post import Post
from tapefs.taf.importing import import_volume


def import_taf(home: Home, ledger: Ledger, drive: Drive, post: Post, command: ImportTaf) -> Done:
    """Take in what is on the volume. Raises Cancelled between two pieces, and as `import_volume`."""
    volume = ledger.volume(command.volume_id)
    drive.load()
    if not isinstance(drive, HoldsFiles):
        raise UsageError("this drive is no place where volumes are mounted: it reads no archives of TAF")
    if drive.status().barcode != volume.code:
        raise WrongTape(f"the volume in the drive is {drive.status().barcode}, not {volume.code}")
    done = import_volume(
        home,
        ledger,
        drive.folder(),
        command.sets,
        label=None,
        url=command.catalog or None,
        again=command.again,
        tell=lambda *_: post.check_cancelled(command.id),
    )
    return Done(id=command.id, imported=done)
