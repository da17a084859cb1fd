"""Everything dies while two drives write the same segments; the run goes on, and both tapes are whole by themselves."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import cast

import pytest

import tapefs.along.second  # noqa: F401 -- registers the crash points
from catalog.crash import known_points
from catalog.records import JobState, SetState, VolumeState
from sidecar.jobs.going_on import finish
from tapefs.sets.finish import finish_all
from tests.along.rig import Pair, labels
from tests.along.test_along import FIRST, SECOND, SEGMENTS, check
from tests.backup.trees import random_files
from tests.forking.client import run

POINTS = [
    *(name for name in sorted(known_points()) if name.startswith("along.")),
    "along.block.after:12",
    "along.sync.after:3",
    "along.commit.after:3",
    "segment.payload.after:3",
    "segment.sync.after:3",
    "segment.commit.after:3",
    "set_index.sync.after",
    "ledger.seal_set.after",
    "ledger.complete_set.after",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_files(tmp_path_factory.mktemp("source") / "tree", 12, 1_000_000)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    Pair(folder, backup_settings=SEGMENTS).close()
    return folder / "home"


@pytest.mark.log_warnings
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_resumed(point: str, source: Path, prepared: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(prepared, home)
    child = run("-m", "tests.along.crash_child", home, source, env={**os.environ, "TAPEFS_CRASH_AT": point})
    assert child.returncode == -signal.SIGKILL, f"{point} was not passed: {child.stderr}"
    pair = cast(Pair, Pair.existing(home))
    pair.put_away()
    try:
        (job,) = pair.ledger.jobs()
        finish(pair.home, pair.ledger, job.number, JobState.FAILED, "interrupted", time.time_ns())
        finish_all(pair.home, pair.ledger, time.time_ns())
        (backup_set,) = pair.ledger.backup_sets()
        was = labels(pair, backup_set.set_id)
        assert all(FIRST in each for each in was), "the second copy never counts without the first"
        pair.run(pair.ledger.queue_job(job.number, time.time_ns(), resume=True))
        pair.rest()
        assert pair.errors == []
        assert pair.ledger.backup_set(backup_set.set_id).state is SetState.COMPLETE
        assert labels(pair, backup_set.set_id)[: len(was)] == [[FIRST, SECOND]] * len(was)
        assert all(volume.state is not VolumeState.SUSPECT for volume in pair.ledger.volumes())
        (tmp_path / "out").mkdir()
        check(pair, source, tmp_path / "out", {SECOND})
        assert pair.ledger.verify() == []
    finally:
        pair.close()
