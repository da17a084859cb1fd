"""Scores of tapes, with their reasons."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.life_records import CartridgeLife, Mounting
from catalog.records import CopyState, SegmentCopy, VolumeState
from tapefs.condition.blame import Blame, blame
from tapefs.condition.limits import most_passes
from tapefs.condition.tapes import WRITE_FROM, Condition, condition_of
from tests.catalog.builders import NOW, copy_of, job_of, segment_of, set_of
from tests.condition.lives import DAY_NS, facts, life_of, mounting, tape

TB = 10**12
SET = set_of("set", job_of("job"))
GOOD = copy_of(segment_of("segment", SET, 0), tape(), 4, 2)
DAMAGED = msgspec.structs.replace(GOOD, state=CopyState.DAMAGED)


def judged(
    mountings: list[Mounting],
    life: CartridgeLife | None = None,
    copies: tuple[SegmentCopy, ...] = (GOOD,),
    whose: Blame | None = None,
    now_ns: int = NOW,
) -> Condition:
    return condition_of(tape(), life or life_of(mountings), mountings, now_ns, copies=copies, blame=whose)


def test_a_tape_that_nothing_is_known_of_is_good() -> None:
    assert judged([]) == Condition(100)
    assert judged([mounting() for _ in range(50)]).score == 100


@pytest.mark.parametrize(
    ("life", "score", "sentence"),
    [
        (life_of([mounting(write_failures=1)]), 85, "writing has failed once"),
        (life_of([mounting(read_failures=2)]), 70, "reading has failed 2 times"),
        (life_of([mounting(alerts=(19,))]), 70, "nearing the end of its life"),
        (life_of([mounting(alerts=(7,))]), 40, "reached the end of its life"),
        (life_of([mounting(alerts=(20, 36))]), 100, ""),
        (life_of([], facts(loads=20_000)), 60, "loaded 20000 times, and is made for 20000"),
        (life_of([], facts(loads=16_000)), 85, "loaded 16000 times"),
        (life_of([], facts(written_bytes=40 * 18 * TB, read_bytes=20 * 18 * TB)), 60, "60 times over its whole length"),
        (life_of([], facts(capacity_bytes=17 * TB), most_capacity_bytes=18 * TB), 65, "holds 6% less"),
        (life_of([], facts(manufactured="19900101")), 75, "years old"),
    ],
)
def test_each_thing_has_its_price(life: CartridgeLife, score: int, sentence: str) -> None:
    mountings = [mounting(alerts=tuple(each.number for each in life.alerts))] if life.alerts else []
    if life.write_failures or life.read_failures:
        mountings = [mounting(write_failures=life.write_failures, read_failures=life.read_failures)]
    found = judged(mountings, life)
    assert found.score == score
    assert [sentence in each.sentence for each in found.reasons] == ([True] if sentence else [])


def test_what_was_long_ago_counts_little() -> None:
    bad = mounting(write_failures=3, alerts=(3,))
    later = [mounting() for _ in range(10)]
    lately, long_ago = judged([bad, *later]), judged([*later, bad])
    assert lately.score < WRITE_FROM < long_ago.score
    assert all("not lately" in each.sentence for each in long_ago.reasons)


def test_what_a_drive_does_to_all_tapes_counts_little() -> None:
    mine, others = [mounting(write_failures=3)], [mounting("OTHER1L9", write_failures=1)]
    found = judged(mine, whose=blame([*mine, *others]))
    assert found.score > judged(mine).score
    assert "drive0 is to blame" in found.reasons[0].sentence


def test_a_suspect_tape_has_no_points_and_says_why() -> None:
    found = condition_of(
        tape(state=VolumeState.SUSPECT, reason="a foreign label"), life_of([]), [], NOW, copies=(GOOD,)
    )
    assert (found.score, found.may_be_written) == (0, False)
    assert found.reasons[0].sentence == "it is suspect: a foreign label"


def test_the_warning_comes_before_the_tape_is_refused() -> None:
    """First it says to copy, then nothing is written any more; without data there is nothing to copy."""
    good, worse, bad = (judged([mounting(read_failures=count)]) for count in (1, 2, 4))
    assert not good.warning
    assert worse.warning == "copy what is on it: `tapefs reclaim T00001L9`"
    assert worse.may_be_written
    bad = judged([mounting(read_failures=4)], copies=(DAMAGED,))
    assert bad.warning.endswith("nothing more is written to it")
    assert not bad.may_be_written
    assert judged([mounting(read_failures=2)], copies=()).warning == "take it out of use"


def test_passes_of_a_small_cartridge_are_of_its_own_length() -> None:
    """A virtual tape of 1 GB is as worn by 60 GB as a real one by sixty times 18 TB."""
    most = most_passes(9)
    assert most == 57
    small = life_of([], facts(capacity_bytes=10**9, written_bytes=60 * 10**9))
    assert judged([], small).score == 60


def test_age_counts_from_the_first_use_when_no_date_is_told() -> None:
    assert judged([], life_of([]), now_ns=NOW + 16 * 366 * DAY_NS).score == 90


MOUNTINGS = st.lists(
    st.builds(
        mounting,
        drive=st.sampled_from(["drive0", "drive1"]),
        write_failures=st.integers(0, 3),
        read_failures=st.integers(0, 3),
        alerts=st.sets(st.integers(1, 64), max_size=4).map(lambda numbers: tuple(sorted(numbers))),
    ),
    max_size=30,
)


@given(MOUNTINGS, st.integers(0, 3))
def test_points_and_reasons_agree(mountings: list[Mounting], damaged: int) -> None:
    """No point goes without a reason, no reason without a point, and more trouble never scores higher."""
    found = judged(mountings, copies=(DAMAGED,) * damaged, whose=blame(mountings))
    assert found.score == max(0, 100 - sum(each.points for each in found.reasons))
    assert all(each.points > 0 and each.sentence for each in found.reasons)
    assert bool(found.warning) == (found.score < 75)
    worse = judged(mountings, copies=(DAMAGED,) * (damaged + 1), whose=blame(mountings))
    assert worse.score <= found.score
