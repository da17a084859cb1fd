"""Which tape is written next, whether one may be overwritten, and where it belongs: by example, and generated."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ids import JobId, JobNumber, SetId
from catalog.pool_records import Pool
from catalog.records import BackupSet, SetState, Volume, VolumeState
from tapefs.retention.allocation import Candidate, Choice, Source, Want, choose
from tapefs.retention.places import placement
from tapefs.retention.pools import SCRATCH
from tapefs.retention.reuse import Reuse, may_reuse
from tapefs.retention.rules import allocation_rule
from tests.catalog.builders import job_of, set_of, volume_of

DAY_NS = 86_400 * 10**9
#: A Wednesday.
NOW = int(datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()) * 10**9
MINE, OTHERS = JobId("mine"), JobId("others")
RUN = SetId("this run")
MAY = Reuse(may=True, reason="it may", since_ns=1)


def tape(label: str, state: VolumeState = VolumeState.APPENDABLE, used: int = 10, **changes: Any) -> Volume:
    return volume_of(label, state=state, used_bytes=used, capacity_bytes=100, **({"pool": "p"} | changes))


def begun(label: str, days_ago: float = 0.0, *, jobs: set[JobId] | None = None, **changes: Any) -> Candidate:
    reuse = changes.pop("reuse", Reuse(may=False, reason="it is not to be overwritten"))
    sets = frozenset(changes.pop("sets", {SetId("earlier")}))
    volume = tape(label, **changes)
    at_ns = NOW - int(days_ago * DAY_NS)
    return Candidate(volume, begun_at_ns=at_ns, jobs=frozenset(jobs or {MINE}), sets=sets, reuse=reuse)


def blank(label: str, pool: str = "p", **changes: Any) -> Candidate:
    return Candidate(tape(label, VolumeState.BLANK, 0, pool=pool), **changes)


def chosen(rule: str, *candidates: Candidate, pool: dict[str, Any] | None = None, **more: Any) -> Choice:
    of = Pool(name="p", allocation=allocation_rule(rule), **(pool or {}))
    return choose(Want(pool=of, now_ns=NOW, job_id=MINE, set_id=RUN, zone=UTC, **more), candidates)


def taken(rule: str, *candidates: Candidate, **more: Any) -> str | None:
    found = chosen(rule, *candidates, **more).taken
    return None if found is None else found.volume.label


def test_the_fullest_begun_tape_then_blank_ones_then_scratch_then_old_ones():
    every = [
        blank("T1", SCRATCH),
        blank("T3"),
        blank("T2"),
        begun("T5", used=60),
        begun("T4", used=40),
        begun("T7", state=VolumeState.FULL, reuse=Reuse(may=True, reason="", since_ns=7)),
        begun("T6", state=VolumeState.FULL, reuse=Reuse(may=True, reason="", since_ns=9)),
        begun("T8", used=100),
    ]
    order = []
    while (label := taken("continue", *every)) is not None:
        order.append(label)
        every = [each for each in every if each.volume.label != label]
    assert order == ["T5", "T4", "T2", "T3", "T1", "T7", "T6"]


def test_tapes_of_others_do_not_come_into_question():
    assert chosen("continue", begun("T1", pool="q"), blank("T2", "q")).answers == []
    assert chosen("continue", blank("T1", SCRATCH), pool={"use_scratch": False}).answers == []


@pytest.mark.parametrize(
    ("rule", "candidate", "is_taken"),
    [
        ("per weekly", begun("T1", 2.4), True),
        ("per weekly", begun("T1", 2.6), False),
        ("per weekly", begun("T1", 30, sets={RUN}), True),
        ("per 18:00", begun("T1", 0.7), True),
        ("per 18:00", begun("T1", 0.8), False),
        ("job", begun("T1", jobs={MINE}), True),
        ("job", begun("T1", jobs={MINE, OTHERS}), False),
        ("job", begun("T1", jobs={OTHERS}), False),
        ("job", begun("T1", jobs=set(), sets=set()), True),
        ("run", begun("T1"), False),
        ("run", begun("T1", sets={RUN, SetId("earlier")}), True),
        ("run", begun("T1", sets=set()), True),
        ("continue", begun("T1", jobs={OTHERS}), True),
    ],
)
def test_rules_of_allocation(rule, candidate, is_taken):
    choice = chosen(rule, candidate, blank("T2"))
    assert choice.taken is not None
    assert choice.taken.volume.label == ("T1" if is_taken else "T2")
    if not is_taken:
        (refused,) = (each for each in choice.answers if each.volume.label == "T1")
        assert f"pool p allocates `{rule}`" in refused.reason
        assert "not to be overwritten" in refused.reason


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (begun("T1", state=VolumeState.SUSPECT, reason="torn"), "it is suspect: torn"),
        (begun("T1", location="Berlin"), "it lies in Berlin"),
        (blank("T1", is_in_library=False), "it is not in the library"),
        (blank("T1", is_held=True), "another drive has it"),
        (begun("T1", state=VolumeState.FULL), "it is full"),
        (begun("T1", used=100), "it is full"),
    ],
)
def test_why_a_tape_is_not_taken(candidate, reason):
    choice = chosen("continue", candidate)
    assert choice.taken is None
    assert reason in choice.answers[0].reason


def test_what_was_tried_is_not_tried_again():
    found = begun("T1")
    choice = chosen("continue", found, exclude=[found.volume.volume_id])
    assert choice.taken is None
    assert "tried" in choice.answers[0].reason


candidates = st.builds(
    lambda number, state, used, pool, location, here, held, reuse, days, jobs: Candidate(
        tape(f"T{number}", state, used, pool=pool, location=location),
        begun_at_ns=NOW - int(days * DAY_NS),
        jobs=frozenset(jobs),
        sets=frozenset(SetId(str(job)) for job in jobs),
        is_in_library=here,
        is_held=held,
        reuse=reuse,
    ),
    st.integers(0, 99),
    st.sampled_from(VolumeState),
    st.integers(0, 100),
    st.sampled_from(["p", "q", SCRATCH]),
    st.sampled_from(["", "Berlin"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([None, MAY, Reuse(may=False, reason="no")]),
    st.floats(0, 400),
    st.sets(st.sampled_from([MINE, OTHERS])),
)


@given(
    st.lists(candidates, max_size=8, unique_by=lambda each: each.volume.label),
    st.sampled_from(["continue", "job", "run", "per monthly"]),
    st.booleans(),
)
def test_what_must_never_be_written(every, rule, use_scratch):
    choice = chosen(rule, *every, pool={"use_scratch": use_scratch})
    assert all(each.reason for each in choice.answers)
    by_label = {each.volume.label: each for each in every}
    for answer in choice.answers:
        each = by_label[answer.volume.label]
        if answer.source is None:
            continue
        assert each.is_in_library
        assert not each.is_held
        assert not each.volume.location
        assert each.volume.state is not VolumeState.SUSPECT
        assert each.volume.pool == "p" or (use_scratch and each.volume.pool == SCRATCH)
        if answer.source is Source.REUSED:
            assert each.reuse is not None
            assert each.reuse.may
        elif answer.source is Source.BEGUN:
            assert each.volume.state is VolumeState.APPENDABLE
            assert rule != "job" or each.jobs <= {MINE}
        else:
            assert each.volume.state is VolumeState.BLANK
    usable = any(answer.source is not None for answer in choice.answers)
    assert (choice.taken is not None) == usable


# -- reuse and places ------------------------------------------------------------------------------------------------

ON = Pool(name="p", reuse=True, reuse_grace_days=7)


def gone(number: int, days_ago: float = 8, **changes: Any) -> BackupSet:
    at_ns = NOW - int(days_ago * DAY_NS)
    fields: dict[str, Any] = {"number": number, "state": SetState.EXPIRED, "expired_at_ns": at_ns}
    return set_of(f"set {number}", job_of("job", number=JobNumber(1)), **(fields | changes))


@pytest.mark.parametrize(
    ("volume", "pool", "sets", "is_under_way", "reason"),
    [
        (tape("T1"), ON, [gone(1)], False, ""),
        (tape("T1", VolumeState.FULL), ON, [gone(1), gone(2, 7.1)], False, ""),
        (tape("T1"), ON, [gone(1), gone(2, 6.9)], False, "from 2026-11-25 on"),
        (tape("T1"), ON, [gone(1), gone(2, state=SetState.COMPLETE)], False, "it holds set"),
        (tape("T1"), ON, [gone(1), gone(2, state=SetState.FAILED)], False, "it holds set"),
        (tape("T1"), ON, [gone(1), gone(2, state=SetState.RUNNING)], False, "it holds set"),
        (tape("T1"), ON, [gone(1), gone(2, expired_at_ns=0)], False, "was not noted"),
        (tape("T1"), ON, [gone(1)], True, "being written to it"),
        (tape("T1"), ON, [], False, "no set that is known"),
        (tape("T1"), Pool(name="p"), [gone(1)], False, "does not reuse"),
        (tape("T1"), None, [gone(1)], False, "not known"),
        (tape("T1", VolumeState.SUSPECT), ON, [gone(1)], False, "suspect"),
        (tape("TP0001LZ"), ON, [gone(1)], False, "WORM"),
        (tape("TP0001LT"), ON, [], False, "WORM"),
    ],
)
def test_when_a_tape_may_be_overwritten(volume, pool, sets, is_under_way, reason):
    found = may_reuse(volume, pool, sets, is_under_way=is_under_way, now_ns=NOW, zone=UTC)
    assert found.may == (reason == "")
    assert reason in found.reason


@given(
    st.lists(st.tuples(st.sampled_from(SetState), st.integers(0, 20)), max_size=5),
    st.booleans(),
    st.integers(0, 20),
)
def test_never_what_lives_never_without_leave_never_too_early(states, may, grace):
    sets = [gone(number, days, state=state) for number, (state, days) in enumerate(states)]
    pool = Pool(name="p", reuse=may, reuse_grace_days=grace)
    found = may_reuse(tape("T1"), pool, sets, is_under_way=False, now_ns=NOW, zone=UTC)
    is_over = bool(states) and all(state is SetState.EXPIRED and days >= grace for state, days in states)
    assert found.may == (may and is_over)


VAULTED = Pool(name="p", vault="Berlin", vault_after_days=3)
LIVE = gone(1, state=SetState.COMPLETE)


@pytest.mark.parametrize(
    ("volume", "pool", "sets", "days_ago", "should"),
    [
        (tape("T1", VolumeState.FULL), VAULTED, [LIVE], 0, "Berlin"),
        (tape("T1"), VAULTED, [LIVE], 2.9, ""),
        (tape("T1"), VAULTED, [LIVE], 3.1, "Berlin"),
        (tape("T1"), Pool(name="p", vault="Berlin"), [LIVE], 300, ""),
        (tape("T1", location="Berlin"), Pool(name="p", vault="Berlin"), [LIVE], 3, "Berlin"),
        (tape("T1", location="Berlin"), VAULTED, [gone(1)], 300, ""),
        (tape("T1", VolumeState.FULL, location="Rome"), VAULTED, [LIVE], 300, "Berlin"),
        (tape("T1", VolumeState.SUSPECT, location="Rome"), VAULTED, [LIVE], 300, "Rome"),
        (tape("T1", VolumeState.FULL, location="Rome"), Pool(name="p"), [gone(1)], 300, "Rome"),
        (tape("T1", VolumeState.BLANK), VAULTED, [], 300, ""),
        (tape("T1", VolumeState.FULL), None, [LIVE], 300, ""),
    ],
)
def test_where_a_tape_belongs(volume, pool, sets, days_ago, should):
    found = placement(volume, pool, sets, NOW - int(days_ago * DAY_NS), NOW, UTC)
    assert found.should == should
    assert found.is_due == (volume.location != should)
    assert found.reason


def test_a_tape_whose_key_is_not_the_right_one_is_not_gone_on_with():
    """One that is not encrypted, say, when new data is to be: it is not even loaded for that."""
    plain = Candidate(tape("T1"), sets=frozenset({SetId("earlier")}), unfit="it is not encrypted")
    choice = chosen("continue", plain, begun("T2", used=5))
    assert choice.taken is not None
    assert choice.taken.volume.label == "T2"
    assert choice.answers[1].reason == "it is not encrypted"
    assert taken("continue", plain, blank("T3")) == "T3"
    assert taken("continue", plain) is None
