"""Whose fault it is: errors over several tapes point at the drive, over several drives at the tape. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from catalog.life_records import CLEANING, Mounting

#: So many tapes, or drives, are no coincidence any more.
SEVERAL = 2


@dataclass(frozen=True, slots=True)
class Blame:
    """What failures point at."""

    #: Drive → the cartridges that have failed in it, and in no other drive.
    drives: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Cartridge → the drives in which it has failed.
    tapes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: Cartridges that have failed in one drive that has failed with no other: either may be to blame.
    unsure: Mapping[str, str] = field(default_factory=dict)

    def is_of_the_drive(self, mounting: Mounting) -> bool:
        """Is the drive to blame for what went wrong in that mounting, and not the tape?"""
        return mounting.code in self.drives.get(mounting.drive, ())


def has_failed(mounting: Mounting) -> bool:
    """Could something not be written or read in it?"""
    return mounting.write_failures + mounting.read_failures > 0


def blame(mountings: Iterable[Mounting]) -> Blame:
    """Say what the failures in these mountings point at."""
    by_tape: defaultdict[str, set[str]] = defaultdict(set)
    for each in mountings:
        if has_failed(each) and CLEANING not in each.purposes:
            by_tape[each.code].add(each.drive)
    by_drive: defaultdict[str, set[str]] = defaultdict(set)
    for code, drives in by_tape.items():
        if len(drives) < SEVERAL:
            by_drive[next(iter(drives))].add(code)
    return Blame(
        drives={drive: frozenset(codes) for drive, codes in by_drive.items() if len(codes) >= SEVERAL},
        tapes={code: frozenset(drives) for code, drives in by_tape.items() if len(drives) >= SEVERAL},
        unsure={next(iter(codes)): drive for drive, codes in by_drive.items() if len(codes) < SEVERAL},
    )
