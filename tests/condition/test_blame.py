"""Drive or tape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from catalog.life_records import CLEANING, Mounting
from tapefs.condition.blame import Blame, blame, has_failed
from tapefs.condition.drives import is_cleaning_wanted, sentences_of
from tests.condition.lives import mounting


def failed(code: str, drive: str) -> Mounting:
    return mounting(code, drive, read_failures=1)


def test_nothing_points_at_nobody() -> None:
    assert blame([mounting(), mounting("B"), mounting(drive="drive1")]) == Blame()


def test_several_tapes_point_at_the_drive() -> None:
    found = blame([failed("A", "drive0"), failed("B", "drive0"), mounting("A", "drive1")])
    assert found == Blame(drives={"drive0": frozenset("AB")})


def test_several_drives_point_at_the_tape() -> None:
    found = blame([failed("A", "drive0"), failed("A", "drive1"), failed("A", "drive0")])
    assert found == Blame(tapes={"A": frozenset({"drive0", "drive1"})})


def test_a_bad_tape_is_no_witness_against_a_drive() -> None:
    """It fails everywhere: that leaves one tape that fails in drive0 only, which proves nothing yet."""
    found = blame([failed("A", "drive0"), failed("A", "drive1"), failed("B", "drive0")])
    assert found == Blame(tapes={"A": frozenset({"drive0", "drive1"})}, unsure={"B": "drive0"})
    assert [sentence.split(":")[0] for sentence in sentences_of("drive0", [failed("A", "drive0")], found)] == [
        "tape A has failed in it, and in other drives, too"
    ]


def test_what_is_said_of_a_drive() -> None:
    mountings = [
        failed("A", "drive0"),
        failed("B", "drive0"),
        mounting("C", "drive0", alerts=(21, 36), temperature_c=60),
    ]
    said = sentences_of("drive0", mountings, blame(mountings))
    assert said[0] == "it has asked to be cleaned: `tapefs tape clean drive0`"
    assert "2 tapes that fail in no other drive" in said[1]
    assert "[TapeAlert 36]" in said[2]
    assert "60 °C" in said[3]
    assert sentences_of("drive1", [], blame(mountings)) == []


def test_a_cleaning_ends_the_wish_for_one() -> None:
    dirty, clean = mounting(alerts=(20,)), mounting("CLNU01CU", purposes=(CLEANING,))
    assert is_cleaning_wanted([clean, dirty])
    assert not is_cleaning_wanted([dirty, clean, mounting()])


FAILURES = st.lists(st.builds(failed, st.sampled_from("ABCD"), st.sampled_from(["drive0", "drive1", "drive2"])))


@given(FAILURES)
def test_every_failing_tape_has_exactly_one_explanation(mountings: list[Mounting]) -> None:
    found = blame(mountings)
    explained = [*found.tapes, *found.unsure, *(code for codes in found.drives.values() for code in codes)]
    assert sorted(explained) == sorted({each.code for each in mountings if has_failed(each)})
    assert not set(found.unsure.values()) & set(found.drives)
