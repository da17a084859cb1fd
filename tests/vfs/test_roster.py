"""Naming sets."""

from __future__ import annotations

import msgspec
import pytest

from catalog.ids import JobId, JobNumber, SetId, SetNumber
from catalog.records import BackupSet, SetState
from tapefs.errors import NoSuchThing
from tapefs.vfs.roster import Roster
from tests.vfs.shelf import STARTED_NS


def backup_set(
    number: int, set_id: str, name: str = "docs", at_s: int = 0, state: SetState = SetState.COMPLETE
) -> BackupSet:
    return BackupSet(
        set_id=SetId(set_id),
        number=SetNumber(number),
        job_id=JobId("j"),
        job_number=JobNumber(1),
        name=name,
        type="full",
        codec="zstd",
        level=3,
        sources=(b"/x",),
        state=state,
        started_at_ns=STARTED_NS + at_s * 1_000_000_000,
    )


OLD = backup_set(1, "aaaa1111-0000-4000-8000-000000000001")
SAME_SECOND = backup_set(2, "aaaa2222-0000-4000-8000-000000000002")
NEWER = backup_set(3, "bbbb3333-0000-4000-8000-000000000003", at_s=60)
RUNNING = backup_set(4, "cccc4444-0000-4000-8000-000000000004", at_s=60, state=SetState.RUNNING)
OTHER = backup_set(5, "dddd5555-0000-4000-8000-000000000005", name="aaaa")
ROSTER = Roster([NEWER, OTHER, RUNNING, SAME_SECOND, OLD])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (OLD.set_id, OLD),
        ("aaaa1", OLD),
        ("AAAA2222", SAME_SECOND),
        ("docs", NEWER),
        ("docs/", NEWER),
        ("docs/latest", NEWER),
        ("docs/2026-11-23T020000Z", OLD),
        ("docs/2026-11-23T020000Z-2", SAME_SECOND),
        ("docs/2026-11-23T020100Z", NEWER),
        # A job's name goes before the beginning of an id.
        ("aaaa", OTHER),
    ],
)
def test_find(text: str, wanted: BackupSet) -> None:
    assert ROSTER.find(text) is wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "no set or job named 'nothing'"),
        ("bbb", "no set or job named 'bbb'"),
        ("", "no set or job"),
        ("docs/2026-11-23T020101Z", "its newest is docs/2026-11-23T020100Z"),
        ("nothing/latest", "no set or job named 'nothing'"),
        ("docs/etc", "stands behind a colon: docs:etc"),
        ("cccc", "is running"),
        (RUNNING.set_id, "is running"),
        ("docs/2026-11-23T020100Z-2", "no complete set of"),
    ],
)
def test_find_nothing(text: str, message: str) -> None:
    with pytest.raises(NoSuchThing, match=message):
        ROSTER.find(text)


def test_an_ambiguous_beginning_says_so() -> None:
    with pytest.raises(NoSuchThing, match="2 sets begin with 'aaaa'"):
        Roster([OLD, SAME_SECOND]).find("aaaa")


def test_only_complete_sets_are_shown() -> None:
    assert ROSTER.complete == [OLD, SAME_SECOND, NEWER, OTHER]
    assert ROSTER.by_name == {"docs": [OLD, SAME_SECOND, NEWER], "aaaa": [OTHER]}
    with pytest.raises(NoSuchThing):
        ROSTER.by_number(RUNNING.number)


def test_a_name_stays_when_an_older_set_expires() -> None:
    expired = backup_set(1, OLD.set_id, state=SetState.EXPIRED)
    assert Roster([expired, SAME_SECOND]).time_name(SAME_SECOND.set_id) == "2026-11-23T020000Z-2"


def test_a_clock_that_was_put_back_makes_no_set_older_than_those_before_it() -> None:
    later = backup_set(6, "eeee6666-0000-4000-8000-000000000006", at_s=-86_400)
    assert Roster([OLD, NEWER, later]).find("docs") is NEWER
    later = msgspec.structs.replace(later, after_ns=NEWER.order_ns + 1)
    roster = Roster([OLD, NEWER, later])
    assert roster.find("docs") is roster.find("docs/latest") is roster.find("docs/2026-11-22T020000Z") is later


def test_a_name_without_a_complete_set_says_how_its_newest_is() -> None:
    """`tapefs sets` lists it, so "there is no set" would be wrong."""
    failed = backup_set(6, "eeee6666-0000-4000-8000-000000000006", name="mail", state=SetState.FAILED)
    with pytest.raises(NoSuchThing, match="mail has no complete set; the newest, eeee6666, is failed: `tapefs report"):
        Roster([OLD, failed]).find("mail")
