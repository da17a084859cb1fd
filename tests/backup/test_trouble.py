"""Files that change while they are read, tapes that end or fail, tapes that are not what they should be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.errors import StorageFailed
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import SetState, VolumeState
from drivers.errors import DeviceFailed, DiskFull
from drivers.virtual.faults import AnyFault, EarlyEnd, FaultyDrive, PowerCut, WriteError
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.library import set_write_protected
from tapefs.errors import Cancelled, NoTape
from tests.backup.rig import Rig
from tests.backup.trees import entries, extract, odd_tree, payloads, random_files, snapshot

_MIB = 1024**2


class MeddlingDrive:
    """Lets the test do something at the n-th block that is written; everything else is the drive's."""

    def __init__(self, drive: object, block: int, meddle: Callable[[], None]) -> None:
        self._drive = drive
        self._left = block
        self._meddle = meddle

    def __getattr__(self, name: str) -> object:
        return getattr(self._drive, name)

    def write_block(self, block: bytes | memoryview) -> bool:
        self._left -= 1
        if self._left == 0:
            self._meddle()
        return self._drive.write_block(block)  # type: ignore[attr-defined,no-any-return]


def with_faults(rig: Rig, *faults: AnyFault) -> None:
    """Have the rig's drive fail as said."""
    rig.drive = FaultyDrive(rig.drive, list(faults))  # type: ignore[arg-type]


def big_then_small(tmp_path: Path) -> Path:
    """A file of 200 MiB, more than all buffers hold, and small ones behind it."""
    tree = random_files(tmp_path / "tree", 1, 200 * _MIB)
    (tree / "small-1").write_text("one")
    (tree / "small-2").write_text("two")
    return tree


@pytest.mark.parametrize("change", ["shrinks", "grows", "is touched"])
def test_a_file_that_changes_while_read_is_kept_with_a_mark(
    make_rig: Callable[..., Rig], tmp_path: Path, change: str
) -> None:
    """It is cut or padded to the size in its header, marked and reported; its neighbours are whole."""
    tree = big_then_small(tmp_path)
    big = tree / "file-00000"
    before = big.read_bytes()

    def meddle() -> None:
        if change == "shrinks":
            os.truncate(big, 100 * _MIB)
        elif change == "grows":
            with big.open("ab") as file:
                file.write(b"more")
        else:
            os.utime(big, ns=(1, 1))

    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB, backup_settings="buffer_bytes = 0")
    rig.drive = MeddlingDrive(rig.drive, 40, meddle)  # type: ignore[assignment]
    set_id = rig.backup(tree)
    found = entries(IndexReader(rig.home.index(set_id)))
    assert found[bytes(big)[1:]].flags & ~EntryFlag.FRESH == EntryFlag.CHANGED
    assert found[bytes(big)[1:]].size == len(before)
    assert [path for path, _ in rig.watcher.troubles] == [bytes(big)]
    out = extract(rig, tmp_path / "out")
    kept = Path(f"{out}{big}").read_bytes()
    if change == "shrinks":
        assert kept[: 100 * _MIB] == before[: 100 * _MIB]
        assert kept[100 * _MIB :] == bytes(100 * _MIB)
    else:
        assert kept == before
    assert Path(f"{out}{tree}/small-2").read_text() == "two"


def test_a_file_that_vanishes_is_reported(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A name that was listed and is gone when its turn comes is left out with a reason; the backup goes on."""
    tree = big_then_small(tmp_path)
    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB, backup_settings="buffer_bytes = 0")
    rig.drive = MeddlingDrive(rig.drive, 40, (tree / "small-1").unlink)  # type: ignore[assignment]
    set_id = rig.backup(tree)
    found = entries(IndexReader(rig.home.index(set_id)))
    assert bytes(tree / "small-1")[1:] not in found
    assert bytes(tree / "small-2")[1:] in found
    assert rig.watcher.troubles == [(bytes(tree / "small-1"), "left out: it vanished before it was read")]


def test_a_split_file_that_vanishes_between_its_parts(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """The tape ends within a later part, and by then the file is gone: it is whole, zeros at its end, with a mark."""
    tree = random_files(tmp_path / "tree", 1, 40 * _MIB)
    (tree / "zz").write_text("behind it")
    before = (tree / "file-00000").read_bytes()
    rig = make_rig(tapes=2)
    with_faults(rig, EarlyEnd(block=100, barcode="TP0001L9", warning_blocks=0))
    rig.drive = MeddlingDrive(rig.drive, 90, (tree / "file-00000").unlink)  # type: ignore[assignment]
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9", "TP0002L9")
    entry = entries(IndexReader(rig.home.index(set_id)))[bytes(tree / "file-00000")[1:]]
    assert entry.flags & ~EntryFlag.FRESH == EntryFlag.SPLIT | EntryFlag.CHANGED
    out = Path(f"{extract(rig, tmp_path / 'out')}{tree}")
    parts = b"".join(part.read_bytes() for part in sorted(out.glob("file-00000.tapefs-part-*")))
    assert len(parts) == len(before)
    kept = len(parts.rstrip(b"\0"))
    assert 0 < kept < len(before)
    assert parts[:kept] == before[:kept]
    assert (out / "zz").read_text() == "behind it"


def test_a_tape_that_ends_early_costs_nothing(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A segment cut off by the end of the tape is written whole on the next one; the set is complete."""
    tree = random_files(tmp_path / "tree", 60, 1_000_000)
    (tree / "nested").mkdir()
    random_files(tree / "nested", 30, 1_000_000, seed=3)
    rig = make_rig(tapes=3)
    with_faults(rig, EarlyEnd(block=150, barcode="TP0001L9", warning_blocks=0))
    set_id = rig.backup(tree)
    done = rig.ledger.backup_set(set_id)
    assert done.tapes == ("TP0001L9", "TP0002L9")
    assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.FULL
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
    numbers = [segment.number for segment in rig.ledger.segments(set_id)]
    assert numbers == list(range(len(numbers)))


@pytest.mark.log_warnings
def test_a_write_error_sets_the_tape_aside(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """The segment goes whole to another tape; the bad one is SUSPECT, what it held before still counts."""
    tree = random_files(tmp_path / "tree", 60, 1_000_000)
    rig = make_rig(tapes=3)
    with_faults(rig, WriteError(block=150))
    set_id = rig.backup(tree)
    suspect = rig.ledger.volume_by_label("TP0001L9")
    assert suspect.state is VolumeState.SUSPECT
    assert suspect.reason
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


@pytest.mark.log_warnings
def test_a_tape_that_the_drive_cannot_use_is_passed_over(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """An LTO-7 tape in an LTO-9 drive is no reason to fail, and nothing is held against the tape."""
    tree = random_files(tmp_path / "tree", 3, 1_000_000)
    rig = make_rig(tapes=2)
    state = cartridge_folder(rig.home.library, "TP0001L9") / "state.json"
    state.write_text(state.read_text().replace('"generation":9', '"generation":7'))
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0002L9",)
    old = rig.ledger.volume_by_label("TP0001L9")
    assert (old.state, old.reason) == (VolumeState.BLANK, "")


def test_no_tape_left_fails_the_job_and_shows_nothing(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """The set is FAILED with the reason; a later backup that fits on what is left works."""
    tree = random_files(tmp_path / "tree", 80, 1_000_000)
    rig = make_rig(tapes=1, tape_bytes=64 * _MIB)
    with pytest.raises(NoTape):
        rig.backup(tree)
    (failed,) = rig.ledger.backup_sets()
    assert failed.state is SetState.FAILED
    assert "no tape" in failed.error
    assert not rig.home.index(failed.set_id).exists()


def test_a_drive_that_dies_fails_the_job_and_the_next_one_works(rig: Rig, tmp_path: Path) -> None:
    """After a power cut within a segment the tape ends with a torn one; the next backup overwrites it."""
    tree = random_files(tmp_path / "tree", 30, 1_000_000)
    good = rig.drive
    with_faults(rig, PowerCut(block=60))
    with pytest.raises(DeviceFailed):
        rig.backup(tree)
    good.close()
    rig.close()
    rig.open()
    set_id = rig.backup(tree)
    assert [each.state for each in rig.ledger.backup_sets()] == [SetState.FAILED, SetState.COMPLETE]
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9",)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


def test_cancel_ends_at_once_and_the_tape_goes_on(rig: Rig, tmp_path: Path) -> None:
    """A cancelled job leaves a FAILED set and a tape that can be appended to."""
    tree = random_files(tmp_path / "tree", 60, 1_000_000)

    def cancel() -> None:
        raise Cancelled("it was cancelled")

    rig.watcher.interrupt = cancel
    with pytest.raises(Cancelled):
        rig.backup(tree)
    rig.watcher.interrupt = lambda: None
    rig.backup(tree)
    assert [each.state for each in rig.ledger.backup_sets()] == [SetState.FAILED, SetState.COMPLETE]
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


@pytest.mark.log_warnings
@pytest.mark.parametrize(("count", "size"), [(10, 100), (3000, 100), (6, 10 * _MIB)])
def test_a_full_disk_below_the_local_trailers(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    """The job fails with the reason, whenever the disk says so; no tape is blamed, and the next backup works."""
    tree = random_files(tmp_path / "tree", count, size)
    real = Path.open

    def on_a_full_disk(self: Path, *args: object, **options: object) -> object:
        return real(Path("/dev/full") if self.suffix == ".part" else self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", on_a_full_disk)
    with pytest.raises(StorageFailed, match="No space left"):
        rig.backup(tree)
    monkeypatch.undo()
    assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.APPENDABLE
    assert not list(rig.home.trailers.iterdir())
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9",)


@pytest.mark.log_warnings
@pytest.mark.parametrize("nth", [1, 3, 10, 18])
def test_a_full_disk_below_the_virtual_library(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """The job fails with the reason; no tape is set aside for what is not its fault, and the next backup works."""
    tree = random_files(tmp_path / "tree", 20, 1_000_000)
    real, written = os.pwrite, [0]

    def on_a_full_disk(fd: int, data: bytes, offset: int) -> int:
        written[0] += 1
        if written[0] >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", on_a_full_disk)
    with pytest.raises((DiskFull, DeviceFailed), match="No space"):
        rig.backup(tree)
    monkeypatch.undo()
    assert not [volume for volume in rig.ledger.volumes() if volume.state in (VolumeState.SUSPECT, VolumeState.FULL)]
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0001L9",)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


def test_tapes_that_are_too_small_are_not_used_up(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """No segment fits an empty tape: the reason is told, and the pool's tapes are not declared full one by one."""
    rig = make_rig(tapes=3, tape_bytes=9 * _MIB)
    tree = odd_tree(tmp_path)
    for _ in range(2):
        with pytest.raises(NoTape, match="too few for a segment"):
            rig.backup(tree)
    assert not [volume for volume in rig.ledger.volumes() if volume.state is VolumeState.FULL]


def test_a_tape_that_is_smaller_than_the_ledger_thinks(rig: Rig, tmp_path: Path) -> None:
    """The ledger has nominal sizes of what a real library brings; cartridges can have any, and the drive tells it."""
    real_bytes = {volume.capacity_bytes for volume in rig.ledger.volumes()}
    for volume in rig.ledger.volumes():
        rig.ledger.size_volume(volume.volume_id, 18 * 10**12, volume.generation)
    tree = random_files(tmp_path / "tree", 20, 1_000_000)
    rig.backup(tree)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
    assert {volume.capacity_bytes for volume in rig.ledger.volumes() if volume.used_bytes} == real_bytes


def test_a_set_that_cannot_begin_is_no_running_one(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever fails before the first step, no set is left behind that says it is running."""
    monkeypatch.setattr("tapefs.backup.start.devices_of", lambda _: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        rig.backup(odd_tree(tmp_path))
    assert [each.state for each in rig.ledger.backup_sets()] == [SetState.FAILED]


def write_files(rig: Rig, label: str, *blocks: bytes) -> None:
    """Write blocks to a tape behind the product's back, from its beginning."""
    rig.watcher.put_in(label)
    rig.drive.load()
    for block in blocks:
        rig.drive.write_block(block)
        rig.drive.write_filemarks(1, sync=True)
    rig.drive.unload()


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    ("first", "name"),
    [(b"VOL1ARCHIV" + b" " * 70, "ANSI"), (b"whatever somebody keeps here", "unknown")],
    ids=["ansi", "unknown"],
)
def test_a_foreign_tape_is_never_written_to(rig: Rig, tmp_path: Path, first: bytes, name: str) -> None:
    """A tape that should be blank and is not is set aside with the reason; the backup takes another."""
    write_files(rig, "TP0001L9", first, b"precious")
    set_id = rig.backup(odd_tree(tmp_path))
    assert rig.ledger.backup_set(set_id).tapes == ("TP0002L9",)
    volume = rig.ledger.volume_by_label("TP0001L9")
    assert volume.state is VolumeState.SUSPECT
    assert name.lower() in volume.reason.lower()
    assert (rig.home.library / "cartridges/TP0001L9/00001").read_bytes() == b"precious"


@pytest.mark.log_warnings
def test_data_that_the_ledger_does_not_know_is_not_overwritten(rig: Rig, tmp_path: Path) -> None:
    """Somebody else appended to our tape: it is set aside, their data stays."""
    tree = odd_tree(tmp_path)
    rig.backup(tree)
    rig.drive.seek_end()
    rig.drive.write_block(b"not ours")
    rig.drive.write_filemarks(1, sync=True)
    second = rig.backup(tree)
    assert rig.ledger.backup_set(second).tapes == ("TP0002L9",)
    assert rig.ledger.volume_by_label("TP0001L9").state is VolumeState.SUSPECT
    files = sorted((rig.home.library / "cartridges/TP0001L9").glob("0*"))
    assert files[-1].read_bytes() == b"not ours"


@pytest.mark.log_warnings
def test_a_tape_that_lost_data_is_set_aside(rig: Rig, tmp_path: Path) -> None:
    """The tape ends before the ledger's end: nothing is appended to it."""
    tree = odd_tree(tmp_path)
    rig.backup(tree)
    rig.drive.locate(3)  # type: ignore[arg-type]
    rig.drive.write_filemarks(1, sync=True)
    second = rig.backup(tree)
    assert rig.ledger.backup_set(second).tapes == ("TP0002L9",)
    assert "data is missing" in rig.ledger.volume_by_label("TP0001L9").reason


@pytest.mark.log_warnings
def test_a_swapped_cartridge_is_noticed(rig: Rig, tmp_path: Path) -> None:
    """Two cartridges with each other's barcodes: the label decides, and neither is written to."""
    tree = odd_tree(tmp_path)
    rig.backup(tree)
    rig.drive.unload()
    cartridges = rig.home.library / "cartridges"
    for one, two in (("TP0001L9", "tmp"), ("TP0002L9", "TP0001L9"), ("tmp", "TP0002L9")):
        (cartridges / one).rename(cartridges / two)
    for label in ("TP0001L9", "TP0002L9"):
        state = cartridges / label / "state.json"
        other = "TP0002L9" if label == "TP0001L9" else "TP0001L9"
        state.write_text(state.read_text().replace(other, label))
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).tapes == ("TP0003L9",)
    states = [rig.ledger.volume_by_label(label).state for label in ("TP0001L9", "TP0002L9")]
    assert states == [VolumeState.SUSPECT, VolumeState.SUSPECT]


@pytest.mark.log_warnings
def test_a_write_protected_tape_is_passed_over(rig: Rig, tmp_path: Path) -> None:
    """Its tab is set: another tape is taken, and the reason is told."""
    set_write_protected(rig.home.library, "TP0001L9", True)
    set_id = rig.backup(odd_tree(tmp_path))
    assert rig.ledger.backup_set(set_id).tapes == ("TP0002L9",)
    assert "write-protected" in rig.ledger.volume_by_label("TP0001L9").reason
    assert len(payloads(rig)) == 1
