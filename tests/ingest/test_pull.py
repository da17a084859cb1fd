"""Pulling by a real rsync; in the place of ssh stands a program that runs the other end here, and can fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.ingest.conftest import Site


class Elsewhere:
    """Another machine: `ssh HOST rsync --server …` runs here; it fails as often as a file says."""

    def __init__(self, folder: Path) -> None:
        self.failures = folder / "failures"
        self.failures.write_text("")
        self.program = folder / "rsh"
        self.program.write_text(
            f"""#!{sys.executable}
import os, pathlib, sys
left = pathlib.Path({str(self.failures)!r})
if left.read_text():
    left.write_text(left.read_text()[1:])
    print("no route to host", file=sys.stderr)
    sys.exit(255)
command = sys.argv[sys.argv.index("elsewhere") + 1 :]
os.execvp(command[0], command)
"""
        )
        self.program.chmod(0o755)

    def fail(self, times: int) -> None:
        self.failures.write_text("x" * times)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path)


def listing(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "sources"
    path.write_text("# what is pulled\n\n" + "\n".join(lines) + "\n")
    return path


def test_each_source_by_itself(site: Site, tmp_path: Path, elsewhere: Elsewhere) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    for folder in (there, here):
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "a").write_text(f"of {folder.name}")
    os.setxattr(there / "deep" / "a", "user.note", b"kept")
    (tmp_path / "empty").mkdir()
    sources = listing(
        tmp_path, f"mail root@elsewhere:{there}", f"elsewhere:{tmp_path}/nothing", f"{here}", f"{tmp_path}/empty"
    )
    arguments = (sources, "--spool", tmp_path / "spool", "--rsh", elsewhere.program, "--tries", 2)
    elsewhere.fail(1)
    lines = site.run("pull", *arguments, code=1)
    assert [line["ok"] for line in lines] == [True, False, True, False]
    assert "empty" in lines[3]["error"]
    assert (lines[0]["name"], lines[0]["rsync"], lines[1]["rsync"]) == ("mail", 0, 23)
    spooled = tmp_path / "spool" / "mail" / "deep" / "a"
    assert spooled.read_text() == "of there"
    assert os.getxattr(spooled, "user.note") == b"kept"
    assert site.get(f"jobs/mail/latest{spooled}", tmp_path / "back") == b"of there"
    # The next one builds on it, and knows what has gone.
    (there / "b").write_text("new")
    (there / "deep" / "a").unlink()
    [line] = site.run("pull", listing(tmp_path, f"mail elsewhere:{there}"), *arguments[1:])
    assert line["job"] == lines[0]["job"]
    names = {entry.name for entry in site.client.folder(f"jobs/mail/latest{tmp_path}/spool/mail")}
    assert names == {"b", "deep"}
    assert site.client.folder(f"jobs/mail/latest{tmp_path}/spool/mail/deep") == []


def test_nothing_is_taken_from_a_pull_that_failed(site: Site, tmp_path: Path, elsewhere: Elsewhere) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "a").write_text("first")
    sources = listing(tmp_path, f"safe elsewhere:{there}")
    arguments = (sources, "--spool", tmp_path / "spool", "--rsh", elsewhere.program, "--tries", 2)
    [good] = site.run("pull", *arguments)
    (there / "a").write_text("second")
    elsewhere.fail(2)
    [failed] = site.run("pull", *arguments, code=1)
    assert not failed["ok"]
    assert failed["rsync"] in (12, 255), "of ssh, or that the connection has ended"
    (there / "a").unlink()
    [empty] = site.run("pull", *arguments, code=1)
    assert "empty" in empty["error"]
    assert (tmp_path / "spool" / "safe" / "a").read_text() == "first", "an empty listing removes nothing"
    assert site.rig.job(good["job"])["runs"] == 1


@pytest.mark.parametrize("line", ["relative/path", "host:relative", "a/b host:/x", ".. host:/x"])
def test_lines_that_make_no_sense(site: Site, tmp_path: Path, line: str) -> None:
    site.run("pull", listing(tmp_path, line), "--spool", tmp_path / "spool", code=64)


def test_two_sources_of_one_name(site: Site, tmp_path: Path) -> None:
    site.run("pull", listing(tmp_path, "a h:/x", "a h:/y"), "--spool", tmp_path / "spool", code=64)
    assert "two sources" in site.said
