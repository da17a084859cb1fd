"""The WLCG Tape REST API through a real socket, on a virtual library: every field and state that its text names."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tapefs.home import Home
from tests.backup.rig import Rig as BackupRig
from tests.sidecar.rig import Rig, running, wait_until

SIZES = {"one": 300_000, "two": 700_000, "three": 5, "empty": 0}
ROOT = "/wlcg/v1"


@dataclass
class Site:
    """An archive with one set, and a sidecar in front of it."""

    rig: Rig
    folder: str

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}"

    def stage(self, *names: str, lifetime: str = "PT1H") -> str:
        files = [{"path": self.path(name), "diskLifetime": lifetime} for name in names]
        answer = self.rig.tcp("POST", f"{ROOT}/stage", {"files": files})
        assert answer.status == 201, answer
        assert list(answer.body) == ["requestId"]
        assert answer.headers["location"].endswith(f"{ROOT}/stage/{answer.body['requestId']}")
        return str(answer.body["requestId"])

    def progress(self, request_id: str) -> Any:
        answer = self.rig.tcp("GET", f"{ROOT}/stage/{request_id}")
        assert answer.status == 200, answer
        return answer.body

    def wait_over(self, request_id: str) -> Any:
        wait_until(lambda: "completedAt" in self.progress(request_id), str(self.progress(request_id)))
        return self.progress(request_id)

    def localities(self, *names: str) -> list[str]:
        answer = self.rig.tcp("POST", f"{ROOT}/archiveinfo", {"paths": [self.path(name) for name in names]})
        assert answer.status == 200, answer
        assert all(set(each) == {"path", "locality"} for each in answer.body), answer
        return [each["locality"] for each in answer.body]

    def evict(self) -> None:
        assert self.rig.unix("POST", "/api/v1/evict", {"segments": None}).status == 200

    def pins(self) -> Any:
        return self.rig.unix("GET", "/api/v1/pins").body


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Path]:
    folder = tmp_path_factory.mktemp("wlcg")
    tree = folder / "tree"
    tree.mkdir()
    for name, size in SIZES.items():
        (tree / name).write_bytes(os.urandom(size))
    (tree / "folder").mkdir()
    backup = BackupRig(folder, backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\n")
    backup.backup(tree, name="data")
    backup.close()
    toml = backup.home.path / "tapefs.toml"
    toml.write_text(toml.read_text() + '\n[wlcg]\nsitename = "TESTBED"\n')
    return backup.home, tree


@pytest.fixture(scope="module")
def serving(home: tuple[Home, Path]) -> Iterator[Site]:
    with running(home[0], listen=True, is_real=True) as rig:
        yield Site(rig, f"/jobs/data/latest{home[1]}")


@pytest.fixture
def site(serving: Site) -> Site:
    for pin in serving.pins():
        serving.rig.unix("DELETE", f"/api/v1/pins/{pin['id']}")
    serving.evict()
    return serving


def test_discovery_needs_no_token_and_names_the_endpoint(site: Site) -> None:
    answer = site.rig.tcp("GET", "/.well-known/wlcg-tape-rest-api", token=None)
    assert answer.status == 200
    assert answer.body == {
        "sitename": "TESTBED",
        "endpoints": [{"uri": f"http://127.0.0.1:{site.rig.port}{ROOT}", "version": "v1", "metadata": {}}],
    }


def test_files_are_staged_and_stay(site: Site) -> None:
    assert site.localities("one", "two", "empty") == ["TAPE", "TAPE", "NONE"]
    before = int(time.time())
    request_id = site.stage("one", "two", "empty")
    done = site.wait_over(request_id)
    assert set(done) == {"id", "createdAt", "startedAt", "completedAt", "files"}
    assert done["id"] == request_id
    assert before <= done["createdAt"] <= done["startedAt"] <= done["completedAt"] <= time.time()
    for file, name in zip(done["files"], ("one", "two", "empty"), strict=True):
        assert set(file) == {"path", "startedAt", "finishedAt", "state"}
        assert (file["path"], file["state"]) == (site.path(name), "COMPLETED")
        assert file["startedAt"] <= file["finishedAt"]
    assert site.localities("one", "two") == ["DISK_AND_TAPE", "DISK_AND_TAPE"]
    site.evict()
    assert site.localities("one", "two") == ["DISK_AND_TAPE", "DISK_AND_TAPE"], "they are pinned"
    [pin] = site.pins()
    assert pin["bytes"] >= SIZES["one"] + SIZES["two"]


def test_released_files_may_go_and_the_others_stay(site: Site) -> None:
    request_id = site.stage("one", "two")
    site.wait_over(request_id)
    answer = site.rig.tcp("POST", f"{ROOT}/release/{request_id}", {"paths": [site.path("two")]})
    assert (answer.status, answer.body) == (200, None)
    site.evict()
    assert site.localities("one", "two") == ["DISK_AND_TAPE", "TAPE"]
    assert site.progress(request_id)["files"][1]["state"] == "COMPLETED"
    assert site.rig.tcp("POST", f"{ROOT}/release/{request_id}", {"paths": [site.path("one")]}).status == 200
    assert site.pins() == []


def test_what_cannot_be_staged_says_why(site: Site) -> None:
    request_id = site.stage("one", "nothing", "folder")
    one, nothing, folder = site.wait_over(request_id)["files"]
    assert one["state"] == "COMPLETED"
    assert (nothing["state"], folder["state"]) == ("FAILED", "FAILED")
    assert "nothing" in nothing["error"]
    assert folder["error"] == "it is no regular file"
    assert not {"onDisk"} & (set(one) | set(nothing))


def test_a_deleted_request_is_unknown(site: Site) -> None:
    request_id = site.stage("one")
    site.wait_over(request_id)
    answer = site.rig.tcp("DELETE", f"{ROOT}/stage/{request_id}")
    assert (answer.status, answer.body) == (200, None)
    for method, path in (
        ("GET", f"stage/{request_id}"),
        ("DELETE", f"stage/{request_id}"),
        ("POST", f"stage/{request_id}/cancel"),
        ("POST", f"release/{request_id}"),
    ):
        body = {"paths": ["/x"]} if method == "POST" else None
        assert site.rig.tcp(method, f"{ROOT}/{path}", body).status == 404, path


def held_up(site: Site, act: Callable[[], None]) -> None:
    """Do something while no recall is allowed to move: the only drive's mover is stopped."""
    pids = [pid for pid in _children(site.rig.process.pid) if "mover" in _line(pid)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        act()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_cancelled_files_and_an_active_request(site: Site) -> None:
    def act() -> None:
        request_id = site.stage("one", "two")
        wait_until(lambda: [file["state"] for file in site.progress(request_id)["files"]] == ["STARTED"] * 2, "started")
        progress = site.progress(request_id)
        assert "completedAt" not in progress
        assert all(set(file) == {"path", "startedAt", "state"} for file in progress["files"])
        answer = site.rig.tcp("POST", f"{ROOT}/stage/{request_id}/cancel", {"paths": [site.path("two")]})
        assert (answer.status, answer.body) == (200, None)
        assert [file["state"] for file in site.progress(request_id)["files"]] == ["STARTED", "CANCELLED"]
        refused = site.rig.tcp("POST", f"{ROOT}/stage/{request_id}/cancel", {"paths": ["/elsewhere"]})
        assert refused.status == 400
        assert site.rig.tcp("DELETE", f"{ROOT}/stage/{request_id}").status == 200
        assert site.rig.tcp("GET", f"{ROOT}/stage/{request_id}").status == 404
        assert site.pins() == []

    held_up(site, act)


def token(site: Site, name: str, *scopes: str) -> str:
    answer = site.rig.tcp("POST", "/api/v1/tokens", {"name": name, "scopes": list(scopes)})
    assert answer.status == 201, answer
    return str(answer.body["secret"])


def test_scopes_bound_what_is_staged_and_told(site: Site) -> None:
    """A file that a token does not cover tells its error and nothing else; a token that polls does not stage."""
    ask, folder = site.rig.tcp, site.folder
    staging = token(site, "fts", f"storage.stage:{folder}/one")
    polling, blind = token(site, "watch", f"storage.poll:{folder}"), token(site, "blind", f"storage.poll:{folder}/two")
    files = {"files": [{"path": site.path("one")}, {"path": site.path("two")}]}
    assert ask("POST", f"{ROOT}/stage", files, token=polling).status == 403
    answer = ask("POST", f"{ROOT}/stage", files, token=staging)
    assert answer.status == 201, answer
    one = f"{ROOT}/stage/{answer.body['requestId']}"
    wait_until(lambda: "completedAt" in ask("GET", one, token=staging).body, "staged")
    done, refused = ask("GET", one, token=staging).body["files"]
    assert (done["path"], done["state"]) == (site.path("one"), "COMPLETED")
    assert (set(refused), refused["path"]) == ({"path", "error"}, site.path("two"))

    assert ask("GET", one, token=polling).body == ask("GET", one, token=staging).body
    assert ask("GET", one, token=blind).status == 404
    assert [ask("DELETE", one, token=each).status for each in (polling, blind)] == [403, 403]
    paths = {"paths": [site.path("one")]}
    for name in ("other", "fts"):  # The same title is not the same token.
        other = token(site, name, f"storage.stage:{folder}")
        assert ask("POST", one.replace("stage", "release"), paths, token=other).status == 404
    told = ask("POST", f"{ROOT}/archiveinfo", {"paths": [site.path("one"), site.path("two")]}, token=blind).body
    assert [set(each) for each in told] == [{"path", "error"}, {"path", "locality"}]
    assert ask("DELETE", one, token=staging).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("stage", {}),
        ("stage", {"files": []}),
        ("stage", {"files": [{}]}),
        ("stage", {"files": [{"path": 7}]}),
        ("stage", {"files": [{"path": "/x", "diskLifetime": "tomorrow"}]}),
        ("stage", {"files": [{"path": "/x", "diskLifetime": "P"}]}),
        ("stage", {"files": [{"path": "/x", "diskLifetime": "PT0S"}]}),
        ("stage", {"files": [{"path": "/x", "diskLifetime": "P1M"}]}),
        ("archiveinfo", {"paths": []}),
        ("archiveinfo", ["/x"]),
    ],
)
def test_what_makes_no_sense_is_told(site: Site, path: str, body: object) -> None:
    answer = site.rig.tcp("POST", f"{ROOT}/{path}", body)
    assert answer.status == 400, answer
    assert isinstance(answer.detail, str)


def test_unknown_fields_and_metadata_are_taken(site: Site) -> None:
    body = {"files": [{"path": site.path("three"), "targetedMetadata": {"TESTBED": {"a": 1}}, "more": 1}], "x": None}
    answer = site.rig.tcp("POST", f"{ROOT}/stage", body)
    assert answer.status == 201
    assert site.wait_over(answer.body["requestId"])["files"][0]["state"] == "COMPLETED"


def test_paths_that_there_are_not(site: Site) -> None:
    paths = ["/nothing", "/jobs/../sets", site.path("folder"), site.path("one")]
    answer = site.rig.tcp("POST", f"{ROOT}/archiveinfo", {"paths": paths})
    assert answer.status == 200
    assert [each["path"] for each in answer.body] == paths
    assert ["error" in each for each in answer.body] == [True, True, True, False]


def test_a_request_goes_on_after_the_sidecar_was_killed(home: tuple[Home, Path], tmp_path: Path) -> None:
    """Its own home: the one of the others goes on being served."""
    backup = BackupRig(tmp_path, backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\n")
    backup.backup(home[1], name="data")
    backup.close()
    folder = f"/jobs/data/latest{home[1]}"
    with running(backup.home, listen=True, is_real=True) as rig:
        site = Site(rig, folder)
        # Nobody gets anything from tape, so it is open when the sidecar is killed.
        assert rig.unix("PUT", "/api/v1/recalls/mode", {"mode": "ask"}).status == 200
        request_id = site.stage("one", "two", lifetime="PT600S")
        wait_until(lambda: site.progress(request_id)["files"][0]["state"] == "STARTED", "started")
        rig.process.send_signal(signal.SIGKILL)
        rig.process.wait(60)
    with running(backup.home, listen=True, is_real=True) as rig:
        site = Site(rig, folder)
        assert [file["state"] for file in site.progress(request_id)["files"]] == ["STARTED"] * 2
        assert rig.unix("PUT", "/api/v1/recalls/mode", {"mode": "on"}).status == 200
        done = site.wait_over(request_id)
        assert [file["state"] for file in done["files"]] == ["COMPLETED"] * 2
        [pin] = site.pins()
        assert re.match(r"\d{4}-", pin["expires_at"])
