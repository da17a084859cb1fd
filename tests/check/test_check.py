"""What `tapefs check` finds in an archive of a full and an incremental set, and what --repair brings back."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.records import CopyState, VolumeState
from tapefs.check.finding import Scene
from tapefs.check.run import CHECKS, Outcome, run_checks
from tapefs.cli.check import NAMES
from tapefs.retention.expire import verdicts_of
from tapefs.retention.policy import Wish
from tests.backup.rig import Rig
from tests.backup.trees import random_files


def look(rig: Rig, *names: str, repair: bool = False) -> list[Outcome]:
    return list(run_checks(Scene(rig.home, rig.ledger), names or tuple(CHECKS), repair=repair))


def told(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    return [(outcome.finding.check, outcome.finding.problem) for outcome in outcomes]


def cut(path: Path, at: int) -> None:
    """Overwrite a stretch of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * 4096)


def contents(path: Path) -> bytes:
    return path.read_bytes()


def test_all_is_well(rig: Rig, made: list[SetId]) -> None:
    assert look(rig) == []
    assert tuple(CHECKS) == NAMES


@pytest.mark.parametrize("which", [0, 1])
def test_a_lost_index_comes_back_as_it_was(rig: Rig, made: list[SetId], which: int) -> None:
    path = rig.home.index(made[which])
    before = contents(path)
    path.unlink()
    (finding,) = told(look(rig, "indexes"))[which : which + 1] or told(look(rig, "indexes"))
    assert finding == ("indexes", "it has no index, so nothing of it is shown")
    repaired = look(rig, "indexes", repair=True)
    assert all(outcome.repaired for outcome in repaired)
    assert contents(path) == before
    assert look(rig) == []


def test_an_index_is_read_to_its_last_record(rig: Rig, made: list[SetId]) -> None:
    """Damage anywhere in it is found, or was in a page that holds nothing."""
    path = rig.home.index(made[0])
    before = contents(path)
    found = 0
    for at in range(8192, len(before), 4096):
        path.write_bytes(before)
        cut(path, at)
        os.utime(path)
        found += bool(look(rig, "indexes"))
    # Pages that were freed while it was written hold nothing: a quarter of this small one.
    assert found > (len(before) // 4096 - 2) / 2
    path.write_bytes(before[: len(before) // 2])
    assert "cut short" in told(look(rig, "indexes"))[0][1]
    assert all(outcome.repaired for outcome in look(rig, "indexes", repair=True))
    assert look(rig) == []


def test_an_index_of_another_set(rig: Rig, made: list[SetId], tmp_path: Path) -> None:
    other = rig.backup(random_files(tmp_path / "other", 3, 100), name="other")
    os.replace(rig.home.index(other), rig.home.index(made[0]))
    problems = [problem for _, problem in told(look(rig, "indexes"))]
    assert f"its index is of set {other}" in problems
    assert "its index names other segments than the ledger" in problems
    look(rig, "indexes", repair=True)
    assert look(rig, "indexes") == []


def test_without_trailers_the_tape_has_to_help(rig: Rig, made: list[SetId]) -> None:
    segment = rig.ledger.segments(made[0])[0].segment_id
    rig.home.trailer(segment).unlink()
    rig.home.index(made[0]).unlink()
    outcomes = look(rig, "trailers", "indexes", repair=True)
    assert ("trailers", "its local trailer is missing") in told(outcomes)
    lost = next(outcome for outcome in outcomes if outcome.finding.problem.startswith("it has no index"))
    assert not lost.repaired
    assert "tapefs rebuild" in lost.finding.advice


def test_a_damaged_trailer(rig: Rig, made: list[SetId]) -> None:
    path = rig.home.trailer(rig.ledger.segments(made[0])[0].segment_id)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ((check, problem),) = told(look(rig, "trailers"))
    assert check == "trailers"
    assert problem.startswith("its local trailer is damaged")


def test_names_are_made_again(rig: Rig, made: list[SetId]) -> None:
    rig.home.names(made[0]).unlink()
    path = rig.home.names(made[1])
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    assert [outcome.repaired for outcome in look(rig, "names", repair=True)] == [True, True]
    assert look(rig) == []


def test_what_is_on_no_tape_or_damaged(rig: Rig, made: list[SetId]) -> None:
    segment = rig.ledger.segments(made[0])[0]
    (copy,) = rig.ledger.copies(segment.segment_id)
    rig.ledger.mark_copy(segment.segment_id, copy.volume_id, CopyState.DAMAGED, 1)
    rig.ledger.mark_volume(copy.volume_id, VolumeState.SUSPECT, "the drive could not write")
    outcomes = look(rig, "sets", "tapes")
    label = rig.ledger.volume(copy.volume_id).label
    assert told(outcomes) == [
        ("sets", f"segment 0 is damaged on every tape that has it: {label}"),
        ("tapes", "set aside: the drive could not write"),
    ]


def test_a_damaged_ledger(rig: Rig, made: list[SetId]) -> None:
    rig.ledger.close()
    path = rig.home.ledger / "data.mdb"
    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(8192, size, 4096):
            file.seek(at + 2048)
            file.write(b"\xff" * 1024)
    outcomes = look(rig, "ledger")
    assert outcomes
    assert all(not outcome.repaired and "catalog restore" in outcome.finding.advice for outcome in outcomes)


def test_what_expired_leaves_nothing(rig: Rig, made: list[SetId]) -> None:
    assert any(verdict.goes for verdict in verdicts_of(rig.ledger, 1, Wish(named=frozenset(made))))
    rig.ledger.expire_set(made[1], 1)
    assert [check for check, _ in told(look(rig, "leftovers"))]
    assert all(outcome.repaired for outcome in look(rig, "leftovers", repair=True))
    assert look(rig) == []
