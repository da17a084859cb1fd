"""A job that waits or runs already: who wants it run once more is told since when, and how it is ended."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.sidecar.rig import ROOT, Rig, make_home, running


def tapefs(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "tapefs", "--home", str(rig.home.path), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_same_backup_once_more(tmp_path: Path) -> None:
    with running(make_home(tmp_path / "home")) as rig:
        rig.submit("hang")
        rig.wait_progress(1)
        first = tapefs(rig, "backup", str(ROOT / "docs"), "--name", "ok", "--no-wait")
        assert first.stdout == "2\n"
        again = tapefs(rig, "backup", str(ROOT / "docs"), "--name", "ok")
        assert again.returncode == 1
        assert re.fullmatch(
            r"tapefs: job 2 \(ok\) is queued already since [0-9-]{10} [0-9:]{8}Z: "
            r"`tapefs jobs` shows what becomes of it, `tapefs job cancel 2` ends it\n",
            again.stderr,
        ), again.stderr
        assert "job 1 (hang) is running already since 2" in tapefs(rig, "job", "run", "1").stderr
        assert tapefs(rig, "job", "cancel", "ok").stderr == "job 2 is cancelled\n"
        assert tapefs(rig, "job", "cancel", "1").returncode == 0
        assert rig.job(1)["state"] == "cancelled"
        assert tapefs(rig, "job", "cancel", "1").returncode == 1
