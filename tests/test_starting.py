"""What processes load when they start: tens of milliseconds each time, and five times that on a slow machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Libraries that take long to load, and that a start has no need of.
HEAVY = {"apprise", "httpx", "joserfc", "numpy", "psycopg", "requests", "rich", "schemathesis"}
PROGRAM = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
finally:
    print("\\n".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["tapefs.mover", "--help"], set()),
        (["tapefs", "serve"], set()),
        (["tapefs", "mount", "mnt"], {"httpx"}),
        (["tapefs", "jobs"], set()),
        (["tapefs", "backup", "/nowhere"], set()),
    ],
    ids=" ".join,
)
def test_a_start_loads_nothing_heavy(arguments: list[str], allowed: set[str], tmp_path: Path) -> None:
    """Each ends by an error behind its imports: there is no state folder."""
    home = [arguments[0], "--home", str(tmp_path / "none"), *arguments[1:]] if arguments[0] == "tapefs" else arguments
    done = subprocess.run([sys.executable, "-c", PROGRAM, *home], capture_output=True, text=True, cwd=ROOT)
    loaded = set(done.stderr.split())
    assert "tapefs.errors" in loaded
    assert loaded & HEAVY == allowed


def test_streams_that_are_closed_lead_nowhere(tmp_path: Path) -> None:
    """Else the first file that is opened, perhaps a tape of the virtual library, gets what is printed."""
    program = """
import os
from tapefs.__main__ import open_streams
open_streams()
print("lost")
assert [os.readlink(f"/proc/self/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
assert os.system("test -e /proc/self/fd/0 -a -e /proc/self/fd/1 -a -e /proc/self/fd/2") == 0
assert os.open("file", os.O_CREAT) > 2
"""
    script = 'exec "$0" -c "$1" <&- >&- 2>&-'
    command = ["sh", "-c", script, sys.executable, program]
    assert subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}).returncode == 0
