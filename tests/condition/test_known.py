"""Bad tapes, and tapes of other generations, are not chosen for writing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.pool_records import Pool
from catalog.records import Volume, VolumeState
from drivers.lto import Use
from sidecar.tapes.library import Library
from tapefs.condition.known import condition_now, drives_now
from tapefs.retention.allocation import Candidate, Want, choose
from tests.catalog.builders import NOW, volume_of
from tests.condition.lives import mounting


@pytest.fixture
def ledger(tmp_path: Path) -> LmdbLedger:
    return LmdbLedger.create(tmp_path / "ledger", NOW)


def test_what_the_ledger_knows_makes_the_condition(ledger: LmdbLedger) -> None:
    volume = volume_of("T00001L9")
    ledger.add_volume(volume)
    assert condition_now(ledger, volume, NOW).score == 100
    for code in ("T00001L9", "T00002L9"):
        ledger.note_mounting(mounting(code, write_failures=3, alerts=(3,), loaded_at_ns=NOW))
    found = condition_now(ledger, volume, NOW)
    assert found.score < 100
    assert "drive0 is to blame" in found.reasons[0].sentence
    assert "2 tapes that fail in no other drive" in drives_now(ledger, NOW)["drive0"][0]


def test_a_bad_tape_and_one_for_other_drives_are_not_written() -> None:
    pool = Pool(name="default")
    volume = volume_of("T00001L9", state=VolumeState.BLANK, pool="default")
    for field in ("bad", "misfit"):
        choice = choose(Want(pool=pool, now_ns=NOW), [Candidate(volume, **{field: "the reason"})])  # type: ignore[arg-type]
        assert choice.taken is None
        assert choice.answers[0].reason == "the reason"
    assert choose(Want(pool=pool, now_ns=NOW), [Candidate(volume)]).taken is not None


def _misfit(volume: Volume, drive: int | None, wanted: Use, **generations: int) -> str:
    known = {int(name[1:]): generation for name, generation in generations.items()}
    return Library.misfit(cast(Library, SimpleNamespace(generations=known)), volume, drive, wanted)


@pytest.mark.parametrize(
    ("code", "generation", "drive", "wanted", "said"),
    [
        ("T00001L9", 9, 9, Use.WRITING, ""),
        ("T00001L9", 9, 8, Use.READING, "LTO-8, reads no LTO-9"),
        ("T00001L5", 5, 7, Use.READING, ""),
        ("T00001L5", 5, 7, Use.WRITING, "LTO-7, writes no LTO-5"),
        ("T00001M8", 8, 9, Use.READING, "type M"),
        ("T00001M8", 8, 8, Use.WRITING, ""),
        ("noname", 9, 8, Use.WRITING, ""),
        ("T00001L9", 9, 0, Use.WRITING, ""),
    ],
)
def test_generations(code: str, generation: int, drive: int, wanted: Use, said: str) -> None:
    volume = volume_of(code, generation=generation, state=VolumeState.BLANK)
    found = _misfit(volume, 0, wanted, d0=drive)
    assert (said in found) if said else not found


def test_any_drive_that_can_will_do() -> None:
    volume = volume_of("T00001L9", generation=9)
    assert not _misfit(volume, None, Use.WRITING, d0=8, d1=9)
    assert "no drive here" in _misfit(volume, None, Use.WRITING, d0=8, d1=7)
