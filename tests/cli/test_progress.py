"""Progress where no terminal is."""

from __future__ import annotations

import io
import re
import sys

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


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [40, 80, 132])
def test_a_narrow_terminal_shortens_what_is_said_not_who_says_it(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    with reporting("backup") as reporter:
        reporter.update(1, 2, "18 files, 220.5 KiB read, at /usr/share/X11/locale/" + 200 * "x")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", plain) if "files" in line]
    assert lines
    for line in lines:
        assert re.match(r"backup .+ \d:\d\d:\d\d 18 files", line), line
        assert len(line) <= columns
