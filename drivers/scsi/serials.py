"""Which drive has which serial number, remembered: a drive that is away must not take its library along. Blocking.

The serial number is what the changer knows a drive by; the address is what the settings know it by.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed

log = logging.getLogger(__name__)


class Serials:
    """The serial numbers of drives by address, in a small file."""

    def __init__(self, path: Path) -> None:
        """Read what is remembered; a file that is missing or damaged is nothing."""
        self._path = path
        try:
            self._known = msgspec.json.decode(path.read_bytes(), type=dict[str, str])
        except (OSError, msgspec.MsgspecError):
            self._known = {}

    def of(self, address: str, ask: Callable[[], str]) -> str:
        """Return the serial number of the drive at `address`: what it says, else what it said last.

        Raises DeviceFailed when it has none, or when it cannot be asked and never was.
        """
        try:
            serial = ask()
        except DeviceFailed as error:
            if address not in self._known:
                raise
            log.warning("a drive does not answer, the library goes on without it: %s", error)
            return self._known[address]
        if not serial:
            raise DeviceFailed(f"the drive at {address} tells no serial number, so the changer's cannot be matched")
        self._note(address, serial)
        return serial

    def _note(self, address: str, serial: str) -> None:
        if self._known.get(address) == serial:
            return
        self._known[address] = serial
        draft = self._path.with_suffix(".new")
        try:
            draft.write_bytes(msgspec.json.encode(self._known))
            draft.replace(self._path)
        except OSError as error:
            raise DeviceFailed(f"cannot write {self._path}: {error.strerror}") from error
