"""Notices, and the channels by which they go out, under /api/v1: `tapefs notify` uses them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catalog.notice_records import Delivery
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import next_link, page_answer
from sidecar.http.requests import Invalid, body_of, number_of, page_of
from sidecar.notices.channels import DeliveryFailed
from sidecar.notices.delivering import ChannelView, Delivering
from sidecar.notices.posting import TargetPolicy, TargetRefused, check_url
from sidecar.notices.store import Stored
from sidecar.notices.views import NoticeAnswer, notice_answer
from sidecar.service import Service
from tapefs.errors import NoSuchThing, NotNow
from tapefs.notice_kinds import unknown_patterns
from tapefs.settings.notices import NotifySettings


class DeliveryAnswer(msgspec.Struct, frozen=True):
    """A notice that waits, or was given up."""

    notice: NoticeAnswer
    attempts: int
    next_at: datetime | None
    error: str
    is_given_up: bool


class ChannelAnswer(msgspec.Struct, frozen=True):
    """A channel; where it leads is cut to what is no secret."""

    name: str
    kind: str
    leads_to: str
    #: `tapefs.toml` or `http`.
    origin: str
    events: list[str]
    language: str
    is_signed: bool
    waiting: int
    given_up: int
    delivered: int
    delivered_at: datetime | None
    failed: int
    failed_at: datetime | None
    error: str


class ChannelDetail(ChannelAnswer, frozen=True):
    """A channel with what it has not delivered."""

    deliveries: list[DeliveryAnswer]


class WebhookBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /api/v1/notify/{name}."""

    url: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    secret: Annotated[str, msgspec.Meta(max_length=500)] = ""
    events: Annotated[list[Annotated[str, msgspec.Meta(min_length=1, max_length=100)]], msgspec.Meta(max_length=50)] = (
        msgspec.field(default_factory=list)
    )


class TestAnswer(msgspec.Struct, frozen=True):
    """What became of a test."""

    name: str
    delivered: bool
    error: str = ""


class NoticeCalls:
    """What people are told, and how."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        one = "/api/v1/notify/{name}"
        since = (Query("since", "number of a notice: those with a higher one", int), Query("limit", "at most", int))
        return [
            Call("/api/v1/notices", self.notices, needs=Role.VIEWER, answer=list[NoticeAnswer], query=since),
            Call("/api/v1/notify", self.list, needs=Role.OPERATOR, answer=list[ChannelAnswer], query=PAGE),
            Call(one, self.show, needs=Role.OPERATOR, answer=ChannelDetail),
            Call(one, self.put, methods=["PUT"], needs=Role.ADMIN, body=WebhookBody, answer=ChannelDetail),
            Call(one, self.remove, methods=["DELETE"], needs=Role.ADMIN, status=204),
            Call(f"{one}/test", self.test, methods=["POST"], needs=Role.OPERATOR, answer=TestAnswer),
        ]

    async def notices(self, request: Request) -> Response:
        """List what was told, oldest first, behind a number."""
        limit = page_of(request).limit if "limit" in request.query_params else 1000
        found = await self._service.notices.events.since(number_of(request, "since") or 0, limit + 1)
        shown = found[:limit]
        headers = next_link(request, since=shown[-1].number, limit=limit) if len(found) > limit else {}
        return json_answer([notice_answer(notice) for notice in shown], headers=headers)

    async def list(self, request: Request) -> Response:
        """List the channels, by name."""

        def name_of(view: ChannelView) -> str:
            return view.entry.settings.name

        views = await self._delivering.views()
        return page_answer(request, views, lambda view: ChannelAnswer(**_fields(view)), name_of)

    async def show(self, request: Request) -> Response:
        """Show one channel with what it has not delivered."""
        return json_answer(await self._detail(str(request.path_params["name"])))

    async def put(self, request: Request) -> Response:
        """Set a webhook; one that was set over HTTP is replaced."""
        name, body = str(request.path_params["name"]), await body_of(request, WebhookBody)
        hook = self._hook(name, body)

        def change(stored: Stored) -> Stored:
            others = tuple(each for each in stored.webhooks if each.name != name)
            return msgspec.structs.replace(stored, webhooks=(*others, hook))

        await self._delivering.change(change)
        return json_answer(await self._detail(name))

    def _hook(self, name: str, body: WebhookBody) -> NotifySettings:
        if wrong := unknown_patterns(body.events):
            raise Invalid("value_error", ["body", "events"], f"no kind of notices fits {wrong[0]!r}", wrong[0])
        rules = self._service.home.settings.notices
        try:
            check_url(body.url, TargetPolicy(rules.allow_private, rules.allow_http))
            return msgspec.convert(
                {"name": name, "kind": "webhook", "url": body.url, "secret": body.secret, "events": body.events},
                NotifySettings,
            )
        except TargetRefused as error:
            raise Invalid("value_error", ["body", "url"], str(error)) from error
        except msgspec.ValidationError as error:
            raise Invalid("value_error", ["path", "name"], str(error).partition(" - at")[0], name) from error

    async def remove(self, request: Request) -> Response:
        """Forget a webhook that was set over HTTP; 204. What it had not delivered is given up."""
        name = str(request.path_params["name"])
        if self._delivering.entry(name).origin != "http":
            raise NotNow(f"channel {name} stands in tapefs.toml: take it out there")

        def change(stored: Stored) -> Stored:
            left = tuple(each for each in stored.webhooks if each.name != name)
            if len(left) == len(stored.webhooks):
                raise NoSuchThing(f"there is no webhook {name}")
            return msgspec.structs.replace(stored, webhooks=left)

        await self._delivering.change(change)
        return Response(status_code=204)

    async def test(self, request: Request) -> Response:
        """Send a test by a channel at once, and say what became of it."""
        name = str(request.path_params["name"])
        try:
            await self._delivering.test(name)
        except DeliveryFailed as error:
            return json_answer(TestAnswer(name, False, str(error)))
        return json_answer(TestAnswer(name, True))

    @property
    def _delivering(self) -> Delivering:
        return self._service.notices.delivering

    async def _detail(self, name: str) -> ChannelDetail:
        self._delivering.entry(name)
        view = next(each for each in await self._delivering.views() if each.entry.settings.name == name)
        return ChannelDetail(**_fields(view), deliveries=[_delivery(each) for each in view.deliveries])


def _delivery(delivery: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        notice_answer(delivery.notice),
        delivery.attempts,
        moment(delivery.next_at_ns),
        delivery.error,
        delivery.is_given_up,
    )


def _fields(view: ChannelView) -> dict[str, Any]:
    settings, record = view.entry.settings, view.record
    return {
        "name": settings.name,
        "kind": settings.kind,
        "leads_to": view.entry.channel.shown,
        "origin": view.entry.origin,
        "events": list(settings.events),
        "language": settings.language,
        "is_signed": settings.kind == "webhook" and bool(settings.secret),
        "waiting": sum(not each.is_given_up for each in view.deliveries),
        "given_up": record.given_up,
        "delivered": record.delivered,
        "delivered_at": moment(record.delivered_at_ns),
        "failed": record.failed,
        "failed_at": moment(record.failed_at_ns),
        "error": record.error or getattr(view.entry.channel, "why", ""),
    }
