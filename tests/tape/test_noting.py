"""What is found on a tape, and what that means for its use."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.records import VolumeState
from tapefs.tape.identity import identify
from tapefs.tape.noting import note_found
from tests.backup.trees import random_files
from tests.tape.foreign import FOREIGN
from tests.tape.rig import NOW, TapeRig


def swap(rig: TapeRig, first: str, second: str) -> None:
    """Have two cartridges bear each other's stickers."""
    rig.drive.unload()
    rig.watcher._clear_drive()
    rig.close()
    cartridges = rig.home.library / "cartridges"
    (cartridges / first).rename(cartridges / "aside")
    (cartridges / second).rename(cartridges / first)
    (cartridges / "aside").rename(cartridges / second)
    rig.open()


def look(rig: TapeRig, label: str) -> tuple[VolumeState, str]:
    rig.thread(label)
    found = identify(rig.drive, rig.ledger.installation().installation_id)
    note_found(rig.ledger, rig.ledger.volume_by_label(label), rig.drive.status(), found, NOW)
    volume = rig.ledger.volume_by_label(label)
    rig.drive.unload()
    return volume.state, volume.reason


@pytest.mark.log_warnings
@pytest.mark.parametrize("foreign", [False, True])
def test_swapped_stickers_are_over_when_they_are_right_again(rig: TapeRig, tmp_path: Path, foreign: bool) -> None:
    source = random_files(tmp_path / "source", 3, 20_000)
    first, second, third, _ = rig.labels()
    rig.backup(source)
    if foreign:
        rig.fill(second, FOREIGN["bareos"].make())
    swap(rig, first, second)
    assert rig.ledger.backup_set(rig.backup(source)).tapes == (third,)
    assert {rig.ledger.volume_by_label(each).state for each in (first, second)} == {VolumeState.SUSPECT}
    for label in (first, second):
        state, reason = look(rig, label)
        assert state is VolumeState.SUSPECT
        assert reason
    swap(rig, first, second)
    assert look(rig, first) == (VolumeState.APPENDABLE, "")
    assert look(rig, second)[0] is (VolumeState.SUSPECT if foreign else VolumeState.BLANK)
    rig.ledger.mark_volume(rig.ledger.volume_by_label(third).volume_id, VolumeState.FULL)
    assert rig.ledger.backup_set(rig.backup(source, verify=True)).tapes == (first,)


@pytest.mark.log_warnings
def test_a_bad_tape_stays_suspect_whatever_lies_in_its_place(rig: TapeRig, tmp_path: Path) -> None:
    source = random_files(tmp_path / "source", 3, 20_000)
    first, second, *_ = rig.labels()
    rig.backup(source)
    volume = rig.ledger.volume_by_label(first)
    rig.ledger.mark_volume(volume.volume_id, VolumeState.SUSPECT, "the drive reports a write error")
    for _ in range(2):
        swap(rig, first, second)
        assert look(rig, first) == (VolumeState.SUSPECT, "the drive reports a write error")
