"""/api/v1/find and /api/v1/versions, on sets that a real backup has made."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes, urlencode

import pytest

from tapefs.client.transport import SocketConnection
from tests.backup.rig import Rig as BackupRig
from tests.sidecar.rig import Rig, running, wait_until

MANY = 4000


@dataclass
class Searched:
    rig: Rig
    tree: Path

    def ask(self, call: str, **parameters: object) -> tuple[int, list[Any]]:
        """Return the status, and the lines or the answer."""
        connection = SocketConnection(self.rig.home.socket, 60)
        try:
            connection.request("GET", f"/api/v1/{call}?{urlencode(parameters, doseq=True)}")
            answer = connection.getresponse()
            return answer.status, [json.loads(line) for line in answer.read().splitlines()]
        finally:
            connection.close()

    def find(self, **parameters: object) -> list[Any]:
        status, lines = self.ask("find", **parameters)
        assert status == 200, lines
        assert lines[-1] == {"end": True, "found": len(lines) - 1}
        return lines[:-1]

    def names(self, **parameters: object) -> list[str]:
        return [line["path"].rpartition("/")[2] for line in self.find(**parameters)]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    folder = tmp_path_factory.mktemp("searched")
    tree = folder / "tree"
    (tree / "many").mkdir(parents=True)
    for number in range(MANY):
        (tree / f"many/m{number:05}").touch()
    (tree / "Straße.TXT").write_bytes(b"x" * 5000)
    (tree / "a.txt").write_bytes(b"a")
    with open(os.fsencode(tree) + b"/caf\xe9", "wb") as file:
        file.write(b"c")
    backup = BackupRig(folder)
    job = backup.queued(tree, name="first")
    backup.run(job)
    (tree / "a.txt").write_bytes(b"aa")
    os.unlink(os.fsencode(tree) + b"/caf\xe9")
    backup.again(job, type="incremental")
    backup.close()
    with running(backup.home) as rig:
        yield Searched(rig, tree)


def test_names_by_pattern(searched: Searched) -> None:
    assert searched.names(pattern="*.txt") == ["a.txt"]
    assert searched.names(pattern=["*.txt", "m0000?"]) == ["a.txt", *(f"m{number:05}" for number in range(10))]
    assert searched.names(pattern="STRA*", ignore_case="true", min_bytes=5000, type="f") == ["Straße.TXT"]
    assert searched.names(pattern="*", min_bytes=5001) == []
    assert searched.names(pattern="*/many/*7", path="true") == [f"m{number:05}" for number in range(7, MANY, 10)]
    assert {"tree", "many"} <= set(searched.names(pattern="*", type="d", job="first"))
    assert searched.names(pattern="tree", type="f", job="first") == []
    assert searched.names(pattern="a.txt", since="2100-01-01") == []
    assert searched.names(pattern="a.txt", until="2100-01-01") == ["a.txt"]


def test_what_a_line_says(searched: Searched) -> None:
    (line,) = searched.find(pattern="caf?", long="true")
    path = os.fsencode(searched.tree)[1:] + b"/caf\xef\xbf\xbd"
    assert line["path"] == path.decode()
    assert line["path_b64"]
    assert line["mount_path"].startswith("jobs/first/20")
    assert (line["job"], line["type"], line["size"], line["versions"]) == ("first", "file", 1, 1)
    assert set(searched.find(pattern="a.txt")[0]) == {"job", "set_id", "started_at", "path", "mount_path"}
    newest = searched.find(pattern="a.txt")[0]["set_id"]
    assert newest != line["set_id"]
    assert searched.names(pattern="*caf*", set=newest) == []
    assert [each["set_id"] for each in searched.find(pattern="a.txt", all="true")] == [newest, line["set_id"]]
    assert searched.find(pattern="a.txt", long="true")[0]["versions"] == 2


def test_versions(searched: Searched) -> None:
    status, lines = searched.ask("versions", path=str(searched.tree / "a.txt"))
    assert status == 200
    assert lines.pop() == {"end": True, "found": 2}
    assert [(line["size"], line["same_content"], line["gone"]) for line in lines] == [
        (1, None, False),
        (2, False, False),
    ]
    gone = os.fsencode(searched.tree) + b"/caf\xe9"
    connection = SocketConnection(searched.rig.home.socket, 60)
    connection.request("GET", f"/api/v1/versions?path={quote_from_bytes(gone)}")
    assert connection.getresponse().read().splitlines() == [b'{"end":true,"found":0}']
    connection.close()
    _, lines = searched.ask("versions", path_b64=searched.find(pattern="caf?")[0]["path_b64"], job="first")
    assert [line.get("gone") for line in lines] == [False, True, None]


@pytest.mark.parametrize(
    ("call", "parameters", "status"),
    [
        ("find", {}, 422),
        ("find", {"pattern": ""}, 422),
        ("find", {"pattern": "a\0"}, 422),
        ("find", {"pattern": "a", "type": "x"}, 422),
        ("find", {"pattern": "a", "all": "yes"}, 422),
        ("find", {"pattern": "a", "regex": "true"}, 422),
        ("find", {"pattern": "a", "min_bytes": "-1"}, 422),
        ("find", {"pattern": "a", "since": "soon"}, 422),
        ("find", {"pattern": "a", "job": "nobody"}, 404),
        ("find", {"pattern": "a", "set": "nobody"}, 404),
        ("versions", {}, 422),
        ("versions", {"path": "a", "path_b64": "YQ=="}, 422),
        ("versions", {"path_b64": "?"}, 422),
        ("versions", {"path_b64": "ü"}, 422),
        ("versions", {"path": "a", "job": "nobody"}, 404),
    ],
)
def test_refusals(searched: Searched, call: str, parameters: dict[str, str], status: int) -> None:
    found, lines = searched.ask(call, **parameters)
    assert (found, lines[0]["status"]) == (status, status)
    assert lines[0]["detail"]


def test_clients_that_leave_hold_no_search(searched: Searched) -> None:
    """More of them than searches may run at once stop reading in the middle; the next one has its turn."""
    target = f"/api/v1/find?{urlencode({'pattern': ['*'] * 3, 'all': 'true', 'long': 'true'}, doseq=True)}"
    for _ in range(6):
        with socket.socket(socket.AF_UNIX) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(str(searched.rig.home.socket))
            client.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert client.recv(100).startswith(b"HTTP/1.1 200")
    assert searched.names(pattern="a.txt") == ["a.txt"]


def test_a_slow_client_keeps_its_answer_whole(searched: Searched) -> None:
    connection = SocketConnection(searched.rig.home.socket, 60)
    connection.request("GET", "/api/v1/find?pattern=m*&pattern=many")
    answer = connection.getresponse()
    first = answer.readline()
    time.sleep(0.5)
    lines = [json.loads(line) for line in (first, *answer.read().splitlines())]
    connection.close()
    assert lines[-1] == {"end": True, "found": MANY + 1}


def test_the_sidecar_ends_while_one_searches(searched: Searched) -> None:
    """Last in this file: a client that does not read holds nothing up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(searched.rig.home.socket))
        client.sendall(b"GET /api/v1/find?pattern=*&long=true HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        code, seconds = searched.rig.stop()
    assert (code, seconds < 10) == (0, True)
    wait_until(lambda: not searched.rig.home.socket.exists(), "the socket is still there")
