"""The command `scripts/compare`: a real folder is equal all ways, and whatever is not equal is told."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.compare import there_and_back
from tests.compare.__main__ import main
from tests.compare.there_and_back import WAYS, Archived, Way
from tests.compare.ways_back import extract

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can restore everything"),
]

#: Programs and documents that most machines have, some 1,000 files and 20 MB; the first that there is.
REAL = ["/usr/share/perl", "/usr/lib/git-core", "/usr/share/zoneinfo", "/usr/lib/python3", "/usr/include"]
MIB = 1024**2


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def row(result: Result, name: str) -> list[str]:
    """Return the numbers of a line of the table, one for each way."""
    (line,) = (line for line in result.output.splitlines() if line.startswith(f"| {name} "))
    return [word.strip() for word in line.strip("|").split("|")][1:]


def wrong(result: Result) -> dict[str, list[str]]:
    """Return the lines of the table that are not all zero."""
    names = re.findall(r"^\| ([a-z][^|]*?) +\|", result.output, re.MULTILINE)
    told = {name: row(result, name) for name in names[1 : names.index("names compared")]}
    return {name: numbers for name, numbers in told.items() if set(numbers) != {"0"}}


def test_a_folder_of_this_machine():
    source = next(filter(os.path.isdir, REAL), None)
    if source is None:
        pytest.skip("this machine has none of the folders that are compared")
    result = run(source)
    assert result.exit_code == 0, result.output
    assert wrong(result) == {}
    assert "names missing" in result.output
    assert int(row(result, "names compared")[0].replace(",", "")) > 100


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/large").write_bytes(random.Random(1).randbytes(5 * MIB))
    for name in ("a", "b", "gone"):
        (folder / name).write_text(name)
    os.link(folder / "a", folder / "z")
    return folder


def test_parts_and_links_between_segments_are_counted_apart(source):
    """`large` and its folder lose their times to `cat`, and the two names of a file lie in two segments."""
    result = run(source, "--segment-bytes", 2 * MIB)
    assert result.exit_code == 0, result.output
    assert wrong(result) == {}
    restored, mounted, by_tar = row(result, "explained by docs/format.md")
    assert (restored, mounted) == ("0", "0")
    assert int(by_tar) >= 2


def only(monkeypatch: pytest.MonkeyPatch, way: Way) -> None:
    """Make this the only way back."""
    for title in list(WAYS):
        monkeypatch.delitem(WAYS, title)
    monkeypatch.setitem(WAYS, "bent", way)


def test_what_differs_is_told(source, monkeypatch):
    def bent(archived: Archived, scratch: Path):
        top = Path(f"{extract(archived.payloads, scratch)}{source}")
        (top / "a").chmod(0o751)
        (top / "gone").unlink()
        return there_and_back.compared(archived, scratch), []

    only(monkeypatch, bent)
    result = run(source)
    assert result.exit_code == 1, result.output
    # `a` has another name, and a folder that something is removed from has another time.
    assert wrong(result) == {
        "names missing": ["1"],
        "mode": ["2"],
        "time, ns": ["1"],
    }
    assert f"bent: {os.fsencode(source / 'gone')!r}: missing" in result.output


def test_a_way_that_gives_nothing_is_told(source, monkeypatch):
    only(monkeypatch, lambda archived, scratch: (there_and_back.compared(archived, scratch), []))
    result = run(source)
    assert (result.exit_code, row(result, "names missing")) == (1, ["7"]), result.output


def test_what_somebody_changes_meanwhile_is_left_out_and_told(source, monkeypatch):
    def changing(archived: Archived, scratch: Path):
        (source / "b").write_text("changed")
        extract(archived.payloads, scratch)
        (Path(f"{scratch}{source}") / "b").write_text("changed, too")
        return there_and_back.compared(archived, scratch), []

    only(monkeypatch, changing)
    result = run(source)
    assert result.exit_code == 0, result.output
    assert f"changed meanwhile, not compared: {str(source / 'b')!r}" in result.output


def test_folders_that_cannot_be_compared(source, monkeypatch):
    for arguments, what in (
        ((source, source), "twice"),
        ((source, source / "inner"), "twice"),
        (("/",), "set TMPDIR"),
        ((source / "a",), "is a file"),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert what in result.output
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "become root" in run(source).output
