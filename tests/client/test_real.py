"""The client against a real sidecar on a virtual library: over the Unix socket, and over TLS with a token."""

from __future__ import annotations

import hashlib
import os
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tapefs.client import connect, connect_trio
from tapefs.client.address import Address
from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields
from tapefs.client.waiting import AsyncClient
from tapefs.errors import HomeError, NoSuchThing, NotNow, TapefsError, Unreachable, UsageError
from tapefs.report.files import troubles_path
from tests.backup.rig import Rig as BackupRig
from tests.sidecar.access.test_tls import write_pair
from tests.sidecar.rig import Rig, running

ODD = b"\xff odd%20?#&.txt"


@dataclass
class Site:
    rig: Rig
    tree: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.rig.port}"

    @property
    def certificate(self) -> Path:
        return self.rig.home.path / "tls.crt"

    @property
    def pin(self) -> str:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()

    def path(self, name: str = "") -> str:
        return f"jobs/data/latest{self.tree}/{name}"

    def evict(self) -> None:
        for pin in self.rig.unix("GET", "/api/v1/pins").body:
            self.rig.unix("DELETE", f"/api/v1/pins/{pin['id']}")
        self.rig.unix("POST", "/api/v1/evict", {"segments": None})

    def unix(self) -> dict[str, Any]:
        return {"url": f"unix:{self.rig.home.socket}"}

    def by_ca(self) -> dict[str, Any]:
        return {"url": self.url, "token": self.rig.token, "ca": self.certificate}

    def pinned(self) -> dict[str, Any]:
        return {"url": self.url, "token": self.rig.token, "pin": self.pin}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("client")
    tree = folder / "tree"
    tree.mkdir()
    (tree / "large").write_bytes(os.urandom(3_000_000))
    (tree / "text").write_bytes(b"some text\n" * 5000)
    (tree / "empty").touch()
    (tree / os.fsdecode(ODD)).write_bytes(b"odd")
    backup = BackupRig(folder, backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\n")
    backup.backup(tree, name="data")
    backup.close()
    settings = backup.home.path / "tapefs.toml"
    text = settings.read_text()
    assert text.count("[http]\n") == 1
    settings.write_text(text.replace("[http]\n", '[http]\ntls_certificate = "tls.crt"\ntls_key = "tls.key"\n'))
    write_pair(backup.home.path)
    with running(backup.home, listen=True, is_real=True) as rig:
        yield Site(rig, tree)


WAYS = [Site.unix, Site.by_ca, Site.pinned]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_leads_there(site: Site, way: Callable[[Site], dict[str, Any]]) -> None:
    with connect(**way(site)) as client:
        assert client.status().pid == site.rig.process.pid
        assert client.status().home == str(site.rig.home.path)
        with pytest.raises(NoSuchThing):
            client.job(99)
        with pytest.raises(UsageError):
            client.submit(JobFields(name="a/b", sources=[str(site.tree)]))


@pytest.mark.parametrize("way", WAYS)
async def test_each_way_in_trio(site: Site, way: Callable[[Site], dict[str, Any]]) -> None:
    async with connect_trio(**way(site)) as client:
        assert (await client.status()).pid == site.rig.process.pid
        with pytest.raises(NoSuchThing):
            await client.job(99)
        assert [pool.is_default for pool in await client.pools.list()] == [True]
        assert {each["path"].rpartition("/")[2] for each in await client.find("te?t")} == {"text"}


def test_a_job_is_followed(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    seen: list[str] = []
    with connect(**site.by_ca()) as client:
        view = client.submit(JobFields(name="followed", sources=[str(tmp_path)]))
        over = client.wait_job(view.number, lambda job: seen.append(job.state.value))
        assert over.state.value == "completed", over.error
        assert seen[-1] == "completed"
        assert view.number in [job.number for job in client.jobs()]
        assert [each["job"] for each in client.find("file")] == ["followed"]


async def test_a_job_is_followed_in_trio(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    async with connect_trio(**site.unix()) as client:
        view = await client.submit(JobFields(name="in-trio", sources=[str(tmp_path)]))
        assert (await client.wait_job(view.number)).state.value == "completed"


@pytest.mark.parametrize("way", WAYS)
def test_bytes_come_from_tape_into_a_file(site: Site, way: Callable[[Site], dict[str, Any]], tmp_path: Path) -> None:
    site.evict()
    seen: list[tuple[int, int]] = []
    with connect(**way(site)) as client:
        view = client.download(site.path("large"), tmp_path / "large", lambda there, of: seen.append((there, of)))
    assert view.size == 3_000_000
    assert (tmp_path / "large").read_bytes() == (site.tree / "large").read_bytes()
    assert seen[-1] == (3_000_000, 3_000_000)
    assert os.listdir(tmp_path) == ["large"], "nothing half is left"


async def test_bytes_in_trio(site: Site, tmp_path: Path) -> None:
    site.evict()
    async with connect_trio(**site.by_ca()) as client:
        for name in ("large", "text", "empty"):
            await client.download(site.path(name), tmp_path / name)
            assert (tmp_path / name).read_bytes() == (site.tree / name).read_bytes()
        with pytest.raises(NoSuchThing):
            await client.download(site.path("nothing"), tmp_path / "nothing")
        with pytest.raises(NotNow, match="directory"):
            await client.download(site.path(), tmp_path / "nothing")
    assert sorted(os.listdir(tmp_path)) == ["empty", "large", "text"]


def test_a_folder_and_names_of_any_bytes(site: Site, tmp_path: Path) -> None:
    with connect(**site.by_ca()) as client:
        entries = client.folder(site.path())
        assert len(entries) == 4
        odd = next(each for each in entries if each.size == 3)
        client.download(os.fsencode(site.path()) + ODD, tmp_path / "odd")
        assert (tmp_path / "odd").read_bytes() == b"odd"
        assert odd.url_path.endswith("%FF%20odd%2520%3F%23%26.txt")
        with pytest.raises(NotNow):
            client.folder(site.path("text"))


def test_a_folder_as_an_archive(site: Site, tmp_path: Path) -> None:
    site.evict()
    with connect(**site.by_ca()) as client:
        client.download_archive(site.path(), tmp_path / "all.tar.zst")
    subprocess.run(["tar", "-I", "zstd", "-xf", "all.tar.zst"], cwd=tmp_path, check=True)
    [large] = tmp_path.rglob("large")
    assert large.read_bytes() == (site.tree / "large").read_bytes()


def test_a_download_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    """Half of it is there, by a process that was killed."""
    with connect(**site.by_ca()) as client:
        with pytest.raises(Stopped):
            client.download(site.path("large"), tmp_path / "large", stop_after(1_000_000))
        [part] = tmp_path.iterdir()
        half = part.stat().st_size
        assert 1_000_000 <= half < 3_000_000
        seen: list[int] = []
        client.download(site.path("large"), tmp_path / "large", lambda there, _: seen.append(there))
    assert seen[0] > half
    assert (tmp_path / "large").read_bytes() == (site.tree / "large").read_bytes()
    assert not part.exists()


def test_what_was_there_and_is_wrong_is_found_out(site: Site, tmp_path: Path) -> None:
    with connect(**site.by_ca()) as client:
        with pytest.raises(Stopped):
            client.download(site.path("text"), tmp_path / "text", stop_after(1))
        [part] = tmp_path.iterdir()
        with part.open("r+b") as file:
            file.write(b"not from tape")
        with pytest.raises(TapefsError, match="SHA-256"):
            client.download(site.path("text"), tmp_path / "text")
    assert list(tmp_path.iterdir()) == []


def test_two_downloads_of_one_file_do_not_meet(site: Site, tmp_path: Path) -> None:
    def again(*_: object) -> None:
        with connect(**site.by_ca()) as other, pytest.raises(NotNow, match="another download"):
            other.download(site.path("text"), tmp_path / "text")

    with connect(**site.by_ca()) as client:
        client.download(site.path("text"), tmp_path / "text", again)
    assert (tmp_path / "text").read_bytes() == (site.tree / "text").read_bytes()


class Stopped(Exception):
    pass


def stop_after(size: int) -> Callable[[int, int], None]:
    def stop(there: int, _: int) -> None:
        if there >= size:
            raise Stopped

    return stop


def test_certificates_and_tokens_that_are_not_believed(site: Site) -> None:
    with connect(site.url, token=site.rig.token) as client, pytest.raises(HomeError, match="not believed"):
        client.status()
    with connect(site.url, token=site.rig.token, pin="0" * 64) as client, pytest.raises(HomeError, match=site.pin):
        client.status()
    with connect(site.url, token="wrong", ca=site.certificate) as client, pytest.raises(HomeError):
        client.status()


async def test_certificates_that_are_not_believed_in_trio(site: Site) -> None:
    async with connect_trio(site.url, token=site.rig.token) as client:
        with pytest.raises(HomeError, match="not believed"):
            await client.status()
    with pytest.raises(HomeError, match=site.pin):
        async with connect_trio(site.url, token=site.rig.token, pin="0" * 64):
            pass


def test_by_the_environment(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAPEFS_URL", site.url)
    monkeypatch.setenv("TAPEFS_TOKEN_FILE", str(site.rig.home.token))
    monkeypatch.setenv("TAPEFS_PIN", site.pin)
    with connect() as client:
        assert client.status().pid == site.rig.process.pid
    monkeypatch.setenv("TAPEFS_TOKEN_FILE", str(tmp_path / "none"))
    with pytest.raises(HomeError, match="none"):
        connect()


@pytest.mark.parametrize(
    "url", ["ftp://a", "https://", "https://a:x", "https://a/path", "unix:relative", "host:80", "https://u@a"]
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(UsageError):
        connect(url)


def test_a_token_is_not_sent_in_clear() -> None:
    with pytest.raises(UsageError, match="clear"):
        connect("http://tapes.example.org:8080", token="secret")
    assert "secret" not in repr(connect("http://127.0.0.1:8080", token="secret").address)


def test_nobody_is_there() -> None:
    with connect("http://127.0.0.1:1") as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:1"):
        client.status()


def test_both_clients_have_the_same_calls() -> None:
    public = {
        name for name in dir(Client) if not name.startswith("_")
    } - {"call", "close"}  # fmt: skip
    assert public <= set(dir(AsyncClient)) | set(vars(AsyncClient(Address(socket=Path("x")))))


async def test_what_happens_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    with connect(**site.by_ca()) as client:
        number = client.submit(JobFields(name="told", sources=[str(tmp_path)])).number
        client.wait_job(number)
        with client.events(kinds="backup.started,backup.succeeded", since="0") as events:
            told = next(event for event in events if event.json()["subject"] == str(number))
        with client.events(after=told.id, kinds="backup.started,backup.succeeded") as events:
            over = next(event for event in events if event.json()["subject"] == str(number))
    assert (told.json()["kind"], over.json()["kind"]) == ("backup.started", "backup.succeeded")
    async with connect_trio(**site.unix()) as waiting:
        async with waiting.events(since="0", kinds="backup.started,backup.succeeded") as found:
            async for event in found:
                if event.id == told.id:
                    break
    assert event == told


def test_a_restore_on_the_host_is_followed(site: Site, tmp_path: Path) -> None:
    with connect(**site.by_ca()) as client:
        [made] = client.sets(name="data")
        seen: list[str] = []
        asked = client.restores.begin(made.set_id, str(tmp_path), [f"{site.tree}/text"])
        ended = client.restores.wait(asked.id, lambda view: seen.append(view.state))
        assert (ended.state, ended.files, seen[-1]) == ("completed", 1, "completed"), ended.error
        assert Path(f"{tmp_path}{site.tree}/text").read_bytes() == (site.tree / "text").read_bytes()
        assert [each.id for each in client.restores.list()] == [asked.id]
        with pytest.raises(NotNow):
            client.restores.cancel(asked.id)
        report = client.report(made.set_id)
        assert (report.files, report.trouble_list) == (made.files, [])
        assert next(part.copies[0].tape for part in client.set_parts(made.set_id)) in made.tapes


async def test_all_troubles_of_a_report_in_trio(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Page after page: a report over HTTP shows a thousand at most."""
    monkeypatch.setattr("tapefs.client.sets.PAGE", 2)
    async with connect_trio(**site.unix()) as client:
        [made] = await client.sets(name="data")
        reasons = [f"reason {number}" for number in range(5)]
        path = troubles_path(site.rig.home, made.set_id)
        assert path.read_bytes() == b""
        path.write_bytes(b"".join(b'{"path": "/x", "reason": "%s"}\n' % reason.encode() for reason in reasons))
        report = await client.report(made.set_id)
        assert [each.reason for each in report.trouble_list] == reasons
        path.write_bytes(b"")
