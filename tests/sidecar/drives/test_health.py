"""How long a drive rests that has failed."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from sidecar.drives.health import FIRST_REST_S, MOST_STRIKES, REST_GROWTH, Fleet
from tapefs.errors import NoSuchThing, NotNow


def in_trio(what) -> None:  # type: ignore[no-untyped-def]
    trio.run(what, clock=MockClock(autojump_threshold=0))


def test_it_rests_longer_each_time_and_is_then_set_aside() -> None:
    async def main() -> None:
        health = Fleet(["drive0"]).of("drive0")
        for strikes in range(1, MOST_STRIKES):
            health.failed("it smokes", is_strike=True)
            began = trio.current_time()
            assert await health.rest(0.25, is_strike=True) is False
            assert trio.current_time() - began == pytest.approx(FIRST_REST_S * REST_GROWTH ** (strikes - 1))
            health.opened()
        health.failed("it smokes", is_strike=True)
        assert health.is_set_aside
        assert "`tapefs drives --retry drive0`" in health.sentence()
        with trio.move_on_after(1e6) as patience:
            await health.rest(0.25, is_strike=True)
        assert patience.cancelled_caught

    in_trio(main)


def test_an_operator_ends_the_rest() -> None:
    async def main() -> None:
        health = Fleet(["drive0"]).of("drive0")
        for _ in range(MOST_STRIKES):
            health.failed("it smokes", is_strike=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_retry, health.retry)
            assert await health.rest(0.25, is_strike=True) is True
        assert not health.is_set_aside
        health.opened()
        with pytest.raises(NotNow):
            health.retry()

    in_trio(main)


async def _retry(retry) -> None:  # type: ignore[no-untyped-def]
    await trio.sleep(1)
    retry()


def test_work_takes_the_strikes_away() -> None:
    health = Fleet(["drive0"]).of("drive0")
    for _ in range(10):
        health.failed("it smokes", is_strike=True)
        health.opened()
        health.worked()
    assert not health.is_set_aside


def test_a_mover_that_dies_is_no_strike() -> None:
    async def main() -> None:
        health = Fleet(["drive0"]).of("drive0")
        for _ in range(10):
            health.failed("its mover ended", is_strike=False)
            began = trio.current_time()
            await health.rest(0.25, is_strike=False)
            assert trio.current_time() - began == pytest.approx(0.25)

    in_trio(main)


def test_no_such_drive() -> None:
    with pytest.raises(NoSuchThing, match="drive0, drive1"):
        Fleet(["drive0", "drive1"]).of("tape")
