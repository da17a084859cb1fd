"""Every run leaves a report whose figures are those of the run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from catalog.records import JobState, SetState
from drivers.errors import DeviceFailed
from drivers.virtual.faults import FaultyDrive, PowerCut
from tapefs.cli import group
from tapefs.errors import Cancelled
from tapefs.report.files import TroubleFile, read_report, read_troubles, report_path, troubles_path
from tapefs.report.present import set_report, view_of
from tapefs.verify.copy import verify_copy
from tests.backup.rig import Rig, rigs
from tests.backup.trees import random_files
from tests.verify.conftest import Bench, Follower


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(tapes=3, tape_bytes=24 * 1024**2, backup_settings="segment_bytes = 4194304\nthreads = 2")


def test_figures_of_a_run(rig: Rig, tmp_path: Path) -> None:
    """Files, bytes, tapes and segments are the set's; the stages add up to the run's time."""
    tree = random_files(tmp_path / "tree", 20, 1_500_000)
    began_s = time.monotonic()
    set_id = rig.backup(tree)
    elapsed_s = time.monotonic() - began_s
    report = read_report(rig.home, set_id)
    assert report is not None
    backup_set = rig.ledger.backup_set(set_id)
    assert (report.content.files, report.content.directories) == (20, backup_set.directories)
    assert report.content.bytes == report.content.read_bytes == 30_000_000
    assert report.stored_bytes == backup_set.stored_bytes
    assert report.ratio == pytest.approx(1.0, abs=0.05)
    assert [tape.tape for tape in report.tapes] == list(backup_set.tapes)
    assert len(report.tapes) == 2
    assert sum(tape.segments for tape in report.tapes) == report.segments == backup_set.segments
    assert sum(tape.stored_bytes for tape in report.tapes) == backup_set.stored_bytes
    assert (report.error, report.troubles, report.runs) == ("", 0, 1)
    assert report.begun_at_ns <= report.started_at_ns < report.finished_at_ns
    assert report.read is not None
    assert report.compress is not None
    assert report.write is not None
    for stage, threads in ((report.read, 1), (report.compress, 2), (report.write, 1)):
        assert 0 < stage.busy_s <= threads * elapsed_s
        assert stage.busy_s + stage.waited_s <= threads * elapsed_s
    assert report.read.bytes == sum(segment.plain_bytes for segment in rig.ledger.segments(set_id))
    assert report.write.bytes > backup_set.stored_bytes
    assert report.drive is not None
    assert report.drive.bytes_written == pytest.approx(report.write.bytes, rel=0.01)
    assert report.drive.loads == 2
    assert report.verify_s == 0


def test_a_second_run_is_counted_by_itself(rig: Rig, tmp_path: Path) -> None:
    """The drive's counters go on; the report has the difference. An incremental one tells what has changed."""
    tree = random_files(tmp_path / "tree", 4, 1_000_000)
    job = rig.queued(tree)
    rig.run(job)
    (tree / "file-00001").write_bytes(b"other")
    (tree / "file-00002").unlink()
    (tree / "new").write_bytes(b"new")
    set_id = rig.again(job, type="incremental")
    report = read_report(rig.home, set_id)
    assert report is not None
    content = report.content
    assert (content.files, content.new_files, content.changed_files, content.removed_files) == (4, 1, 1, 1)
    assert content.bytes == 2_000_008
    assert content.read_bytes == 8
    assert report.drive is not None
    assert 0 < report.drive.bytes_written < 500_000
    assert (report.type, report.parent_id) == ("incremental", rig.ledger.backup_sets()[0].set_id)


def test_all_troubles_are_there(rig: Rig, tmp_path: Path) -> None:
    """More than the sidecar keeps, with names of any bytes, and why."""
    tree = random_files(tmp_path / "tree", 2, 10)
    paths = []
    for number in range(120):
        path = os.path.join(bytes(tree), b"\xff%03d" % number)
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(path)
        paths.append(path)
    set_id = rig.backup(tree)
    report = read_report(rig.home, set_id)
    assert report is not None
    troubles = list(read_troubles(rig.home, set_id))
    assert [trouble.raw for trouble in troubles] == paths
    assert {trouble.reason for trouble in troubles} == {"left out: a socket"}
    assert report.troubles == 120


def test_a_failed_run_leaves_one_and_the_resumed_one_goes_on(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its error is there, what was committed is; afterwards the runs are counted and the troubles of both are kept."""
    tree = random_files(tmp_path / "tree", 8, 1_500_000)
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(tree / "a-socket"))
    commit = rig.ledger.commit_segment

    def die(*arguments: object) -> None:
        commit(*arguments)  # type: ignore[arg-type]
        raise Cancelled("it was cancelled")

    job = rig.queued(tree)
    with monkeypatch.context() as patched:
        patched.setattr(rig.ledger, "commit_segment", die)
        with pytest.raises(Cancelled):
            rig.run(job)
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    failed = read_report(rig.home, set_id)
    assert failed is not None
    assert (failed.error, failed.runs, failed.segments, failed.troubles) == ("it was cancelled", 1, 1, 1)
    assert failed.finished_at_ns
    shown = view_of(set_report(rig.home, rig.ledger, rig.ledger.backup_set(set_id)))
    assert (shown.state.value, shown.error) == ("failed", "it was cancelled")
    assert shown.files > 0
    rig.ledger.finish_job(job.number, JobState.CANCELLED, "it was cancelled", time.time_ns())
    rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    report = read_report(rig.home, set_id)
    assert report is not None
    assert (report.error, report.runs, report.content.files, report.troubles) == ("", 2, 8, 1)
    assert report.begun_at_ns == failed.begun_at_ns < failed.finished_at_ns < report.started_at_ns
    assert report.segments == len(rig.ledger.segments(set_id)) > 1


def test_a_drive_that_dies_leaves_a_report_without_its_figures(rig: Rig, tmp_path: Path) -> None:
    """That is when a report is wanted most; all else is in it, and no warning is in the log."""
    tree = random_files(tmp_path / "tree", 8, 1_500_000)
    good, rig.drive = rig.drive, FaultyDrive(rig.drive, [PowerCut(block=40)])  # type: ignore[assignment]
    with pytest.raises(DeviceFailed) as failure:
        rig.backup(tree)
    (failed,) = rig.ledger.backup_sets()
    report = read_report(rig.home, failed.set_id)
    assert report is not None
    assert (report.error, report.drive) == (str(failure.value), None)
    assert report.finished_at_ns
    assert report.segments == len(rig.ledger.segments(failed.set_id)) > 0
    shown = view_of(set_report(rig.home, rig.ledger, failed))
    assert (shown.state.value, shown.drive) == ("failed", None)
    told = CliRunner().invoke(group, ["--home", str(rig.home.path), "report", failed.set_id])
    assert told.exit_code == 0, told.output
    assert "it did not tell" in told.output
    good.close()


def test_what_reading_back_finds_is_in_it(bench: Bench, tmp_path: Path) -> None:
    rig = bench.rig
    tree = random_files(tmp_path / "tree", 6, 1_500_000)
    job = rig.queued(tree, verify=True)
    set_id = rig.run(job)
    report = set_report(rig.home, rig.ledger, rig.ledger.backup_set(set_id))
    assert report.run is not None
    assert report.run.verify_s > 0
    assert (report.verification.verified, report.verification.damaged) == (report.verification.copies, [])
    assert report.verification.oldest_at_ns > report.backup_set.finished_at_ns
    copy = bench.copies(set_id)[0]
    bench.flip(copy, 700_000)
    verify_copy(rig.home, rig.ledger, rig.drive, copy, Follower())
    report = set_report(rig.home, rig.ledger, rig.ledger.backup_set(set_id))
    (damaged,) = report.verification.damaged
    assert (damaged.segment_id, damaged.lost) == (copy.segment_id, [bytes(tree / "file-00000")])
    shown = view_of(report, most_lost=0)
    assert (shown.verification.damaged[0].lost_files, shown.verification.damaged[0].lost) == (1, [])


@pytest.mark.log_warnings
def test_a_report_that_cannot_be_written_stops_no_backup(rig: Rig, tmp_path: Path) -> None:
    """The backup is done; the log says that nobody will read about it."""
    tree = random_files(tmp_path / "tree", 2, 1000)
    rig.home.reports.write_text("in the way")
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE


def test_a_torn_line_is_passed_over(rig: Rig, tmp_path: Path) -> None:
    """A crash while a trouble was written costs that one; what comes behind it is read."""
    set_id = rig.backup(random_files(tmp_path / "tree", 1, 10))
    file = TroubleFile(rig.home, set_id)
    file.add(b"/one", "first")
    file.close()
    with troubles_path(rig.home, set_id).open("ab") as torn:
        torn.write(b'{"path":"/two","rea')
    file = TroubleFile(rig.home, set_id)
    file.add(b"/three", "third")
    file.close()
    assert [trouble.path for trouble in read_troubles(rig.home, set_id)] == ["/one", "/three"]
    report_path(rig.home, set_id).write_text("{")
    assert set_report(rig.home, rig.ledger, rig.ledger.backup_set(set_id)).run is None
