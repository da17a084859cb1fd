"""What still lives on a tape is copied to another, and nothing that lives is ever without a whole copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from catalog.ids import SetId
from catalog.pool_records import Pool
from catalog.records import CopyState, SetState, SetTotals, VolumeState
from tapefs.backup import payloads_on_disk
from tapefs.backup.copying import on_tape
from tapefs.backup.segment import SetContext
from tapefs.backup.session import TapeSession
from tapefs.backup.set_index import write_set_index
from tapefs.codecs import codec
from tapefs.errors import Cancelled, NoTape, NotNow
from tapefs.rebuild.records import Method
from tapefs.reclaim.candidates import almost_empty as emptiest
from tapefs.reclaim.candidates import living_on, not_onto
from tapefs.retention.reuse import may_reuse
from tapefs.retention.rules import retention_rule
from tests.backup.rig import Rig
from tests.backup.trees import extract, random_files, snapshot
from tests.keys.rig import encrypt
from tests.rebuild.same import Before, records, reopened
from tests.rebuild.test_rebuild import rebuilt
from tests.reclaim.scene import SETTINGS, almost_empty, check_gone, first_tape, reclaim

DAY_NS = 86_400 * 10**9


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(tapes=3, backup_settings=SETTINGS)


def test_what_lives_moves_and_the_tape_can_be_begun_anew(rig: Rig, tmp_path: Path) -> None:
    """When the grace time of the pool has passed since the last set left it."""
    kept = almost_empty(rig, tmp_path)
    done = reclaim(rig)
    assert (done.sets, done.kept) == (3, {})
    assert done.segments == sum(len(rig.ledger.segments(each)) for each in kept)
    check_gone(rig, kept, first_tape(rig))
    assert [rig.ledger.backup_set(each).tapes for each in kept] == [("TP0002L9",)] * 3
    volume = rig.ledger.volume(first_tape(rig))
    assert volume.state is VolumeState.FULL
    assert volume.left_at_ns
    sets = [each for each in rig.ledger.backup_sets() if volume.label in each.tapes]
    pool = Pool(name="default", reuse=True, reuse_grace_days=3)
    soon = may_reuse(volume, pool, sets, is_under_way=False, now_ns=time.time_ns())
    assert (soon.may, "expired or left it; it may be overwritten from" in soon.reason) == (False, True)
    assert may_reuse(volume, pool, sets, is_under_way=False, now_ns=time.time_ns() + 4 * DAY_NS).may


def test_the_contents_are_the_same_on_the_new_tape(rig: Rig, tmp_path: Path) -> None:
    almost_empty(rig, tmp_path)
    reclaim(rig)
    claim = rig.ledger.claim_volume(first_tape(rig))
    new = msgspec.structs.replace(
        rig.ledger.volume(first_tape(rig)), volume_id="0" * 36, state=VolumeState.BLANK, end_block=0, end_file=0
    )
    rig.ledger.renew_volume(first_tape(rig), claim, new, time.time_ns())
    out = extract(rig, tmp_path / "out")
    assert snapshot(Path(f"{out}{tmp_path / 'tree'}")) == snapshot(tmp_path / "tree")


@pytest.mark.log_warnings
@pytest.mark.parametrize("is_gone", [False, True])
def test_a_rebuild_finds_it_there(rig: Rig, tmp_path: Path, is_gone: bool) -> None:
    """From the new tape alone, and from both: what lies on the old one is a further copy until that is overwritten."""
    kept = almost_empty(rig, tmp_path)
    reclaim(rig)
    known = [rig.ledger.backup_set(each) for each in kept]
    rig.watcher.put_in("TP0003L9")
    Before(rig.home, rig.ledger, tmp_path / "aside")
    rig.drive.close()
    rig.watcher.close()
    report = rebuilt(rig.home, Method.INDEX, *(["TP0002L9"] if is_gone else ["TP0001L9", "TP0002L9"]))
    assert {each.set_id for each in report.outcome.complete} >= set(kept)
    reopened(rig)
    for each in known:
        found = rig.ledger.backup_set(each.set_id)
        assert (found.state, found.files, found.bytes, found.parent_id) == (
            SetState.COMPLETE,
            each.files,
            each.bytes,
            each.parent_id,
        )
        assert "TP0002L9" in found.tapes
    assert rig.ledger.verify() == []


def test_each_of_two_copies_stays_a_copy(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """That an archive lies on another tape, too, is no reason to drop a copy: it is wanted on two."""
    rig = make_rig(tapes=4, backup_settings=SETTINGS)
    tree = random_files(tmp_path / "tree", 6, 300_000)
    kept = rig.backup(tree, type="archive", verify=True, copies=2, keep_sources=True)
    assert rig.ledger.backup_set(kept).tapes == ("TP0001L9", "TP0002L9")
    reclaim(rig)
    check_gone(rig, [kept], first_tape(rig), copies=2)
    assert rig.ledger.backup_set(kept).tapes == ("TP0002L9", "TP0003L9")


def test_an_index_that_lies_there_alone_is_written_elsewhere(rig: Rig, tmp_path: Path) -> None:
    """As when a tape was full with the last segment: the SET INDEX is all that the next tape has of the set."""
    kept = rig.backup(random_files(tmp_path / "tree", 4, 300_000))
    rig.ledger.mark_volume(first_tape(rig), VolumeState.FULL)
    backup_set = rig.ledger.backup_set(kept)
    context = SetContext(rig.home, rig.ledger, backup_set, "host", codec(backup_set.codec, "auto"))
    session = TapeSession(context, rig.drive, rig.watcher, rig.home.settings.backup, _tried=[first_tape(rig)])
    tape = session.open_next()
    totals = SetTotals(**{field: getattr(backup_set, field) for field in SetTotals.__struct_fields__})
    write_set_index(context, rig.drive, tape, on_tape(context, first_tape(rig)), [], totals, final=True)
    second = tape.volume.volume_id
    assert [each.set_id for each in rig.ledger.live_sets(second)] == [kept]
    done = reclaim(rig, second)
    assert (done.sets, done.segments) == (1, 0)
    assert rig.ledger.live_sets(second) == []
    assert rig.ledger.backup_set(kept).tapes == ("TP0001L9", "TP0003L9")
    assert rig.ledger.verify() == []


@pytest.mark.log_warnings
def test_a_damaged_copy_is_made_of_another(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=4, backup_settings=SETTINGS)
    tree = random_files(tmp_path / "tree", 6, 300_000)
    kept = rig.backup(tree, type="archive", verify=True, copies=2, keep_sources=True)
    segment = rig.ledger.segments(kept)[0]
    rig.ledger.mark_copy(segment.segment_id, first_tape(rig), CopyState.DAMAGED, time.time_ns())
    reclaim(rig)
    check_gone(rig, [kept], first_tape(rig), copies=2)


@pytest.mark.log_warnings
def test_what_cannot_be_read_stays_and_the_rest_moves(rig: Rig, tmp_path: Path) -> None:
    kept = almost_empty(rig, tmp_path)
    other = rig.backup(random_files(tmp_path / "other", 3, 200_000), name="other")
    copy = rig.ledger.copies(rig.ledger.segments(kept[0])[1].segment_id)[0]
    payload = rig.home.library / "cartridges" / "TP0001L9" / f"{copy.header_file + 1:05}"
    data = bytearray(payload.read_bytes())
    data[len(data) // 2] ^= 1
    payload.write_bytes(data)
    with pytest.raises(NotNow, match=r"3 sets left tape TP0001L9, 1 stay: set kept .*not as it was written"):
        reclaim(rig)
    assert [each.set_id for each in rig.ledger.live_sets(first_tape(rig))] == [kept[0]]
    assert len(rig.ledger.copies(rig.ledger.segments(other)[0].segment_id)) == 1
    assert rig.ledger.verify() == []


def test_with_little_room_on_disk(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment at a time: the tapes are changed more often, that is all."""
    kept = almost_empty(rig, tmp_path)
    monkeypatch.setattr(payloads_on_disk, "free_bytes", lambda home: 1_400_000)
    monkeypatch.setattr(
        payloads_on_disk, "has_room", lambda home, segment: payloads_on_disk.free_bytes(home) >= segment.stored_bytes
    )
    reclaim(rig)
    check_gone(rig, kept, first_tape(rig))


def test_cancelled_it_goes_on_where_it_stood(rig: Rig, tmp_path: Path) -> None:
    kept = almost_empty(rig, tmp_path)

    def interrupt() -> None:
        if len(rig.ledger.copies_on(rig.ledger.volume_by_label("TP0002L9").volume_id)) == 2:
            raise Cancelled("enough")

    rig.watcher.interrupt = interrupt
    with pytest.raises(Cancelled):
        reclaim(rig)
    assert len(rig.ledger.live_sets(first_tape(rig))) == 3, "nothing has left yet"
    rig.watcher.interrupt = lambda: None
    reclaim(rig)
    check_gone(rig, kept, first_tape(rig))
    assert len(rig.ledger.copies_on(rig.ledger.volume_by_label("TP0002L9").volume_id)) == sum(
        len(rig.ledger.segments(each)) for each in kept
    ), "nothing was copied twice"


def test_recalls_come_first(rig: Rig, tmp_path: Path) -> None:
    kept = almost_empty(rig, tmp_path)
    rig.watcher.wanted = lambda: rig.watcher.gave_way < 2
    reclaim(rig)
    assert rig.watcher.gave_way == 2
    check_gone(rig, kept, first_tape(rig))


@pytest.mark.log_warnings
def test_no_other_tape_and_nothing_is_lost(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig(tapes=1, backup_settings=SETTINGS)
    kept = almost_empty(rig, tmp_path)
    with pytest.raises(NoTape):
        reclaim(rig)
    assert len(rig.ledger.live_sets(first_tape(rig))) == len(kept)


def test_a_set_that_expires_meanwhile_stays_behind(rig: Rig, tmp_path: Path) -> None:
    kept = almost_empty(rig, tmp_path)
    other = rig.backup(random_files(tmp_path / "other", 3, 200_000), name="other")

    def interrupt() -> None:
        if rig.ledger.backup_set(other).state is SetState.COMPLETE:
            rig.ledger.expire_set(other, time.time_ns())
            for segment in rig.ledger.segments(other):
                rig.home.trailer(segment.segment_id).unlink()

    rig.watcher.interrupt = interrupt
    reclaim(rig)
    check_gone(rig, kept, first_tape(rig))


def _failed(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SetId:
    """A set that ends where its first segment is committed."""
    commit = rig.ledger.commit_segment

    def commit_and_end(*arguments: object) -> None:
        commit(*arguments)  # type: ignore[arg-type]
        raise Cancelled("enough")

    job = rig.queued(random_files(tmp_path / "failed", 9, 300_000), name="failed")
    with monkeypatch.context() as patched:
        patched.setattr(rig.ledger, "commit_segment", commit_and_end)
        with pytest.raises(Cancelled):
            rig.run(job)
    return rig.ledger.backup_sets()[-1].set_id


def test_what_may_go_on_stays_and_is_named(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = almost_empty(rig, tmp_path)
    failed = _failed(rig, tmp_path, monkeypatch)
    with pytest.raises(NotNow, match=r"3 sets left tape TP0001L9, 1 stay: set failed .* is failed"):
        reclaim(rig)
    assert [each.set_id for each in rig.ledger.live_sets(first_tape(rig))] == [failed]
    assert all(rig.ledger.backup_set(each).tapes == ("TP0002L9",) for each in kept)


@pytest.mark.parametrize("why", ["lies in the bank", "WORM", "blank", "nothing lives"])
def test_what_is_never_touched(rig: Rig, tmp_path: Path, why: str) -> None:
    kept = almost_empty(rig, tmp_path)
    tape = first_tape(rig)
    if why == "lies in the bank":
        rig.ledger.move_volume(tape, "the bank", time.time_ns())
    if why == "WORM":
        volume = msgspec.structs.replace(rig.ledger.volume(tape), barcode="TP0001LZ")
        assert why in living_on(rig.ledger, volume).obstacle
        return
    if why == "blank":
        tape = rig.ledger.volume_by_label("TP0003L9").volume_id
    if why == "nothing lives":
        for each in reversed(kept):
            rig.ledger.expire_set(each, time.time_ns())
    before = records(rig.ledger)
    with pytest.raises(NotNow, match=why):
        reclaim(rig, tape)
    assert records(rig.ledger) == before


def test_the_emptiest_are_found(rig: Rig, tmp_path: Path) -> None:
    almost_empty(rig, tmp_path)
    (found,) = emptiest(rig.ledger, rig.ledger.volumes(), "default", 90)
    assert found.volume.label == "TP0001L9"
    assert 0 < found.percent < 90
    assert len(found.sets) == 3
    assert emptiest(rig.ledger, rig.ledger.volumes(), "default", found.percent) == []
    assert emptiest(rig.ledger, rig.ledger.volumes(), "other", 90) == []


def test_a_tape_begun_earlier_would_end_too_early(rig: Rig, tmp_path: Path) -> None:
    """By TAF's rule a set ends with the month of its tape: it may go only to a tape that was begun later."""
    almost_empty(rig, tmp_path)
    reclaim(rig)
    first, second = (rig.ledger.volume_by_label(label) for label in ("TP0001L9", "TP0002L9"))
    by_tape = Pool(name="default", retention=retention_rule("6tm"))
    assert not_onto(rig.ledger, by_tape, second) == {first.volume_id}
    assert not_onto(rig.ledger, by_tape, first) == set()
    assert not_onto(rig.ledger, Pool(name="default", retention=retention_rule("6m")), second) == set()


@pytest.mark.parametrize("is_unlocked", [True, False])
def test_what_is_encrypted_stays_so(rig: Rig, tmp_path: Path, is_unlocked: bool) -> None:
    """With its key at hand and without; to a tape with the same key, though new ones have another by now."""
    first = encrypt(rig)
    kept = almost_empty(rig, tmp_path)
    encrypt(rig, "other")
    if not is_unlocked:
        rig.home.keyring.replace([])
    reclaim(rig)
    check_gone(rig, kept, first_tape(rig))
    second = rig.ledger.volume_by_label("TP0002L9")
    assert (
        second.key_fingerprint == rig.ledger.volume_by_label("TP0001L9").key_fingerprint == first.recipient.fingerprint
    )
