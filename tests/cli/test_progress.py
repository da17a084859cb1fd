"""Progress where no terminal is."""

from __future__ import annotations

import pytest

from tapefs.cli import progress
from tapefs.cli.progress import reporting


def test_lines_come_once_a_second_and_what_is_not_new_once_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now_s = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now_s)
    with reporting("backup") as reporter:
        for second in range(130):
            now_s = 100.0 + second
            reporter.update(0, None, "waits for a drive" if second > 3 else f"{second} files")
    told = [line.partition(", ")[0] for line in capsys.readouterr().err.splitlines()]
    assert told == [f"backup: {second} s" for second in (1, 2, 3, 4, 64, 124)]
