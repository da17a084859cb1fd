"""A state folder with tapes, and what is on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import EndOfData
from tapefs.keys.policy import TapeKeys
from tapefs.tape.tending import Order, Tended, tend
from tests.backup.rig import Rig
from tests.tape.foreign import Blocks, write

NOW = 1_795_000_000_000_000_000


class TapeRig(Rig):
    """The same with tapes to be tended; the drive is used by hand."""

    def labels(self) -> list[str]:
        return [volume.label for volume in self.ledger.volumes()]

    def thread(self, label: str) -> None:
        self.watcher.put_in(label)
        self.drive.load()

    def fill(self, label: str, files: list[Blocks]) -> None:
        """Have somebody else write to a tape; it stays in the drive."""
        self.thread(label)
        write(self.drive, files)

    def tend(self, label: str, order: Order, now_ns: int = NOW) -> Tended:
        self.thread(label)
        volume_id = self.ledger.volume_by_label(label).volume_id
        return tend(self.drive, self.ledger, volume_id, order, now_ns, TapeKeys(self.home))

    def with_faults(self, monkeypatch: pytest.MonkeyPatch, faults: str) -> None:
        """Open the drive anew, with these faults."""
        self.close()
        monkeypatch.setenv("TAPEFS_FAULTS", faults)
        self.open()

    def content(self, label: str) -> str:
        """The sum of all that is on a tape, with its filemarks."""
        self.thread(label)
        self.drive.rewind()
        found = hashlib.sha256()
        buffer = memoryview(bytearray(1 << 20))
        try:
            while True:
                length = self.drive.read_into(buffer)
                found.update(length.to_bytes(4, "big") + buffer[:length])
        except EndOfData:
            return found.hexdigest()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[TapeRig]:
    made = TapeRig(tmp_path)
    yield made
    made.close()
