"""What a segment holds, apart from the tape it goes to: its frames in order, and its local trailer.

Used by one thread at a time: that of the tape, or first that of the spool.
"""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import Any

import structlog

from catalog.crash import crash_point
from tapefs.backup.draft import Draft
from tapefs.backup.early_index import EarlyIndex
from tapefs.backup.elsewhere import ListingPiece
from tapefs.backup.frames import Frame
from tapefs.backup.payload import Payload
from tapefs.durable import sync_folder
from tapefs.format.lines import LineWriter
from tapefs.format.records import End, FrameLine, Member

log = structlog.get_logger(__name__)

_after_frame = crash_point("segment.frame.after")


class SegmentBody:
    """Collects one segment: its frames go to the payload, its lines into the local trailer.

    Raises OSError when the trailer cannot be written, and what the payload raises.
    """

    def __init__(self, trailer_path: Path, payload: Payload, early: EarlyIndex | None = None) -> None:
        """`early` follows the trailer."""
        self.trailer_path = trailer_path
        self._early = early
        self._payload = payload
        self._part_path = trailer_path.with_suffix(".part")
        self._file = self._part_path.open("wb")
        self._trailer = LineWriter(self._file.write)
        self._is_finished = False
        self.frames = 0
        self.members = 0
        self.plain_bytes = 0
        if early is not None:
            early.begin(self._part_path, trailer_path)

    def begin(self) -> None:
        """Get ready."""
        self._payload.begin()

    def add(self, frame: Frame) -> None:
        """Take in a frame that the workers are done with, and the lines it brings."""
        self._write_lines(frame)
        if self._early is not None:
            self._early.grown(len(frame.drafts))
        place = self._payload.place
        self._payload.add(frame)
        if frame.used == 0:
            return
        self._trailer.write(FrameLine(at=place, stored=len(frame.stored), plain=frame.used, sum=frame.checksum))
        self.frames += 1
        self.plain_bytes += frame.used
        _after_frame()

    def finish(self) -> None:
        """Write what closes the payload. Harmless twice."""
        if not self._is_finished:
            self._is_finished = True
            self._payload.finish()

    def close(self) -> None:
        """Let go of what the payload needed. Harmless twice."""
        self._payload.close()

    def close_trailer(self, end: End) -> int:
        """Write the last line and sync the trailer under its name; return its length."""
        self._trailer.write(end)
        self._trailer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._part_path.rename(self.trailer_path)
        sync_folder(self.trailer_path.parent)
        return size

    def discard(self, *, keep_trailer: bool = False) -> None:
        """Forget the local trailer of a segment that did not come to be; what stays behind is told in the log.

        With `keep_trailer` one that is whole stays: the segment may have been committed.
        """
        self.close()
        try:
            # On a full disk even closing fails: it writes what is left in the buffer.
            self._file.close()
        except OSError as error:
            log.warning("a local trailer that is not needed", path=str(self._part_path), error=str(error))
        try:
            self._part_path.unlink(missing_ok=True)
            if not keep_trailer:
                self.trailer_path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("a local trailer that is not needed stays", path=str(self._part_path), error=str(error))

    def _write_lines(self, frame: Frame) -> None:
        number, trailer = 0, self._trailer
        for kind, group in groupby(frame.drafts, type):
            # What `groupby` found out no type checker sees.
            drafts: list[Any] = list(group)
            if kind is bytes:
                # Files that came the short way: their lines are JSON already.
                self.members += len(drafts)
                trailer.write_text(b"".join(drafts), len(drafts))
            elif kind is Draft:
                self.members += len(drafts)
                sums = frame.sums
                trailer.write_many([draft.line(sums.get(at, b"")) for at, draft in enumerate(drafts, number)])
            elif kind is ListingPiece:
                # One by one: each may take megabytes.
                for piece in drafts:
                    trailer.write(piece.line())
            else:
                self.members += len(drafts) if kind is Member else 0
                trailer.write_many(drafts)
            number += len(drafts)
