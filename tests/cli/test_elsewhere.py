"""Commands that ask a sidecar elsewhere: over TLS with a token from a file, and what works only beside the home."""

from __future__ import annotations

import io
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from tapefs.cli import run
from tapefs.cli.fetching import _Pipe
from tests.cli.conftest import Outcome
from tests.client.test_real import ODD, Site, site  # noqa: F401 -- a fixture

Tapefs = Callable[..., Outcome]


@pytest.fixture
def there(site: Site, tapefs: Tapefs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tapefs:  # noqa: F811
    """Run a command at the sidecar's address, with nothing of its state folder but its certificate."""
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text(f"{site.rig.token}\n")
    monkeypatch.setenv("TAPEFS_CA", str(site.certificate))
    monkeypatch.setenv("TAPEFS_HOME", str(tmp_path / "no-home"))

    def call(*arguments: str, code: int = 0) -> Outcome:
        outcome = tapefs("--url", site.url, "--token-file", str(token), *arguments)
        assert outcome.code == code, outcome.err
        assert site.rig.token not in outcome.out + outcome.err
        return outcome

    return call


def test_listings(there: Tapefs, tapefs: Tapefs, site: Site) -> None:  # noqa: F811
    """They tell what those beside the state folder do."""
    home = ("--home", str(site.rig.home.path))
    [listed] = json.loads(there("sets", "--json").out)
    [known] = json.loads(tapefs(*home, "sets", "--json").out)
    assert listed == known
    assert there("sets", "--long").out == tapefs(*home, "sets", "--long").out
    assert there("jobs").out == tapefs(*home, "jobs").out
    assert json.loads(there("jobs", "--json").out)[0]["name"] == "data"
    assert json.loads(there("job", "show", "data", "--json").out)["state"] == "completed"
    for name in ("data", "data/latest", known["set_id"], known["set_id"][:8]):
        shown = there("show", name).out
        assert known["set_id"] in shown
        assert "TP0001L9:" in shown
    assert "there is no set nothing" in there("show", "nothing", code=1).one_line()
    target = f"data:{site.tree}"
    names = [line.split(" ")[-1] for line in there("ls", target).out.splitlines()]
    assert names == [line.split(" ")[-1] for line in tapefs(*home, "ls", target).out.splitlines()]
    assert there("find", "te?t", "--size", "+1k").out == tapefs(*home, "find", "te?t", "--size", "+1k").out
    assert there("find", "*txt", "--long").out == tapefs(*home, "find", "*txt", "--long").out
    for options in ((), ("--long",), ("--json",)):
        asked = ("versions", f"{site.tree}/text", *options)
        assert there(*asked).out == tapefs(*home, *asked).out
    assert "no set has" in there("versions", "/nowhere", code=1).err
    assert "TP0001L9" in there("tapes").out
    assert "drive0" in there("drives").out
    assert there("prompts").code == 0


def test_a_backup_and_a_restore(there: Tapefs, site: Site, tmp_path: Path) -> None:  # noqa: F811
    """What it reads is on its own machine; what comes back comes to this one, as it was."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "run").write_bytes(os.urandom(300_000))
    (source / "sub" / "run").chmod(0o4750)
    (source / "link").symlink_to("sub/run")
    os.utime(source / "sub" / "run", ns=(1_234_567_891, 1_234_567_891))
    done = there("backup", str(source), "--name", "mine")
    site.evict()
    there("restore", done.out.strip(), "--to", str(tmp_path / "back"))
    back = tmp_path / "back" / str(source).lstrip("/")
    assert (back / "sub/run").read_bytes() == (source / "sub/run").read_bytes()
    status = (back / "sub/run").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o4750, 1_234_567_891)
    assert (back / "link").readlink() == Path("sub/run")
    there("restore", "mine", f"{source}/sub/run", "--to", str(tmp_path / "one"), "--no-special", code=1)
    [found] = [path for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert found == tmp_path / "one" / str(source / "sub/run").lstrip("/")
    assert stat.S_IMODE(found.stat().st_mode) == 0o750
    there("restore", "data", "--to", str(tmp_path / "odd"))
    assert os.fsencode(tmp_path / "odd") + os.fsencode(site.tree) + b"/" + ODD in {
        os.fsencode(path) for path in (tmp_path / "odd").rglob("*")
    }
    assert "already there" in there("restore", "mine", "--to", str(tmp_path / "back"), code=1).err
    assert "no" in there("restore", "mine", "/nowhere", "--to", str(tmp_path / "none"), code=1).err
    assert "of its own machine" in there("backup", "source", code=2).one_line()


def test_a_stream(there: Tapefs, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    data = os.urandom(200_000)
    (tmp_path / "in").write_bytes(data)
    with (tmp_path / "in").open("rb") as stream:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(cast("io.BufferedReader", stream)))
        there("backup", "--stdin", "dump.sql")
    there("restore", "dump.sql", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/dump.sql").read_bytes() == data
    assert "exit code 3" in there("backup", "--stdin", "bad", "--command", "--", "sh", "-c", "exit 3", code=1).err


def test_verifications(there: Tapefs, tapefs: Tapefs, site: Site) -> None:  # noqa: F811
    assert "are good" in there("verify", "data", "--again").err
    assert "are good" in there("verify", "TP0001L9", "--again").err
    listed = there("verify", "--list").out
    assert listed == tapefs("--home", str(site.rig.home.path), "verify", "--list").out
    assert listed.splitlines()[0].split()[:4] == ["NUMBER", "STATE", "STARTED", "FINISHED"]
    assert all(" completed " in line for line in listed.splitlines()[1:])
    told = json.loads(there("verify", "--list", "--json").out)
    assert [each["damaged"] for each in told] == [0] * len(told)
    assert len(told) >= 2
    there("verify", "--list", "data", code=2)


def test_retention(there: Tapefs, tapefs: Tapefs, site: Site) -> None:  # noqa: F811
    """What would go is told as beside the state folder, and goes by the same command."""
    home = ("--home", str(site.rig.home.path))
    first, second = (there("backup", str(site.tree), "--name", "short").out.strip() for _ in range(2))
    for options in ((), ("--failed",), (first,), (first[:8], "--json")):
        told, known = there("expire", *options), tapefs(*home, "expire", *options)
        assert (told.out, told.err) == (known.out, known.err)
    assert "no set nothing" in there("expire", "nothing", code=1).one_line()
    gone = json.loads(there("expire", first, "--apply", "--json").out)
    assert [each["set_id"] for each in gone if each["expired"]] == [first]
    assert second in there("sets", "--json").out
    assert first not in there("sets", "--json").out


def test_reports(there: Tapefs, tapefs: Tapefs, site: Site) -> None:  # noqa: F811
    home = ("--home", str(site.rig.home.path))
    for options in (("data",), ("data/latest", "--all"), ("data", "--json"), ("1",)):
        told = there("report", *options).out
        assert told == tapefs(*home, "report", *options).out
        assert "TP0001L9" in told
    assert "no set" in there("report", "nothing", code=1).one_line()
    assert "no set 999" in there("report", "999", code=1).one_line()


def test_checks_and_copies(there: Tapefs, tapefs: Tapefs, site: Site, tmp_path: Path) -> None:  # noqa: F811
    done = there("check")
    assert done.out == ""
    assert done.err.endswith("check: 8 checks, all right\n")
    next(site.rig.home.path.rglob("*.names")).unlink()
    assert "names: " in there("check", "names", code=1).out
    assert json.loads(there("check", "names", "--repair", "--json").out)[0]["repaired"] is True
    assert there("check", "names").err.endswith("check: 1 check, all right\n")
    (tmp_path / "copies").mkdir()
    made = there("catalog", "backup", "--folder", str(tmp_path / "copies"), "--keep", "1").out.strip()
    assert "holds" in there("catalog", "show", made).out
    set_id = there("catalog", "backup", "--to-tape").out.strip()
    listed = there("catalog", "list").out
    assert listed == tapefs("--home", str(site.rig.home.path), "catalog", "list").out
    assert made in listed
    assert set_id in listed
    assert [set_id in str(each) for each in json.loads(there("catalog", "list", "--json").out)] == [True, False]
    assert "--folder" in there("catalog", "backup", "x", code=2).one_line()
    assert "whole path" in there("catalog", "backup", "--folder", "x", code=2).one_line()
    assert there("catalog", "backup", "--folder", "/nowhere/at/all", code=2).err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("pool", "show"), ("pool", "delete"), ("tape", "show"), ("tape", "clean"), ("user", "delete"), ("explain",)],
)
def test_names_that_name_nothing(there: Tapefs, arguments: tuple[str, ...]) -> None:
    """They are refused in a line: what is no text, and what is empty, which would be asked of the whole list."""
    assert "\\xff is not UTF-8" in there(*arguments, "\udcff", code=2).one_line()
    if arguments != ("tape", "show"):
        assert "an empty name" in there(*arguments, "", code=2).one_line()


def test_staging(there: Tapefs, tapefs: Tapefs, site: Site) -> None:  # noqa: F811
    """Whole sets and trees of them come from tape, wherever the command runs; a pin keeps them."""
    home = ("--home", str(site.rig.home.path))
    site.evict()
    one = there("stage", f"data:{site.tree}/text").err
    assert "1 frame staged" in one
    assert "already there" in there("stage", f"data:{site.tree}/text").err
    assert "1 already there" in there("stage", "data").err
    known = json.loads(tapefs(*home, "staging", "--json").out)
    assert known["frames"] > 1
    site.evict()
    assert " keeps " in there("stage", "data", "--pin", "1h", "--reason", "to look at").err
    assert json.loads(tapefs(*home, "staging", "--json").out)["frames"] == known["frames"]
    assert "to look at" in tapefs(*home, "pins").out
    assert "stay, which are open or pinned" in there("evict", "data").err
    assert "no content" in there("stage", f"data:{site.tree}/empty").err
    assert "no set nothing" in there("stage", "nothing", code=1).one_line()
    assert there("stage", "data:/nowhere", code=1).one_line()
    site.evict()


def test_evicting(there: Tapefs, site: Site, tmp_path: Path) -> None:  # noqa: F811
    site.evict()
    assert "nothing was staged" in there("evict", "data").err
    there("restore", "data", "--to", str(tmp_path / "back"))
    assert "freed" in there("evict", "data").err
    assert "nothing was staged" in there("evict", "--all").err
    assert "no set nothing" in there("evict", "nothing", code=1).one_line()


def test_events_and_the_queue(there: Tapefs) -> None:
    there("jobs", "pause")
    assert "is paused" in there("jobs").out
    there("jobs", "resume")
    assert "paused" not in there("jobs").out
    assert len(there("events", "-n", "2").out.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("mount", "/mnt"), ("serve",), ("audit", "show"), ("catalog", "restore", "x"), ("doctor",), ("rebuild",),
        ("key", "list"), ("init",), ("vtl",), ("taf", "import", "/x"), ("staging", "check"),
    ],
)  # fmt: skip
def test_what_works_beside_the_home_only(there: Tapefs, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """It says so, in a line and as bad usage, and makes nothing."""
    refused = there(*arguments, code=2)
    assert "beside the state folder only" in refused.one_line()
    assert not (tmp_path / "no-home").exists()


def test_who_is_asked(site: Site, tapefs: Tapefs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The command line goes before the environment, and a token before none."""
    for arguments in (("--url", site.url, "--home", "/x", "jobs"), ("--token-file", "/x", "jobs")):
        assert tapefs(*arguments).code == 2
    assert "certificate" in tapefs("--url", site.url, "jobs").one_line()
    monkeypatch.setenv("TAPEFS_PIN", site.pin)
    assert tapefs("--url", site.url, "jobs").code == 1
    monkeypatch.setenv("TAPEFS_TOKEN", "tapefs_wrong")
    assert tapefs("--url", site.url, "jobs").code == 1
    (tmp_path / "token").write_text(site.rig.token)
    asked = ("--url", site.url, "--token-file", str(tmp_path / "token"), "jobs")
    (tmp_path / "token").chmod(0o644)
    assert "chmod 600" in tapefs(*asked).one_line()
    (tmp_path / "token").chmod(0o600)
    assert tapefs(*asked).code == 0
    monkeypatch.delenv("TAPEFS_TOKEN")
    monkeypatch.setenv("TAPEFS_URL", site.url)
    monkeypatch.setenv("TAPEFS_TOKEN_FILE", str(tmp_path / "token"))
    assert "data" in tapefs("jobs").out
    assert run(["--home", str(tmp_path / "nowhere"), "jobs"]) == 1
    assert "not sent to" in tapefs("--url", "http://192.0.2.1", "jobs").err
    assert "no token can be read" in tapefs("--url", site.url, "--token-file", "/nowhere", "jobs").one_line()


def test_an_archive_that_breaks_off(there: Tapefs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What came before is there, half a file is not, and the reason is told."""
    take, came = _Pipe.take, 0

    def some(pipe: _Pipe, data: bytes) -> None:
        nonlocal came
        came += len(data)
        if came > 1_500_000:
            raise ConnectionResetError
        take(pipe, data)

    monkeypatch.setattr(_Pipe, "take", some)
    assert "went away" in there("restore", "data", "--to", str(tmp_path / "half"), code=1).err
    assert came > 1_500_000
    names = {path.name for path in (tmp_path / "half").rglob("*") if path.is_file()}
    assert "large" not in names
    assert "empty" in names
