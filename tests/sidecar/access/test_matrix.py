"""Who may make which call: every route of the application, with every kind of caller, through real sockets.

The list is made of the routes that there are, so that no new one can be missed. What a call does when it is let in is
other tests' matter: here its body is no JSON, and what it names does not exist. And when everything has been asked,
nothing secret may have come back, nor stand in a log or a command line.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import cast
from urllib.parse import quote

import pytest

from sidecar.dav.calls import WRITING
from sidecar.http.app import calls_of
from sidecar.http.callers import NOBODY, Caller, Role
from sidecar.http.calls import Call
from sidecar.service import Service
from tapefs.access.scopes import implied
from tapefs.keys.identity import Identity
from tapefs.keys.store import KeyStore
from tests.sidecar.access.rig import home_with
from tests.sidecar.http.test_calls import OPEN, Parts
from tests.sidecar.rig import Rig, arguments_of, running

PASSWORD = "canary horse battery staple"
PASSPHRASE = "canary-passphrase-of-a-key"
KEY = Identity.new()
#: Of TAF's catalog: in a file of its own for the owner alone, and in addresses that calls are given.
DATABASE = "canary-of-a-database"
#: In the settings, which are a file for the owner alone.
PLANTED = {"canary-of-a-mailbox", "canary-of-a-webhook", "canary-of-a-signature", "canary-of-a-put-webhook"}
SETTINGS = """
[[notify]]
name = "mail"
url = "mailtos://ada:canary-of-a-mailbox@mail.example.invalid?to=ops@example.invalid"

[[notify]]
name = "hook"
kind = "webhook"
url = "https://monitoring.example.invalid/hooks/canary-of-a-webhook"
secret = "canary-of-a-signature"
"""
CALLS = calls_of(cast(Service, Parts()))
#: What destroys, or gives rights away, takes an admin; pinned here, because the routes' own word is what is tested.
ADMINS = re.compile(
    r"(POST|PUT|PATCH|DELETE) (/api/v1/(tokens|users|keys|pools|expire|reclaim|tapes/(label|relabel|erase|forget))"
    r"|/api/user/users|/api/tape/(create|update|delete|write-label|format|erase|operations/(format|erase))"
    r"|/api/backup/backup-sets)\b"
)


@dataclass
class Sender:
    """Somebody who calls over TCP."""

    caller: Caller
    headers: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    limits = "requests_per_minute = 1000000\nunknown_per_minute = 1000000"
    home = home_with(tmp_path_factory.mktemp("matrix") / "home", SETTINGS, limits)
    KeyStore(home.keys).add("canary", KEY, PASSPHRASE.encode())
    with running(home, listen=True) as rig:
        yield rig


@pytest.fixture(scope="module")
def secrets(rig: Rig) -> set[str]:
    """With a key that is unlocked, and a database that is asked for with its password."""
    unlocked = KeyStore(rig.home.keys).identity(KeyStore(rig.home.keys).find("canary"), PASSPHRASE.encode())
    assert rig.unix("POST", "/api/v1/keys", {"secret": unlocked.text}).status == 204
    assert rig.unix("GET", "/api/v1/keys").body["unlocked"] == [KEY.recipient.fingerprint]
    config = {"db_type": "postgresql", "db_host": "127.0.0.1", "db_port": 1, "db_user": "taf", "db_password": DATABASE}
    assert rig.unix("PUT", "/api/system/database/config", config).status == 200
    assert rig.unix("POST", "/api/system/database/test", config).body["success"] is False
    return {rig.token, PASSWORD, PASSPHRASE, DATABASE, KEY.text, KEY.text.lower()}


@pytest.fixture(scope="module")
def senders(rig: Rig, secrets: set[str]) -> dict[str, Sender]:
    found = {"nobody": Sender(NOBODY), "the state folder's token": _bearer(rig.token, Caller("", Role.ADMIN))}
    for role in Role:
        name = role.name.lower()
        secret = rig.unix("POST", "/api/v1/tokens", {"role": name}).body["secret"]
        found[f"token of a {name}"] = _bearer(secret, Caller("", role))
        user = {"name": name, "role": name, "password": PASSWORD}
        assert rig.unix("POST", "/api/v1/users", user).status == 201
        answer = rig.tcp("POST", "/api/v1/session", {"name": name, "password": PASSWORD}, token=None)
        cookie = answer.headers["set-cookie"].partition(";")[0]
        csrf = answer.body["csrf_token"]
        found[f"session of a {name}"] = Sender(Caller("", role), {"Cookie": cookie, "X-CSRF-Token": csrf})
        secrets |= {secret, cookie.partition("=")[2], csrf}
    login = {"username": "operator", "password": PASSWORD}
    access = rig.tcp("POST", "/api/user/login", login, token=None).body["access_token"]
    found["login of an operator"] = _bearer(access, Caller("", Role.OPERATOR))
    secrets.add(access)
    for scope in ("storage.read:/", "storage.poll:/", "storage.stage:/999999"):
        secret = rig.unix("POST", "/api/v1/tokens", {"scopes": [scope]}).body["secret"]
        found[scope] = _bearer(secret, Caller("", None, scopes=implied([scope])))
        secrets.add(secret)
    return found


def _bearer(secret: str, caller: Caller) -> Sender:
    return Sender(caller, {"Authorization": f"Bearer {secret}"})


def pairs() -> list[tuple[Call, str]]:
    return [(call, method) for call in CALLS for method in sorted((call.methods or set()) - {"HEAD"})]


def is_refused(call: Call, method: str) -> bool:
    """Is it refused to everybody? WebDAV changes nothing, and clients understand 403."""
    return call.path.startswith("/dav") and method in WRITING


def ask(rig: Rig, call: Call, method: str, headers: dict[str, str]) -> tuple[int, bytes]:
    """The status and the beginning of the answer; some never end."""
    path = re.sub(r"\{[^}]*\}", "999999", call.path)
    connection = HTTPConnection("127.0.0.1", rig.port, timeout=60)
    try:
        body = b"[" if method in ("POST", "PUT", "PATCH") else None
        connection.request(method, path, body, headers | {"Depth": "0"})
        answer = connection.getresponse()
        is_endless = answer.status == 200 and answer.getheader("content-length") is None
        return answer.status, b"" if is_endless else answer.read()
    finally:
        connection.close()


def test_every_call_with_every_caller(rig: Rig, senders: dict[str, Sender], secrets: set[str]) -> None:
    wrong, leaks = [], []
    hook = {"url": "https://monitoring.example.invalid/canary-of-a-put-webhook", "secret": "canary-of-a-signature"}
    assert rig.unix("PUT", "/api/v1/notify/put", hook).status in (200, 201, 204)
    secrets = secrets | PLANTED
    for name, sender in senders.items():
        for call, method in pairs():
            if call.path in OPEN and method in ("DELETE", "POST") and name.startswith(("session", "login")):
                continue  # They would end themselves.
            status, body = ask(rig, call, method, sender.headers)
            is_in = status not in (401, 403)
            may = sender.caller.may(call.needs, call.scopes) and not is_refused(call, method)
            if call.path == "/api/v1/session" and method == "GET":
                may = name != "nobody"
            if (
                is_in != may
                or (status >= 500 and status != call.status)
                or (name == "nobody" and not is_in and status != 401)
            ):
                wrong.append(f"{name}: {method} {call.path} is {status}, {'may' if may else 'may not'}")
            leaks += [f"{name}: {method} {call.path}" for secret in secrets if secret.encode() in body]
    # A session is told its own CSRF token, and nothing else is.
    assert {each.partition(":")[2].strip() for each in leaks} <= {"GET /api/v1/session"}
    assert wrong == []


def test_what_destroys_takes_an_admin() -> None:
    found = [f"{method} {call.path}" for call, method in pairs() if call.needs is Role.ADMIN]
    assert len([each for each in found if ADMINS.match(each)]) > 15
    for call, method in pairs():
        if ADMINS.match(f"{method} {call.path}"):
            assert call.needs is Role.ADMIN, f"{method} {call.path}"


def test_the_unix_socket_may_all(rig: Rig) -> None:
    for call, method in pairs():
        if method == "GET" and "arrivals" not in call.path and "events" not in call.path:
            path = re.sub(r"\{[^}]*\}", "999999", call.path)
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(60)
                peer.connect(str(rig.home.socket))
                peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                assert peer.recv(100).split()[1] not in (b"401", b"403"), path


def test_secrets_stand_nowhere(rig: Rig, senders: dict[str, Sender], secrets: set[str]) -> None:
    """Not in logs, command lines or files but their own, also after calls that fail with one in them."""
    for secret in sorted(secrets):
        assert rig.tcp("GET", f"/api/nothing?token={quote(secret)}", token=None).status == 404
        if secret.startswith("tapefs_"):
            assert rig.tcp("DELETE", f"/api/v1/tokens/{secret}").status == 404
        for path, body in (
            ("/api/v1/session", {"name": secret, "password": secret}),
            ("/api/user/login", {"username": "viewer", "password": [secret]}),
            ("/api/v1/keys", {"secret": secret if secret.upper() != KEY.text else f"{secret}x"}),
            ("/api/v1/users", {"name": "x", "role": "root", "password": secret}),
            ("/api/v1/taf/import", {"tape": "x", "catalog": f"postgresql://taf:{quote(secret, safe='')}@db/taf"}),
            ("/api/v1/taf/import", {"tape": "x", "catalog": f"postgresql://taf@db/taf?password={quote(secret)}"}),
        ):
            answer = rig.tcp("POST", path, body, token=None if "session" in path or "login" in path else "")
            assert answer.status in (401, 422, 429), answer
    for name in ("mail", "hook", "put"):
        tried = rig.unix("POST", f"/api/v1/notify/{name}/test")
        shown = rig.unix("GET", f"/api/v1/notify/{name}")
        assert not [secret for secret in PLANTED if secret in json.dumps([tried.body, shown.body])], name
    log = (rig.home.path / "stderr.log").read_text()
    pids = [str(rig.process.pid), *_children(rig.process.pid)]
    lines = " ".join(part for pid in pids for part in arguments_of(pid))
    for secret in secrets | PLANTED:
        assert secret not in log
        assert secret not in lines
    for path in rig.home.path.rglob("*"):
        if path.is_file() and path not in (rig.home.token, rig.home.path / "taf-database.json"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue  # The sidecar is at work: what was to get its name in one step has got it.
            assert not [secret for secret in secrets if secret.encode() in data], path


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
