"""Bearer tokens of others: what a self-made issuer signs counts, whatever is forged does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import pwd
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trio
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from sidecar.access.issuers import Issuers
from sidecar.access.keysets import AGAIN_S, check_url, keys_in
from sidecar.http.callers import Caller, Role
from tapefs.errors import HomeError
from tapefs.settings.access import Issuer
from tests.sidecar.access.rig import serving

RSA = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
EC = ECKey.generate_key("P-256", {"kid": "two", "use": "sig"})
STRANGER = RSAKey.generate_key(2048, {"kid": "one", "use": "sig"})
ISSUER = "https://iam.example.org/"
#: Tokens that are made when the tests are collected must not become good or bad by themselves while the tests run.
DAY_S = 24 * 3600


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def settings(jwks: str, **changes: Any) -> Issuer:
    fields: dict[str, Any] = {
        "issuer": ISSUER,
        "audience": ("tapefs", "https://wlcg.cern.ch/jwt/v1/any"),
        "jwks": jwks,
        "roles": {"/tape": "viewer", "/tape/admins": "admin"},
        "user_claim": "user",
    }
    return Issuer(**(fields | changes))


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    fields = {"iss": ISSUER, "aud": "tapefs", "sub": "ada", "exp": now + 2 * DAY_S, "nbf": now - 5, "iat": now - 5}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def signed(body: dict[str, Any], key: Any = RSA, algorithm: str = "RS256", **header: Any) -> str:
    head = {"alg": algorithm, "kid": key.kid} | header
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(head, body, key, registry=JWSRegistry(algorithms=[algorithm], strict_check_header=False))


def forged(head: dict[str, Any], body: dict[str, Any], key: bytes | None = None) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    text = f"{part(head)}.{part(body)}"
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest() if key is not None else b""
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


@pytest.fixture
def issuers(tmp_path: Path) -> Issuers:
    (tmp_path / "keys.json").write_bytes(key_set(RSA, EC))
    return Issuers(tmp_path, [settings("keys.json")])


@pytest.mark.parametrize(
    ("changes", "key", "role"),
    [
        ({"groups": ["/tape"]}, RSA, Role.VIEWER),
        ({"groups": ["/tape", "/tape/admins"]}, RSA, Role.ADMIN),
        ({"groups": "/tape other"}, RSA, Role.VIEWER),
        ({}, EC, None),
        ({"aud": ["other", "tapefs"]}, RSA, None),
    ],
)
async def test_what_an_issuer_signs_counts(
    issuers: Issuers, changes: dict[str, Any], key: RSAKey | ECKey, role: Role | None
) -> None:
    token = signed(claims(**changes), key, "ES256" if key is EC else "RS256")
    caller = await issuers.caller(token, "192.0.2.1")
    assert caller is not None
    assert caller == Caller("ada@iam.example.org", role, address="192.0.2.1", identity=caller.identity)
    again = await issuers.caller(signed(claims(jti="another token")), "192.0.2.2")
    other = await issuers.caller(signed(claims(sub="bob")), "192.0.2.1")
    assert again is not None
    assert other is not None
    assert again.identity == caller.identity != other.identity


async def test_clocks_may_differ_a_little(issuers: Issuers) -> None:
    assert await issuers.caller(signed(claims(exp=int(time.time()) - 10)), "") is not None


async def test_scopes_and_users(issuers: Issuers) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    body = claims(**{"wlcg.ver": "1.0", "scope": "openid storage.stage:/a storage.read:/../b compute.x", "user": name})
    caller = await issuers.caller(signed(body), "")
    assert caller is not None
    assert caller.scopes == {"storage.stage:/a", "storage.read:/a", "storage.poll:/a"}
    assert caller.uid == (os.geteuid() or None), "nobody becomes root by what an issuer says"
    other = await issuers.caller(signed(claims(user="bin", scope="storage.stage:/a")), "")
    assert other is not None
    assert (other.uid, other.scopes) == (pwd.getpwnam("bin").pw_uid, frozenset())


NOW = int(time.time())


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(forged({"alg": "none", "kid": "one"}, claims()), id="no algorithm"),
        pytest.param(forged({"alg": "None", "kid": "one"}, claims()), id="no Algorithm"),
        pytest.param(forged({"kid": "one"}, claims()), id="no header"),
        pytest.param(
            forged({"alg": "HS256", "kid": "one"}, claims(), RSA.as_pem(private=False)), id="the public key as a secret"
        ),
        pytest.param(forged({"alg": "HS256", "kid": "one"}, claims(), key_set(RSA)), id="the key set as a secret"),
        pytest.param(signed(claims(), STRANGER), id="another key of the same name"),
        pytest.param(signed(claims(), EC, "ES256", kid="one"), id="a name of another key"),
        pytest.param(signed(claims(), RSA, kid="three"), id="an unknown key"),
        pytest.param(signed(claims(), RSA, kid=None)[:-8] + "AAAAAAAA", id="a wrong signature"),
        pytest.param(signed(claims(), RSA, "PS256"), id="an algorithm that is not on the list"),
        pytest.param(signed(claims(), STRANGER, jwk=STRANGER.as_dict(private=False)), id="its own key in the header"),
        pytest.param(signed(claims(aud="other")), id="for somebody else"),
        pytest.param(signed(claims(aud=None)), id="for nobody"),
        pytest.param(signed(claims(aud=[])), id="for nobody at all"),
        pytest.param(signed(claims(iss="https://evil.example/")), id="of another issuer"),
        pytest.param(signed(claims(exp=NOW - 100)), id="too old"),
        pytest.param(signed(claims(exp=None)), id="for ever"),
        pytest.param(signed(claims(exp="tomorrow")), id="until some day"),
        pytest.param(signed(claims(nbf=NOW + DAY_S)), id="not yet"),
        pytest.param(signed(claims(iat=NOW + DAY_S)), id="from the future"),
        pytest.param(signed(claims(sub=None)), id="of nobody"),
        pytest.param(signed(claims(sub=["ada"])), id="of a list"),
        pytest.param("a.b.c", id="rubbish"),
        pytest.param("..", id="nothing"),
        pytest.param("é.é.é", id="no ASCII"),
        pytest.param(forged({"alg": ["RS256"]}, claims()), id="a list of algorithms"),
        pytest.param("A" * 20_000 + ".b.c", id="too long"),
        pytest.param(base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.x", id="nested"),
    ],
)
async def test_what_is_forged_does_not_count(issuers: Issuers, token: str) -> None:
    assert await issuers.caller(token, "") is None


async def test_a_part_that_was_exchanged_is_noticed(issuers: Issuers) -> None:
    head, _, signature = signed(claims()).split(".")
    body = signed(claims(groups=["/tape/admins"])).split(".")[1]
    assert await issuers.caller(f"{head}.{body}.{signature}", "") is None


class _Keys(BaseHTTPRequestHandler):
    answers: ClassVar[list[tuple[int, bytes]]]
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        status, body = self.answers[0]
        self.send_response(status)
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[str, type[_Keys]]]:
    class Keys(_Keys):
        answers: ClassVar = [(200, key_set(RSA))]

    with HTTPServer(("127.0.0.1", 0), Keys) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/jwk", Keys
        http.shutdown()
        thread.join()


@pytest.mark.log_warnings
async def test_keys_are_fetched_kept_and_renewed(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched once; an unknown key is looked for again, at most once a minute; old ones outlive a failure."""
    url, keys = server
    late_s = 0.0
    real = trio.current_time
    monkeypatch.setattr("sidecar.access.keysets.trio.current_time", lambda: real() + late_s)
    issuers = Issuers(tmp_path, [settings(url)])
    for _ in range(3):
        assert await issuers.caller(signed(claims()), "") is not None
    assert keys.asked == 1
    keys.answers[0] = (200, key_set(RSA, EC))
    assert await issuers.caller(signed(claims(), EC, "ES256"), "") is None
    late_s = AGAIN_S + 1
    assert await issuers.caller(signed(claims(), EC, "ES256"), "") is not None
    assert keys.asked == 2
    for answer in ((500, b""), (200, b"nothing"), (302, key_set(RSA)), (200, b" " * 300_000)):
        keys.answers[0] = answer
        late_s += 3700
        assert await issuers.caller(signed(claims()), "") is not None
    late_s += 24 * 3600
    assert await issuers.caller(signed(claims()), "") is None


def test_an_issuers_tokens_open_the_sidecar(tmp_path: Path) -> None:
    """By its settings, through a real socket; forged ones get 401, and their scopes no role."""
    keys = tmp_path / "keys.json"
    keys.write_bytes(key_set(RSA))
    section = f"""
[[access.issuers]]
issuer = "{ISSUER}"
audience = ["tapefs"]
jwks = "{keys}"
roles = {{"/tape" = "viewer"}}
"""
    with serving(tmp_path / "home", section) as rig:
        token = signed(claims(groups=["/tape"]))
        shown = rig.tcp("GET", "/api/v1/session", token=token).body
        assert (shown["name"], shown["role"]) == ("ada@iam.example.org", "viewer")
        assert rig.tcp("GET", "/api/v1/jobs", token=token).status == 200
        assert rig.tcp("POST", "/api/v1/queue/pause", token=token).status == 403
        assert rig.tcp("GET", "/api/v1/jobs", token=forged({"alg": "none", "kid": "one"}, claims())).status == 401
        assert rig.tcp("GET", "/api/v1/jobs", token=signed(claims(groups=["/tape"]), STRANGER)).status == 401
        scoped = signed(claims(**{"wlcg.ver": "1.0", "scope": "storage.poll:/"}))
        assert rig.tcp("GET", "/api/v1/session", token=scoped).body["scopes"] == ["storage.poll:/"]
        assert rig.tcp("GET", "/api/v1/jobs", token=scoped).status == 403
        assert token not in (rig.home.path / "stderr.log").read_text()


@pytest.mark.parametrize(
    "url",
    ["http://iam.example.org/jwk", "ftp://127.0.0.1/", "https://", "http://127.0.0.1.evil.example/", "https://u:p@x/"],
)
def test_keys_that_could_be_changed_on_the_way(tmp_path: Path, url: str) -> None:
    with pytest.raises(HomeError):
        Issuers(tmp_path, [settings(url)])


def test_secret_keys_are_no_public_keys() -> None:
    with pytest.raises(ValueError, match="no public key"):
        keys_in(b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "one"}]}')
    check_url("https://iam.example.org/jwk")
