"""Whichever writing call fails: what was acknowledged is on tape and equal, else there is a clear error.

The next run works, be it a new one or the same, resumed.

Here every seventeenth call is tried, another set of them for each kind of fault; `scripts/sweep-failures` tries all.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from catalog.errors import StorageFailed
from catalog.ids import SetId
from catalog.index import storage
from catalog.index.writer import IndexWriter
from tests.faults.nth_call import KINDS, build

ROOT = Path(__file__).parents[2]
STEP = 17


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    return build(tmp_path_factory.mktemp("library"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_writing_call_fails(kind: str, library: Path, tmp_path: Path) -> None:
    first = 1 + 3 * list(KINDS).index(kind)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.sweep", str(tmp_path), kind, str(first), str(STEP), "1000"],
        env={**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [each for each in results if "wrong" in each] == []
    # The last one was clean, the others were struck, and some of them came to their end all the same.
    assert [bool(each["struck"]) for each in results] == [True] * (len(results) - 1) + [False]
    assert len(results) > 5
    assert any(each["error"] for each in results)
    # Which of the calls are tried depends on how many there are: of a kind that seldom fails not all ends are seen.
    then = {each["then"] for each in results}
    assert "was done" in then
    assert then & {"ran anew", "went on", "was finished"}


def test_an_index_that_cannot_be_emptied_lets_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lock would make the next try say that somebody else is writing it."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    set_id = SetId("00000000-0000-0000-0000-000000000001")
    with monkeypatch.context() as patched:
        patched.setattr(storage.os, "truncate", fail)
        with pytest.raises(StorageFailed, match="Input/output"):
            IndexWriter(tmp_path / "x.lmdb", set_id)
    with IndexWriter(tmp_path / "x.lmdb", set_id):
        pass
