"""New cartridges are measured when they are first loaded, which takes an LTO-9 drive up to two hours. Blocking."""

from __future__ import annotations

from pathlib import Path

from drivers.interface import Busy, Lengthy, Listener
from drivers.lto import can_write
from drivers.virtual.layout import cartridge_folder, library_lock, read_library
from drivers.virtual.mechanics import Mechanics
from drivers.virtual.state import read_state, set_measured

#: How often it is told how far that is.
_STEPS = 100


class FirstLoads:
    """Those in one drive, whose cartridge must not be threaded yet; the drive's thread."""

    def __init__(self, folder: Path, number: int, generation: int, mechanics: Mechanics) -> None:
        self._folder = folder
        self._number = number
        self._generation = generation
        self._mechanics = mechanics
        self.listener: Listener = lambda busy: None

    def measure(self) -> None:
        """Measure a cartridge that never was; one that is taken away or loses power meanwhile is measured anew."""
        seconds = self._seconds()
        if not seconds:
            return
        try:
            for number in range(_STEPS):
                self.listener(Busy(Lengthy.MEASURING, number / _STEPS))
                self._mechanics.measure(seconds / _STEPS)
        finally:
            self.listener(None)
        self._note()

    def waited_s(self) -> float:
        """Return the seconds by the clock that it will take; 0 when it was done, or this drive waits for nothing."""
        return self._mechanics.waited_s(self._seconds())

    def skip(self) -> None:
        """It is measured: somebody has waited for that."""
        self._mechanics.measured(self._seconds())
        self._note()

    def _seconds(self) -> float:
        barcode = self._barcode()
        if barcode is None:
            return 0.0
        state = read_state(cartridge_folder(self._folder, barcode))
        return state.first_load_s if can_write(self._generation, state.generation) else 0.0

    def _note(self) -> None:
        with library_lock(self._folder):
            barcode = self._barcode()
            if barcode is not None:
                set_measured(cartridge_folder(self._folder, barcode))

    def _barcode(self) -> str | None:
        return read_library(self._folder).bay(self._number).barcode
