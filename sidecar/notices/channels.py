"""Channels: how a notice gets to people or programs. A new one is a class here or beside, and a line in CHANNELS.

Trio only. `send` makes one attempt and returns when the other side has taken the message; it raises DeliveryFailed.
Nothing that a channel says holds a secret: neither its errors nor `shown`.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

import msgspec
import stamina
import trio

from catalog.notice_records import Notice
from sidecar.http.answers import moment
from sidecar.notices.posting import Answer, PostFailed, TargetPolicy, TargetRefused, check_url, post
from tapefs.errors import HomeError, TapefsError
from tapefs.notice_kinds import KINDS, Gravity
from tapefs.settings.notices import NotifySettings

if TYPE_CHECKING:
    from apprise import Apprise

#: Within one attempt a connection that fails is tried again so often, so long apart at first.
TRIES, FIRST_WAIT_S, LONGEST_WAIT_S = 3, 0.2, 2.0
#: An attempt of apprise's: its channels have timeouts of their own, which are shorter.
APPRISE_S = 45.0

# What is tried again is told by the queue, with the name of the channel.
stamina.instrumentation.set_on_retry_hooks([])

_encoder = msgspec.json.Encoder()
#: Threads that send by apprise at a time.
_senders = trio.CapacityLimiter(4)


class DeliveryFailed(TapefsError):
    """A channel did not take a notice; `can_retry` says if it may later."""

    def __init__(self, message: str, *, can_retry: bool = True) -> None:
        super().__init__(message)
        self.can_retry = can_retry


class Channel(Protocol):
    """A way to tell people."""

    #: As the settings name it.
    name: str

    @property
    def shown(self) -> str:
        """Where it leads, for people, without secrets."""
        ...

    async def send(self, notice: Notice) -> None:
        """Make one attempt. Raises DeliveryFailed."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """A notice in words."""

    title: str
    body: str


def message_of(notice: Notice, language: str) -> Message:
    """Return what people read; the title is in their language."""
    kind = KINDS.get(notice.kind)
    title = notice.kind if kind is None else kind.title_zh if language == "zh" else kind.title
    at = moment(notice.at_ns)
    return Message(title, f"{notice.text}\n\n{at:%Y-%m-%d %H:%M:%S %Z}" if at else notice.text)


def shown_url(url: str) -> str:
    """Return scheme and host of a URL; all else may be a secret. Apprise has tokens in place of hosts, too."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "…"
    if parts.scheme not in ("http", "https"):
        return f"{parts.scheme}://…"
    return f"{parts.scheme}://{host}/…"


# -- apprise -----------------------------------------------------------------------------------------------------------

_TYPES = {Gravity.DETAIL: "info", Gravity.NEWS: "success", Gravity.WARNING: "warning", Gravity.ALARM: "failure"}


def _apprise_of(url: str) -> tuple[Apprise, bool]:
    """Return apprise with a URL, and whether it knows such. It loads eighty plug-ins: only who needs it pays for it."""
    # It would log URLs with what is secret in them.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Of modules that its plug-ins import.
        from apprise import Apprise

        all_of_it = Apprise()
        return all_of_it, bool(all_of_it.add(url))


class AppriseChannel:
    """DingTalk, mail, Slack and some eighty more, by a URL as apprise has it."""

    def __init__(self, settings: NotifySettings, url: str, policy: TargetPolicy, folder: Path) -> None:
        """Raises HomeError when apprise does not know such a URL."""
        self.name = settings.name
        self._language = settings.language
        self.shown = shown_url(url)
        self._apprise, is_known = _apprise_of(url)
        if not is_known:
            raise HomeError(f"channel {settings.name}: apprise knows no {self.shown}, or the URL lacks something")

    async def send(self, notice: Notice) -> None:
        """Send in a thread; one that hangs is left to itself."""
        from apprise import NotifyType

        kind = KINDS.get(notice.kind)
        message = message_of(notice, self._language)

        def work() -> bool:
            type_ = NotifyType(_TYPES[kind.gravity if kind else Gravity.NEWS])
            return bool(self._apprise.notify(body=message.body, title=message.title, notify_type=type_))

        with trio.move_on_after(APPRISE_S):
            if await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=_senders):
                return
            raise DeliveryFailed(f"{self.shown} did not take it")
        raise DeliveryFailed(f"{self.shown} did not answer within {APPRISE_S:.0f} s")


# -- webhooks ----------------------------------------------------------------------------------------------------------


class WebhookBody(msgspec.Struct, frozen=True):
    """What a webhook gets: the notice, and its title."""

    number: int
    kind: str
    gravity: str
    title: str
    subject: str
    text: str
    at: datetime
    facts: dict[str, str | int | float | bool | None]


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return what stands in the header X-Tapefs-Signature: HMAC-SHA256 over the timestamp, a dot, and the body."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookChannel:
    """JSON to a URL, signed."""

    def __init__(self, settings: NotifySettings, url: str, policy: TargetPolicy, folder: Path) -> None:
        """Raises HomeError for a URL that is not posted to."""
        self.name = settings.name
        self._language = settings.language
        self._url, self._secret, self._policy = url, settings.secret.encode(), policy
        self._tls = tls_of(settings, url, folder)
        self.shown = shown_url(url)
        _check(settings.name, url, policy)

    async def send(self, notice: Notice) -> None:
        """Post it; any 2xx means that it was taken."""
        kind = KINDS.get(notice.kind)
        body = _encoder.encode(
            WebhookBody(
                number=notice.number,
                kind=notice.kind,
                gravity=(kind.gravity if kind else Gravity.NEWS).name.lower(),
                title=message_of(notice, self._language).title,
                subject=notice.subject,
                text=notice.text,
                at=datetime.fromtimestamp(notice.at_ns / 1e9, UTC),
                facts=notice.facts,
            )
        )
        timestamp = str(int(datetime.now(UTC).timestamp()))
        headers = {
            "Content-Type": "application/json",
            "X-Tapefs-Event": notice.kind,
            "X-Tapefs-Delivery": str(notice.number),
            "X-Tapefs-Timestamp": timestamp,
        }
        if self._secret:
            headers["X-Tapefs-Signature"] = signature(self._secret, timestamp, body)
        answer = await posted(self._url, body, headers, self._policy, self._tls)
        check_status(answer)


# -- TAF's gateway -----------------------------------------------------------------------------------------------------


class GatewayBody(msgspec.Struct, frozen=True):
    """What TAF's gateway takes."""

    phone: str
    title: str
    content: str
    message_type: str = "markdown"


class GatewayAnswer(msgspec.Struct, frozen=True):
    """What it answers."""

    success: bool
    message: str = ""


class GatewayChannel:
    """TAF's DingTalk gateway: one message to each phone."""

    def __init__(self, settings: NotifySettings, url: str, policy: TargetPolicy, folder: Path) -> None:
        """Raises HomeError for a URL that is not posted to, and when there is no phone."""
        if not settings.phones:
            raise HomeError(f"channel {settings.name}: a DingTalk gateway needs at least one phone in `phones`")
        self.name = settings.name
        self._language = settings.language
        self._url = url.rstrip("/") + "/api/v1/messages/send"
        self._key, self._phones, self._policy = settings.secret, settings.phones, policy
        self._tls = tls_of(settings, url, folder)
        self.shown = shown_url(url)
        _check(settings.name, self._url, policy)

    async def send(self, notice: Notice) -> None:
        """Send to all phones; when one fails, all get it again."""
        for phone in self._phones:
            await self.send_to(phone, notice)

    async def send_to(self, phone: str, notice: Notice) -> None:
        """Send to one phone. Raises DeliveryFailed."""
        message = message_of(notice, self._language)
        body = _encoder.encode(GatewayBody(phone, message.title, f"### {message.title}\n\n{message.body}"))
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        answer = await posted(self._url, body, headers, self._policy, self._tls)
        check_status(answer)
        try:
            said = msgspec.json.decode(answer.body, type=GatewayAnswer)
        except msgspec.DecodeError as error:
            raise DeliveryFailed("the gateway's answer is not what DingTalk gateways say") from error
        if not said.success:
            raise DeliveryFailed(f"the gateway did not take it: {said.message[:200]}")


# -- what they share ---------------------------------------------------------------------------------------------------


def _check(name: str, url: str, policy: TargetPolicy) -> None:
    try:
        check_url(url, policy)
    except TargetRefused as error:
        raise HomeError(f"channel {name}: {error}") from error


async def posted(
    url: str, body: bytes, headers: dict[str, str], policy: TargetPolicy, tls: ssl.SSLContext | None
) -> Answer:
    """Post; a connection that fails is tried again a few times. Raises DeliveryFailed."""
    try:
        async for attempt in stamina.retry_context(
            on=PostFailed,
            attempts=TRIES,
            wait_initial=FIRST_WAIT_S,
            wait_max=LONGEST_WAIT_S,
        ):
            with attempt:
                return await post(url, body, headers, policy, tls=tls)
    except PostFailed as error:
        raise DeliveryFailed(str(error), can_retry=error.can_retry) from error
    except TargetRefused as error:
        raise DeliveryFailed(str(error)) from error
    raise AssertionError("stamina ended without an answer or an error")


def check_status(answer: Answer) -> None:
    """Raise DeliveryFailed unless the other side has taken it; what it says is wrong with us is not tried again."""
    if 200 <= answer.status < 300:
        return
    is_passing = answer.status in (408, 425, 429) or answer.status >= 500
    where = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
    raise DeliveryFailed(f"the answer was {answer.status}{where}", can_retry=is_passing)


CHANNELS: dict[str, Callable[[NotifySettings, str, TargetPolicy, Path], Channel]] = {
    "apprise": AppriseChannel,
    "webhook": WebhookChannel,
    "dingtalk": GatewayChannel,
}


def tls_of(settings: NotifySettings, url: str, folder: Path) -> ssl.SSLContext | None:
    """Return whose certificates a channel believes; None where there is no TLS. Blocking for milliseconds.

    Raises HomeError.
    """
    if not url.lower().startswith("https:"):
        return None
    path = folder / settings.ca_file if settings.ca_file else None
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise HomeError(f"channel {settings.name}: {path} holds no certificates in PEM: {error.strerror}") from error


def url_of(settings: NotifySettings, folder: Path) -> str:
    """Return a channel's URL, from its file where that is named. Blocking. Raises HomeError."""
    if not settings.url_file:
        return settings.url
    path = folder / settings.url_file
    try:
        if path.stat().st_mode & 0o077:
            raise HomeError(f"channel {settings.name}: others may read {path}: `chmod 600` it")
        return path.read_text().strip()
    except OSError as error:
        raise HomeError(f"channel {settings.name}: cannot read {path}: {error.strerror}") from error


def open_channel(settings: NotifySettings, folder: Path, policy: TargetPolicy) -> Channel:
    """Make a channel. Blocking. Raises HomeError."""
    return CHANNELS[settings.kind](settings, url_of(settings, folder), policy, folder)
