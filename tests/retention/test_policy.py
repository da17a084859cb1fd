"""The rules of retention: by example, and over generated histories of several jobs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.ids import JobId, JobNumber, SetId, SetNumber
from catalog.records import AS_POOL, BackupSet, Job, JobState, SetState
from tapefs.retention.policy import FAILED_DAYS, Verdict, Why, Wish, decide
from tapefs.retention.rules import Hold
from tests.catalog.builders import NOW, job_of, set_of, uuid_of

DAY_NS = 86_400 * 10**9
JOB = job_of("job", number=JobNumber(1))


def made(number: int, *, days_ago: float = 0.0, job: Job = JOB, **changes: Any) -> BackupSet:
    at_ns = NOW - int(days_ago * DAY_NS)
    fields: dict[str, Any] = {"number": SetNumber(number), "state": SetState.COMPLETE, "finished_at_ns": at_ns}
    fields |= {"started_at_ns": at_ns - 1000, "retention_days": 30, "files": 10, "directories": 10}
    return set_of(f"set {number}", job, **(fields | changes))


def why(sets: list[BackupSet], *jobs: Job, **more: Any) -> list[Why]:
    return [verdict.why for verdict in decide(sets, jobs or (JOB,), NOW, **more)]


def test_age_counts_from_the_end_of_the_run():
    sets = [made(1, days_ago=30.1), made(2, days_ago=29.9), made(3, days_ago=400, retention_days=0), made(4)]
    assert why(sets) == [Why.AGED, Why.YOUNG, Why.FOR_EVER, Why.NEWEST]


def test_a_clock_that_was_behind_ends_nothing_early():
    """It said 1970; the ledger knew better when the set was begun."""
    wrong = made(2, days_ago=20_000)
    right = msgspec.structs.replace(wrong, after_ns=NOW - 10 * DAY_NS)
    assert why([made(1), wrong, made(3)])[1] is Why.AGED
    assert why([made(1), right, made(3)])[1] is Why.YOUNG


def test_the_newest_of_each_job_stays_however_old():
    other = job_of("other", number=JobNumber(2))
    sets = [
        made(1, days_ago=900),
        made(2, days_ago=800, job=other),
        made(3, days_ago=700),
        made(4, state=SetState.FAILED),
    ]
    assert why(sets, JOB, other)[:3] == [Why.AGED, Why.NEWEST, Why.NEWEST]
    assert why(sets[:3], other)[:3] == [Why.AGED, Why.NEWEST, Why.NEWEST], "also when the job was deleted"


def test_a_base_stays_with_the_reason_of_what_builds_on_it():
    first, second = made(1, days_ago=90), made(2, days_ago=80, parent_id=SetId(uuid_of("set 1")))
    third = made(3, days_ago=10, parent_id=second.set_id)
    verdicts = decide([first, second, third, made(4)], [JOB], NOW)
    assert [verdict.why for verdict in verdicts] == [Why.BASE, Why.BASE, Why.YOUNG, Why.NEWEST]
    assert "builds on it" in verdicts[0].reason
    assert verdicts[2].reason in verdicts[1].reason


@pytest.mark.parametrize("state", [SetState.RUNNING, SetState.SEALED, SetState.FAILED])
def test_a_set_that_is_not_done_holds_its_base(state):
    later = made(2, parent_id=SetId(uuid_of("set 1")), state=state)
    job = msgspec.structs.replace(JOB, set_id=later.set_id, state=JobState.FAILED)
    assert why([made(1, days_ago=90), later, made(3, days_ago=1)], job)[0] is Why.BASE


def test_a_chain_goes_when_all_of_it_may():
    sets = [made(1, days_ago=90), made(2, days_ago=80, parent_id=SetId(uuid_of("set 1"))), made(3)]
    assert why(sets) == [Why.AGED, Why.AGED, Why.NEWEST]


def test_a_damaged_set_is_no_reason_to_let_the_one_before_it_go():
    """Nor is one that builds on a damaged one."""
    sets = [made(n, days_ago=100 - n) for n in (1, 2, 3)] + [made(4, days_ago=90, parent_id=SetId(uuid_of("set 3")))]
    assert why(sets) == [Why.AGED, Why.AGED, Why.BASE, Why.NEWEST]
    assert why(sets, damaged={sets[2].set_id}) == [Why.AGED, Why.NEWEST, Why.BASE, Why.NEWEST]
    assert why(sets, damaged={sets[3].set_id}) == [Why.AGED, Why.AGED, Why.NEWEST, Why.NEWEST]
    assert why(sets, damaged={sets[2].set_id, sets[1].set_id})[0] is Why.NEWEST


def test_archives_never_go():
    archive = made(1, days_ago=9000, type="archive", retention_days=1)
    assert why([archive, made(2)], wish=Wish(named=frozenset({archive.set_id}))) == [Why.ARCHIVE, Why.NEWEST]


def test_what_failed():
    old, new = FAILED_DAYS + 0.1, FAILED_DAYS - 0.1
    for days_ago, expected in ((old, Why.FAILED), (new, Why.RESUMABLE)):
        failed = made(1, days_ago=days_ago, state=SetState.FAILED)
        job = msgspec.structs.replace(JOB, set_id=failed.set_id, state=JobState.FAILED)
        assert why([failed], job) == [expected]
        assert why([failed], job, wish=Wish(failed=True)) == [Why.FAILED]
        assert why([failed], msgspec.structs.replace(job, state=JobState.QUEUED), wish=Wish(failed=True)) == [
            Why.RUNNING
        ]
        assert why([failed], msgspec.structs.replace(job, set_id=None)) == [Why.FAILED], "nothing goes on with it"
        assert why([failed], job_of("another")) == [Why.FAILED], "its job is gone"


def test_what_is_named_goes_unless_it_is_held():
    sets = [made(1), made(2, parent_id=SetId(uuid_of("set 1"))), made(3)]
    named = [each.set_id for each in sets]
    assert why(sets, wish=Wish(named=frozenset(named[2:]))) == [Why.YOUNG, Why.YOUNG, Why.NAMED]
    assert why(sets, wish=Wish(named=frozenset(named[:1]))) == [Why.BASE, Why.YOUNG, Why.NEWEST]
    assert why(sets, wish=Wish(named=frozenset(named))) == [Why.NAMED] * 3


def test_what_is_named_says_what_would_have_kept_it():
    (verdict,) = decide([made(1)], [JOB], NOW, Wish(named=frozenset({made(1).set_id})))
    assert verdict.reason == "it was named, although it is the newest complete set of its job"


def test_a_mirror_replaces_earlier_ones_once_it_is_verified():
    sets = [made(1, type="mirror", days_ago=99), made(2, type="mirror"), made(3, type="mirror")]
    assert why(sets) == [Why.NEWEST, Why.NEWEST, Why.NEWEST]
    assert why(sets, verified={sets[2].set_id}) == [Why.REPLACED, Why.REPLACED, Why.NEWEST]
    assert why(sets, verified={sets[1].set_id}) == [Why.REPLACED, Why.NEWEST, Why.NEWEST]
    other = [msgspec.structs.replace(sets[2], job_id=JobId(uuid_of("x"))), *sets[:2]]
    assert Why.REPLACED not in why(other, verified={sets[2].set_id})


@pytest.mark.parametrize(("files", "expected"), [(9, Why.NEWEST), (10, Why.REPLACED)])
def test_a_mirror_that_has_lost_over_half_replaces_nothing(files, expected):
    before = made(1, type="mirror", files=12, directories=8)
    after = made(2, type="mirror", files=files, directories=0)
    assert why([before, after], verified={after.set_id})[0] is expected


def test_a_mirror_that_could_not_read_something_replaces_nothing_that_could():
    before, after = made(1, type="mirror"), made(2, type="mirror", unread_files=1)
    assert why([before, after], verified={after.set_id}) == [Why.NEWEST, Why.NEWEST]
    third = made(3, type="mirror", unread_files=1)
    assert why([before, after, third], verified={third.set_id}) == [Why.NEWEST, Why.REPLACED, Why.NEWEST]


JOBS = [job_of(f"job {n}", number=JobNumber(n)) for n in (1, 2)]


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[BackupSet], list[Job], Wish, frozenset[SetId]]:
    """Sets of two jobs, each building on an earlier one of its job or on none; nothing builds on what has expired."""
    sets: list[BackupSet] = []
    for number in range(1, draw(st.integers(1, 12)) + 1):
        job = draw(st.sampled_from(JOBS))
        bases = [each for each in sets if each.job_id == job.job_id and each.state is SetState.COMPLETE]
        parent = draw(st.sampled_from([None, *bases]))
        sets.append(
            made(
                number,
                job=job,
                days_ago=draw(st.floats(0, 100)),
                state=draw(st.sampled_from([SetState.COMPLETE] * 4 + list(SetState))),
                type=draw(st.sampled_from(["full", "mirror", "archive"])),
                retention_days=draw(st.sampled_from([0, 1, 30, 90])),
                files=draw(st.integers(0, 30)),
                parent_id=None if parent is None else parent.set_id,
            )
        )
    held = {each.parent_id for each in sets if each.state is not SetState.EXPIRED}
    sets = [
        msgspec.structs.replace(each, state=SetState.COMPLETE)
        if each.state is SetState.EXPIRED and each.set_id in held
        else each
        for each in sets
    ]
    ids = [each.set_id for each in sets]
    jobs = [
        msgspec.structs.replace(
            job, set_id=draw(st.sampled_from([None, *ids])), state=draw(st.sampled_from(list(JobState)))
        )
        for job in draw(st.sampled_from([JOBS, JOBS[:1], []]))
    ]
    named = draw(st.sampled_from([frozenset(), frozenset(ids[:2]), frozenset(ids)]))
    wish = Wish(named=named, failed=draw(st.booleans()))
    return sets, jobs, wish, frozenset(draw(st.lists(st.sampled_from(ids))))


@given(histories())
def test_what_always_holds(history):
    sets, jobs, wish, verified = history
    verdicts = {verdict.backup_set.set_id: verdict for verdict in decide(sets, jobs, NOW, wish, verified)}
    assert set(verdicts) == {each.set_id for each in sets if each.state is not SetState.EXPIRED}
    stays = {set_id for set_id, verdict in verdicts.items() if not verdict.goes}
    for set_id in stays:
        parent_id = verdicts[set_id].backup_set.parent_id
        assert parent_id is None or parent_id in stays, "a chain is broken"
    for each in sets:
        if each.type == "mirror" and each.state is SetState.COMPLETE and each.set_id not in stays | wish.named:
            newer = [other for other in sets if other.job_id == each.job_id and other.number > each.number]
            assert any(other.type == "mirror" and other.set_id in verified for other in newer), (
                "nothing is in its place"
            )
    for job in JOBS:
        complete = [each for each in sets if each.job_id == job.job_id and each.state is SetState.COMPLETE]
        if complete and complete[-1].set_id not in wish.named:
            assert complete[-1].set_id in stays, "the newest complete set goes"
    for verdict in verdicts.values():
        check(verdict, wish)


def check(verdict: Verdict, wish: Wish) -> None:
    each = verdict.backup_set
    assert verdict.reason
    if each.state in (SetState.RUNNING, SetState.SEALED) or (each.type, each.state) == ("archive", SetState.COMPLETE):
        assert not verdict.goes
    if verdict.goes and each.state is SetState.COMPLETE and each.set_id not in wish.named and each.type != "mirror":
        assert each.retention_days
        assert each.finished_at_ns + each.retention_days * DAY_NS <= NOW


# -- pools -----------------------------------------------------------------------------------------------------------


def hold(days: float | None, by: str = "pool p (6 months)") -> Hold:
    return Hold(by, None if days is None else NOW + int(days * DAY_NS))


@pytest.mark.parametrize(
    ("retention_days", "holds", "wanted", "said"),
    [
        (30, [hold(5)], Why.YOUNG, "pool p (6 months) keeps it until"),
        (30, [hold(-5)], Why.AGED, "pool p (6 months) kept it until"),
        (30, [hold(-20)], Why.AGED, "its 30 days ended on"),
        (60, [hold(-20)], Why.YOUNG, "its 60 days end on"),
        (30, [hold(None)], Why.FOR_EVER, "keeps it for ever, longer than its 30 days"),
        (30, [hold(-20), hold(1, "pool q")], Why.YOUNG, "pool q keeps it"),
        (0, [hold(-20)], Why.FOR_EVER, "without an end"),
        (AS_POOL, [], Why.FOR_EVER, "names no end"),
        (AS_POOL, [hold(-1)], Why.AGED, "kept it until"),
        (AS_POOL, [hold(-1), hold(1, "pool q")], Why.YOUNG, "pool q keeps it until"),
        (AS_POOL, [hold(None)], Why.FOR_EVER, "keeps it for ever"),
    ],
)
def test_the_longest_of_job_and_pools_counts(retention_days, holds, wanted, said):
    """The set is 40 days old."""
    old = made(1, days_ago=40, retention_days=retention_days)
    verdict = decide([old, made(2)], [JOB], NOW, holds={old.set_id: holds})[0]
    assert verdict.why is wanted
    assert said in verdict.reason


def test_a_pool_keeps_mirrors_that_were_replaced():
    first, second = made(1, days_ago=3, type="mirror"), made(2, type="mirror")
    for holds, wanted in (([hold(1)], Why.YOUNG), ([hold(-1)], Why.REPLACED), ([hold(None)], Why.FOR_EVER)):
        verdicts = decide([first, second], [JOB], NOW, verified=[second.set_id], holds={first.set_id: holds})
        assert [verdict.why for verdict in verdicts] == [wanted, Why.NEWEST]


def test_who_names_a_set_is_told_what_kept_it():
    old = made(1, days_ago=40)
    wish = Wish(named=frozenset({old.set_id}))
    verdict = decide([old, made(2)], [JOB], NOW, wish, holds={old.set_id: [hold(5)]})[0]
    assert verdict.why is Why.NAMED
    assert "although pool p" in verdict.reason


def test_what_was_found_on_tape_and_is_not_whole_goes_only_when_named() -> None:
    """It may wait for a tape that is missing; with its set its tape would be free for reuse."""
    failed = msgspec.structs.replace(made(1, days_ago=1000, state=SetState.FAILED), is_adopted=True)
    assert why([failed]) == [Why.RESUMABLE]
    assert why([failed], wish=Wish(failed=True)) == [Why.RESUMABLE]
    assert why([failed], wish=Wish(named=frozenset({failed.set_id}))) == [Why.NAMED]
