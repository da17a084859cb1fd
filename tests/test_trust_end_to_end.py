"""Reading back, through the real commands and processes. Nothing is faked but the damage."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backup.trees import random_files, snapshot
from tests.test_end_to_end import Installation, wait_until


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "3", "--tape-size", "32MiB")
    yield made
    made.close()


def payload(installation: Installation, set_id: str, number: int) -> Path:
    """The payload of a segment on its virtual cartridge."""
    shown = json.loads(installation.run("show", set_id, "--json"))
    (copy,) = shown["segment_list"][number]["copies"]
    folder = installation.home / "library" / "cartridges" / str(copy["tape"])
    return folder / f"{copy['header_file'] + 1:05}"


def flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)
        file.seek(place)
        file.write(bytes([byte[0] ^ 1]))


def test_verify_finds_what_is_damaged_and_names_it(installation: Installation, tmp_path: Path) -> None:
    """A set over several tapes: verified by name, by tape and wholly; a damaged frame costs the file in it."""
    tree = random_files(tmp_path / "tree", 25, 2_000_000)
    set_id = installation.backup(tree, "--name", "job")
    assert installation.run("verify", "job") == ""
    found = json.loads(installation.run("verify", "--all", "--json"))
    assert (found["state"], found["damaged"], found["passed_over"]) == ("completed", 0, found["copies"])
    flip(payload(installation, set_id, 0), 1_000_000)
    tape = json.loads(installation.run("show", set_id, "--json"))["tapes"][0]
    assert installation.run("verify", tape) == ""  # It was read back a moment ago.
    told = installation.run("verify", tape, "--again", ok=False)
    assert told.splitlines()[-1].startswith("tapefs: 1 copies of segments are damaged")
    # The damage is remembered, and told without reading it again.
    found = json.loads(_failing(installation, "verify", set_id, "--json"))
    assert (found["state"], found["damaged"]) == ("failed", 1)
    (finding,) = found["findings"]
    assert finding["tape"] == tape
    lost = [each["path"] for each in finding["lost"]]
    assert lost
    assert set(lost) < {str(path) for path in tree.iterdir()}
    # What is named is lost, and nothing else.
    installation.run("restore", set_id, "--to", tmp_path / "out", ok=False)
    restored = Path(f"{tmp_path / 'out'}{tree}")
    for path in tree.iterdir():
        same = (restored / path.name).exists() and (restored / path.name).read_bytes() == path.read_bytes()
        assert same is (str(path) not in lost)


def _failing(installation: Installation, *arguments: str) -> str:
    """Return the standard output of a command that fails."""
    import subprocess

    done = subprocess.run(installation.command(*arguments), capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done
    return done.stdout


def test_backup_verify(installation: Installation, tmp_path: Path) -> None:
    """A job is done when its tapes were read back; with an unreadable block it has failed, and its set is there."""
    tree = random_files(tmp_path / "tree", 12, 2_000_000)
    set_id = installation.backup(tree, "--name", "good", "--verify")
    drive = installation.listing("drives")[0]
    assert drive["counters"]["bytes_read"] > 24_000_000  # type: ignore[index]
    assert json.loads(installation.run("verify", set_id, "--json"))["passed_over"] > 0
    wait_until(lambda: not installation.movers(), "the end of the movers")
    # Behind what the first set has on that tape.
    faults = json.dumps([{"kind": "read_error", "block": 30, "times": 0, "barcode": "TP0002L9"}])
    told = installation.run("backup", tree, "--name", "bad", "--verify", ok=False, env={"TAPEFS_FAULTS": faults})
    assert "content on tape TP0002L9 is damaged" in told
    assert "its set is complete on tape, but 1 of" in told.splitlines()[-1]
    states = {each["name"]: each["state"] for each in installation.listing("jobs")}
    assert states == {"good": "completed", "bad": "failed"}
    assert {each["state"] for each in installation.listing("sets")} == {"complete"}
    good = json.loads(installation.run("report", "good", "--json"))
    assert (good["set_id"], good["files"], good["troubles"]) == (set_id, 12, 0)
    assert good["verification"]["verified"] == good["verification"]["copies"] > 0
    bad = json.loads(installation.run("report", "2", "--json"))
    assert (bad["name"], bad["state"]) == ("bad", "complete")
    assert "segments are damaged" in bad["error"]
    (damaged,) = bad["verification"]["damaged"]
    assert damaged["lost_files"] == len(damaged["lost"]) > 0
    shown = installation.run("report", "bad")
    assert f"    lost: {damaged['lost'][0]['path']}" in shown.splitlines()
    assert "back-hitches" in shown


@pytest.mark.parametrize("victim", ["mover", "sidecar"])
def test_resume_after_a_kill(installation: Installation, tmp_path: Path, victim: str) -> None:
    """kill -9 within a backup; the job goes on by itself with the set it had begun."""
    tree = random_files(tmp_path / "tree", 30, 2_000_000)
    sidecar = installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    job = installation.run("backup", tree, "--no-wait", "--verify").strip()
    wait_until(lambda: any(s["segments"] for s in installation.listing("sets")), "the first segment")
    os.kill(installation.movers()[0] if victim == "mover" else sidecar.pid, signal.SIGKILL)
    (begun,) = installation.listing("sets")
    set_id = str(begun["set_id"])
    if victim == "mover":
        wait_until(lambda: installation.listing("jobs")[0]["state"] not in ("running", "queued"), "the job's end")
        assert len(installation.listing("jobs")[0]["moves"]) == 1  # type: ignore[arg-type]
    else:
        sidecar.wait()
        wait_until(lambda: not installation.movers(), "the mover's end")
        installation.start("serve", "--listen", "127.0.0.1:0")
        wait_until(lambda: installation.listing("jobs")[0]["state"] == "completed", "the job's end")
        assert len(installation.listing("jobs")[0]["tries"]) == 1  # type: ignore[arg-type]
    (shown,) = installation.listing("sets")
    assert (shown["state"], shown["files"]) == ("complete", 30)
    assert installation.listing("jobs")[0]["state"] == "completed"
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)
    told = installation.run("job", "resume", job, ok=False)
    assert "there is nothing to resume" in told


def test_what_a_set_builds_on_is_read_back_with_it(installation: Installation, tmp_path: Path) -> None:
    """Files of an incremental set lie in the full one: it is not good when that is damaged."""
    tree = random_files(tmp_path / "tree", 3, 100_000)
    full = installation.backup(tree, "--name", "job")
    (tree / "new").write_text("new")
    installation.backup(tree, "--name", "job", "--type", "incremental")
    flip(payload(installation, full, 0), 50_000)
    found = json.loads(_failing(installation, "verify", "job", "--json"))
    assert (found["copies"], found["good"], found["damaged"]) == (2, 1, 1)
    assert found["findings"][0]["set_id"] == full
