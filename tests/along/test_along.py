"""A further copy written at the same time: whole, on a tape of its own, and never at the first one's cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState, VolumeState
from drivers.interface import Drive
from drivers.virtual.faults import AnyFault, EarlyEnd, FaultyDrive, PowerCut, Reset, WriteError
from tapefs.errors import Cancelled, NoTape
from tapefs.rebuild.records import Method
from tests.along.rig import Pair, from_tape, labels
from tests.backup.trees import random_files, snapshot
from tests.keys.rig import encrypt
from tests.rebuild.same import Before, now_indexes
from tests.rebuild.test_rebuild import rebuilt

SEGMENTS = "segment_bytes = 2097152"
FIRST, SECOND, THIRD = "TP0001L9", "TP0003L9", "TP0004L9"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return random_files(tmp_path / "tree", 12, 1_000_000)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(**options: object) -> Pair:
        made.append(Pair(tmp_path, **{"backup_settings": SEGMENTS, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make: Callable[..., Pair]) -> Pair:
    return make()


def unpacked(pair: Pair, tapes: set[str], out: Path) -> Path:
    for label in tapes:
        from_tape(pair.home, pair.ledger, label, out)
    return out


def check(pair: Pair, tree: Path, out: Path, second: set[str], first: set[str] | None = None) -> None:
    """The job is done, each segment lies in both pools, and either pool's tapes alone are the whole tree."""
    (backup_set,) = pair.ledger.backup_sets()
    (job,) = pair.ledger.jobs()
    assert job.state is JobState.COMPLETED
    found = labels(pair, backup_set.set_id)
    assert {label for each in found for label in each if label in (SECOND, THIRD)} == second
    assert [each for each in found if len(each) != 2 or len({*each} & {SECOND, THIRD}) != 1] == []
    for name, tapes in {"first": first or {FIRST}, "second": second}.items():
        assert snapshot(Path(f"{unpacked(pair, tapes, out / name)}{tree}")) == snapshot(tree)
    # What is torn at the end of a tape that nobody writes any more stays announced.
    open_ones = [volume for volume in pair.ledger.volumes() if volume.state is VolumeState.APPENDABLE]
    assert not [intent for volume in open_ones for intent in pair.ledger.intents(volume.volume_id)]
    indexed = {pair.ledger.volume(each.volume_id).label for each in pair.ledger.index_copies(backup_set.set_id)}
    assert indexed >= {volume.label for volume in open_ones} & {FIRST, *second, *(first or ())}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.mark.parametrize(
    "fields", [{}, {"spool": True}, {"codec": "py7zr", "level": 1}, {"codec": "pgzip", "level": 1}]
)
def test_both_copies_are_there_at_once(pair: Pair, tree: Path, out: Path, fields: dict[str, object]) -> None:
    job = pair.queued(tree, copy_pools=("vault",), **fields)
    set_id = pair.run(job)
    pair.rest()
    assert pair.errors == []
    found = labels(pair, set_id)
    assert len(found) > 3
    assert set(map(tuple, found)) == {(FIRST, SECOND)}
    assert pair.ledger.job(job.number).state is JobState.COMPLETED
    assert pair.watcher.asked == 1, "nothing was left to be copied from tape"
    assert all(progress.stage != "copy" for progress in pair.watcher.progresses)
    indexes = {pair.ledger.volume(each.volume_id).label for each in pair.ledger.index_copies(set_id)}
    assert indexes == {FIRST, SECOND}
    if not fields.get("codec"):
        check(pair, tree, out, {SECOND})


def test_both_are_read_back(pair: Pair, tree: Path) -> None:
    set_id = pair.backup(tree, copy_pools=("vault",), verify=True)
    copies = [copy for each in pair.ledger.segments(set_id) for copy in pair.ledger.copies(each.segment_id)]
    assert len({copy.volume_id for copy in copies}) == 2
    assert all(copy.verified_at_ns for copy in copies)


def test_days_later_both_tapes_are_gone_on_with(pair: Pair, tree: Path) -> None:
    """After everything was started anew in between."""
    job = pair.queued(tree, copy_pools=("vault",))
    pair.run(job)
    pair.rest()
    pair.close()
    pair.open()
    (tree / "new").write_bytes(b"new")
    second = pair.again(job, type="incremental")
    pair.rest()
    assert set(map(tuple, labels(pair, second))) == {(FIRST, SECOND)}
    assert {volume.label for volume in pair.ledger.volumes() if volume.used_bytes} == {FIRST, SECOND}


def test_an_archive_lies_on_two_tapes_of_one_pool(make: Callable[..., Pair], tree: Path) -> None:
    pair = make(vault=0)
    before = snapshot(tree)
    set_id = pair.backup(tree, type="archive", verify=True, copies=2)
    pair.rest()
    assert pair.errors == []
    found = labels(pair, set_id)
    assert set(map(tuple, found)) == {(FIRST, "TP0002L9")}
    assert all(progress.stage != "copy" for progress in pair.watcher.progresses)
    assert list(tree.iterdir()) == []
    assert len(before) > 10


def test_encrypted_tapes(make: Callable[..., Pair], tree: Path, out: Path) -> None:
    """The payload is the same bytes on both; each has labels and a trailer of its own, and is read back."""
    pair = make()
    encrypt(pair)
    pair.close()
    pair.open()
    set_id = pair.backup(tree, copy_pools=("vault",), verify=True)
    assert set(map(tuple, labels(pair, set_id))) == {(FIRST, SECOND)}
    assert all(progress.stage != "copy" for progress in pair.watcher.progresses)
    folder = pair.home.library / "cartridges"
    for segment in pair.ledger.segments(set_id):
        payloads = [
            (folder / pair.ledger.volume(copy.volume_id).label / f"{copy.header_file + 1:05}").read_bytes()
            for copy in pair.ledger.copies(segment.segment_id)
        ]
        assert payloads[0] == payloads[1]
        assert len({copy.trailer_sha256 for copy in pair.ledger.copies(segment.segment_id)}) == 2


def faulty(*faults: AnyFault) -> Callable[[Drive], Drive]:
    return lambda drive: FaultyDrive(drive, list(faults), number=1)  # type: ignore[arg-type,return-value]


@pytest.mark.log_warnings
@pytest.mark.parametrize(
    ("fault", "tapes"),
    [
        (EarlyEnd(block=30, barcode=SECOND, warning_blocks=0), {SECOND, THIRD}),
        (EarlyEnd(block=30, barcode=SECOND, warning_blocks=8), {SECOND, THIRD}),
        (WriteError(block=30, barcode=SECOND), {SECOND, THIRD}),
        (WriteError(block=6, barcode=SECOND), {THIRD}),
        (Reset(block=30, barcode=SECOND), {SECOND}),
    ],
)
def test_the_second_tape_is_trouble(pair: Pair, tree: Path, out: Path, fault: AnyFault, tapes: set[str]) -> None:
    """Its copies go on with another tape, and what was lost is made later, from the first one."""
    pair.wrap = faulty(fault)
    pair.backup(tree, copy_pools=("vault",))
    pair.rest()
    check(pair, tree, out, tapes)
    assert pair.ledger.volume_by_label(FIRST).state is VolumeState.APPENDABLE


@pytest.mark.log_warnings
def test_the_second_drive_fails(pair: Pair, tree: Path, out: Path) -> None:
    """The first one does the rest by itself."""
    pair.wrap = faulty(PowerCut(block=40, barcode=SECOND))
    pair.backup(tree, copy_pools=("vault",))
    assert len(pair.errors) == 1
    check(pair, tree, out, {SECOND})


def test_there_is_no_second_tape(pair: Pair, tree: Path, out: Path) -> None:
    """The job fails for want of a copy as it would with one drive; the set is whole."""
    for label in (SECOND, THIRD):
        pair.ledger.assign_volume(pair.ledger.volume_by_label(label).volume_id, "default", time.time_ns())
    with pytest.raises(Exception, match="the copy in pool vault could not be made"):
        pair.backup(tree, copy_pools=("vault",))
    assert [type(error) for error in pair.errors] == [NoTape]


@pytest.mark.log_warnings
@pytest.mark.parametrize("fault", [EarlyEnd(block=30, barcode=FIRST, warning_blocks=0), Reset(block=30, barcode=FIRST)])
def test_the_first_tape_is_trouble(pair: Pair, tree: Path, out: Path, fault: AnyFault) -> None:
    """A segment that does not come to be on the first tape is none on the second."""
    pair.drive = pair.watcher._drive = FaultyDrive(pair.drive, [fault])  # type: ignore[arg-type,assignment]
    pair.backup(tree, copy_pools=("vault",))
    pair.rest()
    assert pair.errors == []
    check(pair, tree, out, {SECOND}, {FIRST, "TP0002L9"} if isinstance(fault, EarlyEnd) else {FIRST})


class _Slow:
    """A drive that takes nothing more of a tape until it is let."""

    def __init__(self, drive: Drive, block: int) -> None:
        self._drive = drive
        self._block = block
        self.go = threading.Event()
        self.waits = threading.Event()

    def __getattr__(self, name: str) -> object:
        return getattr(self._drive, name)

    def write_block(self, block: bytes | memoryview) -> bool:
        if self._drive.position().block >= self._block and not self.go.is_set():
            self.waits.set()
            assert self.go.wait(60)
        return self._drive.write_block(block)


@pytest.mark.log_warnings
def test_a_second_drive_that_is_too_slow_is_left_behind(
    make: Callable[..., Pair], tree: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first copy is whole while the second drive still stands; what that has missed is copied from tape."""
    monkeypatch.setattr("tapefs.along.companions._PATIENCE_S", 0.3)
    pair = make(backup_settings=f"{SEGMENTS}\nbuffer_bytes = 1048576")
    slow: list[_Slow] = []
    pair.wrap = lambda drive: (slow.append(_Slow(drive, 20)), slow[0])[1]  # type: ignore[return-value]

    def let_go() -> None:
        while not (sets := pair.ledger.backup_sets()) or len(pair.ledger.segments(sets[0].set_id)) <= 4:
            time.sleep(0.05)
        seen.append(slow[0].go.is_set())
        slow[0].go.set()

    seen: list[bool] = []
    random_files(tree / "more", 40, 400_000)
    looker = threading.Thread(target=let_go)
    looker.start()
    pair.backup(tree, copy_pools=("vault",))
    looker.join()
    pair.rest()
    assert slow[0].waits.is_set()
    assert seen[0] is False, "the first drive had written five segments meanwhile"
    check(pair, tree, out, {SECOND})


@pytest.mark.log_warnings
@pytest.mark.parametrize("comes_again", [False, True])
def test_the_second_drive_is_wanted_by_others(pair: Pair, tree: Path, out: Path, comes_again: bool) -> None:
    """It leaves at once, in the middle of a segment; it may come again for those that follow."""
    random_files(tree / "more", 30, 400_000)
    offers = []
    begin = pair.begin
    pair.watcher.companions = lambda offer: (offers.append(offer), begin(offer))[1]

    def is_wanted() -> None:
        volume = pair.ledger.volume_by_label(SECOND)
        if len(pair.ledger.copies_on(volume.volume_id)) >= 2 and len(pair.threads) == 1:
            raise Cancelled("a reader waits")

    def again() -> None:
        if comes_again and pair.errors and len(pair.threads) == 1:
            begin(offers[0])

    pair.second_watcher.interrupt = is_wanted
    pair.watcher.interrupt = again
    pair.backup(tree, copy_pools=("vault",))
    pair.rest()
    assert [type(error) for error in pair.errors] == [Cancelled]
    check(pair, tree, out, {SECOND})


def test_the_backup_is_cancelled_and_goes_on(pair: Pair, tree: Path, out: Path) -> None:
    """Resumed, the run goes on with both tapes."""
    job = pair.queued(tree, copy_pools=("vault",))

    def interrupt() -> None:
        if len(pair.ledger.copies_on(pair.ledger.volume_by_label(SECOND).volume_id)) >= 2:
            raise Cancelled("enough")

    pair.watcher.interrupt = interrupt
    random_files(tree / "more", 30, 400_000)
    with pytest.raises(Cancelled):
        pair.run(job)
    pair.rest()
    pair.watcher.interrupt = lambda: None
    pair.ledger.finish_job(job.number, JobState.CANCELLED, "", time.time_ns())
    pair.run(pair.ledger.queue_job(job.number, time.time_ns(), resume=True))
    pair.rest()
    assert pair.errors == []
    check(pair, tree, out, {SECOND})


@pytest.mark.parametrize("method", [Method.INDEX, Method.TRAILERS])
def test_the_second_tape_alone_gives_the_catalog_back(pair: Pair, tree: Path, tmp_path: Path, method: Method) -> None:
    """The set, its index and its segments, from the tape in the vault."""
    set_id = pair.backup(tree, copy_pools=("vault",))
    pair.rest()
    segments = pair.ledger.segments(set_id)
    pair.close()
    before = Before(pair.home, LmdbLedger.open(pair.home.ledger), tmp_path / "aside")
    report = rebuilt(pair.home, method, SECOND)
    pair.open()
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    assert now_indexes(pair.home) == before.indexes()
    again = pair.ledger.segments(set_id)
    assert [each.payload_sha256 for each in again] == [each.payload_sha256 for each in segments]
    assert {label for each in labels(pair, set_id) for label in each} == {SECOND}
