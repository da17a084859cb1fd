"""`tapefs vtl`: a process that serves the library until it is told to end."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome

COMMAND = (sys.executable, "-m", "tapefs")
LONG_S = 60.0
Run = Callable[..., Outcome]


@pytest.fixture
def made(tmp_path: Path, tapefs: Run) -> Path:
    path = tmp_path / "home"
    assert tapefs("--home", str(path), "init", "--tapes", "2", "--tape-size", "64MiB", "--drives", "2").code == 0
    return path


@contextmanager
def vtl(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the command on a port that is free; yields it, and what it said up to the URL."""
    process = subprocess.Popen(
        [*COMMAND, "--home", str(home), "vtl", "--listen", "127.0.0.1:0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith("  iscsi://"):
                break
        else:
            pytest.fail(process.communicate(timeout=LONG_S)[1])
        yield process, said
    finally:
        process.kill()
        process.communicate(timeout=LONG_S)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_end(made: Path, tapefs: Run, how: signal.Signals) -> None:
    with vtl(made) as (process, said):
        assert re.search(r"serving iqn\.2026-01\.local\.tapefs:[0-9a-f]{8} at 127\.0\.0\.1:[0-9]+\n", said)
        assert "LUN 0  changer\n" in said
        assert "LUN 2  drive1, " in said
        assert "iscsiadm -m node -T iqn" in said
        if shutil.which("iscsi-ls") is not None:
            url = said.split()[-1].rpartition("/")[0].rpartition("/")[0]
            listed = subprocess.run(["iscsi-ls", "-s", url], capture_output=True, text=True, timeout=LONG_S)
            assert "SEQUENTIAL_ACCESS" in listed.stdout, listed
        refused = tapefs("--home", str(made), "serve", "--listen", "127.0.0.1:0")
        assert refused.code == 1
        assert f"is served to others by `tapefs vtl`, pid {process.pid}" in refused.one_line()
        refused = tapefs("--home", str(made), "backup", "/etc/hostname")
        assert refused.code == 1
        assert f"is served to others by `tapefs vtl`, pid {process.pid}" in refused.one_line()
        process.send_signal(how)
        _, err = process.communicate(timeout=LONG_S)
        assert (process.returncode, err) == (0, "")
    with vtl(made) as (_, again):
        assert again.splitlines()[0].split()[1] == said.splitlines()[0].split()[1]


def test_others_may_come_only_with_a_password(made: Path, tapefs: Run, tmp_path: Path) -> None:
    got = tapefs("--home", str(made), "vtl", "--listen", "0.0.0.0:0")
    assert got.code == 2
    assert "give a user and password for CHAP" in got.one_line()
    secret = tmp_path / "secret"
    secret.write_text("long enough, I hope\n")
    options = ("--chap-user", "joe", "--chap-password-file", str(secret))
    got = tapefs("--home", str(made), "vtl", "--listen", "0.0.0.0:0", *options)
    assert got.code == 2
    assert "others may read it" in got.one_line()
    secret.chmod(0o600)
    with vtl(made, *options) as (_, said):
        assert "iscsi://joe%PASSWORD@127.0.0.1" in said
        assert "long enough" not in said


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--chap-user", "joe"), "belong together"),
        (("--target", "NotAName"), "is no iSCSI name"),
        (("--listen", "nowhere"), "is no address"),
    ],
)
def test_wrong_usage(made: Path, tapefs: Run, options: tuple[str, ...], says: str) -> None:
    got = tapefs("--home", str(made), "vtl", *options)
    assert got.code == 2
    assert says in got.one_line()


def test_a_port_that_is_taken(made: Path, tapefs: Run, tmp_path: Path) -> None:
    with vtl(made) as (_, said):
        port = re.search(r"127\.0\.0\.1:([0-9]+)", said)
        assert port is not None
        other = tmp_path / "other"
        assert tapefs("--home", str(other), "init", "--tapes", "1", "--tape-size", "64MiB").code == 0
        got = tapefs("--home", str(other), "vtl", "--listen", port[0])
        assert got.code == 1
        assert "Address already in use" in got.one_line()
