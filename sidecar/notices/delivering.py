"""Delivers notices: a queue in the ledger, a task for each channel, so that one that hangs holds up nobody.

One trio run. A channel takes its notices in their order. One that cannot be delivered is tried again, each time later,
over restarts as well, and those behind it wait; after the time of the settings it is given up, which is logged and
shown. A delivery may happen twice (a crash between the other side's answer and the ledger), never not at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ledger import Ledger
from catalog.notice_records import ChannelRecord, Delivery, Notice
from sidecar.bell import Bell
from sidecar.notices.channels import Channel, DeliveryFailed, GatewayChannel, open_channel, shown_url
from sidecar.notices.events import Events
from sidecar.notices.posting import TargetPolicy
from sidecar.notices.store import GATEWAY, Stored, read_stored, write_stored
from tapefs.errors import HomeError, NoSuchThing, UsageError
from tapefs.home import Home
from tapefs.notice_kinds import Kind, is_wanted, unknown_patterns
from tapefs.settings.notices import NotifySettings

#: Pause behind the first failure; doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 1800.0

log = structlog.get_logger(__name__)


class BrokenChannel:
    """A channel that cannot be made of its settings."""

    def __init__(self, settings: NotifySettings, why: str) -> None:
        self.name = settings.name
        self.shown = shown_url(settings.url)
        self.why = why

    async def send(self, notice: Notice) -> None:
        """Say what is wrong. Raises DeliveryFailed."""
        raise DeliveryFailed(self.why)


@dataclass(frozen=True, slots=True)
class Entry:
    """A channel and what is known of it."""

    settings: NotifySettings
    channel: Channel
    #: `tapefs.toml` or `http`.
    origin: str


@dataclass(frozen=True, slots=True)
class ChannelView:
    """A channel as it is shown."""

    entry: Entry
    record: ChannelRecord
    #: Open and given up, oldest first.
    deliveries: list[Delivery] = field(default_factory=list)


class Delivering:
    """All channels and their queues."""

    def __init__(self, home: Home, ledger: Ledger, events: Events) -> None:
        """Read what channels there are; blocking. Channels that cannot be used are kept and say so."""
        self._home = home
        self._ledger = ledger
        self._events = events
        self._reloaded = Bell()
        self._changing = trio.Lock()
        #: By channel: up to which notice all was tried.
        self._settled: dict[str, int] = {}
        self.stored = Stored()
        self._entries: dict[str, Entry] = {}
        self._take(self._read())
        events.channels_for = self.wanting

    # -- which channels ----------------------------------------------------------------------------------------------

    def _read(self) -> Stored:
        try:
            return read_stored(self._home.notify)
        except HomeError as error:
            log.error("the channels that were set over HTTP are not known", error=str(error))
            return Stored()

    def _take(self, stored: Stored) -> None:
        """Make the channels anew. Blocking."""
        self.stored = stored
        rules = self._home.settings.notices
        theirs = TargetPolicy(allow_private=rules.allow_private, allow_http=rules.allow_http)
        ours = TargetPolicy(allow_private=True, allow_http=True)
        gateway = stored.gateway_settings()
        over_http = [*stored.webhooks, *([gateway] if gateway is not None else [])]
        entries = [self._entry(each, theirs, "http") for each in over_http]
        entries += [self._entry(each, ours, "tapefs.toml") for each in self._home.settings.notify]
        self._entries = {entry.settings.name: entry for entry in entries}
        self._settled = {name: self._settled.get(name, -1) for name in self._entries}

    def _entry(self, settings: NotifySettings, policy: TargetPolicy, origin: str) -> Entry:
        if wrong := unknown_patterns(settings.events):
            log.error("no kind of notices fits what a channel names", channel=settings.name, events=wrong)
        try:
            return Entry(settings, open_channel(settings, self._home.path, policy), origin)
        except HomeError as error:
            log.error("a channel for notices cannot be used", channel=settings.name, error=str(error))
            return Entry(settings, BrokenChannel(settings, str(error)), origin)

    def wanting(self, kind: Kind) -> tuple[str, ...]:
        """Return the names of the channels that want such notices."""
        return tuple(name for name, entry in self._entries.items() if self._wants(entry, kind))

    def _wants(self, entry: Entry, kind: Kind) -> bool:
        if entry.settings.name == GATEWAY and entry.origin == "http":
            return bool(kind.flag) and kind.flag not in self.stored.flags_off
        return is_wanted(kind, entry.settings.events)

    async def change(self, change: Callable[[Stored], Stored]) -> Stored:
        """Change what is set over HTTP; on disk when it returns. Raises HomeError, and what `change` raises."""
        async with self._changing:
            stored = change(self.stored)
            names = [hook.name for hook in stored.webhooks]
            taken = {each.name for each in self._home.settings.notify} & {*names, GATEWAY}
            if taken or len(set(names)) < len(names):
                raise UsageError(f"the channel {', '.join(sorted(taken)) or 'of that name'} is there already")

            def work() -> None:
                write_stored(self._home.notify, stored)
                self._take(stored)

            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(work)
            self._reloaded.ring()
            return stored

    # -- for people --------------------------------------------------------------------------------------------------

    async def views(self) -> list[ChannelView]:
        """Return all channels, by name."""
        return await trio.to_thread.run_sync(self._views)

    def _views(self) -> list[ChannelView]:
        records = {record.name: record for record in self._ledger.channel_records()}
        return [
            ChannelView(entry, records.get(name, ChannelRecord(name=name)), self._ledger.deliveries(name))
            for name, entry in sorted(self._entries.items())
        ]

    def entry(self, name: str) -> Entry:
        """Return one. Raises NoSuchThing."""
        try:
            return self._entries[name]
        except KeyError:
            known = ", ".join(sorted(self._entries))
            hint = f"there is {known}" if known else "write it into tapefs.toml, under [[notify]]"
            raise NoSuchThing(f"there is no channel {name}: {hint}") from None

    async def test(self, name: str, phone: str = "") -> None:
        """Send a test at once, past the queue; `phone` is who gets it from a gateway. Raises DeliveryFailed."""
        channel = self.entry(name).channel
        text = "This is a test: whoever reads it would be told when a backup fails or a tape is wanted."
        notice = Notice(number=0, at_ns=self._events.now_ns(), kind="test", subject=name, text=text)
        if phone and isinstance(channel, GatewayChannel):
            await channel.send_to(phone, notice)
        else:
            await channel.send(notice)

    # -- the work ----------------------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Was everything tried at least once that is to be delivered, or waits behind what failed?"""
        return all(reached >= self._events.newest for reached in self._settled.values())

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            try:
                await trio.to_thread.run_sync(self._give_up_orphans)
            except CatalogError as error:
                log.error("what is to be delivered cannot be read", error=str(error))
            async with trio.open_nursery() as workers:
                for name in self._entries:
                    workers.start_soon(self._work, name)
                await self._reloaded.wait_rung()
                workers.cancel_scope.cancel()

    def _give_up_orphans(self) -> None:
        """Give up what is for channels that there are no more."""
        for delivery in self._ledger.deliveries():
            if delivery.channel not in self._entries and not delivery.is_given_up:
                self._ledger.note_delivery(delivery, self._events.now_ns(), "there is no such channel any more")

    async def _work(self, name: str) -> None:
        while True:
            try:
                await self._deliver(name)
            except CatalogError as error:
                log.error("what is to be delivered cannot be read", channel=name, error=str(error))
                await trio.sleep(FIRST_PAUSE_S)

    async def _deliver(self, name: str) -> None:
        """Deliver by one channel for ever. Raises CatalogError."""
        entry = self._entries[name]
        while True:
            newest = self._events.newest
            delivery = await trio.to_thread.run_sync(self._next, name)
            if delivery is None:
                self._settled[name] = newest
                await self._events.wait_beyond(newest)
                continue
            wait_s = (delivery.next_at_ns - self._events.now_ns()) / 1e9
            if wait_s > 0:
                await self._wait(name, wait_s)
            else:
                await self._attempt(entry.channel, delivery)

    async def _wait(self, name: str, seconds: float) -> None:
        """Wait for the next attempt; what comes meanwhile waits, too, and counts as tried."""
        with trio.move_on_after(seconds):
            while True:
                self._settled[name] = newest = self._events.newest
                await self._events.wait_beyond(newest)

    def _next(self, name: str) -> Delivery | None:
        return next((each for each in self._ledger.deliveries(name) if not each.is_given_up), None)

    async def _attempt(self, channel: Channel, delivery: Delivery) -> None:
        error, can_retry = "", True
        try:
            await channel.send(delivery.notice)
        except DeliveryFailed as failed:
            error, can_retry = str(failed) or "it failed", failed.can_retry
        except Exception as failed:
            log.exception("a channel for notices has a bug", channel=channel.name)
            error = type(failed).__name__
        now_ns = self._events.now_ns()
        next_ns = now_ns + int(pause_s(delivery.attempts) * 1e9) if error and can_retry else None
        limit_ns = delivery.notice.at_ns + int(self._home.settings.notices.give_up_after_s * 1e9)
        if next_ns is not None and next_ns > limit_ns:
            next_ns = None
        await self._note(delivery, now_ns, error, next_ns)

    async def _note(self, delivery: Delivery, now_ns: int, error: str, next_ns: int | None) -> None:
        notice = delivery.notice
        if error and next_ns is None:
            log.warning(
                "a notice is given up", channel=delivery.channel, kind=notice.kind, text=notice.text, error=error
            )
        elif error:
            log.info("a notice waits", channel=delivery.channel, kind=notice.kind, error=error)
        with trio.CancelScope(shield=True):
            try:
                await trio.to_thread.run_sync(self._ledger.note_delivery, delivery, now_ns, error, next_ns)
            except CatalogError as failed:
                log.error("what became of a notice cannot be kept", channel=delivery.channel, error=str(failed))
                await trio.sleep(FIRST_PAUSE_S)


def pause_s(attempts: int) -> float:
    """Return how long to wait behind so many failures and one more."""
    return float(min(FIRST_PAUSE_S * 2 ** min(attempts, 20), LONGEST_PAUSE_S))
