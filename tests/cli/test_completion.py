"""Shells complete commands and options by what `tapefs completion` prints."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tapefs.cli.completion import SHELLS

#: What bash does when somebody presses the tabulator behind these words.
PRESSED = """
source "$1"
COMP_WORDS=({words}) COMP_CWORD={place}
_tapefs_completion tapefs
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize("shell", SHELLS)
def test_it_is_printed(tapefs, shell: str) -> None:
    printed = tapefs("completion", shell).out
    assert "_TAPEFS_COMPLETE" in printed
    assert f"{shell}_complete" in printed


def test_in_bash(tapefs, tmp_path: Path) -> None:
    """Nothing but a program `tapefs` in the path is needed, and no state folder."""
    (tmp_path / "complete.sh").write_text(tapefs("completion", "bash").out)
    program = tmp_path / "tapefs"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m tapefs "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TAPEFS_HOME": "/nowhere"}

    def pressed(words: str) -> list[str]:
        script = PRESSED.format(words=words, place=len(words.split()) - 1)
        command = ["bash", "-c", script, "bash", str(tmp_path / "complete.sh")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()

    assert pressed("tapefs jo") == ["job", "jobs"]
    assert pressed("tapefs job sho") == ["show"]
    assert pressed("tapefs backup --cod") == ["--codec"]
    assert "zstd" in pressed("tapefs backup --codec z")
