"""Waiting for tape, with trio's clock and no sidecar."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest
import trio
import trio.testing
from trio.testing import MockClock as Clock

from catalog.ids import SegmentId
from tapefs.errors import NotNow, RecallDenied, RecallFailed, RecallTimedOut, Unreachable
from tapefs.mount import readers
from tapefs.mount.errnos import ReaderGone
from tapefs.mount.link import Arrival, WaiterMessage
from tapefs.mount.quick_wait import ROW, QuickLock, QuickWait, quick_trio
from tapefs.mount.recalls import Caller, Recalls, Wanted
from tapefs.mount.sidecar_link import SidecarLink
from tapefs.mount.wakefulness import Wakefulness

SEGMENT = SegmentId("11111111-2222-4333-8444-555555555555")
CALLER = Caller(inode=5, uid=1000, thread_id=0)


class FakeLink:
    """Stands in for SidecarLink."""

    def __init__(self) -> None:
        self.posted: list[WaiterMessage] = []
        self.cancelled: list[str] = []
        self.is_up = True
        self.refusal: RecallFailed | None = None
        self.bug: Exception | None = None
        self._send, self._receive = trio.open_memory_channel[Arrival | None](100)

    async def post_waiters(self, waiters: Sequence[WaiterMessage]) -> None:
        await trio.lowlevel.checkpoint()
        if not self.is_up:
            raise Unreachable("down")
        if self.refusal is not None:
            raise self.refusal
        if self.bug is not None:
            raise self.bug
        self.posted += waiters

    async def cancel(self, ids: Sequence[str]) -> None:
        await trio.lowlevel.checkpoint()
        self.cancelled += ids

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        await trio.lowlevel.checkpoint()
        if not self.is_up:
            raise Unreachable("down")
        yield Arrival()
        async for arrival in self._receive:
            if arrival is None:
                raise Unreachable("lost")
            yield arrival

    def tell(self, first: int, last: int, error: str | None = None) -> None:
        self._send.send_nowait(Arrival(SEGMENT, first, last, error, error or ""))

    def refuse(self, waiter_id: str, error: str) -> None:
        self._send.send_nowait(Arrival(waiter=waiter_id, error=error, message="no"))

    def break_off(self) -> None:
        self.is_up = False
        self._send.send_nowait(None)


class Bench:
    """Recalls that run, and a map that says what is staged."""

    def __init__(self, nursery: trio.Nursery, limit: int = 100, user_limit: int = 100) -> None:
        self.link = FakeLink()
        self.recalls = Recalls(cast(SidecarLink, self.link), limit, user_limit)
        self.staged = False
        self.results: list[BaseException | None] = []
        self._nursery = nursery
        nursery.start_soon(self.recalls.run)

    def wait(self, first: int = 0, last: int = 0, deadline_s: float = math.inf, caller: Caller = CALLER) -> None:
        self._nursery.start_soon(self._wait, Wanted(SEGMENT, first, last), caller, deadline_s)

    async def _wait(self, wanted: Wanted, caller: Caller, deadline_s: float) -> None:
        try:
            await self.recalls.wait(wanted, caller, trio.current_time() + deadline_s, lambda: self.staged)
        except Exception as error:
            self.results.append(error)
        else:
            self.results.append(None)


@pytest.fixture
def bench(nursery: trio.Nursery) -> Bench:
    return Bench(nursery)


async def test_an_arrival_wakes_at_once(bench: Bench) -> None:
    bench.wait(3, 5)
    await trio.testing.wait_all_tasks_blocked()
    [message] = bench.link.posted
    assert (message.segment, message.first, message.last, message.uid, message.pid) == (SEGMENT, 3, 5, 1000, 0)
    assert message.deadline_s == 0.0
    assert bench.recalls.is_awaited(SEGMENT, 5, 9)
    assert not bench.recalls.is_awaited(SEGMENT, 6, 9)
    bench.staged = True
    bench.link.tell(5, 7)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results == [None]
    assert not bench.recalls.is_awaited(SEGMENT, 5, 9)


async def test_what_is_staged_meanwhile_is_not_asked_for(bench: Bench) -> None:
    bench.staged = True
    bench.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results == [None]
    assert bench.link.posted == []


async def test_an_arrival_of_something_else_is_not_enough(bench: Bench) -> None:
    bench.wait(3, 5)
    await trio.testing.wait_all_tasks_blocked()
    bench.link.tell(6, 7)
    bench.link.tell(3, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results == []


async def test_the_map_is_looked_at_without_being_told(bench: Bench, autojump_clock: Clock) -> None:
    bench.wait()
    await trio.testing.wait_all_tasks_blocked()
    bench.staged = True
    await trio.sleep(1.3)
    assert bench.results == [None]


async def test_the_deadline(bench: Bench, autojump_clock: Clock) -> None:
    bench.wait(deadline_s=10)
    await trio.sleep(9.9)
    assert bench.results == []
    await trio.sleep(0.5)
    assert isinstance(bench.results[0], RecallTimedOut)
    assert bench.link.cancelled == []


async def test_the_deadline_without_a_sidecar(bench: Bench, autojump_clock: Clock) -> None:
    bench.link.is_up = False
    bench.wait(deadline_s=10)
    await trio.sleep(11)
    assert isinstance(bench.results[0], Unreachable)
    assert not bench.recalls.can_recall


async def test_a_failure_wakes_with_an_error(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.wait(3, 5)
    bench.wait(8, 9)
    await trio.testing.wait_all_tasks_blocked()
    bench.link.tell(4, 4, error="no such tape")
    await trio.testing.wait_all_tasks_blocked()
    [error] = bench.results
    assert isinstance(error, RecallFailed)
    assert "no such tape" in str(error)


async def test_one_reader_is_refused_and_others_of_the_same_frames_go_on(bench: Bench) -> None:
    bench.wait(3, 5)
    bench.wait(3, 5)
    await trio.testing.wait_all_tasks_blocked()
    bench.link.refuse(bench.link.posted[1].id, "denied")
    bench.link.refuse("another mount's", "denied")
    await trio.testing.wait_all_tasks_blocked()
    [error] = bench.results
    assert isinstance(error, RecallDenied)
    bench.staged = True
    bench.link.tell(3, 5)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results[1:] == [None]


async def test_one_user_cannot_take_all_places(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    bench = Bench(nursery, limit=10, user_limit=3)
    for number in range(5):
        bench.wait(number, number)
    await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in bench.results] == [NotNow, NotNow]
    bench.wait(7, 7, caller=CALLER._replace(uid=1001))
    await trio.testing.wait_all_tasks_blocked()
    assert len(bench.results) == 2
    bench.link.refuse(bench.link.posted[0].id, "denied")
    await trio.testing.wait_all_tasks_blocked()
    bench.wait(8, 8)
    await trio.testing.wait_all_tasks_blocked()
    assert len(bench.results) == 3
    assert len(bench.link.posted) == 5


async def test_long_paths_make_small_requests(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    post = bench.link.post_waiters

    async def measured(waiters: Sequence[WaiterMessage]) -> None:
        sizes.append(len(msgspec.json.encode(list(waiters))))
        await post(waiters)

    monkeypatch.setattr(bench.link, "post_waiters", measured)
    for number in range(100):
        bench.wait(number, number, caller=CALLER._replace(name="\\x00" * 4096))
    await trio.testing.wait_all_tasks_blocked()
    assert len(bench.link.posted) == 100
    assert max(sizes) < 1_000_000


async def test_a_refusal(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.link.refusal = RecallFailed("never heard of it")
    bench.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results == [bench.link.refusal]


async def test_all_are_posted_again_after_the_sidecar_was_away(
    bench: Bench, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bench.wait(1, 1)
    await trio.testing.wait_all_tasks_blocked()
    bench.link.break_off()
    await trio.sleep(5)
    bench.wait(2, 2)
    await trio.sleep(5)
    assert len(bench.link.posted) == 1
    bench.link.is_up = True
    await trio.sleep(5)
    ids = [message.id for message in bench.link.posted]
    assert ids.count(ids[0]) == 2
    assert {message.first for message in bench.link.posted[1:]} == {1, 2}
    assert bench.results == []


async def test_a_forgetful_sidecar_is_asked_again(bench: Bench, autojump_clock: Clock) -> None:
    bench.wait()
    await trio.sleep(31)
    assert len(bench.link.posted) == 2
    assert bench.link.posted[0].id == bench.link.posted[1].id


async def test_what_was_evicted_before_anybody_looked_is_asked_for_again_at_once(bench: Bench) -> None:
    bench.wait(3, 3)
    await trio.testing.wait_all_tasks_blocked()
    bench.link.tell(3, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results == []
    assert len(bench.link.posted) == 2


async def test_too_many(nursery: trio.Nursery, autojump_clock: Clock) -> None:
    bench = Bench(nursery, limit=3)
    for number in range(4):
        bench.wait(number, number)
    await trio.testing.wait_all_tasks_blocked()
    [error] = bench.results
    assert isinstance(error, NotNow)
    assert len(bench.link.posted) == 3
    bench.staged = True
    bench.link.tell(0, 9)
    await trio.testing.wait_all_tasks_blocked()
    bench.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert bench.results[1:] == [None] * 4


async def test_a_reader_that_is_ending(bench: Bench, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    ending: set[int] = set()
    monkeypatch.setattr(readers, "is_thread_ending", lambda thread_id: thread_id in ending)
    bench.wait(caller=CALLER._replace(thread_id=77))
    bench.wait(caller=CALLER._replace(thread_id=78))
    bench.wait()
    await trio.sleep(0.5)
    ending.add(77)
    await trio.sleep(0.5)
    [error] = bench.results
    assert isinstance(error, ReaderGone)
    assert bench.link.cancelled == [message.id for message in bench.link.posted if message.pid == 77]


async def until_one_ended(bench: Bench) -> None:
    """The search runs in a thread, for which trio's clock does not wait."""
    deadline_s = time.monotonic() + 60
    while not bench.results:
        assert time.monotonic() < deadline_s, "nobody was woken"
        await trio.sleep(0.5)


async def test_who_is_killed_takes_nobody_along(
    bench: Bench, autojump_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for one file; the search finds it open in a process that is being ended."""
    states = {77: False, 78: False, 79: None}
    monkeypatch.setattr(readers, "is_thread_ending", states.__getitem__)
    monkeypatch.setattr(readers, "is_waiting_itself", lambda thread_id: thread_id == 77)
    monkeypatch.setattr(readers, "inodes_of_ending", lambda: frozenset({CALLER.inode}))
    bench.wait(1, 1, caller=CALLER._replace(thread_id=77))
    await trio.sleep(4)
    assert bench.results == []
    for thread_id, why in ((78, "its opener does something else"), (79, "its opener has ended")):
        bench.wait(2, 2, caller=CALLER._replace(thread_id=thread_id))
        await until_one_ended(bench)
        assert isinstance(bench.results.pop(), ReaderGone), why
        assert bench.results == []


async def test_closing_ends_all_waits(bench: Bench) -> None:
    bench.wait(1, 1)
    bench.wait(2, 2)
    await trio.testing.wait_all_tasks_blocked()
    bench.recalls.close()
    await trio.testing.wait_all_tasks_blocked()
    bench.wait(3, 3)
    await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in bench.results] == [Unreachable] * 3


# -- waiting for requests --------------------------------------------------------------------------------------------


async def test_the_lock_excludes_and_loses_nobody() -> None:
    lock = QuickLock()
    inside = done = 0

    async def worker(steps: int) -> None:
        nonlocal inside, done
        for _ in range(steps):
            async with lock:
                inside += 1
                assert inside == 1
                await trio.lowlevel.checkpoint()
                inside -= 1
            done += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(worker, number * 3)
    assert done == sum(number * 3 for number in range(20))


async def test_waiting_lets_others_run(tmp_path: Path) -> None:
    """However many requests wait to be taken, other tasks get their turn after every row of them."""
    first, second = trio.socket.socketpair()
    wait = QuickWait(lambda: None, lambda: None, Wakefulness(tmp_path / "none"))
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    with first, second:
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(0.05) as scope:
                await wait.wait_readable(first.fileno())
            assert scope.cancelled_caught
            await second.send(b"x")
            nursery.start_soon(other)
            for _ in range(5 * ROW):
                await wait.wait_readable(first.fileno())
            assert turns >= 4
            nursery.cancel_scope.cancel()


def test_the_rest_of_trio_is_trio(tmp_path: Path) -> None:
    replaced = quick_trio(lambda: None, lambda: None, Wakefulness(tmp_path / "none"))
    assert replaced.open_nursery is trio.open_nursery  # type: ignore[attr-defined]
    assert replaced.lowlevel.notify_closing is trio.lowlevel.notify_closing  # type: ignore[attr-defined]
    assert replaced.Lock is QuickLock  # type: ignore[attr-defined]
