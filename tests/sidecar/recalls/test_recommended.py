"""The order that a drive recommends for a round: over the mover, and what becomes of rounds when it has none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from catalog.ids import FrameNo, SegmentId
from catalog.records import Segment
from sidecar.drives import asking
from sidecar.drives.asking import Asking
from sidecar.drives.movers import CommandFailed, Mover
from sidecar.recalls.queue import Request
from tapefs.home import Home
from tapefs.mover.messages import Done, FrameRange, Recommend
from tests.sidecar.rig import Rig, make_home, running, seed_set, wait_until, waiter

#: A long segment with a short one right behind it, and short ones 3 GB apart: the planner reads the first two as one.
LAYOUT = ((150_000, 2), *((2, 11_000),) * 13)
#: Better by the model: the long one last.
BETTER = [*range(1, 14), 0]
RUBBISH = ([5, 5, *range(2, 14)], [*range(15)])
WORSE = [*range(13, -1, -1)]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path / "home")


def script(home: Home, **behaviour: object) -> None:
    (home.path / "fake.json").write_text(json.dumps(behaviour))


def read_round(rig: Rig, segments: list[Segment], frames: tuple[int, int] = (0, 7)) -> list[int]:
    """Have these frames of every segment recalled, and return the numbers of the segments in the order of reading."""
    before = len(rig.commands("Recall"))
    with rig.arrivals() as lines:
        body = {"waiters": [waiter(segment, *frames) for segment in segments]}
        assert rig.unix("POST", "/api/v1/recalls", body).status == 202
        missing = {(segment.segment_id, frame) for segment in segments for frame in range(frames[0], frames[1] + 1)}
        while missing:
            line = next(lines)
            assert "error" not in line, line
            missing -= {(line["segment"], frame) for frame in range(line["first"], line["last"] + 1)}
    numbers = {segment.segment_id: segment.number for segment in segments}
    return [numbers[name] for command in rig.commands("Recall")[before:] for name, *_ in command["frames"]]


def test_a_round_is_read_in_the_order_of_the_drive_where_that_is_better(home: Home) -> None:
    segments = seed_set(home, layout=LAYOUT)
    script(home, recommend=BETTER)
    with running(home) as rig:
        assert read_round(rig, segments) == BETTER
        (command,) = rig.commands("Recommend")
        (long_first, long_last), (short_first, short_last), *_ = command["extents"]
        assert long_last - long_first + 1 == 150_000
        assert short_last == short_first + 1 > long_last


def test_nothing_rubbish_and_what_is_worse_change_nothing(tmp_path: Path) -> None:
    orders = []
    for number, recommended in enumerate(([], *RUBBISH, WORSE)):
        home = make_home(tmp_path / str(number))
        segments = seed_set(home, layout=LAYOUT)
        script(home, recommend=recommended)
        with running(home) as rig:
            orders.append(read_round(rig, segments))
            assert len(rig.commands("Recommend")) == 1
    assert sorted(orders[0]) == list(range(14))
    assert orders[0] != BETTER
    assert orders == orders[:1] * 4


def test_a_drive_without_an_order_is_asked_once_for_a_tape_and_few_requests_are_not_asked_about(home: Home) -> None:
    segments = seed_set(home, layout=LAYOUT)
    with running(home) as rig:
        read_round(rig, segments[:5], (0, 0))
        assert rig.commands("Recommend") == []
        for frame in (1, 2):
            read_round(rig, segments, (frame, frame))
        assert len(rig.commands("Recommend")) == 1
        assert len(rig.commands("Load")) == 1


def test_a_drive_with_an_order_is_asked_for_every_round(home: Home) -> None:
    segments = seed_set(home, layout=LAYOUT)
    script(home, recommend=BETTER)
    with running(home) as rig:
        for frame in (1, 2):
            read_round(rig, segments, (frame, frame))
        wait_until(lambda: len(rig.commands("Recommend")) == 2, "not asked twice")


def test_recalls_go_on_when_the_mover_dies_of_the_question(home: Home) -> None:
    """It is not asked again: frames are given up after three deaths."""
    segments = seed_set(home, layout=LAYOUT)
    script(home, die_recommending=True)
    with running(home) as rig:
        assert sorted(read_round(rig, segments)) == list(range(14))
        assert len(rig.commands("Recommend")) == 1


class _Slow:
    """A mover that answers a question after some seconds, or refuses it."""

    def __init__(self, seconds: float, error: CommandFailed | None = None) -> None:
        self.seconds, self.error, self.asked = seconds, error, 0

    async def call(self, make: Any) -> Done:
        command: Recommend = make(1)
        self.asked += 1
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Done(id=1, order=tuple(reversed(range(len(command.extents)))))


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    ("seconds", "error", "order"),
    [
        (asking.RECOMMEND_S - 1, None, [(1, 0)]),
        (asking.RECOMMEND_S + 1, None, []),
        (0, CommandFailed("internal", "what?"), []),
    ],
)
def test_a_drive_that_thinks_too_long_or_refuses_is_not_waited_for(
    seconds: float, error: CommandFailed | None, order: list[tuple[int, ...]]
) -> None:
    bay = SimpleNamespace(name="drive0", recommends=True)
    tells = Asking(cast(Any, bay), cast(Any, SimpleNamespace(recalls=None)))
    mover = _Slow(seconds, error)
    frames = FrameRange(SegmentId("s"), FrameNo(0), FrameNo(0))
    requests = [Request(7, 9, 1.0, frames), Request(9, 9, 1.0, frames)]

    async def main() -> None:
        for _ in range(2):
            began = trio.current_time()
            assert await tells._recommended(cast(Mover, mover), requests) == order
            assert trio.current_time() - began <= asking.RECOMMEND_S

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert mover.asked == (2 if order else 1)
