"""What takes a drive minutes or hours, told as it goes on. Used by the thread that uses the drive."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from drivers.interface import Busy, DriveStatus, Lengthy

#: State, what the drive was when it was last asked, a sentence.
Say = Callable[[str, DriveStatus, str], None]

log = structlog.get_logger(__name__)


class LengthyWork:
    """Hears a drive, tells of every per cent, and says that it is over."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._state = ""
        self._status: DriveStatus | None = None
        #: The tape that must be in it; a drive may not know before it is threaded.
        self._expected: str | None = None
        #: What was told last.
        self._note = ""

    def told(self, state: str, status: DriveStatus) -> None:
        """Remember what was told of the drive otherwise: asking it while it is busy would say nothing more."""
        self._state, self._status, self._note, self._expected = state, status, "", None

    def expect(self, tape: str) -> None:
        """Say which tape is about to be loaded."""
        self._expected = tape

    def hear(self, busy: Busy | None) -> None:
        """Implements `drivers.interface.Listener`."""
        if self._status is None:
            return
        if busy is None:
            if self._note:
                self._note = ""
                self._say(self._state, self._status, "")
            return
        note = sentence(busy, self._status.barcode or self._expected)
        if note != self._note:
            if not self._note:
                log.info("the drive takes long", state=busy.doing.value, note=note)
            self._note = note
            self._say(busy.doing.value, self._status, note)


def sentence(busy: Busy, tape: str | None) -> str:
    """Say how far it is, for people."""
    name = f"tape {tape}" if tape else "the tape"
    share = "" if busy.share is None else f": {busy.share * 100:.0f} %"
    if busy.doing is Lengthy.MEASURING:
        return f"{name} is being measured{share}, this is normal for a new LTO-9 tape and takes up to two hours"
    if busy.doing is Lengthy.ERASING:
        return f"{name} is being erased{share}, a whole tape takes up to a day"
    return f"{name} is still being loaded{share}"
