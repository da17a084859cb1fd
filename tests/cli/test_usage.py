"""Wrong usage exits 2, what fails exits 1, both with one line on stderr that says what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import ModuleType

import click
import pytest

from catalog.errors import Damaged, LedgerDamaged, NoIndex, OtherIndexVersion, StorageFailed
from drivers.errors import DeviceFailed
from tapefs import __main__ as entry
from tapefs import __version__
from tapefs.cli import COMMANDS, SECTIONS, exits, group
from tapefs.errors import HomeInUse, NoTape, SourceError, UsageError


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("sets", "--nonsense"),
        ("sets", "surplus"),
        ("show",),
        ("job",),
        ("tape",),
        ("taf",),
        ("ls",),
        ("backup",),
        ("backup", "/usr", "--level", "0"),
        ("backup", "/usr", "--codec", "rar"),
        ("backup", "/usr", "--level", "20"),
        ("backup", "/usr", "--level", "full"),
        ("backup", "/usr", "--codec", "pgzip", "--level", "10"),
        ("backup", "/usr", "--codec", "tar", "--level", "1"),
        ("backup", "/usr", "--threads", "-1"),
        ("backup", "/usr", "--type", "half"),
        ("backup", "/usr", "--name", "a/b"),
        ("backup", "/usr", "--name", "a:b"),
        ("backup", "/usr", "--name", ".."),
        ("backup", "/usr", "--name", "line\nbreak"),
        ("backup", "/usr", "--name", "x" * 256),
        ("restore", "docs"),
        ("mount",),
        ("serve", "--listen", "8080"),
        ("serve", "--listen", "localhost:99999"),
        ("evict",),
        ("evict", "docs", "--all"),
        ("stage",),
        ("stage", "docs", "--pin", "soon"),
        ("stage", "docs", "--pin", "0"),
        ("stage", "docs", "--reason", "why"),
        ("unpin",),
        ("unpin", "1", "--all"),
        ("init", "--tapes", "0"),
        ("init", "--drives", "none"),
        ("init", "--generation", "lto4"),
        ("init", "--motion", "fast"),
        ("init", "--motion", "scaled:0"),
        ("init", "--tape-size", "2GXB"),
        ("init", "--tape-size", "-1"),
        ("init", "--tape-size", "15MiB"),
        ("--home",),
    ],
)
def test_wrong_usage(tapefs, home_path, arguments):
    outcome = tapefs(*arguments)
    assert outcome.code == 2
    assert outcome.out == ""
    assert "--help`" in outcome.one_line()
    assert not home_path.exists()


@pytest.mark.parametrize(
    "command", [name for name in COMMANDS if name not in ("completion", "doctor", "init", "plan", "taf", "version")]
)
def test_without_a_state_folder(tapefs, home_path, command):
    arguments = {
        "show": ["docs"],
        "audit": ["show"],
        "catalog": ["backup", "/tmp/x"],
        "key": ["list"],
        "ls": ["docs"],
        "pool": ["list"],
        "token": ["list"],
        "schedule": ["list"],
        "user": ["list"],
        "vault": ["list"],
        "notify": ["list"],
        "explain": ["docs"],
        "find": ["*"],
        "versions": ["/a"],
        "stage": ["docs"],
        "evict": ["--all"],
        "unpin": ["--all"],
        "verify": ["--all"],
        "report": ["docs"],
        "backup": ["/usr"],
        "mount": ["/mnt"],
        "job": ["list"],
        "tape": ["inserted"],
        "library": ["ports", "1"],
        "import": ["TP0001L9"],
        "reclaim": ["TP0001L9"],
        "restore": ["docs", "--to", "/tmp/x"],
    }
    outcome = tapefs(command, *arguments.get(command, []))
    assert outcome.code == 1
    assert f"`tapefs --home {home_path} init`" in outcome.one_line()


def test_a_state_folder_of_another_version(tapefs, home):
    text = (home.path / "tapefs.toml").read_text()
    (home.path / "tapefs.toml").write_text(text.replace("format = 1", "format = 7"))
    outcome = tapefs("sets")
    assert outcome.code == 1
    assert "has layout 7" in outcome.one_line()


@pytest.mark.parametrize("text", ["format = 1\n[library]\ncolour = 1\n", "format = 1\n[", "nothing"])
def test_settings_that_make_no_sense(tapefs, home, text):
    (home.path / "tapefs.toml").write_text(text)
    outcome = tapefs("sets")
    assert outcome.code == 1
    assert str(home.path) in outcome.one_line()


def test_the_option_goes_before_the_variable(tapefs, home, tmp_path):
    assert tapefs("sets").code == 0
    assert str(tmp_path / "other") in tapefs("--home", str(tmp_path / "other"), "sets").one_line()


def test_help_names_every_command(tapefs):
    outcome = tapefs("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert f"\n  {command} " in outcome.out
        assert tapefs(command, "--help").code == 0


def test_version(tapefs):
    assert tapefs("version").out == f"tapefs {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("no"), 2, "no"),
        (HomeInUse("owned by\n another"), 1, "owned by another"),
        (SourceError("gone"), 1, "gone"),
        (NoTape("no tape"), 1, "no tape"),
        (DeviceFailed("smoke"), 1, "smoke"),
        (Damaged("bad", "row 1"), 1, "bad (row 1)"),
        (
            LedgerDamaged("bad", "data.mdb"),
            1,
            "bad (data.mdb); `tapefs catalog restore` brings it back from a copy, `tapefs rebuild` from the tapes"
            " alone: see docs/rebuild.md",
        ),
        (NoIndex("no index"), 1, "no index; `tapefs check --repair` makes it anew"),
        (OtherIndexVersion("layout 2"), 1, "layout 2; `tapefs check --repair` makes it anew"),
        (StorageFailed("full", retryable=True), 1, "full"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (
            UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"),
            2,
            "a\\xff is not UTF-8: only paths of files may be any bytes",
        ),
    ],
)
def test_every_expected_error_is_one_line(capsys, error, code, line):
    assert exits.report(error) == code
    assert capsys.readouterr().err == f"tapefs: {line}\n"


def test_a_bug_keeps_its_traceback():
    for error in (ZeroDivisionError(), UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)")):
        with pytest.raises(type(error)):
            exits.report(error)


def test_a_reader_that_has_seen_enough(home):
    """`tapefs tapes | head -1`: no traceback, whatever was still to be printed."""
    command = subprocess.Popen(
        [sys.executable, "-m", "tapefs", "tapes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    _, errors = command.communicate(timeout=60)
    assert errors == b""
    assert command.returncode == 1


def test_names_are_printed_in_any_locale(home, tmp_path):
    """The C locale of cron and of bare containers."""
    environment = {"PATH": os.environ["PATH"], "TAPEFS_HOME": str(home.path), "LC_ALL": "C"}
    done = subprocess.run([sys.executable, "-m", "tapefs", "ls", "é\udcff"], env=environment, capture_output=True)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"tapefs: there is no set")


def test_every_command_says_what_it_does_on_one_line(tapefs):
    """In 80 columns, section by section; no text is cut."""
    text = tapefs("--help").out
    assert [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "] == ["Options", *SECTIONS]
    listed = text.partition("\nBegin:\n")[2].splitlines()
    assert [line.split()[0] for line in listed if line.startswith("  ")] == list(COMMANDS)
    assert all(re.fullmatch(r"  [a-z]+ +[A-Z].*[.?]", line) for line in listed if line.startswith("  "))
    assert not any(line.endswith("...") or len(line) > 80 for line in listed)


@pytest.mark.parametrize(
    "family", [name for name in COMMANDS if isinstance(group.get_command(click.Context(group), name), click.Group)]
)
def test_every_subcommand_says_what_it_does_on_one_line(tapefs, family):
    listed = tapefs(family, "--help").out.partition("\nCommands:\n")[2].splitlines()
    assert listed
    assert all(re.fullmatch(r"  [a-z-]+ +[A-Z].*[^.]\.|  [a-z-]+ +[A-Z].*\?", line) for line in listed)


def test_a_catalog_that_is_lost_names_the_way_out(tapefs, home):
    """Whoever has lost it has not read the documents that say so."""
    (home.ledger / "data.mdb").write_bytes(b"\x01" * 20_000)
    assert "`tapefs rebuild`" in tapefs("sets").one_line()
    (home.ledger / "data.mdb").unlink()
    assert "`tapefs rebuild`" in tapefs("sets").one_line()


def test_an_interrupt_while_the_command_is_still_being_imported(monkeypatch):
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    unfinished = ModuleType("tapefs.cli")
    unfinished.__getattr__ = interrupt  # type: ignore[method-assign]
    monkeypatch.setitem(sys.modules, "tapefs.cli", unfinished)
    with pytest.raises(SystemExit, match="tapefs: interrupted"):
        entry.main()
