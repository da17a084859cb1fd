"""A backup on a virtual tape that can be damaged, and what a verification must find then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.index.reader import IndexReader
from catalog.records import SegmentCopy
from drivers.interface import Drive
from tapefs import setup_home
from tapefs.settings.backup import BackupSettings
from tapefs.verify.copy import Finding, verify_copy
from tests.backup.rig import Rig
from tests.backup.trees import entries

#: Small blocks and frames: a few megabytes make many of both. 4,096 does not divide a frame.
SMALL = "frame_bytes = 65536\nsegment_bytes = 4194304\nthreads = 2"


@dataclass
class Follower:
    """Remembers what a verification tells."""

    lost: list[bytes] = field(default_factory=list)
    payload_bytes: int = 0
    interrupt: Callable[[], None] = lambda: None

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None:
        self.payload_bytes = payload_bytes

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None:
        self.lost.append(path)

    def check_cancelled(self) -> None:
        self.interrupt()


class Bench:
    """A rig, and its tape under a magnifying glass."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.follower = Follower()

    def copies(self, set_id: SetId) -> list[SegmentCopy]:
        segments = self.rig.ledger.segments(set_id)
        return [copy for segment in segments for copy in self.rig.ledger.copies(segment.segment_id)]

    def verify(self, copy: SegmentCopy, drive: Drive | None = None) -> Finding:
        return verify_copy(self.rig.home, self.rig.ledger, drive or self.rig.drive, copy, self.follower)

    def tape_file(self, copy: SegmentCopy, behind_header: int) -> Path:
        """HEADER 0, PAYLOAD 1, TRAILER 2."""
        label = self.rig.ledger.volume(copy.volume_id).label
        return self.rig.home.library / "cartridges" / label / f"{copy.header_file + behind_header:05}"

    def flip(self, copy: SegmentCopy, place: int, behind_header: int = 1) -> None:
        """Change one byte on tape."""
        with self.tape_file(copy, behind_header).open("r+b") as file:
            file.seek(place)
            byte = file.read(1)
            file.seek(place)
            file.write(bytes([byte[0] ^ 0x40]))

    def files_at(self, set_id: SetId, copy: SegmentCopy, start: int, end: int) -> set[bytes]:
        """Return the paths of files with content in frames that have bytes `start` to `end` of the payload."""
        reader = IndexReader(self.rig.home.index(set_id))
        try:
            number = self.rig.ledger.segment(copy.segment_id).number
            spans = [
                (frame.row.plain_offset, frame.row.plain_offset + frame.row.plain_bytes)
                for frame in reader.frames(number)
                if frame.row.offset < end and frame.row.offset + frame.row.stored_bytes > start
            ]
            return {
                b"/" + path
                for path, entry in entries(reader).items()
                if entry.segment == number and entry.size and entry.mode & 0o170000 == 0o100000
                if any(entry.offset < stop and begin < entry.offset + entry.size for begin, stop in spans)
            }
        finally:
            reader.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(setup_home, "BackupSettings", lambda: BackupSettings(block_size=4096))
    rig = Rig(tmp_path, tapes=3, backup_settings=SMALL)
    yield Bench(rig)
    rig.close()
