"""`tapefs find` and `tapefs versions` as people and scripts see them."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tapefs.cli.find import _print
from tests.vfs.shelf import STARTED_NS, Shelf

DAY_NS = 86_400 * 10**9
FIRST, SECOND = "jobs/docs/2026-11-23T020000Z", "jobs/docs/2026-11-24T020000Z"


@pytest.fixture
def tree(tmp_path, home_path):
    """A tree that is in two sets, the second of which has a longer file and a name less."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "plain.txt").write_text("hello")
    (root / "sub/Deep.TXT").write_text("x" * 2000)
    (root / "two\nlines.txt").write_text("")
    with open(os.fsencode(root) + b"/caf\xe9", "wb") as file:
        file.write(b"latin")
    shelf = Shelf(home_path)
    shelf.add_set(root)
    (root / "plain.txt").write_text("hello again")
    os.unlink(os.fsencode(root) + b"/caf\xe9")
    shelf.add_set(root, started_at_ns=STARTED_NS + DAY_NS)
    shelf.close()
    return root


@pytest.fixture
def find(tapefs, home_path, tree):
    def call(*arguments):
        outcome = tapefs("--home", str(home_path), "find", *arguments)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out

    return call


def test_paths_below_the_mount(find, tree):
    assert find("plain.txt") == f"{SECOND}{tree}/plain.txt\n"
    assert find("*.txt", "-i").count("\n") == 4
    assert find("caf*") == f"{FIRST}{tree}/caf\udce9\n"
    assert find("nothing") == ""
    assert find("two*", "-0") == f"{SECOND}{tree}/two\nlines.txt\0"


def test_conditions(find, tree):
    assert find("*", "--size", "+1KiB") == f"{SECOND}{tree}/sub/Deep.TXT\n"
    assert find("*", "--size", "+5", "--size", "-12") == f"{SECOND}{tree}/plain.txt\n"
    assert find("*", "--size", "5", "--job", "docs").splitlines() == [
        f"{FIRST}{tree}/caf\udce9",
        f"{FIRST}{tree}/plain.txt",
    ]
    assert find("sub", "--type", "d") == f"{SECOND}{tree}/sub\n"
    assert find("plain.txt", "--until", "2026-11-23T12:00:00+00:00") == f"{FIRST}{tree}/plain.txt\n"
    assert find("caf*", "--since", "2026-11-23T12:00:00+00:00") == ""
    assert find("caf*", "--set", "docs") == ""
    assert find("--path", "tree/sub/*") == f"{SECOND}{tree}/sub/Deep.TXT\n"
    assert find("--regex", "^pl.*t$") == f"{SECOND}{tree}/plain.txt\n"


def test_versions_and_attributes(find, tree):
    assert find("plain.txt", "--all").splitlines() == [f"{SECOND}{tree}/plain.txt", f"{FIRST}{tree}/plain.txt"]
    line = find("plain.txt", "--long").split()
    assert (line[0], line[2], line[-2], line[-1]) == ("-rw-r--r--", "11", "2", f"{SECOND}{tree}/plain.txt")
    (found,) = json.loads(find("caf*", "--json"))
    assert (found["mount_path"], found["size"], found["job"]) == (f"{FIRST}{tree}/caf\ufffd", 5, "docs")
    assert found["path_b64"]
    assert json.loads(find("nothing", "--json")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("*", "--size", "+x"), "is no size"),
        (("*", "--since", "30min"), "neither an age"),
        (("*", "--type", "x"), "Invalid value for '--type'"),
        (("*", "-0", "--json"), "-0 prints paths only"),
        (("(", "--regex"), "is no pattern"),
        (("",), "a pattern is not empty"),
    ],
)
def test_wrong_usage(tapefs, home_path, tree, arguments, words):
    outcome = tapefs("--home", str(home_path), "find", *arguments)
    assert outcome.code == 2
    assert words in outcome.one_line()


def test_every_version_of_a_path(tapefs, home_path, tree):
    outcome = tapefs("--home", str(home_path), "versions", f"{tree}/plain.txt")
    rows = [line.split() for line in outcome.out.splitlines()]
    assert [row[0] for row in rows] == ["SET", "docs/2026-11-23T020000Z", "docs/2026-11-24T020000Z"]
    assert rows[2][5] == "changed"
    outcome = tapefs("--home", str(home_path), "versions", "--json", f"{tree}/caf\udce9")
    first, gone = json.loads(outcome.out)
    assert (first["gone"], first["sha256"][:4], gone["gone"]) == (False, "84cb", True)
    outcome = tapefs("--home", str(home_path), "versions", "/no/such")
    assert outcome.code == 1
    assert "no set has '/no/such'" in outcome.one_line()


def test_on_a_terminal_nothing_is_said_to_be_nothing(monkeypatch, capsys):
    """Scripts get no line for no name; people would wonder."""
    _print(iter(()), b"\n")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _print(iter((b"one",)), b"\n")
    assert capsys.readouterr() == ("one\n", "")
    _print(iter(()), b"\n")
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "'*PART*'" in err) == ("", 1, True)
