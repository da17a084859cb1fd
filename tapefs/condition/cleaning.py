"""Cleaning cartridges and cleanings, by what the ledger knows. Blocking; reads the ledger."""

from __future__ import annotations

from dataclasses import dataclass

from catalog.ledger import Ledger
from catalog.life_records import CartridgeLife, Mounting
from tapefs.condition.limits import CLEANINGS
from tapefs.tape.barcodes import is_cleaning


@dataclass(frozen=True, slots=True)
class LastCleaning:
    """The newest cleaning of a drive that is known."""

    cleaning: Mounting
    #: How often the cartridge has cleaned by now, and whether it does so no more.
    uses: int
    is_used_up: bool

    def sentence(self, when: str) -> str:
        """Say it for people; `when` is the time of it."""
        left = "used up by now" if self.is_used_up else f"{self.uses} of {CLEANINGS} cleanings used by now"
        return f"cleaned last at {when} with {self.cleaning.code} ({left})"


def has_cleanings_left(life: CartridgeLife) -> bool:
    """Does a cleaning cartridge clean any more?"""
    return not life.is_used_up and life.mountings < CLEANINGS


def last_cleanings(ledger: Ledger) -> dict[str, LastCleaning]:
    """Return the newest cleaning of each drive, by its name; drives that were never cleaned here are not there."""
    found: dict[str, LastCleaning] = {}
    for life in ledger.lives():
        if not is_cleaning(life.code):
            continue
        for mounting in ledger.mountings(life.code):
            known = found.get(mounting.drive)
            if known is None or known.cleaning.loaded_at_ns < mounting.loaded_at_ns:
                found[mounting.drive] = LastCleaning(mounting, life.mountings, not has_cleanings_left(life))
    return found
