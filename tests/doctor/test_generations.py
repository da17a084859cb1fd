"""Drives and tapes that do not fit together."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Volume, VolumeState
from drivers.virtual.library import add_blank
from tapefs.doctor.generations import drive_generations, findings_of, look_at_generations
from tapefs.setup_home import NewHome, create_home


@pytest.fixture
def volumes(tmp_path: Path) -> list[Volume]:
    """Return a tape each of LTO-7, 8, 9 and type M, by label A to D."""
    home = create_home(NewHome(path=tmp_path / "home", tapes=4, tape_bytes=16 * 1024**2), time.time_ns())
    with LmdbLedger.open(home.ledger) as ledger:
        known = ledger.volumes()
    wanted = [("A", "A00001L7", 7), ("B", "B00001L8", 8), ("C", "C00001L9", 9), ("D", "D00001M8", 7)]
    return [
        msgspec.structs.replace(each, label=label, barcode=code, generation=generation, state=VolumeState.FULL)
        for each, (label, code, generation) in zip(known, wanted, strict=True)
    ]


def test_what_each_drive_cannot_do(volumes: list[Volume]) -> None:
    found = [(each.about, each.grade.value, each.says) for each in findings_of({"drive0": 9, "drive1": 6}, volumes)]
    assert found == [
        ("drive1", "note", "is LTO-6 and neither reads nor writes B (LTO-8), C (LTO-9), which another drive reads"),
        ("tapes", "warning", "no drive reads A (LTO-7), D (LTO-7)"),
    ]
    older = [each for each in volumes if each.label == "A"]
    five = [msgspec.structs.replace(older[0], label="E", generation=5)]
    (only,) = findings_of({"drive0": 7}, five)
    assert only.says == "is LTO-7 and reads and does not write E (LTO-5)"
    (good,) = findings_of({"drive0": 9}, [volumes[1], volumes[2]])
    assert good.grade.value == "good"
    assert list(findings_of({}, volumes)) == []


def test_of_a_state_folder(tmp_path: Path) -> None:
    home = create_home(NewHome(path=tmp_path / "home", tapes=1, tape_bytes=16 * 1024**2), time.time_ns())
    assert drive_generations(home) == {"drive0": 9}
    assert [each.grade.value for each in look_at_generations(home)] == ["good"]
    with LmdbLedger.open(home.ledger) as ledger:
        blank = ledger.volumes()[0]
        code = add_blank(home.library, tape_bytes=16 * 1024**2, generation=6)
        ledger.add_volume(
            msgspec.structs.replace(blank, volume_id="11111111-1111-4111-8111-111111111111", label=code, generation=6)
        )
    assert [each.says for each in look_at_generations(home)] == [f"no drive reads {code} (LTO-6)"]
