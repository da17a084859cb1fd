"""Killed anywhere, no live segment is without its copy, and the same command finishes what was begun."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

import tapefs.reclaim.run  # registers the crash points
from catalog.crash import known_points
from catalog.ids import SetId
from tests.backup.rig import Rig
from tests.forking.client import run
from tests.reclaim.scene import SETTINGS, almost_empty, check_gone, first_tape, lost_at, reclaim

_OPERATIONS = ("leave_volume", "mark_volume", "mark_copy", "commit_segment", "commit_index", "open_intent")


def points() -> list[str]:
    assert tapefs.reclaim.run is not None
    own = [name for name in sorted(known_points()) if name.startswith(("reclaim.", "copy."))]
    own.remove("copy.spool.after")
    ledger = [f"ledger.{operation}.{when}" for operation in _OPERATIONS for when in ("before", "after")]
    later = ["copy.commit.after:4", "copy.header.after:6", "reclaim.leave.after:2", "ledger.leave_volume.before:3"]
    return [*own, *ledger, *later, "set_index.after", "set_index.sync.after", "set_index.commit.after:2"]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SetId]]:
    folder = tmp_path_factory.mktemp("prepared")
    rig = Rig(folder, tapes=3, tape_bytes=64 * 1024**2, backup_settings=SETTINGS)
    kept = almost_empty(rig, folder)
    rig.watcher.put_in("TP0003L9")
    rig.close()
    return folder / "home", kept


@pytest.mark.parametrize("point", points())
def test_killed_at(point: str, prepared: tuple[Path, list[SetId]], tmp_path: Path) -> None:
    path, kept = prepared
    home = tmp_path / "home"
    shutil.copytree(path, home, symlinks=True)
    environment = os.environ | {"TAPEFS_CRASH_AT": point}
    child = run("-m", "tests.reclaim.child", home, env=environment, timeout=120)
    assert child.returncode == -signal.SIGKILL, f"{point} was not passed: {child.stderr}"
    rig = Rig.existing(home)
    try:
        assert lost_at(rig, kept) == []
        assert rig.ledger.verify() == []
        if rig.ledger.live_sets(first_tape(rig)):
            reclaim(rig)
        check_gone(rig, kept, first_tape(rig))
        assert all(not rig.ledger.intents(volume.volume_id) for volume in rig.ledger.volumes())
    finally:
        rig.close()
