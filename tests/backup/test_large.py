"""Stopping, or going back, within a file that takes long."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from drivers.virtual.faults import WriteError
from tapefs.errors import Cancelled
from tests.backup.rig import Rig
from tests.backup.test_trouble import with_faults
from tests.backup.trees import random_files

_MIB = 1024**2


def test_cancel_is_heard_within_a_large_file(rig: Rig, tmp_path: Path) -> None:
    """A file that takes hours does not keep a job from being cancelled."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        # Not a hole, which would not be read at all.
        os.posix_fallocate(file.fileno(), 0, 5_000 * _MIB)

    def cancel() -> None:
        raise Cancelled("it was cancelled")

    rig.watcher.interrupt = cancel
    with pytest.raises(Cancelled):
        rig.backup(big)
    assert rig.drive.status().counters.bytes_written < 100 * _MIB


@pytest.mark.log_warnings
def test_a_lost_segment_is_noticed_within_a_large_file(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What follows in the file is not read for nothing: the backup goes to the next tape at once."""
    big = random_files(tmp_path / "tree", 1, 150 * _MIB) / "file-00000"
    rig = make_rig(tapes=2, tape_bytes=20_000 * _MIB, backup_settings="buffer_bytes = 8388608")
    with_faults(rig, WriteError(block=40))
    real = os.preadv
    read: list[int] = []

    def counting(fd: int, buffers: list[memoryview], offset: int) -> int:
        if len(buffers[0]) >= _MIB:
            read.append(offset)
        return real(fd, buffers, offset)

    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setattr(os, "preadv", counting)
    try:
        set_id = rig.backup(big)
    finally:
        monkeypatch.undo()
    assert rig.ledger.backup_set(set_id).tapes == ("TP0002L9",)
    again = read.index(0, 1)
    assert max(read[:again]) < 100 * _MIB
