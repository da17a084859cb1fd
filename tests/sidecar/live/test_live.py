"""The hub of the streams: what a listener is given, however slowly it reads; and what is looked at for it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import trio

from catalog.lmdb_ledger import LmdbLedger
from catalog.notice_records import KEPT_NOTICES
from sidecar.drives.health import Health
from sidecar.live import hub
from sidecar.live.hub import HEARTBEAT, HELLO, Listener, Live
from sidecar.live.looking import Looking, Pace
from sidecar.notices.events import Events
from tapefs.client.events import EventView, GapView, ProgressView, events_in
from tapefs.client.notices import NoticeView
from tapefs.home import Home


@pytest.fixture
def ledger(home: Home) -> Iterator[LmdbLedger]:
    with LmdbLedger.open(home.ledger) as ledger:
        yield ledger


def views(piece: bytes | None) -> list[EventView]:
    assert piece is not None
    return list(events_in(iter(piece.splitlines(keepends=True))))


def numbers(piece: bytes | None) -> list[int]:
    return [each.number for each in views(piece) if isinstance(each, NoticeView)]


def progress(events: list[EventView]) -> list[ProgressView]:
    return [each for each in events if isinstance(each, ProgressView)]


async def post(live: Live, events: Events, *kinds: str) -> None:
    await events.post([events.new(kind, "1", "text") for kind in kinds])
    await live.catch_up()


async def greeted(live: Live, behind: int | None = None, *wanted: str) -> Listener:
    listener = Listener(live, wanted, behind)
    assert (await listener.next_piece() or b"").startswith(HELLO)
    return listener


async def test_notices_come_in_order_from_where_a_listener_stands(ledger: LmdbLedger) -> None:
    events = Events(ledger)
    live = Live(events)
    await post(live, events, "test", "backup.failed", "test")
    new, old, some = await greeted(live), await greeted(live, 1), await greeted(live, 0, "backup.*", "job.*")
    assert numbers(await old.next_piece()) == [2, 3]
    assert numbers(await some.next_piece()) == [2]
    await post(live, events, "backup.failed")
    assert [numbers(await each.next_piece()) for each in (new, old, some)] == [[4], [4], [4]]


async def test_a_listener_that_is_far_behind_reads_on_in_the_ledger(
    ledger: LmdbLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is lost and nothing comes twice, while new ones come."""
    monkeypatch.setattr(hub, "RECENT", 5)
    monkeypatch.setattr(hub, "PIECE", 7)
    events = Events(ledger)
    live = Live(events)
    await post(live, events, *["test"] * 40)
    listener = await greeted(live, 3)
    got: list[int] = []
    for _ in range(4):
        got += numbers(await listener.next_piece())
        await post(live, events, "test")
    while got[-1] < events.newest:
        got += numbers(await listener.next_piece())
    assert got == list(range(4, 45))


async def test_what_is_not_kept_any_more_is_said(ledger: LmdbLedger) -> None:
    events = Events(ledger)
    await events.post([events.new("test", "", str(number)) for number in range(KEPT_NOTICES + 10)])
    live = Live(events)
    first, *rest = views(await (await greeted(live, 4)).next_piece())
    assert first == GapView(first=5, last=10)
    assert isinstance(rest[0], NoticeView)
    assert rest[0].number == 11
    # Whoever names no place in the past misses nothing.
    assert numbers(await (await greeted(live, 0)).next_piece())[0] == 11


async def test_numbers_of_another_ledger_begin_anew(ledger: LmdbLedger) -> None:
    events = Events(ledger)
    live = Live(events)
    await post(live, events, "test", "test")
    listener = Listener(live, (), 500)
    assert views(await listener.next_piece()) == [GapView(first=3, last=500)]
    assert numbers(await listener.next_piece()) == [1, 2]


async def test_progress_is_overtaken_and_notices_are_not(ledger: LmdbLedger) -> None:
    """Of what a slow listener has not read it gets all notices and of each source the newest."""
    events = Events(ledger)
    live = Live(events)
    listener = await greeted(live)
    for step in range(1000):
        live.tell("job.progress", "1", {"step": step})
        live.tell("job.progress", "2", {"step": -step})
        await post(live, events, *(["test"] if step % 100 == 0 else []))
    live.show()
    told = views(await listener.next_piece())
    assert len([each for each in told if isinstance(each, NoticeView)]) == 10
    assert [(each.subject, each.facts) for each in progress(told)] == [("1", {"step": 999}), ("2", {"step": -999})]


async def test_what_is_over_is_told_and_then_forgotten(
    ledger: LmdbLedger, autojump_clock: trio.testing.MockClock
) -> None:
    live = Live(Events(ledger))
    live.tell("job.progress", "1", {"step": 1}, is_over=True)
    live.tell("job.progress", "2", {"step": 1})
    both = views(await (await greeted(live)).next_piece())
    assert [(each.subject, each.is_over) for each in both if isinstance(each, ProgressView)] == [
        ("1", True),
        ("2", False),
    ]
    await trio.sleep(hub.OVER_S + 1)
    live.tell("job.progress", "3", {"step": 1})
    later = views(await (await greeted(live)).next_piece())
    assert [each.subject for each in progress(later)] == ["2", "3"]


async def test_silence_is_broken_and_the_end_comes_last(
    ledger: LmdbLedger, autojump_clock: trio.testing.MockClock
) -> None:
    events = Events(ledger)
    live = Live(events)
    listener = await greeted(live, None, "backup.*")
    began_s = trio.current_time()
    assert await listener.next_piece() == HEARTBEAT
    assert trio.current_time() - began_s == pytest.approx(hub.HEARTBEAT_S)
    async with trio.open_nursery() as nursery:  # What a listener does not want is no sign of life to it.
        nursery.start_soon(post_often, live, events)
        assert await listener.next_piece() == HEARTBEAT
        assert trio.current_time() - began_s == pytest.approx(2 * hub.HEARTBEAT_S)
        nursery.cancel_scope.cancel()
    await post(live, events, "backup.failed")
    live.end()
    assert len(views(await listener.next_piece())) == 1
    assert await listener.next_piece() is None


async def post_often(live: Live, events: Events) -> None:
    while True:
        await trio.sleep(4)
        await events.post([events.new("test", "", "")])
        await live.catch_up()


async def test_a_thousand_listeners_are_given_the_same_bytes(ledger: LmdbLedger) -> None:
    """An event is encoded and joined once."""
    events = Events(ledger)
    live = Live(events)
    listeners = [await greeted(live, None, "test", "job.*") for _ in range(1000)]
    await post(live, events, "test", "test")
    live.tell("job.progress", "1", {"step": 1})
    pieces = [await listener.next_piece() for listener in listeners]
    assert len(views(pieces[0])) == 3
    assert len({id(piece) for piece in pieces}) == 1


def test_pace() -> None:
    pace = Pace()
    assert pace.facts(0.0, 0, 1000) == {"bytes_per_s": 0, "percent": 0.0, "eta_s": None}
    assert pace.facts(1.0, 100, 1000) == {"bytes_per_s": 100, "percent": 10.0, "eta_s": 9}
    assert pace.facts(2.0, 300, None) == {"bytes_per_s": 150, "percent": None, "eta_s": None}
    assert pace.facts(3.0, 2000, 1000)["percent"] == 100
    assert pace.facts(4.0, 5, 1000)["bytes_per_s"] == 0  # It has begun anew.
    assert pace.facts(60.0, 5, 1000)["bytes_per_s"] == 0


async def test_what_changes_is_looked_at_once_a_second_while_somebody_listens(
    ledger: LmdbLedger, autojump_clock: trio.testing.MockClock
) -> None:
    """However fast a mover reports; and who comes later is told how it is now."""
    drive = SimpleNamespace(name="drive0", state="empty", tape=None, note="", asked=list, health=Health("drive0"))
    parts = SimpleNamespace(human=None, running=list, waiting=lambda choice, asked: [], runs=list, tasks=list, all=list)
    live = Live(Events(ledger))
    looking = Looking(live, ledger, parts, parts, parts, [drive], parts, parts, parts)  # type: ignore[arg-type,list-item]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(looking.run)
        await trio.sleep(10)
        assert not live.is_followed
        for state in ("writing", "loaded"):
            drive.state = state
            live.come()
            listener = await greeted(live)
            (first,) = progress(views(await listener.next_piece()))
            assert (first.kind, first.subject, first.facts["state"]) == ("drive.state", "drive0", state)
            began_s, told = trio.current_time(), 0
            nursery.start_soon(change_often, drive)
            while trio.current_time() < began_s + 5:
                told += len(progress(views(await listener.next_piece())))
            assert 4 <= told <= 6
            live.go()
            await trio.sleep(2)
        nursery.cancel_scope.cancel()


async def change_often(drive: SimpleNamespace) -> None:
    for number in range(1000):
        drive.tape = f"T{number}"
        await trio.sleep(0.01)
