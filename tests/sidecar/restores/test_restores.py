"""Restores that the sidecar does on its host, over a real socket, from a virtual tape."""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from catalog.ids import SetId
from catalog.lmdb_ledger import LmdbLedger
from catalog.recovery_records import Recovery, RecoveryState
from sidecar.restores.restoring import Restorations
from tapefs.errors import NotNow
from tests.sidecar.rig import Answer, Rig, make_home, running, wait_until

CONTENT = os.urandom(300_000)


@dataclass
class Site:
    rig: Rig
    source: Path
    folder: Path
    set_id: str
    operator: str

    def ask(self, target: Path, *names: str, as_operator: bool = False, **more: Any) -> Answer:
        files = [{"file_path": f"{self.source}/{name}", "file_size": 1} for name in names]
        body = {"backup_set_id": self.set_id, "files": files, "target_path": str(target)} | more
        if as_operator:
            return self.rig.tcp("POST", "/api/recovery/restore", body, token=self.operator)
        return self.rig.unix("POST", "/api/recovery/restore", body)

    def restore(self, target: Path, *names: str, as_operator: bool = False, **more: Any) -> Any:
        answer = self.ask(target, *names, as_operator=as_operator, **more)
        assert answer.status == 202, answer
        return self.ended(answer.body["recovery_id"])

    def ended(self, recovery_id: str) -> Any:
        path = f"/api/recovery/tasks/{recovery_id}/status"
        wait_until(lambda: self.rig.unix("GET", path).body["completed_at"] is not None, "the restore goes on")
        return self.rig.unix("GET", path).body

    def notices(self, recovery_id: str, count: int) -> list[Any]:
        """Wait for what is told of a restore."""

        def found() -> list[Any]:
            all_of_them = self.rig.unix("GET", "/api/v1/notices?limit=1000").body
            return [each for each in all_of_them if each["subject"] == recovery_id]

        wait_until(lambda: len(found()) >= count, "nobody is told")
        return found()

    def beneath(self, target: Path) -> Path:
        return target / str(self.source).lstrip("/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("restores")
    source, allowed = folder / "source", folder / "allowed"
    (source / "deep").mkdir(parents=True)
    allowed.mkdir()
    (source / "plain").write_bytes(CONTENT)
    (source / "deep" / "set-id").write_bytes(b"#!")
    (source / "deep" / "set-id").chmod(0o4755)
    with open(os.fsencode(source) + b"/odd\xff", "wb") as odd:
        odd.write(b"odd")
    home = make_home(folder / "home", tapes=2, tape_bytes=256 * 1024**2)
    with (home.path / "tapefs.toml").open("a") as settings:
        settings.write(f'\n[access]\nrestore_targets = ["{allowed}"]\n')
    with running(home, listen=True, is_real=True) as rig:
        job = rig.wait_job(rig.submit("data", source), "completed", "failed")
        assert job["state"] == "completed", job
        set_id = rig.unix("GET", "/api/recovery/sets").body["backup_sets"][0]["set_id"]
        operator = rig.unix("POST", "/api/v1/tokens", {"role": "operator"}).body["secret"]
        yield Site(rig, source, folder, set_id, operator)


def test_files_come_back_whole(site: Site) -> None:
    target = site.folder / "whole"
    done = site.restore(target, "plain", "deep")
    assert (done["status"], done["error_message"], done["progress_percent"]) == ("completed", None, 100.0)
    assert (done["processed_files"], done["total_files"]) == (2, 2)
    assert done["processed_bytes"] == done["total_bytes"] == len(CONTENT) + 2
    assert (site.beneath(target) / "plain").read_bytes() == CONTENT
    assert not (site.beneath(target) / os.fsdecode(b"odd\xff")).exists()
    mode = (site.beneath(target) / "deep" / "set-id").stat().st_mode
    assert bool(mode & stat.S_ISUID)
    began, told = site.notices(done["recovery_id"], 2)
    assert (began["kind"], told["kind"]) == ("restore.started", "restore.succeeded")
    assert (told["facts"]["files"], told["facts"]["target"]) == (2, str(target))


def test_a_listing_can_be_sent_back(site: Site) -> None:
    """Also a name that is not UTF-8."""
    rows = site.rig.unix("GET", f"/api/recovery/sets/{site.set_id}/files").body["files"]
    assert {row["file_name"] for row in rows} == {"plain", "set-id", "odd\\xff"}
    target = site.folder / "listed"
    done = site.restore(target, files=rows)
    assert (done["status"], done["processed_files"]) == ("completed", 3)
    assert (site.beneath(target) / os.fsdecode(b"odd\xff")).read_bytes() == b"odd"


def test_what_is_there_is_left_alone_unless_told(site: Site) -> None:
    target = site.folder / "there"
    site.beneath(target).mkdir(parents=True)
    (site.beneath(target) / "plain").write_text("mine")
    done = site.restore(target, "plain")
    assert done["status"] == "failed"
    assert "plain" in done["error_message"]
    assert (site.beneath(target) / "plain").read_text() == "mine"
    began, failed = site.notices(done["recovery_id"], 2)
    assert (began["kind"], failed["kind"], failed["gravity"]) == ("restore.started", "restore.failed", "alarm")
    assert failed["facts"]["error"] == done["error_message"]
    assert failed["text"].endswith(f"has failed: {done['error_message']}")
    assert site.restore(target, "plain", overwrite=True)["status"] == "completed"
    assert (site.beneath(target) / "plain").read_bytes() == CONTENT


def test_an_operator_stays_where_he_may(site: Site) -> None:
    allowed = site.folder / "allowed"
    assert site.ask(site.folder / "elsewhere", "plain", as_operator=True).status == 403
    assert site.ask(allowed / ".." / "elsewhere", "plain", as_operator=True).status == 422
    (allowed / "link").symlink_to(site.folder)
    assert site.ask(allowed / "link", "plain", as_operator=True).status == 403
    assert site.ask(allowed / "missing", "plain", as_operator=True).status == 422
    (allowed / "his").mkdir()
    done = site.restore(allowed / "his", "deep", as_operator=True)
    found = site.beneath(allowed / "his") / "deep" / "set-id"
    assert found.read_bytes() == b"#!"
    assert not found.stat().st_mode & stat.S_ISUID, "he gives nobody rights"
    assert "set-id" in (done["error_message"] or ""), done
    assert not (site.folder / "elsewhere").exists()


def test_what_has_ended_is_not_cancelled(site: Site) -> None:
    asked = site.ask(site.folder / "ended", "plain").body["recovery_id"]
    assert site.ended(asked)["status"] == "completed"
    assert site.rig.unix("POST", f"/api/recovery/tasks/{asked}/cancel").status == 409


def test_cancelled_before_it_begins_and_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is never begun; of the other the process is ended, and both are so in the ledger."""
    home = make_home(tmp_path / "home")
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\necho begun > " + str(tmp_path / "begun") + "\nexec sleep 600\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr("sidecar.restores.restoring.sys.executable", str(sleeper))

    async def scene(ledger: LmdbLedger) -> None:
        restorations = Restorations(home, ledger, time.time_ns)
        asked = partial(restorations.add, SetId("x"), (), b"/x", "ada", special=False, bound=False, over=False)
        early, late = (await asked()).recovery_id, (await asked()).recovery_id
        assert early != late
        await restorations.cancel(early)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(restorations.run, goes_on=True))
            with trio.fail_after(60):
                while not (tmp_path / "begun").exists():
                    await trio.sleep(0.02)
                assert restorations.find(late).state is RecoveryState.RUNNING
                await restorations.cancel(late)
                while not restorations.is_idle():
                    await trio.sleep(0.02)
            nursery.cancel_scope.cancel()
        assert [each.state for each in ledger.recoveries()] == [RecoveryState.CANCELLED] * 2
        assert [each.attempts for each in ledger.recoveries()] == [0, 1]
        with pytest.raises(NotNow):
            await restorations.cancel(late)

    with LmdbLedger.open(home.ledger) as ledger:
        trio.run(scene, ledger)


def test_ids_do_not_clash(site: Site) -> None:
    found = [site.ask(site.folder / f"same{number}", "deep").body["recovery_id"] for number in range(4)]
    assert len(set(found)) == 4
    for each in found:
        assert site.ended(each)["status"] == "completed"


@pytest.mark.parametrize("overwrites", [False, True])
def test_a_sidecar_that_was_killed(tmp_path: Path, overwrites: bool) -> None:
    """What may replace files is begun again; what may not has failed, and says so; what had not begun is done."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "plain").write_bytes(CONTENT)
    home = make_home(tmp_path / "home", tapes=2, tape_bytes=256 * 1024**2)
    with running(home, is_real=True) as rig:
        rig.wait_job(rig.submit("data", source), "completed")
        set_id = rig.unix("GET", "/api/recovery/sets").body["backup_sets"][0]["set_id"]
        rig.process.send_signal(signal.SIGKILL)
        rig.process.wait(60)
    target = tmp_path / "target"
    with LmdbLedger.open(home.ledger) as ledger:
        for name, state in (("begun", RecoveryState.RUNNING), ("waiting", RecoveryState.PENDING)):
            ledger.put_recovery(
                Recovery(
                    recovery_id=name, set_id=set_id, paths=(), target=os.fsencode(target / name), created_by="ada",
                    created_at_ns=time.time_ns(), started_at_ns=1, state=state, attempts=1, overwrites=overwrites,
                    is_bound=False,
                )
            )  # fmt: skip
    with running(home, is_real=True) as rig:
        site = Site(rig, source, tmp_path, set_id, "")
        assert site.ended("waiting")["status"] == "completed"
        begun = site.ended("begun")
        assert begun["status"] == ("completed" if overwrites else "failed"), begun
        assert (site.beneath(target / "begun") / "plain").exists() is overwrites


def test_the_own_call_restores_and_tells_how_far_it_is(site: Site, tmp_path: Path) -> None:
    body = {"set_id": site.set_id, "target": str(tmp_path / "back"), "paths": [f"{site.source}/plain"]}
    begun = site.rig.unix("POST", "/api/v1/restores", body)
    assert begun.status == 202, begun
    one = f"/api/v1/restores/{begun.body['id']}"
    wait_until(lambda: site.rig.unix("GET", one).body["finished_at"] is not None, "the restore goes on")
    done = site.rig.unix("GET", one).body
    assert (done["state"], done["files"], done["bytes"], done["error"]) == ("completed", 1, len(CONTENT), None)
    assert (site.beneath(tmp_path / "back") / "plain").read_bytes() == CONTENT
    assert site.rig.unix("GET", "/api/v1/restores?limit=1").body == [done]
    assert site.rig.unix("POST", f"{one}/cancel").status == 409
    for wrong, status in (
        ({"target": "back"}, 422),
        ({"target": "/a/../b"}, 422),
        ({"paths": ["/nowhere"]}, 404),
        ({"paths_b64": ["%"]}, 422),
        ({"set_id": "00000000-0000-4000-8000-000000000000"}, 404),
    ):
        assert site.rig.unix("POST", "/api/v1/restores", body | wrong).status == status, wrong
    refused = site.rig.tcp("POST", "/api/v1/restores", body, token=site.operator)
    assert refused.status == 403
