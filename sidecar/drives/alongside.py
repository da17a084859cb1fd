"""Which further copies could be written at once with a backup that runs, and by which drive each is.

One trio run; looked at by every drive that has nothing else to do. Choosing is synchronous.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from catalog.ids import JobNumber
from tapefs.along.words import CopyTask
from tapefs.mover.messages import CopiesOffered

#: A running backup hears after this time how many drives have taken up its offer: they do so when the bell rings.
ANSWER_S = 0.05


@dataclass(slots=True)
class _Offer:
    """Of one backup."""

    job: JobNumber
    said: CopiesOffered
    #: Copies that nobody writes, by their place.
    free: set[int]
    #: Those that are being written, and by which drive.
    taken: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Companionship:
    """One further copy, and the drive whose backup it is of."""

    leader: int
    job: JobNumber
    task: CopyTask


class Alongside:
    """All offers, by the drive that runs the backup."""

    def __init__(self) -> None:
        self._offers: dict[int, _Offer] = {}

    def offer(self, drive: int, job: JobNumber, said: CopiesOffered) -> None:
        """The drive's backup says that it may have companions."""
        self._offers[drive] = _Offer(job, said, set(range(len(said.pools))))

    def withdraw(self, drive: int) -> None:
        """The drive's backup is over; who writes with it ends by that."""
        self._offers.pop(drive, None)

    def has_free(self, drive: int) -> bool:
        """Is there a copy that this drive could write?"""
        return self._free(drive) is not None

    def take(self, drive: int) -> Companionship:
        """Have a copy be this drive's; there must be one."""
        found = self._free(drive)
        if found is None:
            raise AssertionError("no further copy waits for a drive")
        leader, target = found
        offer = self._offers[leader]
        offer.free.discard(target)
        offer.taken[target] = drive
        said = offer.said
        task = CopyTask(set_id=said.set_id, address=said.address, target=target, pool=said.pools[target])
        return Companionship(leader, offer.job, task)

    def left(self, companionship: Companionship, *, is_to_do: bool) -> None:
        """The drive does not write it any more; another may if `is_to_do`. Else the backup makes it afterwards."""
        offer = self._offers.get(companionship.leader)
        if offer is None or offer.said.address != companionship.task.address:
            return
        offer.taken.pop(companionship.task.target, None)
        if is_to_do:
            offer.free.add(companionship.task.target)

    def taken_of(self, drive: int) -> int:
        """Return how many copies are being written of the drive's backup."""
        offer = self._offers.get(drive)
        return 0 if offer is None else len(offer.taken)

    def _free(self, drive: int) -> tuple[int, int] | None:
        free = ((leader, target) for leader, each in self._offers.items() if leader != drive for target in each.free)
        return min(free, default=None)
