"""A sidecar on a virtual library with some hundred files, and what foreign clients of WebDAV need to reach it."""

from __future__ import annotations

import os
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import quote
from xml.etree import ElementTree as ET

import pytest

from tests.backup.rig import Rig as BackupRig
from tests.sidecar.rig import Rig, running

ODD = b"\xff odd%20?#&<\x01>\n.txt"
USER, PASSWORD = "ada", "correct horse: bättery staple"
FILES = 300
#: What litmus writes, and expects to read.
LITMUS = b"This is\na test file.\nfor litmus\ntesting.\n"
#: More than a few pages of a listing.
MANY = 333


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def responses(self) -> dict[str, ET.Element]:
        """Of a multistatus, by href."""
        assert self.status == 207, (self.status, self.body)
        found = ET.fromstring(self.body).findall("{DAV:}response")
        by_href = {each.findtext("{DAV:}href") or "": each for each in found}
        assert len(by_href) == len(found)
        return by_href


def values(response: ET.Element, status: str = "200") -> dict[str, ET.Element]:
    """The properties with that status."""
    return {
        each.tag: each
        for stat in response.findall("{DAV:}propstat")
        if (stat.findtext("{DAV:}status") or "").split()[1] == status
        for each in stat.findall("{DAV:}prop/*")
    }


@dataclass
class Site:
    rig: Rig
    tree: Path

    @property
    def inner(self) -> str:
        """The URL's path of the tree that was backed up."""
        return self.at("")

    def odd(self, name: str | bytes = "") -> str:
        return url("odd", self.tree.parent / "odd", name)

    def at(self, name: str | bytes) -> str:
        return url("data", self.tree, name)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.rig.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, *, auth: str | None = "", **headers: str) -> Reply:
        """`auth` empty: the admin's token as a bearer; None: nothing."""
        connection = HTTPConnection("127.0.0.1", self.rig.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if auth is not None:
            sent["Authorization"] = auth or f"Bearer {self.rig.token}"
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def evict(self) -> None:
        for pin in self.rig.unix("GET", "/api/v1/pins").body:
            self.rig.unix("DELETE", f"/api/v1/pins/{pin['id']}")
        self.rig.unix("POST", "/api/v1/evict", {"segments": None})


def url(job: str, tree: Path, name: str | bytes) -> str:
    return f"/dav/jobs/{job}/latest" + quote(os.fsencode(tree) + b"/" + os.fsencode(name), safe="/~")


def basic(name: str, password: str) -> str:
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("dav")
    tree = folder / "tree"
    make_tree(tree)
    backup = BackupRig(folder, backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\n")
    backup.backup(tree, name="data")
    make_odd(folder / "odd")
    backup.backup(folder / "odd", name="odd")
    backup.close()
    with running(backup.home, listen=True, is_real=True) as rig:
        user = {"name": USER, "role": "admin", "password": PASSWORD}
        assert rig.unix("POST", "/api/v1/users", user).status == 201
        yield Site(rig, tree)


def make_tree(tree: Path) -> None:
    chance = random.Random(7)
    for number in range(FILES):
        path = tree / f"folder {number % 7}" / f"ünder {number % 3}" / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.choice((0, 1, 1000, 20_000))))
    (tree / "large").write_bytes(chance.randbytes(3_000_000))
    os.utime(tree / "large", ns=(1, 1_600_000_000_123_456_789))
    (tree / "litmus").mkdir()
    for name in ("res", "res-€", "prop"):
        (tree / "litmus" / name).write_bytes(LITMUS)
    (tree / "a+b & c=d; (e), [f]~'g'!.txt").write_bytes(b"every kind of letter that URLs mind")


def make_odd(tree: Path) -> None:
    """What WebDAV has no word for, names that XML cannot hold, and links of every kind."""
    (tree / "deep" / "er").mkdir(parents=True)
    (tree / "deep" / "text").write_bytes(b"some text\n" * 50)
    (tree / "deep" / "mine").write_bytes(b"of root")
    (tree / "deep" / "mine").chmod(0o600)
    (tree / os.fsdecode(ODD)).write_bytes(b"odd")
    os.mkfifo(tree / "pipe")
    for name, target in {
        "to-file": "deep/text",
        "to-link": "to-file",
        "absolute": str(tree / "deep" / "text"),
        "to-folder": "deep",
        "deep/er/up": "../../other",
        "outside": "/etc/passwd",
        "too-far": "../" * 30 + "etc/passwd",
        "nowhere": "none",
        "loop": "loop",
        "itself": ".",
        "top": "/",
        "to-pipe": "pipe",
    }.items():
        (tree / name).symlink_to(target)
    (tree / "other").mkdir()
    (tree / "other" / "again").symlink_to("../deep")
    (tree / "other" / "plain").write_bytes(b"plain")
    (tree / "many").mkdir()
    for number in range(MANY):
        (tree / "many" / f"{number:04}").write_bytes(b"")


@pytest.fixture
def site(serving: Site) -> Site:
    serving.evict()
    return serving
