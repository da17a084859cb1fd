"""A new LTO-9 tape is measured for hours: a backup waits, and everybody can see why. Scaled time; nothing is faked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tapefs.client.transport import Transport
from tests.backup.trees import random_files
from tests.drivers.tgt import need_libiscsi
from tests.test_end_to_end import Installation, wait_until

#: Modelled, at fifty times the speed: four seconds.
FIRST_LOAD = "200"
MOTION = "scaled:50"


@contextmanager
def virtual(installation: Installation) -> Iterator[None]:
    """The library in the state folder."""
    installation.run("init", "--tapes", "1", "--tape-size", "64MiB", "--motion", MOTION)
    make_new(installation)
    yield


def make_new(installation: Installation) -> None:
    """Have one tape that is new, and none else."""
    assert installation.run("library", "add", "--tape-size", "64MiB", "--first-load", FIRST_LOAD) == "TP0002L9\n"
    installation.run("library", "export", "TP0001L9", installation.folder / "shelf")


@contextmanager
def by_iscsi(installation: Installation) -> Iterator[None]:
    """The same, served by `tapefs vtl`."""
    need_libiscsi()
    vtl = Installation(installation.folder / "vtl")
    vtl.run("init", "--tapes", "1", "--tape-size", "64MiB", "--motion", MOTION)
    make_new(vtl)
    command = [sys.executable, "-m", "tapefs", "--home", str(vtl.home), "vtl", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        unit = next(line.strip() for line in served.stdout if line.startswith("  iscsi://")).rpartition("/")[0]
        installation.run("init", "--driver", "iscsi", "--changer", f"{unit}/0", "--drive", f"{unit}/1")
        yield
        served.terminate()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    (tmp_path / "vtl").mkdir()
    made = Installation(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("way", [virtual, by_iscsi])
def test_the_first_load_is_seen_and_no_hang(installation: Installation, tmp_path: Path, way: object) -> None:
    source = random_files(tmp_path / "source", 5, 10_000)
    with way(installation):  # type: ignore[operator]
        backup = installation.start("backup", source, "--name", "docs")
        api = Transport(installation.home / "sidecar.sock")
        seen: list[dict[str, str]] = []

        def is_measured() -> bool:
            try:
                [drive] = json.loads(api.request("GET", "/api/v1/status"))["drives"]
            except Exception:
                return backup.poll() is not None
            seen.append(drive)
            return drive["state"] == "measuring" and bool(drive["note"])

        wait_until(is_measured, "the tape is measured")
        assert backup.poll() is None, seen
        note = seen[-1]["note"]
        assert "is being measured: " in note
        assert "this is normal for a new LTO-9 tape" in note
        shown = installation.run("drives")
        assert "measuring" in shown
        assert "drive0: tape " in shown or "drive0: the tape " in shown
        assert backup.wait(120) == 0, (tmp_path / "log").read_text()
        assert "measured" not in installation.run("drives")
        installation.run("verify", "docs")
        # While its drive is there: without it the sidecar would wait half a minute for that to come back.
        installation.close()
