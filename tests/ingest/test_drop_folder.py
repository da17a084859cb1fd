"""The drop folder: what settles is on tape before it leaves, whatever happens meanwhile."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from catalog.records import JobState
from tapefs.durable import replace_file
from tapefs.ingest.drop_folder import Drop, Journal, Noted, _leave, _troubled
from tests.ingest.conftest import Site
from tests.sidecar.rig import wait_until

SETTLE = ("--settle", "2")


@pytest.fixture
def drop(tmp_path: Path) -> Path:
    folder = tmp_path / "drop"
    (folder / "sub").mkdir(parents=True)
    return folder


def settle() -> None:
    time.sleep(2.1)


def in_archive(site: Site, name: str, path: Path) -> str:
    found = site.client.find(f"/{str(path).lstrip('/')}", job=name, path="true") or site.client.find(
        path.name, job=name
    )
    return str(found[-1]["mount_path"])


def test_what_has_settled_is_moved_behind_the_tape(site: Site, drop: Path, tmp_path: Path) -> None:
    (drop / "sub" / "a").write_bytes(os.urandom(300_000))
    odd = os.fsencode(drop) + b"/odd \xff\n"
    Path(os.fsdecode(odd)).write_bytes(b"odd")
    for name in ("half.part", ".b.swp", "c~", ".hidden", "D.TMP"):
        (drop / name).write_text("not whole")
    (drop / "link").symlink_to("sub/a")
    content = (drop / "sub" / "a").read_bytes()
    settle()
    (drop / "fresh").write_text("just now")
    os.utime(drop / "fresh", (time.time() + 3600,) * 2)  # However long the script takes to begin.
    [line] = site.run("drop_folder", drop, "--done", tmp_path / "done", "--name", "moved", "--copies", 2, *SETTLE)
    assert (line["ok"], line["files"], line["gone"], line["kept"]) == (True, 2, 2, [])
    assert {path.name for path in drop.iterdir()} == {
        "half.part", ".b.swp", "c~", ".hidden", "D.TMP", "link", "fresh", "sub", ".tapefs-ingest",
    }  # fmt: skip
    [moved] = (tmp_path / "done").glob("*/sub/a")
    assert moved.read_bytes() == content
    assert site.get(in_archive(site, "moved", drop / "sub" / "a"), tmp_path / "back") == content
    assert site.rig.unix("GET", f"/api/v1/sets/{line['set']}/report").status == 200
    assert (
        site.run("drop_folder", drop, "--done", tmp_path / "done", "--name", "moved", *SETTLE, "--settle", "600") == []
    )


def test_nothing_leaves_that_is_open_or_has_changed(site: Site, drop: Path, tmp_path: Path) -> None:
    (drop / "open").write_text("being written")
    (drop / "whole").write_text("whole")
    settle()
    with (drop / "open").open("a"):
        [line] = site.run("drop_folder", drop, "--remove", "--name", "open", *SETTLE)
    assert line["files"] == line["gone"] == 1
    assert {path.name for path in drop.iterdir()} == {"open", "sub", ".tapefs-ingest"}


def test_a_file_that_changes_while_it_is_archived_stays(site: Site, drop: Path, tmp_path: Path) -> None:
    (drop / "a").write_bytes(os.urandom(200_000))
    (drop / "b").write_text("stays as it is")
    settle()
    assert site.rig.unix("POST", "/api/v1/queue/pause", {}).status == 200
    process = site.start("drop_folder", drop, "--remove", "--name", "changes", *SETTLE)
    journal = drop / ".tapefs-ingest" / "batch.json"
    wait_until(lambda: journal.exists() and b'"job":null' not in journal.read_bytes(), "asked for")
    (drop / "a").write_text("new content")
    assert site.rig.unix("POST", "/api/v1/queue/resume").status == 200
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert "has changed" in out
    assert (drop / "a").read_text() == "new content"
    assert not (drop / "b").exists()


@pytest.mark.parametrize("moment", ["before the job", "while it waits", "behind it", "with half of it moved"])
def test_killed_at_any_moment(site: Site, drop: Path, tmp_path: Path, moment: str) -> None:
    name = "killed-" + moment.replace(" ", "-")
    content = {drop / each: os.urandom(1000) for each in ("a", "b", "c")}
    for path, data in content.items():
        path.write_bytes(data)
    settle()
    arguments = (drop, "--done", tmp_path / "done", "--name", name, *SETTLE)
    journal = drop / ".tapefs-ingest" / "batch.json"
    site.rig.unix("POST", "/api/v1/queue/pause", {})
    process = site.start("drop_folder", *arguments)
    wait_until(lambda: journal.exists() and b'"job":null' not in journal.read_bytes(), "asked for")
    process.kill()
    process.communicate()
    assert all(path.read_bytes() == data for path, data in content.items()), "nothing leaves before the tape has it"
    noted = journal.read_bytes()
    [job] = [each for each in site.client.jobs() if each.name == name]
    if moment == "before the job":
        # As if it had been killed between the call and the note of its answer.
        journal.write_bytes(noted.replace(b'"job":%d' % job.number, b'"job":null'))
    site.rig.unix("POST", "/api/v1/queue/resume")
    if moment != "while it waits":
        assert site.client.wait_job(job.number).state.value == "completed"
    if moment == "with half of it moved":
        (tmp_path / "done" / "earlier").mkdir(parents=True)
        (drop / "a").rename(tmp_path / "done" / "earlier" / "a")
    [line] = site.run("drop_folder", *arguments)
    assert line["job"] == job.number, "the job of the run that was killed"
    assert line["ok"]
    assert {path.name: path.read_bytes() for path in (tmp_path / "done").glob("*/?")} == {
        path.name: data for path, data in content.items()
    }
    assert not journal.exists()
    assert len([each for each in site.client.jobs() if each.name == name]) == 1


def test_a_job_that_failed_leaves_all_where_it_is(site: Site, drop: Path, tmp_path: Path) -> None:
    (drop / "a").write_text("stays")
    settle()
    site.rig.unix("POST", "/api/v1/queue/pause", {})
    process = site.start("drop_folder", drop, "--remove", "--name", "cancelled", *SETTLE)
    wait_until(lambda: any(each.name == "cancelled" for each in site.client.jobs(JobState.QUEUED)), "asked for")
    [job] = [each for each in site.client.jobs() if each.name == "cancelled"]
    site.client.cancel(job.number)
    site.rig.unix("POST", "/api/v1/queue/resume")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1, out + err
    assert (drop / "a").read_text() == "stays"
    [line] = site.run("drop_folder", drop, "--remove", "--name", "cancelled", *SETTLE)
    assert line["gone"] == 1


class Told:
    """A sidecar that was started anew while the job ran: the job's second run had no trouble."""

    def __init__(self, files: int, troubles: list[dict[str, str]]) -> None:
        self._files = files
        self._troubles = troubles

    def set(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(files=self._files, troubled_files=0, unread_files=0)

    def call(self, _method: str, _target: str, _body: None, answer: type) -> object:
        return msgspec.convert({"troubles": len(self._troubles), "trouble_list": self._troubles}, answer)


def test_what_an_earlier_run_of_the_job_could_not_read_stays() -> None:
    """Nothing leaves that the set does not have, whoever has forgotten to count it."""
    files = [Noted(path, 1, 2, 3, 4, 5) for path in (b"/drop/a", b"/drop/b", b"/drop/c")]
    journal = Journal(batch="batch", job=1, files=files)
    job: Any = SimpleNamespace(trouble_count=0, set_id="set")

    def kept(files: int, *told: dict[str, str]) -> set[bytes]:
        client: Any = Told(files, list(told))
        return set(_troubled(client, journal, job))

    everything = {file.path for file in files}
    assert kept(3) == set()
    assert kept(3, {"path": "/drop/a", "reason": "content is not in the backup: EIO"}) == {b"/drop/a"}
    assert kept(2, {"path": "/drop/a", "reason": "left out: EIO"}) == {b"/drop/a"}
    assert kept(3, {"path": "/drop", "reason": "listing is incomplete: EIO"}) == everything
    assert kept(2) == everything


def test_two_at_once_and_bad_arguments(site: Site, drop: Path, tmp_path: Path) -> None:
    watching = site.start("drop_folder", drop, "--remove", "--name", "watched", *SETTLE, "--watch", "0.2")
    wait_until((drop / ".tapefs-ingest" / "lock").exists, "locked")
    time.sleep(1)
    site.run("drop_folder", drop, "--remove", *SETTLE, code=75)
    (drop / "later").write_text("later")
    wait_until(lambda: not (drop / "later").exists(), "archived by the one that watches")
    watching.terminate()
    watching.communicate(timeout=60)
    site.run("drop_folder", drop, code=64)
    site.run("drop_folder", tmp_path / "none", "--remove", code=64)
    site.run("drop_folder", drop, "--remove", "--settle", "0", code=64)
    site.run("drop_folder", drop, "--done", "/proc", code=64)
    site.run("drop_folder", drop, "--remove", "--url", f"unix:{tmp_path}/none", code=75)


# -- whoever may write into the folder has no more than that -----------------------------------------------------------


def noted(path: Path) -> Noted:
    found = path.stat()
    times = found.st_mtime_ns, found.st_ctime_ns
    return Noted(os.fsencode(path), found.st_dev, found.st_ino, found.st_size, *times)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("belongs_to_others", ["folder", "journal", "link"])
def test_a_journal_of_somebody_elses_removes_nothing(
    site: Site, drop: Path, tmp_path: Path, belongs_to_others: str
) -> None:
    """It names a job that has ended well, and a file that was never in the folder."""
    (drop / "first").write_text("first")
    settle()
    [line] = site.run("drop_folder", drop, "--remove", "--name", "honest", *SETTLE)
    victim = tmp_path / "victim"
    victim.write_text("of root")
    state = drop / ".tapefs-ingest"
    journal = state / "batch.json"
    journal.write_bytes(msgspec.json.encode(Journal(batch="forged", job=line["job"], files=[noted(victim)])))
    if belongs_to_others == "link":
        journal.rename(tmp_path / "forged.json")
        journal.symlink_to(tmp_path / "forged.json")
    else:
        os.chown(state if belongs_to_others == "folder" else journal, 65534, 65534)
    site.run(
        "drop_folder", drop, "--remove", "--name", "honest", *SETTLE, code=1 if belongs_to_others == "link" else 64
    )
    assert victim.read_text() == "of root"


def test_a_journal_names_nothing_outside(tmp_path: Path, drop: Path) -> None:
    """Neither by its path, nor by a link that stands in the way."""
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_text("of root")
    (drop / "way").symlink_to(outside)
    through = noted(drop / "way" / "victim")
    up = msgspec.structs.replace(through, path=os.fsencode(drop / "sub" / ".." / ".." / "outside" / "victim"))
    files = [noted(victim), through, up]
    shelf = Drop(os.fsencode(drop), None, 2.0, "x", 1, tmp_path / "batch.json")
    kept: dict[bytes, str] = {}
    assert _leave(shelf, Journal(batch="batch-number", job=1, files=files), kept) == 0
    assert set(kept) == {each.path for each in files}
    assert victim.read_text() == "of root"


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("of root")
    (tmp_path / ".batch.json.part").symlink_to(victim)
    replace_file(tmp_path / "batch.json", b"{}")
    assert victim.read_text() == "of root"
    assert (tmp_path / "batch.json").read_bytes() == b"{}"
