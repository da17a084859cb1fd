"""Tapes that the catalog knows are read again: what it knows counts, and a doubt ends only when all agrees."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from catalog.ids import BlockNo, FileNo, VolumeId
from catalog.records import BackupSet, SegmentCopy, SetState, Volume, VolumeState
from catalog.records import Segment as SegmentRecord
from tapefs.rebuild.known import Known, begun_anew, fitted, leave_out_contradictions
from tapefs.rebuild.plan import Plan, adoption_of, plan_of
from tapefs.rebuild.records import Segment, Survey
from tapefs.tape.doubts import unknown_data
from tests.rebuild.test_plan import HERE, SET, THERE, header, segment, survey, tape

FIRST, SECOND = segment("one", 0, 10), segment("two", 1, 20)


def volume(**changes: Any) -> Volume:
    known = Volume(
        volume_id=VolumeId(tape("T1").volume_id), label="T1", pool="default", installation_id=HERE, generation=9,
        capacity_bytes=1 << 30, block_size=65536, state=VolumeState.APPENDABLE, end_block=BlockNo(16),
        end_file=FileNo(8), used_bytes=110, labelled_at_ns=1, written_at_ns=1,
    )  # fmt: skip
    return msgspec.structs.replace(known, **changes)


def known(volume: Volume, *segments: Segment, **changes: Any) -> Known:
    """Return a ledger that has the tape and these segments of the set on it."""
    plan = plan_of([survey(tape("T1"), segments=[FIRST], headers=[header()])], HERE, {})
    adoption = adoption_of(plan_of([survey(tape("T1"), segments=list(segments), headers=[header()])], HERE, {}), 7)
    backup_set: BackupSet = adoption_of(plan, 7).sets[0]
    records: dict[int, SegmentRecord] = {each.number: each for each in adoption.segments}
    copies: tuple[SegmentCopy, ...] = adoption.copies
    fields: dict[str, Any] = {
        "installation_id": HERE,
        "volumes": {volume.volume_id: volume},
        "jobs": {},
        "ran_here": frozenset(),
        "sets": {SET: msgspec.structs.replace(backup_set, state=SetState.COMPLETE)},
        "segments": {SET: records},
        "copies": {volume.volume_id: copies},
    }
    return Known(**(fields | changes))


def taken(found: Survey, ledger: Known) -> tuple[Plan, Any]:
    plan = plan_of([found], HERE, {}, ledger.names())
    wrong = leave_out_contradictions(plan, ledger)
    return plan, fitted(adoption_of(plan, 7), plan, ledger, wrong)


def on_tape(*segments: Segment, end_block: int = 26, **changes: Any) -> Survey:
    found = survey(tape("T1"), segments=list(segments), headers=[header()])
    return msgspec.structs.replace(found, end_block=end_block, end_file=end_block // 2, **changes)


def test_more_of_a_set_is_taken_in() -> None:
    in_doubt = volume(state=VolumeState.SUSPECT, reason=unknown_data(volume()))
    plan, adoption = taken(on_tape(FIRST, SECOND), known(in_doubt, FIRST))
    (tape_now,) = adoption.volumes
    assert (tape_now.state, tape_now.reason, tape_now.end_block) == (VolumeState.APPENDABLE, "", 26)
    assert [each.segment_id for each in adoption.segments] == [SECOND.segment]
    assert [each.segment_id for each in adoption.copies] == [SECOND.segment]
    assert plan.ignored == []


def test_an_old_version_s_reason_ends_too() -> None:
    reason = "tape T1 has data behind block 16 that the ledger does not know: somebody else wrote to it; import it"
    _, adoption = taken(on_tape(FIRST, SECOND), known(volume(state=VolumeState.SUSPECT, reason=reason), FIRST))
    assert adoption.volumes[0].state is VolumeState.APPENDABLE


@pytest.mark.parametrize(
    "other",
    [segment("another", 0, 10), segment("one", 0, 10, b"other"), segment("one", 0, 12)],
    ids=["another segment of that number", "other content", "another place"],
)
def test_what_contradicts_the_ledger_is_left_out(other: Segment) -> None:
    """What is new besides is taken in; the tape is in doubt, and says why."""
    _, adoption = taken(on_tape(other, SECOND), known(volume(), FIRST))
    (tape_now,) = adoption.volumes
    assert (tape_now.state, tape_now.end_block) == (VolumeState.SUSPECT, 26)
    assert "catalog" in tape_now.reason
    assert "`tapefs import T1` looks again" in tape_now.reason
    assert [each.segment_id for each in adoption.segments] == [SECOND.segment]
    assert [each.segment_id for each in adoption.copies] == [SECOND.segment]
    again = known(tape_now, FIRST, SECOND)
    assert taken(on_tape(FIRST, SECOND), again)[1].volumes[0].state is VolumeState.APPENDABLE


def test_a_segment_that_the_ledger_has_and_the_tape_has_not() -> None:
    _, adoption = taken(on_tape(SECOND), known(volume(), FIRST))
    assert adoption.volumes[0].state is VolumeState.SUSPECT
    assert FIRST.segment in adoption.volumes[0].reason


def test_what_cannot_be_understood_keeps_the_doubt() -> None:
    found = on_tape(FIRST, SECOND, suspect="there is something behind block 26 that is not understood")
    _, adoption = taken(found, known(volume(), FIRST))
    assert adoption.volumes[0].state is VolumeState.SUSPECT
    assert "not understood" in adoption.volumes[0].reason


@pytest.mark.parametrize(("state", "reason"), [(VolumeState.SUSPECT, "write error"), (VolumeState.FULL, "")])
def test_what_else_is_known_of_a_tape_stays(state: VolumeState, reason: str) -> None:
    _, adoption = taken(on_tape(FIRST, SECOND), known(volume(state=state, reason=reason), FIRST))
    (tape_now,) = adoption.volumes
    assert (tape_now.state, tape_now.reason, tape_now.end_block) == (state, reason, 26)


def test_a_tape_that_ends_before_the_ledger_s_end() -> None:
    ahead = volume(end_block=BlockNo(40), end_file=FileNo(20))
    _, adoption = taken(on_tape(FIRST), known(ahead, FIRST))
    assert adoption.volumes == (ahead,)


@pytest.mark.parametrize(
    ("old", "is_gone"),
    [
        (volume(volume_id=VolumeId(tape("before").volume_id)), True),
        (volume(volume_id=VolumeId(tape("before").volume_id), written_at_ns=10), False),
        (volume(volume_id=VolumeId(tape("before").volume_id), installation_id=THERE), False),
        (volume(volume_id=VolumeId(tape("before").volume_id), barcode="T9"), False),
        (volume(volume_id=VolumeId(tape("before").volume_id), end_block=BlockNo(0)), False),
    ],
    ids=["ours and older", "younger", "somebody else's", "another cartridge", "never written to"],
)
def test_begun_anew(old: Volume, is_gone: bool) -> None:
    found = survey(tape("T1"), segments=[SECOND], headers=[header()])
    found = msgspec.structs.replace(found, tape=msgspec.structs.replace(found.tape, created_ns=5))
    assert begun_anew([found], known(old)) == ([old] if is_gone else [])
