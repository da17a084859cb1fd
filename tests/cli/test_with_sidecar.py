"""Commands that need a sidecar: they find one or start one, several at once, and leave none behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState
from tapefs.setup_home import NewHome, create_home
from tapefs.sizes import counted
from tests.conftest import TAPE_BYTES
from tests.forking import client

#: Starts of Python on a busy machine take a while; nothing here waits that long when all is well.
LONG_S = 60.0


def start(*arguments: str) -> client.Process:
    """Forked; the sidecar that it starts is started."""
    return client.start("-m", "tapefs", *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path.cwd())


def finish(process: client.Process) -> tuple[int, list[str], list[str]]:
    out, err = process.communicate(timeout=LONG_S)
    return process.returncode, out.splitlines(), err.splitlines()


def wait_until(is_so, what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def processes_of(home) -> list[int]:
    """Return the pids whose command line names the state folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(home.path).encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_left(home):
    """No process of this state folder outlives the test; whatever does is killed and fails it."""
    yield
    deadline = time.monotonic() + LONG_S
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.25)  # All of /proc is read each time.
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "one.txt").write_text("one\n" * 1000)
    (root / "sub/two.bin").write_bytes(os.urandom(300_000))
    return root


def test_back_up_show_and_restore(home, tree, tmp_path):
    code, out, err = finish(start("backup", str(tree), "--name", "docs"))
    assert code == 0, err
    sets = json.loads("\n".join(finish(start("sets", "--json"))[1]))
    assert [out[-1]] == [each["set_id"] for each in sets]
    assert sets[0]["state"] == "complete"
    assert sets[0]["files"] == 2

    target = tmp_path / "target"
    code, _, err = finish(start("restore", "docs", str(tree / "sub").lstrip("/"), "--to", str(target)))
    assert code == 0, err
    restored = target / str(tree).lstrip("/")
    assert (restored / "sub/two.bin").read_bytes() == (tree / "sub/two.bin").read_bytes()
    assert not (restored / "one.txt").exists()


def test_why_a_backup_failed(home, tree, monkeypatch):
    """The reason is the mover's, and nothing is said of a set that is not there."""
    path = home.path.with_name(f"{home.path.name}-small")
    create_home(NewHome(path=path, tapes=1, tape_bytes=8 * 1024**2), 1)
    monkeypatch.setenv("TAPEFS_HOME", str(path))
    code, _, err = finish(start("backup", str(tree)))
    assert code == 1
    assert err[-1].startswith("tapefs: tape TP0001L9 is empty, but ")
    (job,) = json.loads("\n".join(finish(start("jobs", "--json"))[1]))
    assert job["state"] == "failed"
    assert err[-1] == f"tapefs: {job['error']}; `tapefs job resume {job['number']}` goes on with it"


def test_stage_and_evict(home, tree):
    set_id = finish(start("backup", str(tree)))[1][-1]
    code, _, err = finish(start("stage", f"{set_id}:{tree}/sub", set_id))
    assert code == 0, err
    assert re.fullmatch(r"stage: 1 frame staged, \d+\.\d KiB", err[-1])
    code, _, err = finish(start("stage", set_id))
    assert code == 0, err
    assert err[-1].endswith("; 1 already there")
    code, _, err = finish(start("evict", "tree"))
    assert code == 0
    assert err[-1].endswith("iB freed")
    assert finish(start("evict", "--all"))[2][-1] == "evict: nothing was staged"


def test_pin_and_unpin(home, tree):
    """What is pinned outlives `evict` and the sidecars that the commands start, until it is unpinned."""
    set_id = finish(start("backup", str(tree)))[1][-1]
    code, _, err = finish(start("stage", set_id, "--pin", "7d", "--reason", "exam"))
    assert code == 0, err
    assert "keeps" in err[0]
    (pin,) = json.loads("\n".join(finish(start("pins", "--json"))[1]))
    assert (pin["reason"], pin["missing_frames"]) == ("exam", 0)
    assert pin["bytes"] > 300_000
    evicted = finish(start("evict", "--all"))[2][-1]
    assert evicted.startswith("evict: nothing freed; ")
    assert evicted.endswith(" stay, which are open or pinned (`tapefs pins`)")
    assert pin["id"][:8] in finish(start("pins"))[1][-1]
    assert finish(start("unpin", "nonsense"))[0] == 1
    assert finish(start("unpin", pin["id"][:8]))[2][-1] == "unpin: 1 pin ended"
    assert json.loads("\n".join(finish(start("pins", "--json"))[1])) == []
    assert finish(start("pins"))[1][-1].startswith("No pins")
    assert finish(start("evict", "--all"))[2][-1].endswith("iB freed")


def test_two_commands_that_start_at_once(home):
    both = [start("evict", "--all") for _ in range(3)]
    assert [finish(each)[0] for each in both] == [0, 0, 0]


def test_commands_use_the_sidecar_that_runs(home, tree):
    serve = start("serve", "--listen", "127.0.0.1:0")
    wait_until(home.socket.exists, "the sidecar does not come up")
    code, out, _ = finish(start("backup", str(tree)))
    assert code == 0
    tell_whether_the_drive_streamed(home, out[-1])
    assert int(home.lock.read_text().split()[0]) == serve.pid
    serve.send_signal(signal.SIGTERM)
    assert finish(serve)[0] == 0


def tell_whether_the_drive_streamed(home, set_id):
    """The report, the job on the command line and the job over HTTP say the same: each segment ends with a sync."""
    report = json.loads("\n".join(finish(start("report", set_id, "--json"))[1]))
    assert report["drive"]["backhitches"] >= report["segments"] == 1
    assert report["drive"]["seconds"]["backhitch"] > 0
    assert report["drive"]["underruns"] == 0
    # Blocks are larger than the buffer for a tape as small as this.
    buffer = report["buffer"]
    assert buffer["size_bytes"] == TAPE_BYTES // 250
    assert buffer["starts"] == report["segments"] + buffer["stops"]
    job = json.loads("\n".join(finish(start("job", "show", "1", "--json"))[1]))
    assert (job["drive"], job["buffer"]) == (report["drive"], report["buffer"])
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(home.socket))) as client:
        job = client.get("http://sidecar/api/v1/jobs/1").json()
    assert (job["drive"], job["buffer"]) == (report["drive"], report["buffer"])
    stops = counted(report["drive"]["backhitches"], "back-hitch", "es")
    assert any(line.startswith("drive") and stops in line for line in finish(start("report", set_id))[1])
    shown = finish(start("job", "show", "1"))[1]
    assert any(line.startswith("drive") and stops in line for line in shown)
    assert any(line.startswith("buffer") and counted(buffer["starts"], "start") in line for line in shown)


def test_two_owners_are_refused(home):
    serve = start("serve", "--listen", "127.0.0.1:0")
    wait_until(home.socket.exists, "the sidecar does not come up")
    code, _, err = finish(start("serve", "--listen", "127.0.0.1:0"))
    assert code == 1
    assert err[-1].startswith(f"tapefs: {home.path} is owned by the sidecar with pid {serve.pid}")
    serve.send_signal(signal.SIGINT)
    assert finish(serve)[0] == 0


def test_without_waiting_the_job_is_done_all_the_same(home, tree):
    code, out, _ = finish(start("backup", str(tree), "--no-wait"))
    assert (code, out) == (0, ["1"])
    wait_until(lambda: not processes_of(home), "the sidecar does not end")
    assert json.loads("\n".join(finish(start("jobs", "--json"))[1]))[0]["state"] == "completed"


def test_a_source_that_is_not_there(home):
    code, out, err = finish(start("backup", "/no/such/place"))
    assert code == 1
    assert out == []
    assert err == ["tapefs: /no/such/place: No such file or directory; nothing was backed up"]
    assert json.loads("\n".join(finish(start("jobs", "--json"))[1])) == []


def test_no_blank_tape(home, tmp_path):
    big = tmp_path / "big"
    big.write_bytes(os.urandom(120 * 1024**2))
    code, _, err = finish(start("backup", str(big)))
    assert code == 1
    assert err[-1].startswith("tapefs: ")
    assert "tape" in err[-1]
    assert "Traceback" not in "\n".join(err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_the_job(home, tmp_path, number):
    many = tmp_path / "many"
    many.mkdir()
    for count in range(20_000):
        (many / str(count)).touch()
    backup = start("backup", str(many))
    # Not by `tapefs jobs`: on a busy machine the job is done before that has begun.
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        wait_until(lambda: JobState.RUNNING in [job.state for job in ledger.jobs()], "the job does not begin")
    backup.send_signal(number)
    code, _, err = finish(backup)
    assert code == 1
    assert "cancelled" in err[-1]
    assert json.loads("\n".join(finish(start("jobs", "--json"))[1]))[0]["state"] == "cancelled"
    assert finish(start("backup", str(tmp_path / "many/1")))[0] == 0


def test_a_sidecar_that_cannot_start_says_why(home):
    (home.ledger / "data.mdb").write_bytes(b"nothing of ours" * 1000)
    code, _, err = finish(start("evict", "--all"))
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith("tapefs: ")
    assert "ledger" in err[0]


def test_files_that_cannot_be_read_make_another_exit_code(home, tmp_path):
    """The set is complete and has all the others; cron sees that something is missing."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("one", "two", "three"):
        (source / name).write_text(name)
    without: list[str] = []
    for name in ("one", "two"):
        (source / name).chmod(0)
        if os.geteuid() == 0:
            # Root may read everything, unless that is taken from him.
            os.chown(source / name, 65534, 65534)
            without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*without, sys.executable, "-m", "tapefs", "--home", str(home.path), "backup", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S, check=False)
    assert done.returncode == 3, done
    out, err = done.stdout.splitlines(), done.stderr.splitlines()
    assert err[-1].startswith(f"tapefs: set {out[-1][:8]} is on tape without 2 files that could not be read")
    assert sum("content is not in the backup" in line for line in err) == 2
    (found,) = json.loads("\n".join(finish(start("sets", "--json"))[1]))
    assert (found["set_id"], found["state"], found["unread_files"]) == (out[-1], "complete", 2)
    assert finish(start("backup", str(source / "three")))[0] == 0
