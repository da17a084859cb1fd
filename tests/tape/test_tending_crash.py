"""Kill the process at every point of a relabelling and an erasure: the next use, or the next try, finishes it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from catalog.records import SetState, VolumeState
from tapefs.errors import NotBlank
from tapefs.retention.expire import expire
from tapefs.retention.policy import Wish
from tapefs.tape.identity import Owner, identify
from tapefs.tape.tending import Order, Task
from tests.backup.trees import random_files
from tests.forking.client import run
from tests.tape.rig import TapeRig

#: What lies on the tape afterwards: the old label, nothing, or the new label; and whether the ledger still has the old.
POINTS = {
    "relabel": [
        "tape.give_up.claimed",
        "ledger.renew_volume.before",
        "ledger.renew_volume.after",
        "tape.give_up.after",
        "ledger.claim_volume.before:2",
        "ledger.open_intent.after",
        "tape.label.before",
        "tape.label.after",
        "tape.label.sync.after",
        "ledger.label_volume.before",
        "ledger.label_volume.after",
    ],
    "erase": [
        "tape.give_up.after",
        "tape.erase.before",
        "tape.erase.after",
        "ledger.settle_volume.before",
        "ledger.settle_volume.after",
    ],
}
CASES = [(task, point) for task, points in POINTS.items() for point in points]


def killed(home: Path, label: str, task: str, point: str) -> None:
    environment = {**os.environ, "TAPEFS_CRASH_AT": point}
    ended = run("-m", "tests.tape.tending_child", home, label, task, env=environment, timeout=120)
    assert ended.returncode == -signal.SIGKILL, (point, ended.stderr)


@pytest.mark.parametrize(("task", "point"), CASES)
@pytest.mark.parametrize("then", ["backup", "again"])
def test_a_crash_leaves_what_the_next_use_finishes(tmp_path: Path, task: str, point: str, then: str) -> None:
    rig = TapeRig(tmp_path, tapes=1, tape_bytes=64 * 1024**2)
    source = random_files(tmp_path / "source", 2, 20_000)
    old = rig.backup(source)
    (volume,) = rig.ledger.volumes()
    expire(rig.home, rig.ledger, time.time_ns(), Wish(named=frozenset({old})))
    rig.close()
    killed(rig.home.path, volume.label, task, point)
    rig = TapeRig.existing(rig.home.path)
    try:
        assert rig.ledger.verify() == []
        if then == "again":
            _again(rig, task, volume.label)
        rig.drive.unload()
        new = rig.backup(source)
        assert rig.ledger.backup_set(new).state is SetState.COMPLETE
        (now,) = rig.ledger.volumes()
        assert now.label == volume.label
        assert (now.volume_id == volume.volume_id) is (then == "backup" and _is_before(point))
        assert rig.ledger.verify() == []
    finally:
        rig.close()


def _is_before(point: str) -> bool:
    """Does the ledger still have the old tape when it is killed there?"""
    return point in ("tape.give_up.claimed", "ledger.renew_volume.before")


def _again(rig: TapeRig, task: str, label: str) -> None:
    """The same command once more; its operator says what he reads on the tape."""
    rig.thread(label)
    found = identify(rig.drive, rig.ledger.installation().installation_id)
    (volume,) = rig.ledger.volumes()
    tended = rig.tend(label, Order(Task(task), identity=found.name or label))
    assert tended.volume.state is (VolumeState.BLANK if task == "erase" else VolumeState.APPENDABLE)
    assert tended.volume.overwrites == ""
    left = identify(rig.drive, volume.installation_id)
    assert left.owner is (Owner.NOBODY if task == "erase" else Owner.OURS)


def test_another_tape_in_its_place_is_not_overwritten(tmp_path: Path) -> None:
    """What may be overwritten was that one tape: not a foreign one that bears its barcode now, nor another of ours."""
    rig = TapeRig(tmp_path, tapes=1, tape_bytes=64 * 1024**2)
    source = random_files(tmp_path / "source", 2, 20_000)
    old = rig.backup(source)
    (volume,) = rig.ledger.volumes()
    expire(rig.home, rig.ledger, time.time_ns(), Wish(named=frozenset({old})))
    rig.close()
    killed(rig.home.path, volume.label, "relabel", "tape.label.before")
    rig = TapeRig.existing(rig.home.path)
    try:
        _somebody_writes(rig, volume.label)
        before = rig.content(volume.label)
        with pytest.raises(NotBlank, match="is not blank: it is AMANDA"):
            rig.tend(volume.label, Order(Task.LABEL))
        assert rig.content(volume.label) == before
    finally:
        rig.close()


def _somebody_writes(rig: TapeRig, label: str) -> None:
    rig.fill(label, [[b"AMANDA: TAPESTART DATE X TAPE theirs\n".ljust(32768, b"\0")]])
