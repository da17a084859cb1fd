"""A further copy written at the same time: whole, on a tape of its own, and never at the first one's cost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.records import JobState
from tests.along.rig import Pair, labels
from tests.backup.trees import random_files, snapshot

SEGMENTS = "segment_bytes = 2097152"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return random_files(tmp_path / "tree", 12, 1_000_000)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(tmp_path, backup_settings=SEGMENTS)
    yield pair
    pair.close()


def from_tape(pair: Pair, label: str, out: Path) -> Path:
    """Unpack all payloads that lie on that tape with GNU tar."""
    out.mkdir()
    cartridge = pair.home.library / "cartridges" / label
    volume = pair.ledger.volume_by_label(label)
    for copy in pair.ledger.copies_on(volume.volume_id):
        payload = cartridge / f"{copy.header_file + 1:05}"
        subprocess.run(f"zstd -dqc {payload} | tar -xpf - -C {out}", shell=True, check=True)
    return out


def test_both_copies_are_there_at_once(pair: Pair, tree: Path, tmp_path: Path) -> None:
    job = pair.queued(tree, copy_pools=("vault",))
    set_id = pair.run(job)
    pair.rest()
    assert pair.errors == []
    found = labels(pair, set_id)
    assert len(found) > 3
    assert set(map(tuple, found)) == {("TP0001L9", "TP0003L9")}
    assert pair.ledger.job(job.number).state is JobState.COMPLETED
    assert pair.watcher.asked == 1, "nothing was left to be copied from tape"
    assert all(progress.stage != "copy" for progress in pair.watcher.progresses)
    indexes = {pair.ledger.volume(each.volume_id).label for each in pair.ledger.index_copies(set_id)}
    assert indexes == {"TP0001L9", "TP0003L9"}
    for label in ("TP0001L9", "TP0003L9"):
        assert snapshot(Path(f"{from_tape(pair, label, tmp_path / label)}{tree}")) == snapshot(tree)
