"""Tokens: made once, kept as digests, ended at once, with their own roles."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from tests.sidecar.rig import Rig, make_home, running


def made(rig: Rig, **body: object) -> dict[str, object]:
    answer = rig.unix("POST", "/api/v1/tokens", body)
    assert answer.status == 201, answer
    return dict(answer.body)


def secret_of(rig: Rig, **body: object) -> str:
    return str(made(rig, **body)["secret"])


def test_a_token_has_its_role_and_no_more(rig: Rig) -> None:
    viewer, operator, admin = (secret_of(rig, role=role) for role in ("viewer", "operator", "admin"))
    for token in (viewer, operator, admin):
        assert rig.tcp("GET", "/api/v1/jobs", token=token).status == 200
    body = {"tape": "nothing"}
    assert rig.tcp("POST", "/api/v1/jobs/999/run", token=viewer).status == 403
    assert rig.tcp("POST", "/api/v1/jobs/999/run", token=operator).status == 404
    assert rig.tcp("POST", "/api/v1/tokens", body, token=operator).status == 403
    assert rig.tcp("GET", "/api/v1/tokens", token=admin).status == 200


def test_a_token_is_shown_once_and_never_stored(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    with running(home, listen=True) as rig:
        token = made(rig, role="viewer", name="canary", uid=7)
        secret = str(token["secret"])
        assert len(secret) > 43
        listed = rig.unix("GET", "/api/v1/tokens").body
        assert [each["name"] for each in listed] == ["canary"]
        assert "secret" not in listed[0]
        assert rig.tcp("GET", "/api/v1/session", token=secret).body["uid"] == 7
    kept = b"".join(path.read_bytes() for path in home.path.rglob("*") if path.is_file())
    assert secret.encode() not in kept
    assert secret.removeprefix("tapefs_").encode() not in kept
    # The time of its use is written down at the end, and it goes on working.
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        assert ledger.credentials()[0].used_at_ns > ledger.credentials()[0].created_at_ns
    with running(home, listen=True) as rig:
        assert rig.tcp("GET", "/health", token=secret).status == 200


def test_a_revoked_token_ends_at_once(rig: Rig) -> None:
    token = made(rig, role="admin")
    secret = str(token["secret"])
    assert rig.tcp("GET", "/health", token=secret).status == 200
    assert rig.unix("DELETE", f"/api/v1/tokens/{str(token['id'])[:8]}").body == {"revoked": 1}
    assert rig.tcp("GET", "/health", token=secret).status == 401
    assert rig.unix("DELETE", f"/api/v1/tokens/{token['id']}").status == 404
    assert rig.unix("DELETE", "/api/v1/tokens/x").status == 404


def test_a_token_runs_out(rig: Rig) -> None:
    secret = secret_of(rig, role="viewer", days=1.5 / 86_400)
    began = time.monotonic()
    while rig.tcp("GET", "/health", token=secret).status == 200:
        assert time.monotonic() - began < 30
        time.sleep(0.1)
    assert rig.tcp("GET", "/health", token=secret).status == 401


def test_scopes_are_told_with_what_they_include(rig: Rig) -> None:
    secret = secret_of(rig, scopes=["storage.stage:/data//x/./"])
    assert rig.tcp("GET", "/api/v1/session", token=secret).body["scopes"] == [
        "storage.poll:/data/x",
        "storage.read:/data/x",
        "storage.stage:/data/x",
    ]
    assert rig.tcp("GET", "/api/v1/jobs", token=secret).status == 403


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, "role"),
        ({"role": "root"}, "role"),
        ({"scopes": ["storage.stage"]}, "scopes.0"),
        ({"scopes": ["storage.stage:/a/../b"]}, "scopes.0"),
        ({"scopes": ["storage.create:/"]}, "scopes.0"),
        ({"role": "viewer", "uid": "no such user"}, "uid"),
        ({"role": "viewer", "days": -1}, "days"),
        ({"role": "viewer", "days": 1e9}, "days"),
        ({"role": "viewer", "name": "x" * 65}, "name"),
        ({"role": "viewer", "secret": "mine"}, "secret"),
    ],
)
def test_nonsense_makes_no_token(rig: Rig, body: dict[str, object], place: str) -> None:
    before = len(rig.unix("GET", "/api/v1/tokens").body)
    answer = rig.unix("POST", "/api/v1/tokens", body)
    assert answer.status == 422
    assert place in answer.detail
    assert len(rig.unix("GET", "/api/v1/tokens").body) == before


def test_the_token_of_the_state_folder_is_an_admins(rig: Rig) -> None:
    assert rig.tcp("GET", "/api/v1/session").body["role"] == "admin"
    assert rig.tcp("GET", "/api/v1/users").status == 200
