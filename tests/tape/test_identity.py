"""What is on a tape is told whoever wrote it, and nothing is written for that."""

from __future__ import annotations

from pathlib import Path

import pytest

from catalog.ids import InstallationId, new_uuid
from drivers.errors import EndOfData
from tapefs.tape.identity import Owner, first_mark, identify
from tests.backup.trees import random_files
from tests.tape.foreign import FOREIGN, UUID_TEXT, ltfs, write
from tests.tape.rig import TapeRig


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_tapes_are_named(rig: TapeRig, kind: str) -> None:
    foreign = FOREIGN[kind]
    label = rig.labels()[0]
    rig.fill(label, foreign.make())
    before = rig.content(label)
    found = identify(rig.drive, rig.ledger.installation().installation_id)
    assert (found.owner, found.format) == (Owner.FOREIGN, foreign.format)
    assert found.name == (foreign.name or f"{foreign.format.split()[0].lower()}-{found.mark[:8]}")
    assert found.mark == first_mark(rig.drive)
    assert found.name in found.sentence
    assert rig.content(label) == before


def test_ltfs_volumes_go_by_all_their_names(rig: TapeRig) -> None:
    rig.fill(rig.labels()[0], ltfs("LTF001", "holiday videos"))
    assert identify(rig.drive, InstallationId("x")).names == ("holiday videos", UUID_TEXT, "LTF001")


def test_an_ltfs_volume_without_an_index_has_its_serial_number(rig: TapeRig) -> None:
    rig.fill(rig.labels()[0], ltfs("LTF001", "holiday videos")[:1])
    assert identify(rig.drive, InstallationId("x")).names == ("LTF001",)


def test_names_cannot_spoil_the_terminal(rig: TapeRig) -> None:
    rig.fill(rig.labels()[0], ltfs("A\x1b[2J", "\u202eevil"))
    found = identify(rig.drive, InstallationId("x"))
    assert found.name == "?evil"
    assert found.sentence.isprintable()


def test_a_blank_tape_and_ours(rig: TapeRig, tmp_path: Path) -> None:
    ours = rig.ledger.installation().installation_id
    label = rig.labels()[0]
    rig.thread(label)
    assert identify(rig.drive, ours).owner is Owner.NOBODY
    assert first_mark(rig.drive) == ""
    random_files(tmp_path / "files", 2, 1000)
    rig.backup(tmp_path / "files")
    (volume,) = [each for each in rig.ledger.volumes() if each.end_block]
    found = identify(rig.drive, ours)
    assert (found.owner, found.names) == (Owner.OURS, (volume.label, volume.volume_id))
    assert "this installation" in found.sentence
    elsewhere = identify(rig.drive, InstallationId(new_uuid()))
    assert elsewhere.owner is Owner.ELSEWHERE
    assert ours in elsewhere.sentence


def test_a_tape_that_cannot_be_read(rig: TapeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first block is damaged: that is told, it is not blank."""
    label = rig.labels()[0]
    rig.fill(label, [[b"x" * 1000]])
    rig.drive.unload()
    rig.with_faults(monkeypatch, '[{"kind": "read_error", "block": 0}]')
    rig.thread(label)
    found = identify(rig.drive, InstallationId("x"))
    assert (found.owner, found.name, found.mark) == (Owner.FOREIGN, "unreadable", "unreadable")


def test_an_erased_tape_is_blank(rig: TapeRig) -> None:
    rig.fill(rig.labels()[0], [[b"x" * 1000]])
    rig.drive.rewind()
    rig.drive.erase(long=False)
    with pytest.raises(EndOfData):
        rig.drive.read_into(memoryview(bytearray(100)))
    assert identify(rig.drive, InstallationId("x")).owner is Owner.NOBODY
    write(rig.drive, [[b"again"]])
    assert identify(rig.drive, InstallationId("x")).owner is Owner.FOREIGN
