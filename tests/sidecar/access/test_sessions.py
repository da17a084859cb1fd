"""Users, and sessions of browsers, through a real socket."""

from __future__ import annotations

from http.cookies import SimpleCookie
from typing import Any

import pytest

from tests.sidecar.rig import Answer, Rig

PASSWORD = "correct horse battery"


def user(rig: Rig, name: str, role: str = "operator", **more: object) -> None:
    body = {"name": name, "role": role, "password": PASSWORD, **more}
    answer = rig.unix("POST", "/api/v1/users", body)
    assert answer.status == 201, answer


def login(rig: Rig, name: str, password: str = PASSWORD, **headers: str) -> Answer:
    return rig.tcp("POST", "/api/v1/session", {"name": name, "password": password}, token=None, **headers)


class Browser:
    """Sends the cookie that it was given."""

    def __init__(self, rig: Rig, name: str) -> None:
        answer = login(rig, name)
        assert answer.status == 200, answer
        self._rig = rig
        self.set_cookie = answer.headers["set-cookie"]
        [(self.cookie_name, morsel)] = SimpleCookie(self.set_cookie).items()
        self.cookie = f"{self.cookie_name}={morsel.value}"
        self.csrf: str = answer.body["csrf_token"]

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return self._rig.tcp(method, path, body, token=None, Cookie=self.cookie, **headers)

    def change(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        return self.ask(method, path, body, **{"X-CSRF-Token": self.csrf} | headers)


def test_a_session_from_its_beginning_to_its_end(rig: Rig) -> None:
    user(rig, "ada", uid=1234)
    browser = Browser(rig, "ada")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(browser.set_cookie.split("; "))
    assert "Secure" not in browser.set_cookie, "this connection is not encrypted"
    shown = browser.ask("GET", "/api/v1/session").body
    assert (shown["name"], shown["role"], shown["uid"]) == ("ada", "operator", 1234)
    assert shown["csrf_token"] == browser.csrf
    assert browser.change("DELETE", "/api/v1/session").status == 204
    assert browser.ask("GET", "/api/v1/session").status == 401
    assert browser.ask("GET", "/api/v1/jobs").status == 401


def test_a_foreign_page_changes_nothing(rig: Rig) -> None:
    """With the cookie alone, a wrong CSRF token, a foreign origin or site; reading stays allowed."""
    user(rig, "bob")
    browser, path = Browser(rig, "bob"), "/api/v1/jobs/999/run"
    assert browser.change("POST", path).status == 404
    assert browser.ask("POST", path).status == 403
    assert browser.change("POST", path, **{"X-CSRF-Token": "0" * 32}).status == 403
    assert browser.change("POST", path, Origin="http://evil.example").status == 403
    assert browser.change("POST", path, Origin="null").status == 403
    assert browser.change("POST", path, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert browser.change("POST", path, **{"Sec-Fetch-Site": "same-site"}).status == 403
    own = f"http://127.0.0.1:{rig.port}"
    assert browser.change("POST", path, Origin=own, **{"Sec-Fetch-Site": "same-origin"}).status == 404
    assert browser.change("POST", path, Origin=f"http://127.0.0.1:{rig.port + 1}").status == 403
    assert browser.ask("GET", "/api/v1/jobs", Origin="http://evil.example").status == 200


def test_nobody_is_logged_in_by_a_foreign_page(rig: Rig) -> None:
    user(rig, "carl")
    assert login(rig, "carl", Origin="http://evil.example").status == 403
    assert login(rig, "carl", **{"Sec-Fetch-Site": "cross-site"}).status == 403


def test_a_new_password_or_role_ends_sessions(rig: Rig) -> None:
    user(rig, "dora")
    for change in ({"role": "viewer"}, {"password": PASSWORD + "2"}):
        browser = Browser(rig, "dora")
        assert rig.unix("PATCH", "/api/v1/users/dora", change).status == 200
        assert browser.ask("GET", "/api/v1/session").status == 401
    assert login(rig, "dora").status == 401
    assert login(rig, "dora", PASSWORD + "2").status == 200
    assert rig.unix("DELETE", "/api/v1/users/dora").status == 204
    assert login(rig, "dora", PASSWORD + "2").status == 401


def test_a_token_is_no_cookie_and_a_cookie_no_token(rig: Rig) -> None:
    user(rig, "emil")
    browser = Browser(rig, "emil")
    assert rig.tcp("GET", "/health", token=browser.cookie.partition("=")[2]).status == 401
    token = rig.unix("POST", "/api/v1/tokens", {"role": "admin"}).body["secret"]
    assert rig.tcp("GET", "/health", token=None, Cookie=f"{browser.cookie_name}={token}").status == 401


def test_tries_of_passwords_are_counted(rig: Rig) -> None:
    """The right password is refused, too, once too many were wrong; another name is not shut out with it."""
    user(rig, "fred")
    user(rig, "gina")
    statuses = [login(rig, "fred", "wrong password").status for _ in range(7)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    refused = login(rig, "fred")
    assert (refused.status, refused.headers["retry-after"]) == (429, "60")
    assert login(rig, "gina").status == 200


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x" * 65},
        {"name": "a b"},
        {"name": ""},
        {"password": "short"},
        {"password": "x" * 1001},
        {"role": "root"},
        {"role": ""},
        {"uid": "no such user"},
        {"uid": -2},
        {"more": 1},
    ],
)
def test_nonsense_makes_no_user(rig: Rig, body: dict[str, Any]) -> None:
    answer = rig.unix("POST", "/api/v1/users", {"name": "nn", "role": "viewer", "password": PASSWORD, **body})
    assert answer.status == 422
    assert "nn" not in [each["name"] for each in rig.unix("GET", "/api/v1/users").body]


def test_names_are_taken_once(rig: Rig) -> None:
    user(rig, "hans")
    again = rig.unix("POST", "/api/v1/users", {"name": "hans", "role": "viewer", "password": PASSWORD})
    assert (again.status, again.detail) == (409, "there is a user hans already")


def test_taf_scripts_log_in(rig: Rig) -> None:
    user(rig, "ida")
    wrong = rig.tcp("POST", "/api/user/login", {"username": "ida", "password": "wrong password"}, token=None)
    assert (wrong.status, wrong.body["success"], wrong.body["access_token"]) == (401, False, None)
    right = rig.tcp("POST", "/api/user/login", {"username": "ida", "password": PASSWORD}, token=None)
    assert (right.status, right.body["success"]) == (200, True)
    assert right.body["user_info"]["username"] == "ida"
    token = right.body["access_token"]
    assert rig.tcp("GET", "/api/user/profile", token=token).body == right.body["user_info"]
    assert "user:manage" not in rig.tcp("GET", "/api/user/permissions", token=token).body["permissions"]
    assert rig.tcp("GET", "/api/user/users", token=token).status == 403
    assert rig.tcp("POST", "/api/user/logout", token=token).body["success"] is True
    assert rig.tcp("GET", "/api/user/profile", token=token).status == 401


def test_taf_scripts_manage_users(rig: Rig) -> None:
    body = {"username": "jan", "email": "j@example.org", "full_name": "Jan", "password": PASSWORD}
    made = rig.tcp("POST", "/api/user/users", body).body
    assert made["success"] is True
    number = made["user_id"]
    users = rig.tcp("GET", "/api/user/users").body
    assert users["total"] == len(users["users"])
    assert {"id": number, "role": "viewer"}.items() <= next(u for u in users["users"] if u["username"] == "jan").items()
    assert rig.tcp("PUT", f"/api/user/users/{number}", {"role": "admin"}).body["success"] is True
    assert rig.tcp("DELETE", f"/api/user/users/{number}").body["success"] is True
    assert rig.tcp("DELETE", f"/api/user/users/{number}").status == 404
