"""Files over HTTP on a virtual library: judged by curl, GNU tar and unzip."""

from __future__ import annotations

import filecmp
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.backup.rig import Rig as BackupRig
from tests.sidecar.rig import Rig, running, wait_until

ODD = b"\xff odd%20?#&\n.txt"


@dataclass
class Site:
    rig: Rig
    tree: Path

    def url(self, call: str, name: str | bytes = "") -> str:
        inner = os.fsencode(self.tree) + (b"/" + os.fsencode(name) if name else b"")
        return f"/api/v1/{call}/jobs/data/latest{quote(inner)}"

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection("127.0.0.1", self.rig.port, timeout=60)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers={"Authorization": f"Bearer {self.rig.token}", **headers})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, body

    def curl(self, path: str, target: Path, *options: str) -> None:
        url = f"http://127.0.0.1:{self.rig.port}{path}"
        head = f"Authorization: Bearer {self.rig.token}"
        subprocess.run(["curl", "-sS", "--fail", "-H", head, *options, "-o", str(target), url], check=True, timeout=120)

    def evict(self) -> None:
        for pin in self.rig.unix("GET", "/api/v1/pins").body:
            self.rig.unix("DELETE", f"/api/v1/pins/{pin['id']}")
        self.rig.unix("POST", "/api/v1/evict", {"segments": None})


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("files")
    tree = folder / "tree"
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "large").write_bytes(os.urandom(3_000_000))
    (tree / "deep" / "text").write_bytes(b"some text\n" * 5000)
    (tree / "deep" / "er" / "empty").write_bytes(b"")
    (tree / os.fsdecode(ODD)).write_bytes(b"odd")
    (tree / "link").symlink_to("deep/text")
    (tree / "deep" / "set-id").write_bytes(b"x")
    (tree / "deep" / "set-id").chmod(0o4755)
    os.utime(tree / "large", ns=(1, 1_600_000_000_123_456_789))
    os.mkfifo(tree / "pipe")
    with (tree / "holes").open("wb") as file:
        file.seek(2_000_000)
        file.write(b"end")
    backup = BackupRig(folder, backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\n")
    backup.backup(tree, name="data")
    backup.close()
    with running(backup.home, listen=True, is_real=True) as rig:
        yield Site(rig, tree)


@pytest.fixture
def site(serving: Site) -> Site:
    serving.evict()
    return serving


def test_a_folder_by_pages(site: Site) -> None:
    names: list[str] = []
    start: Any = 0
    while start is not None:
        status, _, _ = site.get(site.url("files") + f"?limit=2&start={start}")
        assert status == 200
        page = site.rig.tcp("GET", site.url("files") + f"?limit=2&start={start}").body
        assert page["type"] == "directory"
        names += [entry["url_path"].rpartition("/")[2] for entry in page["entries"]]
        start = page["next"]
    assert sorted(names) == sorted(quote(name, safe="~") for name in os.listdir(os.fsencode(site.tree)))


def test_what_is_told_of_a_file(site: Site) -> None:
    told = site.rig.tcp("GET", site.url("files", "large")).body
    assert (told["type"], told["size"], told["mode"], told["state"]) == ("file", 3_000_000, "0644", "nearline")
    assert told["tapes"].startswith("TP")
    assert "entries" not in told
    assert site.rig.tcp("GET", site.url("files", "link")).body["target"] == "deep/text"
    digest = site.rig.tcp("GET", site.url("files", "deep/text")).body["sha256"]
    asked = subprocess.run(["sha256sum", str(site.tree / "deep/text")], capture_output=True, text=True, check=True)
    assert asked.stdout.startswith(digest)
    assert site.rig.tcp("GET", site.url("files", "nothing")).status == 404
    assert site.rig.tcp("GET", site.url("files") + "?start=x").status == 422


def test_a_cold_file_is_polled_and_then_there(site: Site) -> None:
    """But who may read what is on disk has no tape moved."""
    path = site.url("content", "large")
    secret = site.rig.unix("POST", "/api/v1/tokens", {"scopes": ["storage.read:/"]}).body["secret"]
    for url in (path, f"{path}?wait=true", site.url("download") + "?wait=true"):
        assert site.rig.tcp("GET", url, token=secret).status == 403
    status, headers, body = site.get(path)
    assert status == 202, body
    assert int(headers["retry-after"]) > 0
    again = site.get(path)
    assert again[0] in (200, 202)
    if again[0] == 202:
        assert again[1]["location"] == headers["location"], "asking again asks for nothing more"
    wait_until(lambda: "completedAt" in site.rig.tcp("GET", headers["location"]).body, "staged")
    status, headers, body = site.get(path)
    assert (status, body) == (200, (site.tree / "large").read_bytes())
    assert headers["last-modified"] == "Sun, 13 Sep 2020 12:26:40 GMT"
    assert 'filename="large"' in headers["content-disposition"]


def test_parts_and_conditions(site: Site) -> None:
    path, content = site.url("content", "large") + "?wait=true", (site.tree / "large").read_bytes()
    status, headers, body = site.get(path, range="bytes=1000000-1999999")
    assert (status, body) == (206, content[1_000_000:2_000_000])
    assert headers["content-range"] == "bytes 1000000-1999999/3000000"
    assert site.get(path, range="bytes=3000000-")[0] == 416
    assert site.get(path, if_none_match=headers["etag"])[::2] == (304, b"")
    assert site.get(path, if_match='"other"')[0] == 412
    status, headers, body = site.get(path, "HEAD")
    assert (status, headers["content-length"], body) == (200, "3000000", b"")


@pytest.mark.parametrize("name", ["large", "holes", "deep/er/empty", "deep/text", os.fsdecode(ODD)])
def test_curl_gets_every_byte_as_it_comes_from_tape(site: Site, tmp_path: Path, name: str) -> None:
    site.curl(site.url("content", name) + "?wait=true", tmp_path / "out")
    assert filecmp.cmp(tmp_path / "out", site.tree / name, shallow=False)


def test_curl_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    content = (site.tree / "large").read_bytes()
    (tmp_path / "out").write_bytes(content[:1_234_567])
    site.curl(site.url("content", "large") + "?wait=true", tmp_path / "out", "-C", "-")
    assert (tmp_path / "out").read_bytes() == content


def test_what_has_no_content(site: Site) -> None:
    for name in ("deep", "link", "pipe"):
        assert site.rig.tcp("GET", site.url("content", name)).status == 422, name
    assert site.rig.tcp("GET", site.url("content", "large") + "?wait=perhaps").status == 422
    assert site.rig.tcp("GET", "/api/v1/stagings/nothing").status == 404


def same_trees(left: Path, right: Path) -> bool:
    asked = subprocess.run(["diff", "-r", "--no-dereference", str(left), str(right)], capture_output=True, check=False)
    return asked.returncode == 0


def test_a_folder_as_tar_zst(site: Site, tmp_path: Path) -> None:
    site.curl(site.url("download") + "?format=tar.zst&wait=true", tmp_path / "out.tar.zst")
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["tar", "--zstd", "-xpf", str(tmp_path / "out.tar.zst"), "-C", str(tmp_path / "out")], check=True, timeout=60
    )
    out = tmp_path / "out" / "tree"
    for path in (out / "pipe", site.tree / "pipe"):
        assert path.is_fifo()
    for path in site.tree.rglob("*"):
        status, found = path.lstat(), (out / path.relative_to(site.tree)).lstat()
        assert (found.st_mode, found.st_mtime_ns) == (status.st_mode, status.st_mtime_ns), path
    (out / "pipe").unlink()
    asked = subprocess.run(["diff", "-r", "--no-dereference", str(site.tree), str(out)], capture_output=True, text=True)
    assert asked.stdout.splitlines() == [f"Only in {site.tree}: pipe"]


def test_a_folder_as_zip(site: Site, tmp_path: Path) -> None:
    path = site.url("download", "deep") + "?format=zip"
    status, headers, _ = site.get(path)
    assert status == 202
    wait_until(lambda: "completedAt" in site.rig.tcp("GET", headers["location"]).body, "staged")
    site.curl(path, tmp_path / "out.zip")
    subprocess.run(["unzip", "-q", str(tmp_path / "out.zip"), "-d", str(tmp_path)], check=True, timeout=60)
    assert same_trees(site.tree / "deep", tmp_path / "deep")


def test_formats_that_there_are_not(site: Site) -> None:
    assert site.rig.tcp("GET", site.url("download") + "?format=rar").status == 422
    assert site.rig.tcp("GET", site.url("download", "nothing") + "?format=zip").status == 404


def test_a_client_that_leaves_a_download_leaves_nothing_behind(site: Site) -> None:
    connection = HTTPConnection("127.0.0.1", site.rig.port, timeout=60)
    path = site.url("download") + "?wait=true"
    connection.request("GET", path, headers={"Authorization": f"Bearer {site.rig.token}"})
    connection.getresponse().read(1000)
    connection.close()
    assert site.get(site.url("content", "deep/text") + "?wait=true")[0] == 200
    site.evict()
    wait_until(
        lambda: bool(site.evict()) or site.rig.unix("GET", "/api/v1/staging").body["used_bytes"] == 0, "pins left"
    )
