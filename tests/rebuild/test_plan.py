"""What several tapes say is put together: contradictions are told, and what a set's index names counts."""

from __future__ import annotations

from typing import Any

import pytest

from catalog.ids import InstallationId, JobId, SegmentId, SetId, VolumeId
from tapefs.format.records import Header, IndexHead, IndexSegment
from tapefs.rebuild.plan import adoption_of, installation_of, plan_of
from tapefs.rebuild.records import Index, Method, Segment, Survey, Tape
from tests.catalog.builders import uuid_of

HERE, THERE = InstallationId(uuid_of("here")), InstallationId(uuid_of("there"))
SET = SetId(uuid_of("set"))


def tape(name: str, installation: InstallationId = HERE) -> Tape:
    return Tape(
        volume_id=VolumeId(uuid_of(name)), installation_id=installation, label=name, barcode=name, pool="default",
        created_ns=1, block_size=65536, generation=9, capacity_bytes=1 << 30,
    )  # fmt: skip


def segment(name: str, number: int, block: int, sha256: bytes = b"s") -> Segment:
    return Segment(
        segment=SegmentId(uuid_of(name)), set=SET, number=number, codec="zstd", header_file=block // 2,
        header_block=block, payload_block=block + 2, trailer_block=block + 4, end_block=block + 6, block_size=65536,
        payload_bytes=100, plain_bytes=200, members=1, frames=1, payload_sha256=sha256.ljust(32), trailer_bytes=10,
    )  # fmt: skip


def header(installation: InstallationId = HERE, set_id: SetId = SET) -> Header:
    return Header(
        segment=SegmentId(uuid_of("any")), number=0, set=set_id, set_number=3, type="full", job=JobId(uuid_of("job")),
        job_number=2, job_name="job", sources=["/a"], installation=installation, volume=VolumeId(uuid_of("T1")),
        codec="zstd", block_size=65536, host="h", set_started_ns=5, created_ns=6, software="s",
    )  # fmt: skip


def index(named: Segment, on: str, *, final: bool = True) -> Index:
    head = IndexHead(
        index=uuid_of("index"), set=SET, set_number=3, type="full", job=JobId(uuid_of("job")), job_number=2,
        job_name="job", sources=["/a"], installation=HERE, codec="zstd", level=3, set_started_ns=5, created_ns=9,
        final=final, files=1, directories=1, bytes=1, stored_bytes=1, troubled_files=0,
    )  # fmt: skip
    line = IndexSegment(
        segment=named.segment, number=named.number, volume=VolumeId(uuid_of(on)), label=on, header_file=2,
        header_block=4, payload_block=6, trailer_block=8, end_block=10, block_size=65536,
    )  # fmt: skip
    return Index(head=head, table=[line], file=9, block=40, end_block=42, stored_bytes=5)


def survey(on: Tape, **fields: Any) -> Survey:
    empty: dict[str, Any] = {"headers": [], "segments": [], "indexes": [], "torn": [], "ignored": []}
    return Survey(
        method=Method.INDEX, tape=on, end_block=50, end_file=12, label_bytes=10, is_full=False, written_ns=1,
        **(empty | fields),
    )  # fmt: skip


@pytest.mark.parametrize("named", ["one", "two"])
def test_of_two_segments_with_one_number_the_index_s_counts(named: str) -> None:
    one, two = segment("one", 0, 4), segment("two", 0, 12)
    wanted = {"one": one, "two": two}[named]
    plan = plan_of([survey(tape("T1"), segments=[one, two], indexes=[index(wanted, "T1")])], HERE, {})
    found = adoption_of(plan, 1)
    assert [each.segment_id for each in found.segments] == [wanted.segment]
    assert [(each.segment_id, each.header_block) for each in found.copies] == [(wanted.segment, wanted.header_block)]
    assert "two segments with the number 0" in plan.ignored[0]


def test_copies_that_contradict_each_other() -> None:
    """The first counts, and the other is no copy of it."""
    tapes = [
        survey(tape("T1"), headers=[header()], segments=[segment("one", 0, 4, b"a")]),
        survey(tape("T2"), headers=[header()], segments=[segment("one", 0, 4, b"b")]),
    ]
    plan = plan_of(tapes, HERE, {})
    assert "say different things" in plan.ignored[0]
    assert [each.volume_id for each in adoption_of(plan, 1).copies] == [uuid_of("T1")]


def test_a_segment_that_is_on_a_tape_twice() -> None:
    tapes = [survey(tape("T1"), headers=[header()], segments=[segment("one", 0, 4), segment("one", 0, 12)])]
    plan = plan_of(tapes, HERE, {})
    assert [each.header_block for each in adoption_of(plan, 1).copies] == [4]
    assert "twice" in plan.ignored[0]


def test_what_an_index_tells_of_a_missing_tape() -> None:
    plan = plan_of([survey(tape("T1"), indexes=[index(segment("one", 0, 4), "T7")])], HERE, {})
    assert plan.sets[SET].lacks([]) == "1 of 1 segments are missing, on tape T7"
    assert plan.sets[SET].lacks([0]) == ""
    assert "1 of 3 segments are missing" in plan.sets[SET].lacks([0, 2])


def test_the_installation_that_made_most_sets_is_ours() -> None:
    others = [header(THERE, SetId(uuid_of(name))) for name in ("x", "y")]
    tapes = [survey(tape("T1"), headers=[header()]), survey(tape("T2", THERE), headers=others)]
    assert installation_of(tapes) == THERE
    assert installation_of([]) is None
    plan = plan_of(tapes, THERE, {})
    assert [found.is_imported for found in plan.sets.values()] == [True, False, False]
    found = adoption_of(plan, 1)
    assert len(found.jobs) == 1
    assert {volume.label: volume.state.value for volume in found.volumes} == {"T1": "full", "T2": "appendable"}


def test_names_that_are_taken_get_an_addition() -> None:
    """In the catalog, or by another tape that was read."""
    tapes = [survey(tape("T1"), headers=[header()]), survey(tape("T2"))]
    plan = plan_of(tapes, HERE, {"T1": VolumeId(uuid_of("other")), "T2": VolumeId(uuid_of("T2"))})
    names = [volume.label for volume in adoption_of(plan, 1).volumes]
    assert names == [f"T1-{uuid_of('T1')[:8]}", "T2"]
    assert adoption_of(plan, 1).volumes[0].barcode == "T1"
    assert adoption_of(plan, 1).sets[0].tapes == (names[0],)
