"""Start and end: owners, ports, what a killed sidecar leaves, movers that die, ending by itself."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.queue_records import TryKind
from catalog.records import JobState, SetState, VolumeState
from drivers.virtual.library import add_blank
from tapefs.client.transport import SocketConnection
from tapefs.home import Home
from tests.ports import free_port
from tests.sidecar.rig import make_home, running, seed_set, set_states, spawn, wait_until, waiter

#: What it would wait for does not come at all; how fast the machine is is nobody's matter here.
SOON_S = 30


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def refusal(home: Home, *options: str, **variables: str) -> str:
    """What a sidecar that does not start says last."""
    process = spawn(home, *options, **variables)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1, text
    assert "Traceback" not in text
    return text.splitlines()[-1]


def test_sigterm_with_an_open_stream_ends_soon_and_well(home: Home) -> None:
    with running(home, listen=True) as rig, rig.arrivals() as lines:
        code, seconds = rig.stop()
        assert code == 0
        assert seconds < SOON_S
        assert list(lines) == []
        assert not home.socket.exists()


def test_sigterm_with_a_client_that_does_not_read(home: Home) -> None:
    """A sending task is shielded from cancels: its connection has to be cut."""
    with running(home) as rig, closing(SocketConnection(home.socket, 60)) as connection:
        for _ in range(200):
            rig.unix("POST", "/api/backup/tasks", {"task_name": "x" * 200, "source_paths": ["/usr"] * 50})
        connection.connect()
        connection.sock.sendall(b"GET /api/v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n" * 20)
        time.sleep(0.3)
        code, seconds = rig.stop()
        assert code == 0
        assert seconds < SOON_S


def test_two_owners_are_refused(home: Home) -> None:
    with running(home) as rig:
        text = refusal(home)
        assert text.startswith("HomeInUse: ")
        assert f"pid {rig.process.pid}" in text
        assert word(home) == "in-use\n"
        assert rig.unix("GET", "/health").status == 200  # Its socket is still there.


def word(home: Home) -> str:
    """What a sidecar says to who started it before it ends."""
    reader, writer = os.pipe()
    process = spawn(home, pass_fds=[writer], TAPEFS_READY_FD=str(writer))
    os.close(writer)
    with os.fdopen(reader) as words:
        text = words.read()
    process.communicate(timeout=60)
    return text


def test_a_port_in_use(home: Home) -> None:
    with running(home, listen=True) as rig:
        other = make_home(home.path.parent / "other")
        text = refusal(other, "--listen", f"127.0.0.1:{rig.port}")
        assert text.startswith("NotNow: ")
        assert f"127.0.0.1:{rig.port} is in use" in text
        assert not other.socket.exists()


@pytest.mark.parametrize("listen", ["8080", "localhost:", "localhost:x", "::1:80", "127.0.0.1:70000", "no.invalid:80"])
def test_no_place_to_listen(home: Home, listen: str) -> None:
    assert refusal(home, "--listen", listen).startswith("UsageError: ")


def test_a_token_that_others_may_read(home: Home) -> None:
    home.token.chmod(0o640)
    text = refusal(home, "--listen", f"127.0.0.1:{free_port()}")
    assert text.startswith("HomeError: ")
    assert "0640" in text
    home.token.unlink()
    assert "cannot read" in refusal(home, "--listen", f"127.0.0.1:{free_port()}")
    with running(home) as rig:  # Without TCP no token is needed.
        assert rig.unix("GET", "/health").status == 200


def test_a_mover_killed_during_a_backup(home: Home) -> None:
    """The run goes on with the next mover; what it has told before is not forgotten."""
    with running(home) as rig:
        number = rig.submit("hang")
        rig.wait_progress(number)
        os.kill(rig.mover_pid(), signal.SIGKILL)
        wait_until(lambda: rig.job(number)["trouble_count"] == 240, "the run does not go on")
        job = rig.job(number)
        assert (job["state"], job["runs"], job["waits_for"]) == ("running", 1, None)
        assert [move["drive"] for move in job["moves"]] == ["drive0"]
        assert "the mover of drive0 ended while the backup ran" in job["moves"][0]["reason"]
        rig.unix("POST", f"/api/v1/jobs/{number}/cancel")
        rig.wait_job(number, "cancelled")
        rig.wait_job(rig.submit("ok"), "completed")
    assert set_states(home) == [SetState.FAILED, SetState.COMPLETE]


def test_a_run_that_ends_every_mover(home: Home) -> None:
    """It is given to a few of them, and then fails with all of it."""
    with running(home) as rig:
        job = rig.wait_job(rig.submit("die"), "failed")
        assert job["error"].startswith("4 times a drive failed within the run: drive0: the mover of drive0 ended")
        assert "`tapefs job resume 1`" in job["error"]
        assert len(rig.commands("Backup")) == 4
        rig.wait_job(rig.submit("ok"), "completed")


def test_a_sealed_set_is_finished_by_the_next_mover(home: Home) -> None:
    """Whole on tape when its mover died: it must become complete, not failed."""
    with running(home) as rig:
        rig.wait_job(rig.submit("seal"), "completed")
        assert len(rig.commands("FinishSets")) == 1
    assert set_states(home) == [SetState.COMPLETE]


def test_a_killed_sidecar_leaves_nothing_half(home: Home) -> None:
    with running(home) as rig:
        running_job = rig.submit("hang")
        rig.wait_progress(running_job)
        waiting_job = rig.submit("ok")
        mover = rig.mover_pid()
        rig.process.kill()
        rig.process.wait()
        wait_until(lambda: not Path(f"/proc/{mover}").exists(), "the mover lives on")
    assert home.socket.exists()
    with running(home) as rig:
        rig.wait_job(running_job, "running")
        assert [attempt["kind"] for attempt in rig.job(running_job)["tries"]] == ["interrupted"]
        rig.unix("POST", f"/api/v1/jobs/{running_job}/cancel")
        rig.wait_job(waiting_job, "completed")
    assert set_states(home) == [SetState.FAILED, SetState.COMPLETE]


def test_a_stop_during_a_backup(home: Home) -> None:
    with running(home) as rig:
        number = rig.submit("hang")
        rig.wait_progress(number)
        code, seconds = rig.stop()
        assert code == 0
        assert seconds < SOON_S
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        job = ledger.jobs()[0]
        assert job.number == number
        assert job.state is JobState.QUEUED
        assert [(attempt.kind, attempt.reason) for attempt in job.tries] == [
            (TryKind.STOPPED, "interrupted: the sidecar was stopped while the backup ran")
        ]
    assert set_states(home) == [SetState.FAILED]


def test_ending_by_itself_when_idle(home: Home) -> None:
    with running(home, "--until-idle") as rig:
        with rig.arrivals():
            number = rig.submit("hang")
            rig.wait_progress(number)
            time.sleep(1.5)
            assert rig.process.poll() is None
        time.sleep(1.5)
        assert rig.process.poll() is None  # Nobody is connected, but a job runs.
        rig.unix("POST", f"/api/backup/tasks/{number}/cancel")
        assert rig.process.wait(60) == 0
    assert not home.socket.exists()


def test_a_stream_alone_keeps_it_up(home: Home) -> None:
    with running(home, "--until-idle") as rig:
        with rig.arrivals():
            time.sleep(2.5)
            assert rig.process.poll() is None
        assert rig.process.wait(60) == 0


def test_no_drive_works(home: Home) -> None:
    """Who waits for a drive is told when there is none, and a sidecar that should end by itself does."""
    segment, _ = seed_set(home)
    (home.path / "no-drive").touch()
    with running(home, "--until-idle") as rig, rig.arrivals() as lines:
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]})
        assert rig.unix("GET", "/health").body == {"status": "degraded", "drives": {"drive0": "failed"}}
        line = next(lines)
        assert line["error"] == "offline"
        assert "no drive works" in line["message"]
        assert "no drive works" in rig.wait_job(rig.submit("ok"), "failed")["error"]


def test_new_tapes_are_entered_as_blank(home: Home) -> None:
    add_blank(home.library, tape_bytes=2 * 1024**2)
    with running(home) as rig:
        tape = rig.unix("GET", "/api/tape/list").body["tapes"][-1]
        assert (tape["label"], tape["capacity_bytes"], tape["status"]) == ("TP0004L9", 2 * 1024**2, "available")


def test_no_blank_tape_is_left(home: Home) -> None:
    with LmdbLedger.open(home.ledger) as ledger:
        for volume in ledger.volumes():
            ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, "for the test")
    with running(home) as rig:
        job = rig.wait_job(rig.submit("ok"), "failed")
        assert job["error"] == (
            "no tape with room is left in pool default: put a blank tape into the library; "
            "`tapefs pool show default` says why no other"
        )
        add_blank(home.library, tape_bytes=2 * 1024**2)
        rig.wait_job(rig.submit("ok"), "completed")


def test_two_drives_work_at_the_same_time(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home", drives=2)
    segment, _ = seed_set(home, tape=1)
    with running(home) as rig, rig.arrivals() as lines:
        number = rig.submit("hang")
        rig.wait_progress(number)
        rig.unix("POST", "/api/v1/recalls", {"waiters": [waiter(segment, 0, 0)]})
        assert next(lines)["segment"] == segment.segment_id
        other = rig.submit("ok")
        rig.wait_job(other, "completed")
        assert rig.job(number)["state"] == "running"
        rig.unix("POST", f"/api/backup/tasks/{number}/cancel")
        rig.wait_job(number, "cancelled")


@pytest.mark.fuse
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_the_mount_comes_with_the_sidecar_and_comes_back(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    with running(home, "--mount", str(folder)) as rig:
        assert os.path.ismount(folder)
        os.kill(rig.mount_pid(), signal.SIGKILL)
        wait_until(lambda: not _answers(folder), "still mounted")
        wait_until(lambda: _answers(folder), "not mounted again")
        code, _ = rig.stop()
        assert code == 0
        assert not os.path.ismount(folder)


@pytest.mark.fuse
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_the_mount_of_a_killed_sidecar_is_taken_over(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    with running(home, "--mount", str(folder)) as rig:
        survivor = rig.mount_pid()
        rig.process.kill()
        rig.process.wait(60)
    assert _answers(folder)
    with running(home, "--mount", str(folder)) as rig:
        assert _answers(folder)
        assert rig.stop()[0] == 0
    assert not os.path.ismount(folder)
    wait_until(lambda: not Path(f"/proc/{survivor}").exists(), "the mount's process still runs")


@pytest.mark.fuse
@pytest.mark.skipif(not Path("/dev/fuse").exists(), reason="needs /dev/fuse")
def test_the_mount_of_somebody_else_is_refused(home: Home, tmp_path: Path) -> None:
    folder = tmp_path / "mnt"
    folder.mkdir()
    other = make_home(tmp_path / "other")
    with running(other, "--mount", str(folder)):
        text = refusal(home, "--mount", str(folder))
        assert text.startswith(f"NotNow: an archive is mounted at {folder} already")
        assert _answers(folder)


def _answers(folder: Path) -> bool:
    try:
        return (folder / "README.txt").exists()
    except OSError:
        return False


def test_a_mount_that_does_not_come_up(home: Home, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    text = refusal(home, "--mount", str(file))
    assert text.startswith("NotNow: ")
    assert "did not come up" in text
    assert not home.socket.exists()


def test_new_tapes_join_the_scratch_pool_if_there_is_one(home: Home) -> None:
    with running(home) as rig:
        assert rig.unix("POST", "/api/v1/pools", {"name": "scratch"}).status == 201
        add_blank(home.library, tape_bytes=4 * 1024**2)
        # A job has the library looked through.
        rig.wait_job(rig.submit("ok"), "completed")
        tapes = {pool["name"]: pool["tapes"]["blank"] for pool in rig.unix("GET", "/api/v1/pools").body}
        assert tapes == {"default": 2, "scratch": 1}
        shown = rig.unix("GET", "/api/v1/pools/default").body
        assert shown["next"] == "TP0001L9"
        assert [(each["tape"], each["source"]) for each in shown["answers"]] == [
            ("TP0001L9", "begun"),
            ("TP0002L9", "blank"),
            ("TP0003L9", "blank"),
            ("TP0004L9", "scratch"),
        ]
