"""The place where benchmarks work leaves nothing behind."""

from __future__ import annotations

import fcntl
import subprocess
from pathlib import Path

import pytest

from tapefs.bench.stand import stand, tapefs


def test_a_sidecar_ends_before_its_folder_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command's sidecar outlives it, and takes its socket away when it ends: that must not meet the removal."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with stand() as place:
        home = place.new_home("one")
        assert tmp_path in home.path.parents
        subprocess.run(tapefs(home, "evict", "--all"), check=True, stderr=subprocess.DEVNULL)
        lock = home.lock.open("rb")
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list(tmp_path.iterdir()) == []
