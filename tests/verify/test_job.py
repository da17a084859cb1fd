"""A job that is to be verified: its set is read back from tapes that were put in anew, and only then it is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.ids import VolumeId
from catalog.records import CopyState, JobState, SetState
from drivers.errors import DeviceFailed
from drivers.virtual.faults import FaultyDrive, ReadError
from tapefs.backup.run import run_backup
from tapefs.errors import Cancelled, NotVerified, SetDamaged
from tapefs.verify.whole_set import verify_set
from tests.backup.rig import Rig
from tests.backup.trees import random_files


@pytest.fixture
def rig(tmp_path: Path):  # type: ignore[no-untyped-def]
    made = Rig(tmp_path, tapes=3, tape_bytes=32 * 1024**2, backup_settings="segment_bytes = 4194304")
    yield made
    made.close()


def two_tapes(tmp_path: Path) -> Path:
    return random_files(tmp_path / "tree", 25, 2_000_000)


def test_done_when_all_was_read_back(rig: Rig, tmp_path: Path) -> None:
    """Every tape is ejected and loaded before it is read; the job is completed with the last copy, not before."""
    job = rig.queued(two_tapes(tmp_path), verify=True)
    loads: list[tuple[str, JobState, int]] = []
    this_volume = rig.watcher.this_volume

    def note(volume_id: VolumeId) -> None:
        this_volume(volume_id)
        label = rig.ledger.volume(volume_id).label
        loads.append((label, rig.ledger.job(job.number).state, rig.drive.status().counters.loads))
        assert not rig.drive.status().loaded

    rig.watcher.this_volume = note  # type: ignore[method-assign]
    before = rig.drive.status().counters.loads
    set_id = run_backup(rig.home, rig.ledger, rig.drive, job, rig.watcher)
    backup_set = rig.ledger.backup_set(set_id)
    assert len(backup_set.tapes) > 1
    assert [(label, state) for label, state, _ in loads] == [(t, JobState.RUNNING) for t in backup_set.tapes]
    assert rig.drive.status().counters.loads == before + 2 * len(backup_set.tapes)
    assert rig.ledger.job(job.number).state is JobState.COMPLETED
    for segment in rig.ledger.segments(set_id):
        (copy,) = rig.ledger.copies(segment.segment_id)
        assert copy.verified_at_ns > backup_set.finished_at_ns
    verified = [each for each in rig.watcher.progresses if each.stage == "verify"]
    assert {each.tape for each in verified} == set(backup_set.tapes)
    assert verified[-1].verified_bytes <= verified[-1].stored_bytes == backup_set.stored_bytes


def test_damage_fails_the_job_and_not_the_set(rig: Rig, tmp_path: Path) -> None:
    """The job names the files; the set stays complete, its good segments are good."""
    job = rig.queued(two_tapes(tmp_path), verify=True)
    rig.drive = FaultyDrive(rig.drive, [ReadError(block=15, barcode="TP0001L9", times=0)])  # type: ignore[arg-type]
    with pytest.raises(SetDamaged, match=r"1 of .* segments are damaged there .tape TP0001L9"):
        run_backup(rig.home, rig.ledger, rig.drive, job, rig.watcher)
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is SetState.COMPLETE
    assert rig.ledger.job(job.number).state is JobState.RUNNING  # The sidecar finishes it.
    assert rig.watcher.troubles
    assert {reason for _, reason in rig.watcher.troubles} == {"content on tape TP0001L9 is damaged"}
    states = [
        copy.state
        for segment in rig.ledger.segments(backup_set.set_id)
        for copy in rig.ledger.copies(segment.segment_id)
    ]
    assert states.count(CopyState.DAMAGED) == 1


def test_an_interrupted_verification_goes_on(rig: Rig, tmp_path: Path) -> None:
    """What was read back before is not again, and the set is complete all the while."""
    job = rig.queued(two_tapes(tmp_path), verify=True)
    reads = 0

    def stop() -> None:
        nonlocal reads
        if rig.watcher.progresses and rig.watcher.progresses[-1].stage == "verify":
            reads += 1
            if reads == 5:
                raise Cancelled("it was cancelled")

    rig.watcher.interrupt = stop
    with pytest.raises(Cancelled, match="complete on tape"):
        run_backup(rig.home, rig.ledger, rig.drive, job, rig.watcher)
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is SetState.COMPLETE
    copies = [copy for s in rig.ledger.segments(backup_set.set_id) for copy in rig.ledger.copies(s.segment_id)]
    done = [copy for copy in copies if copy.verified_at_ns]
    assert 0 < len(done) < len(copies)
    read = rig.drive.status().counters.bytes_read
    finding = verify_set(rig.home, rig.ledger, rig.drive, backup_set.set_id, _Quiet(rig))
    assert finding.is_good
    rest = sum(rig.ledger.segment(c.segment_id).stored_bytes for c in copies if c not in done)
    assert rest < rig.drive.status().counters.bytes_read - read < rest + 500_000


def test_a_drive_that_fails_leaves_the_question_open(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig.queued(two_tapes(tmp_path), verify=True)

    def fail(_: VolumeId) -> None:
        raise DeviceFailed("the drive caught fire")

    monkeypatch.setattr(rig.watcher, "this_volume", fail)
    with pytest.raises(NotVerified, match="could not be read back: the drive caught fire; `tapefs job resume 1`"):
        run_backup(rig.home, rig.ledger, rig.drive, job, rig.watcher)
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is SetState.COMPLETE


class _Quiet:
    def __init__(self, rig: Rig) -> None:
        self.this_volume = rig.watcher.this_volume

    def verified(self, *_: object) -> None: ...

    def lost_file(self, *_: object) -> None: ...

    def check_cancelled(self) -> None: ...
