"""Notices and the channels by which they go out, as the sidecar tells them. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every, in_path


class NoticeView(msgspec.Struct, frozen=True, kw_only=True):
    """A notice."""

    number: int
    at: datetime | None
    kind: str
    #: `detail`, `news`, `warning` or `alarm`.
    gravity: str
    subject: str
    text: str
    facts: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that waits, or was given up."""

    notice: NoticeView
    attempts: int
    next_at: datetime | None
    error: str
    is_given_up: bool


class ChannelView(msgspec.Struct, frozen=True, kw_only=True):
    """A channel."""

    name: str
    kind: str
    #: Without what may be a secret.
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
    deliveries: list[DeliveryView] = msgspec.field(default_factory=list)


class TestView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a test."""

    name: str
    delivered: bool
    error: str = ""


class NoticeCalls:
    """The calls. Each may raise Unreachable, NoSuchThing and NotNow."""

    @call
    @staticmethod
    def channels() -> Steps[list[ChannelView]]:
        """Return all channels, by name."""
        return every("/api/v1/notify", ChannelView)

    @call
    @staticmethod
    def channel(name: str) -> Ask[ChannelView]:
        """Return one with what it has not delivered."""
        return Ask("GET", f"/api/v1/notify/{in_path(name)}", None, ChannelView)

    @call
    @staticmethod
    def try_channel(name: str) -> Ask[TestView]:
        """Have a test sent by a channel."""
        return Ask("POST", f"/api/v1/notify/{in_path(name)}/test", None, TestView)

    @call
    @staticmethod
    def since(number: int, limit: int = 1000) -> Steps[list[NoticeView]]:
        """Return what was told behind a number, oldest first."""
        return every(f"/api/v1/notices?since={number}", NoticeView, limit)


class NoticeClient(NoticeCalls, Family):
    """The calls, by a blocking client."""


class WaitingNoticeClient(NoticeCalls, WaitingFamily):
    """The calls, by a trio client."""
