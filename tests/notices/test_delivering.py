"""The queue: in order, over restarts, and one that fails holds up nobody else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from catalog.lmdb_ledger import LmdbLedger
from sidecar.notices import delivering
from sidecar.notices.delivering import Delivering, pause_s
from sidecar.notices.events import Events
from sidecar.notices.store import GATEWAY, Gateway, Stored, User
from tapefs.errors import NoSuchThing, UsageError
from tapefs.home import Home
from tapefs.settings.notices import NotifySettings
from tests.notices.authority import Authority
from tests.notices.receiver import receiving


def with_channels(home: Home, *channels: NotifySettings, **rules: Any) -> Home:
    """The state folder with these channels in its settings."""
    settings = msgspec.structs.replace(home.settings, notify=channels)
    if rules:
        settings = msgspec.structs.replace(settings, notices=msgspec.structs.replace(settings.notices, **rules))
    return Home(home.path, settings)


def hook(name: str, url: str, *events: str) -> NotifySettings:
    return NotifySettings(name=name, kind="webhook", url=url, events=events or ("*",))


async def until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(60):
        while not is_true():
            await trio.sleep(0.01)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "FIRST_PAUSE_S", 0.05)


async def test_all_is_delivered_in_order(home: Home, quick: None) -> None:
    """One that fails at first is tried again, and those behind it wait; another channel goes on meanwhile."""
    with receiving() as good, receiving() as bad, LmdbLedger.open(home.ledger) as ledger:
        bad.answers = [(503, {}, b""), (503, {}, b""), (200, {}, b"")]
        events = Events(ledger)
        parts = Delivering(with_channels(home, hook("good", good.url), hook("bad", bad.url)), ledger, events)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.run)
            for number in range(3):
                await events.say("backup.failed", str(number), f"no {number}")
            await until(lambda: len(good.posted) == 3 and len(bad.posted) == 5)
            await until(lambda: ledger.deliveries() == [])
            nursery.cancel_scope.cancel()
    numbers = [msgspec.json.decode(each.body)["number"] for each in bad.posted]
    assert numbers == [1, 1, 1, 2, 3]


async def test_a_wrong_certificate_is_told_and_tried_again(home: Home, quick: None) -> None:
    """Until the other side has a right one; then all comes, in order, and once."""
    ours, others = Authority(home.path / "ours"), Authority(home.path / "others", "others")
    context = others.server()
    with receiving(context) as receiver, LmdbLedger.open(home.ledger) as ledger:
        settings = msgspec.structs.replace(hook("ops", f"https://localhost:{receiver.port}"), ca_file=str(ours.ca_file))
        events = Events(ledger)
        parts = Delivering(with_channels(home, settings), ledger, events)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.run)
            for number in range(2):
                await events.say("backup.failed", str(number), f"no {number}")
            await until(lambda: any(each.attempts > 1 for each in ledger.deliveries()))
            (record,) = ledger.channel_records()
            assert "its certificate is not believed" in record.error
            assert receiver.posted == []
            ours.server(context=context)
            await until(lambda: ledger.deliveries() == [])
            nursery.cancel_scope.cancel()
        assert ledger.channel_records()[0].delivered == 2
    assert [msgspec.json.decode(each.body)["number"] for each in receiver.posted] == [1, 2]


async def test_a_restart_goes_on(home: Home) -> None:
    """What could not be delivered is by the next sidecar, not before its time."""
    with receiving() as receiver, LmdbLedger.open(home.ledger) as ledger:
        receiver.answers = [(503, {}, b"")]
        place = with_channels(home, hook("ops", receiver.url))
        await run_until_tried(place, ledger, "backup.failed")
        (waiting,) = ledger.deliveries()
        assert waiting.attempts == 1
        assert waiting.next_at_ns > time.time_ns()
        receiver.answers = [(200, {}, b"")]
        later = Events(ledger, lambda: waiting.next_at_ns)
        parts = Delivering(place, ledger, later)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.run)
            await until(lambda: ledger.deliveries() == [])
            nursery.cancel_scope.cancel()
        assert len(receiver.posted) == 2


async def run_until_tried(place: Home, ledger: LmdbLedger, kind: str) -> None:
    events = Events(ledger)
    parts = Delivering(place, ledger, events)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.run)
        await events.say(kind, "1", "it failed")
        await until(parts.is_idle)
        nursery.cancel_scope.cancel()


@pytest.mark.log_warnings
@pytest.mark.parametrize(("status", "limit_s"), [(503, 0.001), (410, 3600.0)])
async def test_what_cannot_be_delivered_is_given_up(home: Home, status: int, limit_s: float) -> None:
    """After the time of the settings, or when the other side says that it will never take it."""
    with receiving() as receiver, LmdbLedger.open(home.ledger) as ledger:
        receiver.answers = [(status, {}, b"")]
        place = with_channels(home, hook("ops", receiver.url), give_up_after_s=limit_s)
        await run_until_tried(place, ledger, "backup.failed")
        (given_up,) = ledger.deliveries()
        assert given_up.is_given_up
        (record,) = ledger.channel_records()
        assert (record.given_up, record.error) == (1, f"the answer was {status}")


@pytest.mark.log_warnings
async def test_a_channel_that_is_gone_delivers_nothing(home: Home) -> None:
    with LmdbLedger.open(home.ledger) as ledger:
        gone = Delivering(with_channels(home, hook("gone", "http://127.0.0.1:1/")), ledger, Events(ledger))
        events = Events(ledger)
        events.channels_for = gone.wanting
        await events.say("backup.failed", "1", "it failed")
        parts = Delivering(home, ledger, events)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.run)
            await until(lambda: all(each.is_given_up for each in ledger.deliveries()))
            nursery.cancel_scope.cancel()
        assert parts.is_idle()


@pytest.mark.log_warnings
async def test_a_channel_that_cannot_be_used_says_so(home: Home) -> None:
    broken = NotifySettings(name="broken", url="nothing://canary")
    with LmdbLedger.open(home.ledger) as ledger:
        parts = Delivering(with_channels(home, broken), ledger, Events(ledger))
        (view,) = await parts.views()
        assert "apprise knows no nothing" in view.entry.channel.why  # type: ignore[attr-defined]
        with pytest.raises(delivering.DeliveryFailed):
            await parts.test("broken")
        with pytest.raises(NoSuchThing):
            await parts.test("none")


async def test_tafs_gateway_goes_by_its_flags_and_users(home: Home) -> None:
    with receiving() as receiver, LmdbLedger.open(home.ledger) as ledger:
        receiver.answers = [(200, {}, b'{"success":true}')]
        events = Events(ledger)
        place = with_channels(home, allow_private=True, allow_http=True)
        parts = Delivering(place, ledger, events)
        gateway = Gateway(api_url=receiver.url, api_key="canary", default_phone="138")
        users = (User(id=1, phone="139", name="ada"), User(id=2, phone="140", name="eve", enabled=False))
        await parts.change(
            lambda stored: Stored(gateway=gateway, users=users, flags_off=("notify_backup_success",), next_user=3)
        )
        assert home.notify.stat().st_mode & 0o777 == 0o600
        async with trio.open_nursery() as nursery:
            nursery.start_soon(parts.run)
            await events.say("backup.succeeded", "1", "it is done")
            await events.say("set.expired", "1", "TAF has no flag for it")
            await events.say("backup.failed", "1", "it failed")
            await until(lambda: len(receiver.posted) == 2)
            await until(parts.is_idle)
            nursery.cancel_scope.cancel()
        phones = [msgspec.json.decode(each.body)["phone"] for each in receiver.posted]
        assert phones == ["138", "139"]
        again = Delivering(place, ledger, events)
        assert again.stored == parts.stored
        assert again.entry(GATEWAY).origin == "http"


async def test_a_gateway_set_over_http_reaches_nothing_private(home: Home) -> None:
    with receiving() as receiver, LmdbLedger.open(home.ledger) as ledger:
        parts = Delivering(with_channels(home, allow_http=True), ledger, Events(ledger))
        gateway = Gateway(api_url=receiver.url, api_key="canary", default_phone="138")
        await parts.change(lambda stored: Stored(gateway=gateway))
        with pytest.raises(delivering.DeliveryFailed, match="allow_private"):
            await parts.test(GATEWAY)
        assert receiver.posted == []


async def test_two_channels_of_one_name_are_refused(home: Home) -> None:
    with LmdbLedger.open(home.ledger) as ledger:
        parts = Delivering(with_channels(home, hook("ops", "https://example.org/")), ledger, Events(ledger))
        with pytest.raises(UsageError, match="ops"):
            await parts.change(lambda stored: Stored(webhooks=(hook("ops", "https://example.org/"),)))
        assert not Path(home.notify).exists()


def test_pauses_grow() -> None:
    assert [pause_s(n) for n in (0, 1, 2, 30)] == [10, 20, 40, 1800]
