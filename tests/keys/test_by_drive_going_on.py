"""Drives that encrypt, in a mover and after a death: the key goes when the work is over, and nothing is ever plain."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.ids import FrameNo
from catalog.records import CopyState, SegmentCopy
from drivers.virtual.faults import FaultyDrive, Reset
from tapefs.keys.identity import Identity
from tapefs.mover.messages import Done, Failed, FrameRange, Recall, Verify
from tapefs.mover.wire import encode
from tapefs.staging.area import StagingArea
from tests.backup.rig import Rig
from tests.backup.test_mover import answer, serving
from tests.backup.trees import random_files
from tests.forking.client import run
from tests.keys.programs import key_file
from tests.keys.test_by_drive import by_drive, check_sealed, copies_of, lock, volumes_of
from tests.verify.conftest import SMALL


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return random_files(tmp_path / "tree", 12, 100_000)


def recall_of(rig: Rig, copy: SegmentCopy) -> Recall:
    last = FrameNo(rig.ledger.segment(copy.segment_id).frames - 1)
    frames = [FrameRange(segment_id=copy.segment_id, first=FrameNo(0), last=last)]
    return Recall(id=1, volume_id=copy.volume_id, frames=frames, read_on_bytes=0)


@pytest.mark.log_warnings
def test_a_mover_leaves_no_key_in_its_drive(
    make_rig: Callable[..., Rig], tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither after a recall nor after reading back; a drive that was reset meanwhile reads on with its key."""
    rig = make_rig(backup_settings=SMALL)
    by_drive(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    inside = rig.drive
    for faults in ([], [Reset(block=copy.payload_block + 3)]):
        for command in (recall_of(rig, copy), Verify(id=1, segment_id=copy.segment_id, volume_id=copy.volume_id)):
            StagingArea(rig.home.staging).evict_all()
            rig.drive = FaultyDrive(inside, list(faults))  # type: ignore[arg-type,assignment]
            with serving(rig, monkeypatch) as (ours, _):
                ours.sendall(encode(command))
                assert isinstance(answer(ours), Done)
                assert not rig.drive.encryption().decrypts  # type: ignore[attr-defined]
    assert rig.ledger.copies(copy.segment_id)[0].state is CopyState.GOOD
    lock(rig)
    with serving(rig, monkeypatch) as (ours, _):
        ours.sendall(encode(Verify(id=2, segment_id=copy.segment_id, volume_id=copy.volume_id)))
        failed = answer(ours)
        assert isinstance(failed, Failed)
        # Neither the drive nor the tape is to blame.
        assert failed.kind == "wrong_tape"
        assert "tapefs key unlock" in failed.message
    assert rig.ledger.copies(copy.segment_id)[0].state is CopyState.GOOD


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    "point",
    [
        "tape.label.after",
        "segment.header.after",
        "segment.header.after:2",
        "segment.frame.after:9",
        "segment.trailer.after:2",
        "segment.sync.after",
        "set_index.before",
        "set_index.after",
    ],
)
def test_killed_at(make_rig: Callable[..., Rig], tree: Path, tmp_path: Path, point: str) -> None:
    """What is overwritten and what is appended afterwards: all of it encrypted but labels and HEADERs."""
    rig = make_rig(backup_settings="frame_bytes = 65536\nsegment_bytes = 1048576\nthreads = 2")
    identity: Identity = by_drive(rig)
    rig.close()
    command = ["-m", "tests.keys.drive_crash_child", rig.home.path, tree, key_file(tmp_path, identity)]
    done = run(*command, env={**os.environ, "TAPEFS_CRASH_AT": point}, timeout=120)
    assert done.returncode == -9, done.stderr
    rig.open()
    (volume,) = volumes_of(rig, rig.backup(tree, name="second"))
    assert volume.label == "TP0001L9"
    check_sealed(rig, volume.label)
