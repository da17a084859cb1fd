"""Many programs at once, some killed, some evictions: `python -m tests.posix.stress` runs thousands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.posix.stress import Stress, Task, stress

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]


def test_every_byte_is_right_and_nothing_hangs(tmp_path: Path) -> None:
    outcome = stress(tmp_path, programs=60, at_once=40, seed=1)
    assert outcome.wrong == []
    assert outcome.ended.total() == 60
    assert outcome.evictions > 5
    assert outcome.bytes_compared > 2_000_000
    assert any("SIGKILL" in word for word in outcome.ended)
    assert any("left alone" in word for word in outcome.ended)


def test_a_wrong_byte_and_a_missing_file_are_seen(tmp_path: Path) -> None:
    for top in ("one", "other"):
        for folder in ("small/a", "medium/a"):
            (tmp_path / top / folder).mkdir(parents=True)
            for number in range(4):
                (tmp_path / top / folder / f"{number}").write_bytes(b"wrong"[: number + 1] if number else b"rights")
    (tmp_path / "targets").mkdir()
    for path in (tmp_path / "other").rglob("0"):
        path.write_bytes(b"right!")
    for path in (tmp_path / "other").rglob("1"):
        path.unlink()
        path.symlink_to("0")
    work = Stress(tmp_path / "one", tmp_path / "other", tmp_path / "targets", seed=1)
    work.run(programs=40, at_once=4)
    assert any("byte 5 is" in line and line.startswith("['cp'") for line in work.outcome.wrong)
    assert any(line.startswith("['cat'") for line in work.outcome.wrong)
    assert any(line.startswith("['rsync'") for line in work.outcome.wrong)
    work = Stress(tmp_path / "one", tmp_path / "none", tmp_path / "targets", seed=2)
    work.run(programs=10, at_once=4)
    assert any("ended with 1" in line for line in work.outcome.wrong)


def test_a_program_that_hangs_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for top in ("one", "targets"):
        (tmp_path / top / "a/b").mkdir(parents=True)
    (tmp_path / "one/a/b/c").touch()
    work = Stress(tmp_path / "one", tmp_path / "one", tmp_path / "targets", seed=1)
    monkeypatch.setattr("tests.posix.stress._DONE_S", 0.2)
    monkeypatch.setattr(work, "_task", lambda printed, target: Task(["sleep", "100"], printed))
    work.run(programs=1, at_once=1)
    assert ["sleep" in line and "hangs" in line for line in work.outcome.wrong] == [True]
