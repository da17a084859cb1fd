"""TAF's /api/system/notification/… and /api/system/test-dingtalk: its gateway, its eleven flags, its users.

The gateway's key goes in and never comes out: MASK stands in its place, and given back it means the one that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.request_notes import note_values
from sidecar.http.requests import Invalid, body_of, number_in_path
from sidecar.notices.channels import DeliveryFailed
from sidecar.notices.posting import TargetPolicy, TargetRefused, check_url
from sidecar.notices.store import GATEWAY, Gateway, Stored, User
from sidecar.service import Service
from tapefs.errors import NoSuchThing
from tapefs.notice_kinds import FLAGS

#: What is shown of a key.
MASK = "********"

_Phone = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"\A[^\s]+\Z")]
_Text = Annotated[str, Meta(max_length=2000)]


class DingTalkConfig(msgspec.Struct, frozen=True):
    """The body of PUT /api/system/notification/config."""

    dingtalk_api_url: _Text
    dingtalk_api_key: _Text
    dingtalk_default_phone: Annotated[str, Meta(max_length=40)]


class NotificationUser(msgspec.Struct, frozen=True):
    """Somebody who is told, as TAF's calls have him."""

    phone: _Phone
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    remark: Annotated[str, Meta(max_length=500)] | None = None
    enabled: bool = True


class Said(msgspec.Struct, frozen=True):
    """What TAF answers to most calls."""

    success: bool
    message: str


class ConfigAnswer(msgspec.Struct, frozen=True):
    """The gateway."""

    success: bool
    config: DingTalkConfig


class FlagsAnswer(msgspec.Struct, frozen=True):
    """The flags."""

    success: bool
    events: dict[str, bool]


class UsersAnswer(msgspec.Struct, frozen=True):
    """The users."""

    success: bool
    users: list[User]


class NotificationCalls:
    """TAF's."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base, admin = "/api/system/notification", Role.ADMIN
        to_phone = (Query("phone", "who gets it; else all who are told"),)
        return [
            Call(f"{base}/config", self.config, needs=admin, answer=ConfigAnswer),
            Call(f"{base}/config", self.set_config, methods=["PUT"], needs=admin, body=DingTalkConfig, answer=Said),
            Call(f"{base}/events", self.events, needs=Role.VIEWER, answer=FlagsAnswer),
            Call(f"{base}/events", self.set_events, methods=["PUT"], needs=admin, body=dict[str, bool], answer=Said),
            Call(f"{base}/users", self.users, needs=Role.OPERATOR, answer=UsersAnswer),
            Call(f"{base}/users", self.add_user, methods=["POST"], needs=admin, body=NotificationUser, answer=Said),
            Call(
                f"{base}/users/{{user_id}}",
                self.set_user,
                methods=["PUT"],
                needs=admin,
                body=NotificationUser,
                answer=Said,
            ),
            Call(f"{base}/users/{{user_id}}", self.drop_user, methods=["DELETE"], needs=admin, answer=Said),
            Call(f"{base}/test", self.test, methods=["POST"], needs=Role.OPERATOR, answer=Said, query=to_phone),
            Call("/api/system/test-dingtalk", self.test, methods=["POST"], needs=Role.OPERATOR, answer=Said),
        ]

    async def config(self, request: Request) -> Response:
        """Show the gateway, without its key."""
        return json_answer(ConfigAnswer(True, shown_gateway(self._stored.gateway)))

    async def set_config(self, request: Request) -> Response:
        """Set the gateway; an empty URL takes it away."""
        body = await body_of(request, DingTalkConfig)
        before = self._stored.gateway
        note_values(request, old=shown_gateway(before))
        if body.dingtalk_api_url:
            self._check(body.dingtalk_api_url)

        def change(stored: Stored) -> Stored:
            if not body.dingtalk_api_url:
                return msgspec.structs.replace(stored, gateway=None)
            key = body.dingtalk_api_key if body.dingtalk_api_key != MASK else _kept_key(stored, body.dingtalk_api_url)
            gateway = Gateway(api_url=body.dingtalk_api_url, api_key=key, default_phone=body.dingtalk_default_phone)
            return msgspec.structs.replace(stored, gateway=gateway)

        await self._change(change)
        return json_answer(Said(True, "The gateway is set." if body.dingtalk_api_url else "There is no gateway now."))

    def _check(self, url: str) -> None:
        rules = self._service.home.settings.notices
        try:
            check_url(url, TargetPolicy(rules.allow_private, rules.allow_http))
        except TargetRefused as error:
            raise Invalid("value_error", ["body", "dingtalk_api_url"], str(error)) from error

    async def events(self, request: Request) -> Response:
        """Show TAF's flags."""
        return json_answer(FlagsAnswer(True, self._stored.flags()))

    async def set_events(self, request: Request) -> Response:
        """Switch flags; those that are not named are on, as TAF has it."""
        body = await body_of(request, dict[str, bool])
        if unknown := sorted(set(body) - set(FLAGS)):
            raise Invalid("value_error", ["body", unknown[0]], f"there are these flags: {', '.join(FLAGS)}")
        note_values(request, old=self._stored.flags())
        off = tuple(flag for flag in FLAGS if not body.get(flag, True))
        await self._change(lambda stored: msgspec.structs.replace(stored, flags_off=off))
        return json_answer(Said(True, "The flags are set."))

    async def users(self, request: Request) -> Response:
        """List who is told beside the default phone."""
        return json_answer(UsersAnswer(True, list(self._stored.users)))

    async def add_user(self, request: Request) -> Response:
        """Have somebody be told."""
        body = await body_of(request, NotificationUser)

        def change(stored: Stored) -> Stored:
            user = _user(stored.next_user, body)
            return msgspec.structs.replace(stored, users=(*stored.users, user), next_user=stored.next_user + 1)

        stored = await self._change(change)
        return json_answer({"success": True, "message": f"{body.name} is told.", "id": stored.next_user - 1})

    async def set_user(self, request: Request) -> Response:
        """Change somebody who is told."""
        number, body = number_in_path(request, "user_id"), await body_of(request, NotificationUser)
        note_values(request, old=self._user(self._stored, number))

        def change(stored: Stored) -> Stored:
            self._user(stored, number)
            users = tuple(_user(number, body) if user.id == number else user for user in stored.users)
            return msgspec.structs.replace(stored, users=users)

        await self._change(change)
        return json_answer(Said(True, f"{body.name} was changed."))

    async def drop_user(self, request: Request) -> Response:
        """Tell somebody no more."""
        number = number_in_path(request, "user_id")
        note_values(request, old=self._user(self._stored, number))

        def change(stored: Stored) -> Stored:
            gone = self._user(stored, number)
            return msgspec.structs.replace(stored, users=tuple(user for user in stored.users if user != gone))

        await self._change(change)
        return json_answer(Said(True, "The user is told no more."))

    async def test(self, request: Request) -> Response:
        """Send a test by the gateway."""
        try:
            await self._service.notices.delivering.test(GATEWAY, request.query_params.get("phone", ""))
        except NoSuchThing:
            return json_answer(Said(False, "There is no gateway, or nobody to tell: set both first."))
        except DeliveryFailed as error:
            return json_answer(Said(False, f"It was not delivered: {error}"))
        return json_answer(Said(True, "It was delivered."))

    @property
    def _stored(self) -> Stored:
        return self._service.notices.delivering.stored

    async def _change(self, change: Callable[[Stored], Stored]) -> Stored:
        return await self._service.notices.delivering.change(change)

    def _user(self, stored: Stored, number: int) -> User:
        for user in stored.users:
            if user.id == number:
                return user
        raise NoSuchThing(f"there is no user {number} who is told")


def _kept_key(stored: Stored, url: str) -> str:
    """Return the key that MASK means, which goes to no other gateway. Raises Invalid."""
    known = stored.gateway
    if known is not None and known.api_key and known.api_url.rstrip("/") != url.rstrip("/"):
        message = "is that of another gateway: send the key of this one"
        raise Invalid("value_error", ["body", "dingtalk_api_key"], message)
    return known.api_key if known is not None else ""


def _user(number: int, body: NotificationUser) -> User:
    return User(id=number, phone=body.phone, name=body.name, remark=body.remark, enabled=body.enabled)


def shown_gateway(gateway: Gateway | None) -> DingTalkConfig:
    """Return the gateway as it is shown."""
    if gateway is None:
        return DingTalkConfig("", "", "")
    return DingTalkConfig(gateway.api_url, MASK if gateway.api_key else "", gateway.default_phone)
