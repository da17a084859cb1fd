"""Labelling, relabelling and erasing: only what may go, and only what the operator has named."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import msgspec
import pytest

from catalog.errors import Conflict, NotFound, StaleClaim
from catalog.ids import BlockNo, VolumeId, new_uuid
from catalog.records import Intent, IntentKind, SetState, Volume, VolumeState
from drivers.errors import WormOverwrite, WriteProtected
from drivers.virtual.library import add_blank, set_write_protected
from tapefs.errors import LedgerMismatch, NotBlank, NotNow, UsageError, WrongTape
from tapefs.keys.policy import TapeKeys
from tapefs.retention.expire import expire
from tapefs.retention.policy import Wish
from tapefs.tape.anew import begin_anew
from tapefs.tape.identity import Owner, identify
from tapefs.tape.tending import Order, Task, tend
from tests.backup.trees import random_files
from tests.tape.foreign import FOREIGN
from tests.tape.rig import NOW, TapeRig

LABEL = Order(Task.LABEL)


def relabel(identity: str, **more: object) -> Order:
    return Order(Task.RELABEL, identity=identity, **more)  # type: ignore[arg-type]


def erase(identity: str, **more: object) -> Order:
    return Order(Task.ERASE, identity=identity, **more)  # type: ignore[arg-type]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return random_files(tmp_path / "source", 3, 20_000)


def written(rig: TapeRig) -> Volume:
    (volume,) = [each for each in rig.ledger.volumes() if each.end_block]
    return volume


def let_go(rig: TapeRig) -> None:
    named = frozenset(each.set_id for each in rig.ledger.backup_sets())
    expire(rig.home, rig.ledger, time.time_ns(), Wish(named=named, failed=True))


# -- labelling -------------------------------------------------------------------------------------------------------


def test_a_blank_tape_is_labelled_and_used(rig: TapeRig, source: Path) -> None:
    label = rig.labels()[1]
    known = rig.ledger.volume_by_label(label)
    tended = rig.tend(label, LABEL)
    assert (tended.volume.state, tended.volume.volume_id) == (VolumeState.APPENDABLE, known.volume_id)
    assert tended.found.owner is Owner.NOBODY
    rig.backup(source)
    assert written(rig).label == label


def test_names_given_and_counted(rig: TapeRig, source: Path) -> None:
    """The barcode stays what the library knows; backups find the tape by it, and the tape bears its name."""
    barcode, second, third, fourth = rig.labels()
    month = f"TP{time.strftime('%Y%m', time.localtime(NOW / 1e9))}"
    named = rig.tend(barcode, Order(Task.LABEL, name="letters 1998", pool="attic")).volume
    assert (named.label, named.barcode, named.pool, named.code) == ("letters 1998", barcode, "attic", barcode)
    assert identify(rig.drive, rig.ledger.installation().installation_id).name == "letters 1998"
    assert rig.tend(second, Order(Task.LABEL, is_counted=True)).volume.label == f"{month}01"
    assert rig.tend(third, Order(Task.LABEL, name=f"{month}09")).volume.label == f"{month}09"
    assert rig.tend(fourth, Order(Task.LABEL, is_counted=True)).volume.label == f"{month}10"
    set_id = rig.backup(source)
    assert set(rig.ledger.backup_set(set_id).tapes) <= set(rig.labels())


@pytest.mark.parametrize("name", ["", " x", "a/b", "../x", "a\nb", "\x1b[2J", "x" * 33, "-x", "x.", "a\u202eb"])
def test_odd_names_are_refused(rig: TapeRig, name: str) -> None:
    """Before the tape is touched; an empty one means none."""
    if not name:
        assert rig.tend(rig.labels()[0], Order(Task.LABEL, name=name)).volume.label == rig.labels()[0]
        return
    with pytest.raises(UsageError, match="no name for a tape"):
        rig.tend(rig.labels()[0], Order(Task.LABEL, name=name))
    assert identify(rig.drive, rig.ledger.installation().installation_id).owner is Owner.NOBODY


def test_a_name_that_another_tape_has_is_refused(rig: TapeRig) -> None:
    first, second, *_ = rig.labels()
    before = rig.ledger.volumes()
    with pytest.raises(Conflict):
        rig.tend(first, Order(Task.LABEL, name=second))
    assert [msgspec.structs.replace(each, claim=0) for each in rig.ledger.volumes()] == before
    assert identify(rig.drive, rig.ledger.installation().installation_id).owner is Owner.NOBODY


def test_a_labelled_tape_is_not_labelled_again(rig: TapeRig, source: Path) -> None:
    rig.backup(source)
    with pytest.raises(NotNow, match="has a label already"):
        rig.tend(written(rig).label, LABEL)


# -- foreign tapes ---------------------------------------------------------------------------------------------------


@pytest.mark.log_warnings
@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_tapes_are_overwritten_by_force_only(rig: TapeRig, source: Path, kind: str) -> None:
    """Label, backup, relabel and erase leave it alone until somebody says what it is, and that he means it."""
    label = rig.labels()[0]
    rig.fill(label, FOREIGN[kind].make())
    name = identify(rig.drive, rig.ledger.installation().installation_id).name
    before = rig.content(label)
    with pytest.raises(NotBlank, match=re.escape(name)):
        rig.tend(label, LABEL)
    for order in (relabel(name), erase(name)):
        with pytest.raises(NotNow, match="--force"):
            rig.tend(label, order)
    for order in (relabel("", is_forced=True), erase(label, is_forced=True), relabel(name[:-1], is_forced=True)):
        with pytest.raises(UsageError, match=re.escape(name)):
            rig.tend(label, order)
    rig.drive.unload()
    rig.backup(source)  # Passes it over.
    assert rig.content(label) == before
    assert rig.ledger.volume_by_label(label).state is VolumeState.SUSPECT
    tended = rig.tend(label, relabel(name, is_forced=True))
    assert (tended.volume.state, tended.volume.label) == (VolumeState.APPENDABLE, label)
    assert identify(rig.drive, rig.ledger.installation().installation_id).names == (label, tended.volume.volume_id)


def test_a_forced_erase_leaves_a_blank_tape(rig: TapeRig) -> None:
    label = rig.labels()[0]
    rig.fill(label, FOREIGN["bareos"].make())
    tended = rig.tend(label, erase("Full-0001", is_forced=True))
    assert (tended.volume.state, tended.volume.overwrites) == (VolumeState.BLANK, "")
    assert identify(rig.drive, tended.volume.installation_id).owner is Owner.NOBODY


def test_tapes_of_another_installation(rig: TapeRig, tmp_path: Path, source: Path) -> None:
    """They are foreign, though the format is ours."""
    (tmp_path / "elsewhere").mkdir()
    other = TapeRig(tmp_path / "elsewhere")
    other.backup(source)
    theirs = written(other)
    other.drive.rewind()
    buffer = memoryview(bytearray(1 << 20))
    block = bytes(buffer[: other.drive.read_into(buffer)])
    other.close()
    label = rig.labels()[0]
    rig.fill(label, [[block]])
    with pytest.raises(NotBlank, match=theirs.installation_id):
        rig.tend(label, LABEL)
    with pytest.raises(NotNow, match="--force"):
        rig.tend(label, relabel(theirs.volume_id))
    assert rig.tend(label, relabel(theirs.volume_id, is_forced=True)).volume.state is VolumeState.APPENDABLE


def test_an_unreadable_tape(rig: TapeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    label = rig.labels()[0]
    rig.fill(label, [[b"x"]])
    rig.drive.unload()
    rig.with_faults(monkeypatch, '[{"kind": "read_error", "block": 0, "times": 2}]')
    with pytest.raises(NotBlank, match="unreadable"):
        rig.tend(label, LABEL)
    tended = rig.tend(label, erase("unreadable", is_forced=True))
    assert tended.volume.state is VolumeState.BLANK


# -- ours ------------------------------------------------------------------------------------------------------------


def test_live_sets_keep_their_tape(rig: TapeRig, source: Path) -> None:
    """By every name, with and without force; it says which sets, and why they stay."""
    rig.backup(source)
    volume = written(rig)
    before = rig.content(volume.label)
    for identity in (volume.label, volume.volume_id):
        for order in (relabel(identity), erase(identity), erase(identity, is_forced=True, is_long=True)):
            with pytest.raises(NotNow, match=r"holds set job of .*: it stays, because "):
                rig.tend(volume.label, order)
    assert rig.content(volume.label) == before
    assert written(rig).volume_id == volume.volume_id


def test_an_expired_tape_begins_anew(rig: TapeRig, source: Path) -> None:
    """It is another volume with the same label, no copy is left, and the next backup appends to it."""
    first = rig.backup(source)
    volume = written(rig)
    let_go(rig)
    (segment,) = rig.ledger.segments(first)
    with pytest.raises(UsageError, match="yes-it-is"):
        rig.tend(volume.label, relabel("TP0009L9"))
    renewed = rig.tend(volume.label, relabel(volume.label)).volume
    assert renewed.label == volume.label
    assert renewed.volume_id != volume.volume_id
    assert (renewed.state, renewed.end_file, renewed.overwrites) == (VolumeState.APPENDABLE, 2, "")
    assert rig.ledger.copies(segment.segment_id) == []
    assert rig.ledger.verify() == []
    rig.drive.unload()
    again = rig.backup(source)
    assert rig.ledger.backup_set(again).tapes == (volume.label,)
    assert rig.ledger.backup_set(again).state is SetState.COMPLETE


@pytest.mark.parametrize("is_long", [False, True])
def test_an_expired_tape_is_erased(rig: TapeRig, source: Path, is_long: bool) -> None:
    rig.backup(source)
    volume = written(rig)
    let_go(rig)
    erased = rig.tend(volume.label, erase(volume.volume_id, is_long=is_long)).volume
    assert (erased.state, erased.end_block, erased.used_bytes) == (VolumeState.BLANK, 0, 0)
    rig.drive.unload()
    rig.backup(source)
    assert written(rig).volume_id == erased.volume_id


def test_the_wrong_tape_in_the_drive(rig: TapeRig, source: Path) -> None:
    """Two barcodes were swapped: the tape that is there belongs to another record, and stays as it is."""
    rig.backup(source)
    volume = written(rig)
    let_go(rig)
    rig.drive.rewind()
    buffer = memoryview(bytearray(1 << 20))
    label_block = bytes(buffer[: rig.drive.read_into(buffer)])
    other = rig.labels()[2]
    rig.fill(other, [[label_block]])
    for order in (relabel(volume.label), erase(volume.label, is_forced=True)):
        with pytest.raises(WrongTape, match="check the barcodes"):
            rig.tend(other, order)
    rig.thread(other)
    with pytest.raises(WrongTape, match="barcode"):
        tend(rig.drive, rig.ledger, volume.volume_id, relabel(volume.label), NOW, TapeKeys(rig.home))


def test_a_protected_tape_stays(rig: TapeRig) -> None:
    label = rig.labels()[0]
    set_write_protected(rig.home.library_config.folder, label, True)
    for order in (LABEL, relabel(label), erase(label)):
        with pytest.raises(WriteProtected):
            rig.tend(label, order)


def test_worm_is_labelled_once(rig: TapeRig, source: Path) -> None:
    """And neither relabelled nor erased, not even when all its sets have expired."""
    barcode = add_blank(rig.home.library_config.folder, tape_bytes=64 * 1024**2, worm=True)
    rig.ledger.add_volume(
        msgspec.structs.replace(rig.ledger.volumes()[0], volume_id=VolumeId(new_uuid()), label=barcode)
    )
    tended = rig.tend(barcode, LABEL)
    assert tended.volume.state is VolumeState.APPENDABLE
    before = rig.content(barcode)
    for order in (relabel(barcode), erase(barcode), erase(tended.volume.volume_id, is_forced=True)):
        with pytest.raises(WriteProtected, match="only once"):
            rig.tend(barcode, order)
    assert rig.content(barcode) == before
    rig.drive.rewind()
    with pytest.raises(WormOverwrite):
        rig.drive.write_block(b"x")


def test_a_half_labelled_tape_is_no_excuse_for_another(rig: TapeRig, source: Path) -> None:
    """A crash while labelling has left an intent; the tape in the drive is another of ours, under its barcode."""
    rig.backup(source)
    volume = written(rig)
    rig.drive.rewind()
    buffer = memoryview(bytearray(1 << 20))
    label_block = bytes(buffer[: rig.drive.read_into(buffer)])
    other = rig.ledger.volume_by_label(rig.labels()[2])
    intent = Intent(
        structure_id=other.volume_id,
        kind=IntentKind.LABEL,
        volume_id=other.volume_id,
        block=BlockNo(0),
        set_id=None,
        opened_at_ns=NOW,
    )
    rig.ledger.open_intent(intent, rig.ledger.claim_volume(other.volume_id))
    rig.fill(other.label, [[label_block], [b"data"]])
    before = rig.content(other.label)
    for order in (LABEL, Order(Task.LABEL, name="letters"), relabel(volume.label, is_forced=True)):
        with pytest.raises((NotBlank, WrongTape)):
            rig.tend(other.label, order)
    assert rig.content(other.label) == before


def test_an_unreadable_tape_is_not_any_unreadable_tape(rig: TapeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a crash has left to be overwritten is not the next tape that cannot be read."""
    label = rig.labels()[0]
    rig.fill(label, [[b"x"]])
    rig.drive.unload()
    volume = rig.ledger.volume_by_label(label)
    given_up = msgspec.structs.replace(volume, volume_id=VolumeId(new_uuid()), overwrites="unreadable")
    rig.ledger.renew_volume(volume.volume_id, rig.ledger.claim_volume(volume.volume_id), given_up, NOW)
    rig.with_faults(monkeypatch, '[{"kind": "read_error", "block": 0, "times": 4}]')
    with pytest.raises(NotBlank, match="unreadable"):
        rig.tend(label, LABEL)
    with pytest.raises(NotNow, match="--force"):
        rig.tend(label, relabel("unreadable"))
    assert rig.tend(label, relabel("unreadable", is_forced=True)).volume.state is VolumeState.APPENDABLE


def test_two_movers_count_names_at_once(rig: TapeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another takes the name in between: this one takes the next."""
    real = rig.ledger.renew_volume
    taken: list[str] = []

    def after_another(volume_id: VolumeId, claim: int, new: Volume, now_ns: int) -> None:
        if not taken:
            taken.append(new.label)
            rig.ledger.add_volume(msgspec.structs.replace(new, volume_id=VolumeId(new_uuid()), barcode=""))
        real(volume_id, claim, new, now_ns)

    monkeypatch.setattr(rig.ledger, "renew_volume", after_another)
    tended = rig.tend(rig.labels()[0], Order(Task.LABEL, is_counted=True))
    assert tended.volume.label == f"{taken[0][:-2]}02"


# -- races -----------------------------------------------------------------------------------------------------------


@pytest.mark.log_warnings
def test_a_set_that_commits_at_the_last_moment_saves_the_tape(
    rig: TapeRig, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the ledger and the claim; the tape is not touched."""
    import tapefs.tape.tending as module

    rig.backup(source)
    volume = written(rig)
    before = rig.content(volume.label)
    looked = []
    monkeypatch.setattr(module, "require_nothing_live", lambda *_: looked.append(True))
    with pytest.raises(Conflict, match="lives"):
        rig.tend(volume.label, erase(volume.label))
    assert looked
    assert rig.content(volume.label) == before


@pytest.mark.log_warnings
@pytest.mark.parametrize("before", ["open_intent", "commit_segment"])
def test_a_backup_whose_tape_is_taken_stops(
    rig: TapeRig, source: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Before it announces anything its claim is void; what it has announced keeps the tape."""
    real = getattr(rig.ledger, before)
    tries: list[Exception | None] = []

    def take_first(*arguments: object) -> None:
        volume = next((each for each in rig.ledger.volumes() if each.end_block), None)
        if volume is not None and not tries:
            try:
                rig.ledger.renew_volume(volume.volume_id, rig.ledger.claim_volume(volume.volume_id), anew(volume), NOW)
            except Conflict as error:
                tries.append(error)
            else:
                tries.append(None)
        real(*arguments)

    monkeypatch.setattr(rig.ledger, before, take_first)
    with pytest.raises(NotFound if before == "open_intent" else StaleClaim):
        rig.backup(source)
    assert [each is None for each in tries] == [before == "open_intent"]
    assert rig.ledger.backup_sets()[0].segments == 0
    assert rig.ledger.verify() == []


def anew(volume: Volume) -> Volume:
    nothing = {"end_block": 0, "end_file": 0, "used_bytes": 0, "claim": 0, "state": VolumeState.BLANK}
    return msgspec.structs.replace(volume, volume_id=VolumeId(new_uuid()), **nothing)


# -- an old copy of the catalog --------------------------------------------------------------------------------------


@pytest.mark.log_warnings
@pytest.mark.parametrize("written_before", [True, False])
def test_what_the_catalog_does_not_know_keeps_its_tape(rig: TapeRig, source: Path, written_before: bool) -> None:
    """The catalog came back from a copy; since then a set was written behind one that has expired, or to a blank tape.

    Neither an operator nor the rules of a pool overwrite what nobody has looked at.
    """
    old = rig.home.path / "old"
    if written_before:
        rig.backup(source)
        volume = written(rig)
        let_go(rig)
    rig.close()
    shutil.copytree(rig.home.ledger, old)
    rig.open()
    rig.backup(source, name="since")
    volume = written(rig)
    rig.close()
    shutil.rmtree(rig.home.ledger)
    old.rename(rig.home.ledger)
    rig.open()
    before = rig.content(volume.label)
    for order in (relabel(volume.label), erase(volume.volume_id)):
        with pytest.raises(LedgerMismatch, match=r"the ledger does not know.*import .*--force"):
            rig.tend(volume.label, order)
    with pytest.raises(LedgerMismatch):
        begin_anew(rig.drive, rig.ledger, volume.volume_id, NOW, TapeKeys(rig.home))
    assert rig.content(volume.label) == before
    assert rig.tend(volume.label, erase(volume.label, is_forced=True)).volume.state is VolumeState.BLANK
