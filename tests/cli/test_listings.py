"""What the listings show, as JSON for scripts and as tables for people."""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
from contextlib import closing

import msgspec
import pytest

from tapefs.cli.library import DriveCounters, DriveReport
from tapefs.cli.output import short_ids
from tapefs.staging.trees import FrameRuns, add_set
from tapefs.vfs.archive import Archive
from tests.vfs.shelf import FRAME_BYTES, LABEL, Shelf

SET_KEYS = {"set_id", "name", "type", "state", "started_at", "finished_at", "files", "bytes", "stored_bytes"}
SET_KEYS |= {"segments", "tapes"}
TAPE_KEYS = {"label", "uuid", "pool", "state", "capacity_bytes", "used_bytes", "sets"}
COUNTERS = {
    "backhitches",
    "underruns",
    "loads",
    "locates",
    "blocks_read",
    "blocks_written",
    "bytes_read",
    "bytes_written",
    "seconds",
}
SECONDS = {"load", "locate", "read", "write", "rewind", "backhitch"}

NOT_UTF8 = b"caf\xe9"


@pytest.fixture
def shelf(home_path):
    shelf = Shelf(home_path)
    yield shelf
    shelf.close()


@pytest.fixture
def tree(tmp_path):
    """A small tree with difficult names."""
    root = tmp_path / "tree"
    (root / "sub").mkdir(parents=True)
    (root / "plain.txt").write_text("hello")
    (root / "sub/deep.txt").write_text("x" * 200_000)
    (root / "link").symlink_to("plain.txt")
    (root / "two\nlines").write_text("")
    with open(os.fsencode(root) + b"/" + NOT_UTF8, "wb") as file:
        file.write(b"latin")
    return root


@pytest.fixture
def backup_set(shelf, tree):
    return shelf.add_set(tree)


def listed(tapefs, *arguments):
    outcome = tapefs(*arguments, "--json")
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_an_empty_archive(tapefs, home):
    assert listed(tapefs, "sets") == []
    assert listed(tapefs, "jobs") == []
    for command in ("sets", "jobs"):
        assert "tapefs backup" in tapefs(command).out


def test_sets(tapefs, shelf, tree, backup_set):
    later = shelf.add_set(tree, name="again", started_at_ns=backup_set.started_at_ns + 10**9)
    running = shelf.add_set(tree, name="broken", complete=False)
    sets = listed(tapefs, "sets")
    assert [each["set_id"] for each in sets] == [backup_set.set_id, later.set_id, running.set_id]
    assert [each["state"] for each in sets] == ["complete", "complete", "running"]
    assert set(sets[0]) >= SET_KEYS
    assert sets[0]["name"] == "docs"
    assert sets[0]["started_at"].startswith("2026-11-23T02:00:00")
    assert sets[0]["files"] == backup_set.files
    assert sets[0]["bytes"] == backup_set.bytes
    assert sets[0]["segments"] == 1
    assert sets[0]["tapes"] == [LABEL]
    assert sets[0]["sources"] == [str(tree)]
    assert sets[2]["finished_at"] is None


def test_sets_for_people(tapefs, backup_set):
    header, line = tapefs("sets").out.splitlines()
    assert header.split()[:4] == ["SET", "NAME", "TYPE", "STATE"]
    assert line.split()[:4] == [backup_set.set_id[:8], "docs", "full", "complete"]
    assert len(line) <= 100


def test_tables_have_as_much_of_the_ids_as_it_takes():
    ids = ["01234567-89ab", "01234567-8cde", "76543210-89ab"]
    assert short_ids(ids[1:]) == {ids[1]: "01234567", ids[2]: "76543210"}
    assert short_ids(ids) == {ids[0]: "01234567-89", ids[1]: "01234567-8c", ids[2]: "76543210-89"}


@pytest.mark.parametrize("name", ["docs", "docs/latest", "docs/2026-11-23T020000Z"])
def test_show(tapefs, shelf, backup_set, name):
    shown = listed(tapefs, "show", name)
    assert set(shown) >= SET_KEYS
    assert shown["set_id"] == backup_set.set_id
    assert shown["folder"] == "jobs/docs/2026-11-23T020000Z"
    (segment,) = shown["segment_list"]
    assert segment["copies"][0]["tape"] == LABEL
    assert segment["copies"][0]["payload_block"] > segment["copies"][0]["header_block"]
    text = tapefs("show", name).out
    assert backup_set.set_id in text
    assert f"{LABEL}:{segment['copies'][0]['header_file'] + 1}" in text


def test_show_by_the_beginning_of_an_id_also_of_a_set_that_is_not_complete(tapefs, shelf, tree, backup_set):
    assert listed(tapefs, "show", backup_set.set_id[:8])["set_id"] == backup_set.set_id
    unfinished = shelf.add_set(tree, complete=False)
    for name in (unfinished.set_id, unfinished.set_id[:8]):
        assert listed(tapefs, "show", name)["state"] == "running"
        assert tapefs("ls", name).code == 1


def test_a_set_that_is_not_there(tapefs, backup_set):
    for command in ("show", "ls", "stage", "evict"):
        outcome = tapefs(command, "nonsense")
        assert outcome.code == 1
        assert "`tapefs sets`" in outcome.one_line()


def test_ls(tapefs, backup_set, tree):
    inside = str(tree).lstrip("/")
    entries = {each["name"]: each for each in listed(tapefs, "ls", f"docs:{inside}")}
    assert list(entries) == [NOT_UTF8.decode(errors="replace"), "link", "plain.txt", "two\nlines", "sub"]
    assert entries["plain.txt"]["type"] == "file"
    assert entries["plain.txt"]["size"] == 5
    assert entries["plain.txt"]["mode"] == f"{(tree / 'plain.txt').stat().st_mode & 0o7777:04o}"
    assert entries["plain.txt"]["mtime_ns"] == (tree / "plain.txt").stat().st_mtime_ns
    assert len(entries["plain.txt"]["parts"]) == 1
    assert "name_b64" not in entries["plain.txt"]
    assert entries["link"]["target"] == "plain.txt"
    assert entries["sub"]["type"] == "directory"
    odd = entries[NOT_UTF8.decode(errors="replace")]
    assert base64.b64decode(odd["name_b64"]) == NOT_UTF8


def test_ls_of_the_root_and_of_one_file(tapefs, backup_set, tree):
    assert [each["name"] for each in listed(tapefs, "ls", "docs")] == [tree.parts[1]]
    assert [each["name"] for each in listed(tapefs, "ls", f"docs:{tree}/plain.txt")] == ["plain.txt"]


def test_ls_in_a_pipe_gives_the_very_bytes(tapefs, backup_set, tree):
    lines = tapefs("ls", f"docs:{tree}").out
    assert os.fsdecode(NOT_UTF8) in lines
    assert "two\nlines" in lines
    assert "link -> plain.txt" in lines


def test_ls_of_every_kind(tapefs, shelf, tmp_path):
    tree = tmp_path / "kinds"
    tree.mkdir()
    (tree / "first").write_text("twice")
    os.link(tree / "first", tree / "second")
    os.setxattr(tree / "first", "user.mine", b"\0value")
    with (tree / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
    subprocess.run(["setfacl", "-m", "u:4242:r,m::r", str(tree / "sparse")], check=True)
    os.mkfifo(tree / "fifo")
    (tree / "folder").mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:4242:r", str(tree / "folder")], check=True)
    os.mknod(tree / "device", stat.S_IFBLK | 0o600, os.makedev(7, 42)) if os.geteuid() == 0 else None
    shelf.add_set(tree, name="kinds")
    entries = {each["name"]: each for each in listed(tapefs, "ls", f"kinds:{tree}")}
    for key in ("inode", "parts", "nlink", "xattrs"):
        assert entries["first"][key] == entries["second"][key]
    assert entries["first"]["xattrs"] == [{"name": "user.mine", "value_b64": base64.b64encode(b"\0value").decode()}]
    assert len({each["inode"] for each in entries.values()}) == len(entries) - 1
    assert entries["sparse"]["sparse"] is True
    assert entries["sparse"]["size"] == (1 << 20) + 4096
    assert [(part["file_offset"], part["length"]) for part in entries["sparse"]["parts"]] == [(1 << 20, 4096)]
    assert entries["sparse"]["xattrs"][0]["name"] == "system.posix_acl_access"
    assert entries["fifo"]["type"] == "fifo"
    lines = {line.split()[-1]: line for line in tapefs("ls", f"kinds:{tree}").out.splitlines()}
    assert lines["sparse"].startswith("-rw-r--r--+")
    assert lines["folder"].startswith("drwxr-xr-x+")
    assert lines["first"].startswith("-rw-r--r-- ")
    assert lines["fifo"].startswith("p")
    if os.geteuid() == 0:
        assert entries["device"]["device"] == [7, 42]
        assert lines["device"].startswith("brw------- ")
        assert " 7, 42 " in lines["device"]


def test_what_is_staged_of_a_set_that_builds_on_another(tapefs, shelf, tmp_path):
    """The frames of both, but not those of files that the newer set does not show."""
    tree = tmp_path / "tree"
    for name in ("kept", "changed"):
        (tree / name).mkdir(parents=True)
        (tree / name / "file").write_bytes(name.encode() * 100_000)
    base = shelf.add_set(tree)
    (tree / "changed/file").write_bytes(b"new" * 50_000)
    shelf.add_set(tree, base=base, name="newer")
    with closing(Archive(shelf.home, shelf.ledger)) as archive:
        reader = archive.index(archive.find_set("newer").set_id)
        runs = FrameRuns()
        add_set(runs, archive, reader)
        staged = {span.segment: (span.first, span.last) for span in runs.spans()}
    old, new = shelf.segments
    assert staged == {old: (10, 16), new: (0, 2)}
    kept = shelf.segments[old].plain.index(b"kept")
    assert kept // FRAME_BYTES == 10


def test_ls_of_what_is_not_there(tapefs, backup_set):
    outcome = tapefs("ls", "docs:no/such/path")
    assert outcome.code == 1
    assert "no/such" in outcome.one_line() or "'no'" in outcome.one_line()


def test_tapes(tapefs, shelf, backup_set):
    (tape,) = listed(tapefs, "tapes")
    assert set(tape) >= TAPE_KEYS
    assert tape["label"] == LABEL
    assert tape["uuid"] == shelf.volume_id
    assert tape["state"] == "appendable"
    assert tape["sets"] == [backup_set.set_id]
    assert tape["used_bytes"] > 0
    assert LABEL in tapefs("tapes").out


def test_jobs(tapefs, backup_set, tree):
    (job,) = listed(tapefs, "jobs")
    assert job["name"] == "docs"
    assert job["state"] == "completed"
    assert job["set_id"] == backup_set.set_id
    assert job["sources"] == [str(tree)]
    _, line = tapefs("jobs").out.splitlines()
    assert line.split()[:4] == ["1", "docs", "full", "completed"]
    assert line.split()[-1] == backup_set.set_id[:8]


def test_a_drive_that_was_never_opened(tapefs, home):
    (drive,) = listed(tapefs, "drives")
    assert drive["name"] == "drive0"
    assert drive["state"] == "empty"
    assert drive["tape"] is None
    assert set(drive["counters"]) == COUNTERS
    assert set(drive["counters"]["seconds"]) == SECONDS


def test_a_drive_that_has_worked(tapefs, home):
    report = DriveReport("drive0", "loaded", "TP0001L9", DriveCounters(loads=3, bytes_written=10**9))
    (home.drives / "drive0.json").write_bytes(msgspec.json.encode(report))
    (drive,) = listed(tapefs, "drives")
    assert drive["tape"] == "TP0001L9"
    assert drive["counters"]["loads"] == 3
    assert "953.7 MiB" in tapefs("drives").out


def test_a_drive_report_that_is_damaged(tapefs, home):
    (home.drives / "drive0.json").write_text("{")
    assert "drive0.json is damaged" in tapefs("drives").one_line()
