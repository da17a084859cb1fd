"""`tapefs rebuild` and `tapefs import` as people give them: processes of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.rebuild.test_import import hand_over


def tapefs(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapefs", "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, stdin=subprocess.DEVNULL)


def test_a_lost_catalog_and_a_stranger_s_tape(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Plain tables on stdout, one line of summary on stderr; the exit code says if all is back."""
    (tmp_path / "theirs").mkdir()
    theirs = Rig(tmp_path / "theirs", tapes=1)
    program = random_files(tmp_path / "t", 2, 100) / "file-00000"
    program.chmod(0o4755)
    theirs.backup(tmp_path / "t", name="nightly")
    theirs.close()
    rig = make_rig(tapes=2)
    set_id = rig.backup(random_files(tmp_path / "a", 3, 5_000), name="etc")
    rig.close()
    home = rig.home.path
    for folder in ("ledger", "index", "trailers"):
        shutil.rmtree(home / folder)

    done = tapefs(home, "rebuild", "TP0001L9", "TP0002L9")
    assert done.returncode == 0, done.stderr
    assert "rebuild: 1 tape, 1 set whole, 0 not" in done.stderr
    tape = next(line for line in done.stdout.splitlines() if line.startswith("TP0001L9"))
    assert tape.split()[:4] == ["TP0001L9", "index", "1", "1"]
    assert "it is blank" in done.stdout
    assert "whole" in next(line for line in done.stdout.splitlines() if " etc " in line)
    assert set_id[:8] in tapefs(home, "sets").stdout

    again = tapefs(home, "rebuild")
    assert again.returncode == 1
    assert again.stderr.startswith("tapefs: the catalog of")
    assert again.stderr.count("\n") == 1

    hand_over(theirs.home, rig.home, "TP0001L9", "XX0001L9")
    done = tapefs(home, "import", "XX0001L9")
    assert done.returncode == 0, done.stderr
    assert "whole, imported" in done.stdout
    again = tapefs(home, "import", "XX0001L9")
    assert again.returncode == 0, again.stderr
    assert "nothing new" in again.stdout
    done = tapefs(home, "import", "TP0002L9")
    assert done.returncode == 1
    assert "could not be imported" in done.stderr
    done = tapefs(home, "rebuild", "TP0001L9")
    assert done.returncode == 0, done.stderr
    assert "nothing new" in done.stdout
    listed = tapefs(home, "sets").stdout
    assert "nightly" in listed
    assert "etc" in listed

    # What a stranger's tape holds gains no rights here unless it is asked for.
    for option, mode in (((), 0o755), (("--special",), 0o4755)):
        target = tmp_path / f"out{mode:o}"
        done = tapefs(home, "restore", "nightly", "--to", str(target), *option)
        assert ("set-id bits" in done.stderr) is (mode == 0o755)
        assert Path(f"{target}{program}").stat().st_mode & 0o7777 == mode
