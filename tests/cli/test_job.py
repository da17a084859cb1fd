"""`tapefs job` with real sidecars: what it records, and what it refuses in one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.forking import client


def run(*arguments: str) -> tuple[int, str, str]:
    ended = client.run("-m", "tapefs", *arguments, cwd=Path.cwd(), timeout=60)
    return ended.returncode, ended.stdout.strip(), ended.stderr.strip()


def done(*arguments: str) -> str:
    code, out, err = run(*arguments)
    assert code == 0, err
    return out


def refused(*arguments: str) -> tuple[int, str]:
    code, out, err = run(*arguments)
    assert code in (1, 2), (out, err)
    assert out == ""
    assert err.startswith("tapefs: ")
    assert "\n" not in err
    return code, err


@pytest.fixture
def tree(home, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/keep.txt").write_text("kept")
    (tmp_path / "tree/drop.o").write_text("dropped")
    return tmp_path / "tree"


def test_the_life_of_a_job(tree, tmp_path):
    number = done("job", "create", str(tree), "--name", "docs", "--exclude", "*.o", "--retention-days", "30")
    job = json.loads(done("job", "show", "docs", "--json"))
    assert (job["number"], job["state"], job["runs"]) == (int(number), "pending", 0)
    assert (job["sources"], job["excludes"], job["retention_days"]) == ([str(tree)], ["*.o"], 30)
    assert (job.pop("drive"), job.pop("buffer")) == (None, None)
    assert json.loads(done("job", "list", "--json")) == [job]
    assert re.search(r"^excludes +\*\.o$", done("job", "show", "docs"), re.M)

    set_id = done("job", "run", number).splitlines()[-1]
    assert done("ls", f"{set_id}:{str(tree)[1:]}").endswith("keep.txt")
    assert "drop.o" not in done("ls", f"{set_id}:{str(tree)[1:]}")

    done("job", "edit", "docs", "--no-exclude", "--level", "9", "--name", "papers", "--description", "of the house")
    job = json.loads(done("job", "show", number, "--json"))
    assert (job["name"], job["excludes"], job["level"], job["retention_days"]) == ("papers", [], 9, 30)
    assert (job["state"], job["set_id"]) == ("completed", set_id)
    assert "of the house" in done("job", "show", number)
    second = done("job", "run", "papers").splitlines()[-1]
    assert "drop.o" in done("ls", f"{second}:{str(tree)[1:]}")

    done("job", "delete", number)
    assert done("jobs", "--json") == "[]"
    assert {each["set_id"] for each in json.loads(done("sets", "--json"))} == {set_id, second}
    assert int(done("job", "create", str(tree))) == int(number) + 1


def test_options_that_leave_out(tree, tmp_path):
    (tmp_path / "patterns").write_text("# objects\r\n\r\n*.o\r\n\\#x\r\n", newline="")
    options = ("--exclude", "a b", "--exclude-from", str(tmp_path / "patterns"), "--exclude-caches")
    options += ("--one-file-system", "--min-size", "1", "--max-size", "2MiB", "--newer", "2d", "--older", "0")
    number = done("job", "create", str(tree), *options)
    job = json.loads(done("job", "show", number, "--json"))
    expected = {"excludes": ["a b", "*.o", "\\#x"], "exclude_caches": True, "one_file_system": True, "min_bytes": 1}
    expected |= {"max_bytes": 2 * 1024**2, "max_age_s": 172_800, "min_age_s": 0}
    assert {key: job[key] for key in expected} == expected
    done("job", "edit", number, "--no-exclude-caches", "--all-file-systems", "--max-size", "0")
    job = json.loads(done("job", "show", number, "--json"))
    assert (job["exclude_caches"], job["one_file_system"], job["max_bytes"], job["min_bytes"]) == (False, False, 0, 1)
    assert "no file would be left" in refused("job", "edit", number, "--min-size", "2k", "--max-size", "1k")[1]
    assert "--exclude [a: matches nothing: its bracket" in refused("job", "edit", number, "--exclude", "[a")[1]
    (tmp_path / "patterns").write_bytes(b"ok\n!/\n")
    assert (
        "patterns:2 !/: matches nothing: it names nothing"
        in refused("backup", str(tree), "--exclude-from", str(tmp_path / "patterns"))[1]
    )
    (tmp_path / "patterns").write_bytes(b"ok\n\xff\n")
    assert (
        "patterns:2 \\xff: not UTF-8" in refused("backup", str(tree), "--exclude-from", str(tmp_path / "patterns"))[1]
    )


def test_an_archive_on_two_tapes(home, tree):
    """With one drive: the sidecar changes tapes between reading and writing. Either copy restores the files."""
    code, out, err = run("backup", str(tree), "--type", "archive", "--copies", "2", "--name", "moved")
    assert code == 0, err
    assert err.splitlines()[-1] == "backup: what is on tape was removed from the sources"
    assert list(tree.iterdir()) == []
    shown = json.loads(done("show", out, "--json"))
    assert (shown["type"], len(shown["tapes"])) == ("archive", 2)
    assert "it is an archive" in done("expire", out)
    (segment,) = shown["segment_list"]
    assert [(copy["tape"], copy["state"]) for copy in segment["copies"]] == [("TP0001L9", "good"), ("TP0002L9", "good")]
    assert all(copy["verified_at"] > shown["finished_at"] for copy in segment["copies"])
    header, row = done("sets", "--long").splitlines()
    assert row[header.index("COPIES") :].split() == ["2", "for", "ever", "-", "TP0001L9", "TP0002L9"]
    payload = home.library / "cartridges/TP0001L9" / f"{segment['copies'][0]['header_file'] + 1:05}"
    payload.write_bytes(bytes(byte ^ 1 for byte in payload.read_bytes()))
    done("restore", out, "--to", str(tree.parent / "back"))
    assert (tree.parent / "back" / str(tree)[1:] / "keep.txt").read_text() == "kept"
    assert "only an archive" in refused("backup", str(tree), "--copies", "2")[1]
    assert "must be 0" in refused("job", "create", str(tree), "--type", "archive", "--retention-days", "5")[1]


def test_what_is_refused(tree):
    done("job", "create", str(tree), "--name", "twice")
    done("job", "create", str(tree), "--name", "twice")
    assert refused("job", "run", "twice") == (
        2,
        refused("job", "show", "twice")[1],
    )
    assert "use the number of one of 1 (" in refused("job", "edit", "twice", "--level", "4")[1]
    assert "no job 99" in refused("job", "delete", "99")[1]
    assert "no job never" in refused("job", "run", "never")[1]
    assert refused("job", "edit", "1")[0] == 2
    assert "nothing was backed up" in refused("job", "create", str(tree / "missing"))[1]
    assert "not UTF-8" in refused("job", "edit", "1", "--exclude", b"\xff".decode("utf-8", "surrogateescape"))[1]
    tree.joinpath("gone").write_text("")
    done("job", "edit", "1", "--source", str(tree / "gone"))
    tree.joinpath("gone").unlink()
    assert "there is no" in refused("job", "run", "1")[1]
    assert [job["runs"] for job in json.loads(done("job", "list", "--json"))] == [0, 0]


def test_what_to_do_when_no_tape_has_room(home, tree):
    """The sentence names the tape that is wanted, and the command that goes on when it is there."""
    for code in ("TP0001L9", "TP0002L9", "TP0003L9", "TP0004L9"):
        run("library", "protect", code)
    said = refused("backup", str(tree), "--name", "docs")[1]
    assert "no tape with room is left" in said
    assert said.count("`tapefs job resume 1` goes on with it") == 1
    added = done("library", "add")
    set_id = done("job", "resume", "1").splitlines()[-1]
    assert json.loads(done("show", set_id, "--json"))["tapes"] == [added]
