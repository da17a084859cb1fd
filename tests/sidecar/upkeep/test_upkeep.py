"""Checks and copies of the catalog over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.task_records import TaskFamily, TaskState
from tapefs.client import connect, connect_trio
from tapefs.client.api import Client
from tapefs.client.upkeep import UpkeepView
from tapefs.errors import HomeError, NoSuchThing, NotNow, UsageError
from tapefs.safekeeping.unpack import read_manifest
from tests.backup.rig import Rig as BackupRig
from tests.sidecar.rig import Rig, running, wait_until


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("upkeep")
    (folder / "tree").mkdir()
    (folder / "tree" / "file").write_text("content")
    backup = BackupRig(folder)
    backup.backup(folder / "tree", name="data")
    backup.close()
    with running(backup.home, listen=True, is_real=True) as rig:
        yield rig


@pytest.fixture
def client(rig: Rig) -> Iterator[Client]:
    with connect(f"unix:{rig.home.socket}") as client:
        yield client


def index_of(rig: Rig) -> Path:
    with LmdbLedger.open(rig.home.ledger, readonly=True) as ledger:
        return rig.home.index(next(each.set_id for each in ledger.backup_sets() if each.name == "data"))


def names_of(rig: Rig) -> Path:
    return index_of(rig).with_suffix(".names")


def test_a_check_finds_what_is_wrong_and_puts_it_right(rig: Rig, client: Client) -> None:
    asked = client.upkeep.check()
    assert asked.check is not None
    assert (asked.state, asked.check.checks, asked.copy) == ("waiting", [], None)
    good = client.upkeep.wait(asked.number)
    assert good.check is not None
    assert (good.state, good.error, good.check.findings) == ("done", None, [])
    names_of(rig).unlink()
    wrong = client.upkeep.wait(client.upkeep.check(["names"]).number)
    assert wrong.check is not None
    assert (wrong.state, wrong.check.checks, wrong.check.findings_total) == ("done", ["names"], 1)
    [finding] = wrong.check.findings
    assert (finding.check, finding.repairable, finding.repaired) == ("names", True, False)
    mended = client.upkeep.wait(client.upkeep.check(repair=True).number)
    assert mended.check is not None
    assert (mended.check.findings_total, mended.check.repaired) == (1, 1)
    assert names_of(rig).exists()
    listed = client.upkeep.tasks()[-3:]
    assert [each.check.findings_total for each in listed if each.check] == [0, 1, 1]
    assert all(not each.check.findings for each in listed if each.check), "a list has no findings"


def test_an_operator_repairs_nothing(rig: Rig, client: Client) -> None:
    from tapefs.client.access import TokenBody

    for role, may_check in (("operator", True), ("viewer", False)):
        token = client.access.create_token(TokenBody(role=role)).secret
        with connect(f"http://127.0.0.1:{rig.port}", token=token) as other:
            with pytest.raises(HomeError):
                other.upkeep.check(repair=True)
            with pytest.raises(HomeError):
                other.upkeep.copy_catalog()
            assert isinstance(other.upkeep.copies(), list)
            if may_check:
                assert other.upkeep.wait(other.upkeep.check(["sets"]).number).state == "done"
            else:
                with pytest.raises(HomeError):
                    other.upkeep.check()


def test_copies_in_a_folder_and_on_tape(rig: Rig, client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "käse"
    folder.mkdir()
    (folder / "catalog-of-mine.tar.zst").write_text("stays")
    made = [_made(client.upkeep.wait(client.upkeep.copy_catalog(str(folder), keep=1).number))]
    assert read_manifest(Path(made[0])).sets == 1
    assert Path(made[0]).stat().st_mode & 0o777 == 0o600
    wait_until(lambda: _in(folder) != [] and _later(folder), "the clock stands still")
    made.append(_made(client.upkeep.wait(client.upkeep.copy_catalog(str(folder), keep=1).number)))
    assert _in(folder) == [os.path.basename(made[1])]
    on_tape = client.upkeep.wait(client.upkeep.copy_catalog(keep=30).number)
    assert _made(on_tape) == "tape"
    newest, older = client.upkeep.copies()
    assert newest.set_id is not None
    assert (len(newest.tapes), newest.path) == (1, None)
    assert (older.path, older.set_id, older.bytes) == (made[1], None, Path(made[1]).stat().st_size)
    texts = [each["text"] for each in rig.unix("GET", "/api/v1/notices").body]
    assert f"the catalog was copied to {made[1]}" in texts
    assert "the catalog was copied to tape" in texts


def _made(view: UpkeepView) -> str:
    assert (view.state, view.error, view.check) == ("done", None, None)
    assert view.copy is not None
    assert view.copy.where is not None
    return view.copy.where


def _in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir() if each.name != "catalog-of-mine.tar.zst"]


def _later(folder: Path) -> bool:
    """Is it another second than that of the copy's name?"""
    import time

    return _in(folder)[0] != time.strftime("catalog-%Y%m%dT%H%M%SZ.tar.zst", time.gmtime())


def test_what_makes_no_sense(rig: Rig, client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in ("relative", str(tmp_path / "none"), str(tmp_path / "file"), "/a\0b", "\ud800"):
        assert rig.unix("POST", "/api/v1/catalog/copies", {"folder": folder}).status == 422, folder
    with pytest.raises(UsageError):
        client.upkeep.check(["tape"])
    with pytest.raises(NoSuchThing):
        client.upkeep.task(10_000)
    done = client.upkeep.wait(client.upkeep.check(["sets"]).number)
    with pytest.raises(NotNow):
        client.upkeep.cancel(done.number)


async def test_one_that_waits_is_given_up(rig: Rig) -> None:
    async with connect_trio(f"unix:{rig.home.socket}") as client:
        first = await client.upkeep.check()
        second = await client.upkeep.check()
        assert (await client.upkeep.cancel(second.number)).state == "cancelled"
        assert (await client.upkeep.wait(first.number)).state == "done"
        assert (await client.upkeep.wait(second.number)).began_at is None


def test_one_that_was_open_when_the_sidecar_was_killed_is_interrupted(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    backup = BackupRig(tmp_path)
    backup.close()
    with running(backup.home) as rig, connect(f"unix:{rig.home.socket}") as client:
        asked = [client.upkeep.check().number for _ in range(4)]
        rig.process.kill()
        rig.process.wait()
    with LmdbLedger.open(backup.home.ledger, readonly=True) as ledger:
        left = [task.number for task in ledger.tasks(TaskFamily.UPKEEP) if task.state is TaskState.WAITING]
    assert left
    with running(backup.home) as rig, connect(f"unix:{rig.home.socket}") as client:
        tasks = {task.number: task for task in client.upkeep.tasks()}
        assert sorted(tasks) == asked
        for number in left:
            assert (tasks[number].state, tasks[number].error) == ("interrupted", "the sidecar ended: ask again")
        assert client.upkeep.wait(client.upkeep.check().number).state == "done"
