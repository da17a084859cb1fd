"""Pages of lists: who follows `Link` sees every entry once, whatever comes and goes meanwhile."""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import Any, cast, get_origin

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sidecar.http.app import calls_of
from sidecar.http.calls import CURSOR
from sidecar.http.paging import TOTAL, Key, page_answer
from sidecar.http.requests import Invalid
from sidecar.own.expiry import Verdicts
from sidecar.service import Service
from tapefs.client import connect, connect_trio
from tapefs.client.access import NewUser, TokenBody
from tapefs.client.job_fields import JobFields
from tapefs.client.pools import PoolFields
from tests.sidecar.http.test_calls import Parts
from tests.sidecar.rig import Rig, make_home, running, seed_set

#: Their parameters say how much is wanted, and from where on.
OTHERWISE = {"/api/v1/schedules/{number}/next", "/api/v1/notices"}
Item = Any


class Listed:
    """A list behind HTTP."""

    def __init__(self, items: list[Item], key: Callable[[Item], Key] | None, *, falls: bool = False) -> None:
        self.items, self.key, self.falls = items, key, falls
        app = Starlette(routes=[Route("/a b>/list", self.answer)])
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")

    async def answer(self, request: Request) -> Response:
        try:
            return page_answer(request, self.items, lambda item: item, self.key, falls=self.falls)
        except Invalid as error:
            return Response(str(error), 422)

    async def get(self, query: str) -> httpx.Response:
        return await self.client.get(f"/a b>/list?{query}")

    async def walk(self, query: str, between: Callable[[], object] = lambda: None) -> list[Item]:
        found: list[Item] = []
        answer = await self.get(query)
        while True:
            assert answer.status_code == 200, answer.text
            assert int(answer.headers[TOTAL]) == len(self.items)
            found += answer.json()
            if "next" not in answer.links:
                return found
            between()
            answer = await self.client.get(answer.links["next"]["url"])


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 1000])
@pytest.mark.parametrize(
    ("items", "key", "falls"),
    [
        (list(range(7)), lambda item: item, False),
        (list(range(6, -1, -1)), lambda item: item, True),
        (["", "a", 'b"', "ü", "ü>", "\U0001f600", "\U0001f601"], lambda item: item, False),
        ([[1, "b"], [1, "c"], [2, "a"]], tuple, False),
        ([[2, "a"], [1, "c"], [1, "b"]], tuple, True),
        ([3, 1, 2, 2], None, False),
        ([], lambda item: item, False),
        ([], None, False),
    ],
)
async def test_all_pages_are_the_list(
    items: list[Item], key: Callable[[Item], Key] | None, falls: bool, limit: int
) -> None:
    listed = Listed(items, key, falls=falls)
    assert await listed.walk(f"limit={limit}&name=a%26b") == items
    assert (await listed.get(f"limit={limit}&offset=2")).json() == items[2 : 2 + limit]
    assert await listed.walk(f"limit={limit}&offset=2") == items[2:], "the first page may begin anywhere"


async def test_what_stays_is_seen_once_whatever_comes_and_goes() -> None:
    listed = Listed(list(range(0, 40, 2)), lambda item: item)
    comers = iter(range(1, 40, 4))

    def change() -> None:
        new = next(comers)
        listed.items = sorted({*listed.items, new} - {listed.items[0], 2 * new})

    found = await listed.walk("limit=3", change)
    assert found == sorted(set(found))
    assert set(found) >= {each for each in listed.items if each % 2 == 0}


async def test_the_link_keeps_what_the_list_was_chosen_by() -> None:
    listed = Listed([1, 2], lambda item: item)
    link = (await listed.get("limit=1&state=a%26b&offset=0&state=%3E%22")).headers["link"]
    target = re.fullmatch(r'<(/a%20b%3E/list\?[^ <>"]+)>; rel="next"', link)
    assert target is not None, link
    kept = httpx.URL(target[1]).params.multi_items()
    assert kept[:-1] == [("state", "a&b"), ("state", '>"'), ("limit", "1")]
    assert kept[-1][0] == "cursor"
    assert "link" not in (await listed.get("limit=2")).headers


def _cursor(text: bytes) -> str:
    return urlsafe_b64encode(text).decode()


@pytest.mark.parametrize(
    "text", ["", "x", "%00", "!!!!", _cursor(b"{}"), _cursor(b"null"), _cursor(b"true"), _cursor(b'"a"'),
             _cursor(b"1.5"), _cursor(b"[1,2,3"), _cursor(b"9" * 400), _cursor(b"[" * 5000)],
)  # fmt: skip
@pytest.mark.parametrize("key", [None, lambda item: item])
async def test_a_cursor_of_somewhere_else_is_refused(text: str, key: Callable[[Item], Key] | None) -> None:
    answer = await Listed([1, 2, 3], key).get(f"cursor={text}")
    assert (answer.status_code, answer.text.partition(":")[0]) == (422, "cursor")


async def test_cursors_that_cannot_be_compared_are_refused() -> None:
    listed = Listed([[1, "b"], [2, "a"]], tuple)
    for text in (b'["x",1]', b"[]", b"[[1],2]", b"[null,2]"):
        assert (await listed.get(f"cursor={_cursor(text)}")).status_code in (200, 422), text
    assert (await listed.get(f"cursor={_cursor(b'[1,2]')}")).status_code == 422
    assert (await Listed([1, 2], None).get(f"cursor={_cursor(b'-1')}")).status_code == 422
    both = await Listed([1, 2], None).get(f"cursor={_cursor(b'1')}&offset=1")
    assert (both.status_code, both.text) == (422, "cursor: name a cursor or an offset, not both")


def test_every_list_of_our_own_has_pages() -> None:
    lists = [
        call
        for call in calls_of(cast(Service, Parts()))
        if call.path.startswith("/api/v1/")
        and "GET" in (call.methods or ())
        and (get_origin(call.answer) is list or call.answer is Verdicts)
    ]
    assert len(lists) > 15
    assert [call.path for call in lists if CURSOR not in call.query and call.path not in OTHERWISE] == []


@pytest.fixture
def site(tmp_path: Any) -> Any:
    home = make_home(tmp_path / "home")
    for name in ("one", "two", "three"):
        seed_set(home, name, tape=0)
    with running(home) as rig:
        with connect(f"unix:{rig.home.socket}") as client:
            for name in ("b", "a", "c"):
                client.pools.create(name, PoolFields())
                client.access.create_user(NewUser(name=name, password="correct horse battery"))
                client.access.create_token(TokenBody(role="viewer", name=name))
                client.submit(JobFields(name=name, sources=[str(tmp_path)]), run=False)
            client.pools.move(client.call("GET", "/api/v1/tapes", None, list[dict[str, Any]])[0]["label"], "the bank")
            copied = client.upkeep.copy_catalog(str(tmp_path))
            assert client.upkeep.wait(copied.number).error is None
            yield rig


LISTS = ("pools", "users", "tokens", "vault", "sets", "tapes", "drives", "expire", "streams", "recalls", "prompts",
         "pins", "verify", "tape-tasks", "restores", "schedules", "recalls/history")  # fmt: skip


async def test_real_lists_page_by_page(site: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(site.home.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        lengths = {}
        for name in LISTS:
            answer = await client.get(f"/api/v1/{name}")
            whole = answer.json()["verdicts"] if name == "expire" else answer.json()
            found: list[object] = []
            target = f"/api/v1/{name}?limit=1"
            while target:
                answer = await client.get(target)
                found += answer.json()["verdicts"] if name == "expire" else answer.json()
                target = answer.links.get("next", {}).get("url", "")
            assert found == whole, name
            lengths[name] = len(found)
        told = (await client.get("/api/v1/notices")).json()
        assert len(told) > 1
        answer = await client.get(f"/api/v1/notices?limit={max(1, len(told) - 1)}")
        behind = answer.links.get("next", {}).get("url")
        assert answer.json() + ((await client.get(behind)).json() if behind else []) == told
        assert (behind is None) == (len(told) == 1)
        numbers = [each["number"] for each in (await client.get("/api/v1/jobs")).json()]
        first = await client.get("/api/v1/jobs?limit=2&state=pending")
        second = await client.get(first.links["next"]["url"])
        assert [each["number"] for each in (*first.json(), *second.json())] == numbers[-3:]
    assert {name: lengths[name] for name in LISTS[:8]} == {
        "pools": 4, "users": 3, "tokens": 3, "vault": 1, "sets": 3, "tapes": 3, "drives": 1, "expire": 3,
    }  # fmt: skip
    await _both_clients_follow(site, monkeypatch)


async def _both_clients_follow(site: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tapefs.client.calling.PAGE", 1)
    with connect(f"unix:{site.home.socket}") as client:
        assert [each.kind for each in client.notices.since(0)] == ["system.started", "catalog.copied"]
        assert [each.kind for each in client.notices.since(0, 1)] == ["system.started"]
        pools = [pool.name for pool in client.pools.list()]
        assert pools == sorted(pools)
        assert len(pools) == 4
        assert [user.name for user in client.access.users()] == ["a", "b", "c"]
        jobs = client.jobs()
        assert client.jobs(limit=1000) == jobs
        assert client.jobs(limit=3) == jobs[:3]
        assert client.jobs(limit=3, offset=1) == jobs[1:4]
        sets = client.sets()
        assert [each.name for each in sets] == ["three", "two", "one"]
        assert client.sets(name="two") == [sets[1]]
        assert [each.set_id for each in client.verdicts()] == [each.set_id for each in sets[::-1]]
        shown = client.set(sets[0].set_id)
        assert client.set_parts(sets[0].set_id) == shown.parts
        assert client.report(sets[0].set_id).trouble_list == []
        assert [each.label for each in client.tapes.list()] == sorted(each.label for each in client.tapes.list())
        assert (len(client.tapes.list()), len(client.tapes.list(state="blank"))) == (3, 2)
        assert [drive.name for drive in client.drives()] == ["drive0"]
        assert (client.pins(), client.verifications(), client.streams(), client.restores.list()) == ([], [], [], [])
    async with connect_trio(f"unix:{site.home.socket}") as waiting:
        assert [pool.name for pool in await waiting.pools.list()] == pools
        assert [token.name for token in await waiting.access.tokens()] == ["b", "a", "c"]
