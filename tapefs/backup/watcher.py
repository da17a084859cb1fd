"""How a running backup speaks with the outside: the seam between `tapefs.backup` and the mover."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from catalog.ids import SetId
from tapefs.along.companions import CopyOffer
from tapefs.backup.session import VolumeSource


@dataclass(frozen=True, slots=True)
class BackupProgress:
    """How far a backup is."""

    set_id: SetId
    #: `write`, `index` or `verify`; of an archive also `copy` and `remove`.
    stage: str
    #: Label of the tape at hand.
    tape: str
    #: Where the walk is, for people.
    path: bytes
    files: int
    bytes: int
    stored_bytes: int
    #: Payload bytes read back.
    verified_bytes: int = 0


class Watcher(VolumeSource, Protocol):
    """What a backup tells and asks. All calls come from the intake thread."""

    def progress(self, progress: BackupProgress) -> None:
        """Told a few times a second."""
        ...

    def trouble(self, path: bytes, reason: str) -> None:
        """Told of every file that is not in the backup as it was."""
        ...

    def is_drive_wanted(self) -> bool:
        """Do others wait for the drive? Asked where a segment ends; `give_way` follows if so."""
        ...

    def offer_copies(self, offer: CopyOffer) -> None:
        """Told that other drives may write further copies meanwhile; before the first tape is asked for."""
        ...

    def copies_coming(self) -> int:
        """Wait for the answer to the offer: so many drives come at once. Others may later. Raises Cancelled."""
        ...

    def check_cancelled(self) -> None:
        """Raise Cancelled when somebody wants the job to stop."""
        ...
