"""A run that was killed leaves a report, too: with an end, and with what the ledger knows of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.records import JobState, SetState
from sidecar.jobs.going_on import finish
from sidecar.recovery import recover
from tapefs.report.files import read_report, report_path
from tapefs.report.present import set_report, view_of
from tapefs.report.records import RunReport
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.forking.client import run

ROOT = Path(__file__).parents[2]


def killed(tmp_path: Path, point: str, *more: str) -> Rig:
    """A rig on a state folder in which a run was killed there."""
    rig = Rig(tmp_path, backup_settings="segment_bytes = 4194304")
    rig.close()
    tree = random_files(tmp_path / "tree", 12, 1_500_000)
    environment = os.environ | {"TAPEFS_CRASH_AT": point}
    child = run("-m", "tests.backup.crash_child", rig.home.path, tree, *more, env=environment)
    assert child.returncode == -signal.SIGKILL, child.stderr
    return Rig.existing(rig.home.path)


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    """Closes what is put in."""
    rigs: list[Rig] = []
    yield rigs
    for rig in rigs:
        rig.close()


def report_of(rig: Rig) -> RunReport:
    (backup_set,) = rig.ledger.backup_sets()
    report = read_report(rig.home, backup_set.set_id)
    assert report is not None
    return report


@pytest.mark.log_warnings
def test_the_next_sidecar_completes_it(tmp_path: Path, rigs: list[Rig]) -> None:
    rig = killed(tmp_path, "segment.commit.after:2")
    rigs.append(rig)
    begun = report_of(rig)
    assert (begun.finished_at_ns, begun.segments, begun.interrupted) == (0, 0, False)
    now_ns = time.time_ns()
    recover(rig.home, rig.ledger, now_ns)
    report = report_of(rig)
    assert report.interrupted
    assert report.finished_at_ns == now_ns
    assert "the sidecar ended while the backup ran" in report.error
    (backup_set,) = rig.ledger.backup_sets()
    segments = rig.ledger.segments(backup_set.set_id)
    assert report.segments == len(segments) == 2
    assert report.stored_bytes == sum(segment.stored_bytes for segment in segments)
    assert [(use.tape, use.segments) for use in report.tapes] == [("TP0001L9", 2)]
    shown = view_of(set_report(rig.home, rig.ledger, backup_set))
    assert (shown.state.value, shown.interrupted) == ("failed", True)
    assert str(shown.error).startswith(report.error)
    # The run that goes on by itself has an end of its own.
    rig.run(rig.ledger.job(backup_set.job_number))
    report = report_of(rig)
    assert (report.interrupted, report.error, report.runs) == (False, "", 2)
    assert report.finished_at_ns > now_ns


def test_a_sidecar_that_lives_completes_it_when_the_mover_has_died(tmp_path: Path, rigs: list[Rig]) -> None:
    rig = killed(tmp_path, "segment.commit.after:2")
    rigs.append(rig)
    finish(rig.home, rig.ledger, rig.ledger.jobs()[0].number, JobState.FAILED, "the mover ended", 10**18)
    report = report_of(rig)
    assert (report.interrupted, report.error, report.segments) == (True, "the mover ended", 2)


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    ("point", "more", "state", "error"),
    [
        ("ledger.seal_set.after", [], SetState.SEALED, ""),
        ("ledger.mark_copy.after", ["verify"], SetState.COMPLETE, "interrupted: the sidecar ended while"),
    ],
)
def test_of_a_set_that_is_whole(
    tmp_path: Path, rigs: list[Rig], point: str, more: list[str], state: SetState, error: str
) -> None:
    """What it shows is known; the end of a sealed set is no error, for the next mover completes it."""
    rig = killed(tmp_path, point, *more)
    rigs.append(rig)
    recover(rig.home, rig.ledger, time.time_ns())
    (backup_set,) = rig.ledger.backup_sets()
    assert backup_set.state is state
    report = report_of(rig)
    assert report.interrupted
    assert report.error.startswith(error)
    assert bool(report.error) is bool(error)
    assert report.content.files == backup_set.files == 12
    if more:
        (job,) = rig.ledger.jobs()
        assert (job.state, rig.run(job)) == (JobState.QUEUED, backup_set.set_id)
        assert rig.ledger.job(job.number).state is JobState.COMPLETED


@pytest.mark.log_warnings
@pytest.mark.parametrize("content", [b"", b"{", b'{"set_id": 1}'])
def test_a_damaged_report_stops_no_start(tmp_path: Path, rigs: list[Rig], content: bytes) -> None:
    rig = killed(tmp_path, "segment.commit.after:2")
    rigs.append(rig)
    place = report_path(rig.home, rig.ledger.backup_sets()[0].set_id)
    place.write_bytes(content)
    recover(rig.home, rig.ledger, time.time_ns())
    assert place.read_bytes() == content
    assert rig.ledger.backup_sets()[0].state is SetState.FAILED
