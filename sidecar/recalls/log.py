"""What readers waited for, as records for people and programs, and the file that keeps them: JSON lines, newest last.

Blocking. The file is moved aside when it is long, so there are never more than two of them.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence

import msgspec

from tapefs.home import Home

#: 25,000 readings in both files together.
LONGEST_BYTES = 4 * 1024**2
#: Kept in memory, for HTTP.
MOST_PAST = 2000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One process that read one file; times are ISO 8601."""

    id: int
    #: `asking` an operator, `waiting` for tape, or `over`.
    state: str
    uid: int
    #: Process, and name of its program; 0 and empty where the mount could not see them.
    pid: int
    command: str
    #: The file as the reader sees it, and its size.
    path: str
    size_bytes: int
    #: Of the frames that it has waited for, as they are in the plain tar stream.
    bytes: int
    #: Reads that have waited, and by what became of them.
    waits: int
    outcomes: dict[str, int] = {}
    #: Together, those that still wait included.
    waited_s: float
    began_at: str
    #: When it last began or ended to wait.
    last_at: str
    #: Why it was last refused.
    reason: str | None = None
    #: What an operator has said: `granted`, `denied`, or nothing.
    word: str | None = None
    #: Of those that wait: the tape, how many stretches of it are fetched before theirs, and when theirs will be there,
    #: if nothing else wants the drive.
    tape: str | None = None
    ahead: int | None = None
    eta_s: float | None = None


class RecallLog:
    """The file."""

    def __init__(self, home: Home) -> None:
        self._path = home.recall_log
        self._old = home.recall_log.with_name(f"{home.recall_log.name}.1")
        self._encoder = msgspec.json.Encoder()

    def last(self) -> deque[Entry]:
        """Return the newest entries, oldest first; a line that a crash has torn is passed over. Raises OSError."""
        found: deque[Entry] = deque(maxlen=MOST_PAST)
        decoder = msgspec.json.Decoder(Entry)
        for path in (self._old, self._path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in lines[-MOST_PAST:]:
                try:
                    found.append(decoder.decode(line))
                except msgspec.MsgspecError:
                    continue
        return found

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries behind the others. Raises OSError."""
        if not entries:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            file.write(b"\n" * torn + self._encoder.encode_lines(entries))
            is_long = file.tell() > LONGEST_BYTES
        if is_long:
            os.replace(self._path, self._old)
