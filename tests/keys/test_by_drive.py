"""Encryption by the drive: nothing plain but labels and headers, no content without the key, no plain writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from catalog.ids import FrameNo, SetId
from catalog.lmdb_ledger import LmdbLedger
from catalog.pool_records import Pool
from catalog.records import CopyState, SegmentCopy, SetState, Volume, VolumeState
from drivers.errors import DeviceFailed, Undecryptable
from drivers.interface import Drive, DriveKey
from drivers.registry import drive_name
from drivers.virtual.faults import FaultyDrive, Reset
from drivers.virtual.sealing import PLAIN, RECORD_BYTES, SUFFIX
from sidecar.drives.encrypting import may_encrypt
from tapefs.errors import KeyMissing, KeyUnfit
from tapefs.format.identify import is_ours
from tapefs.format.structures import read_header, read_label, read_set_label
from tapefs.keys.driving import give_key
from tapefs.keys.identity import Identity
from tapefs.keys.policy import Seal, TapeKeys
from tapefs.mover.drive_file import write_drive_file
from tapefs.rebuild.records import Method
from tapefs.recall.stager import Stager
from tapefs.staging.stage import SegmentStage
from tests.along.rig import NOW, Pair
from tests.backup.rig import Rig
from tests.backup.test_recall import Heard
from tests.backup.trees import random_files
from tests.keys.rig import encrypt, set_encryption, tape_files
from tests.rebuild.same import Before, now_indexes, reopened
from tests.rebuild.test_rebuild import rebuilt
from tests.reclaim.scene import SETTINGS, almost_empty, check_gone, first_tape, reclaim
from tests.verify.conftest import SMALL, Bench

SECRET = b"nobody may know this name"


@pytest.fixture
def rig(make_rig):  # type: ignore[no-untyped-def]
    return make_rig(backup_settings=SMALL)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = random_files(tmp_path / "tree", 12, 100_000)
    (tree / SECRET.decode()).write_bytes(SECRET * 10_000)
    return tree


def by_drive(rig: Rig, name: str = "main", settings: str = 'by = "drive"') -> Identity:
    identity = encrypt(rig, name)
    set_encryption(rig, f'key = "{name}"\n{settings}')
    return identity


def lock(rig: Rig) -> None:
    rig.home.keyring.replace([])


def copies_of(rig: Rig, set_id: SetId) -> list[SegmentCopy]:
    return [copy for each in rig.ledger.segments(set_id) for copy in rig.ledger.copies(each.segment_id)]


def volumes_of(rig: Rig, set_id: SetId) -> list[Volume]:
    return [rig.ledger.volume(volume_id) for volume_id in {copy.volume_id for copy in copies_of(rig, set_id)}]


def records(path: Path) -> set[bool]:
    """Return of which kinds the blocks of a tape file are: encrypted or not."""
    sealed = path.with_name(path.name + SUFFIX)
    if not sealed.exists():
        return {False}
    data = sealed.read_bytes()
    return {data[at : at + RECORD_BYTES] != PLAIN for at in range(0, len(data), RECORD_BYTES)}


def check_sealed(rig: Rig, label: str) -> None:
    """Labels and HEADERs are clear, all else is encrypted by the drive, block by block."""
    files = tape_files(rig, label)
    for path in files:
        assert records(path) == {not is_ours(path.read_bytes()[:64])}, path
        assert SECRET not in path.read_bytes()
    assert len(files) > 5


def stager(rig: Rig, copy: SegmentCopy, heard: Heard) -> Stager:
    return Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, heard)


def fetch_all(rig: Rig, copy: SegmentCopy) -> Heard:
    heard = Heard()
    last = FrameNo(rig.ledger.segment(copy.segment_id).frames - 1)
    reading = stager(rig, copy, heard)
    reading.fetch(copy.segment_id, FrameNo(0), last)
    reading.close()
    return heard


class NoEncryption:
    """A drive that does not know of keys."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def __getattr__(self, name: str) -> object:
        if name in ("set_key", "encryption", "next_block"):
            raise AttributeError(name)
        return getattr(self._drive, name)


class Deaf:
    """A drive that takes keys and does nothing with them."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive

    def __getattr__(self, name: str) -> object:
        return getattr(self._drive, name)

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        pass


class Forgetful:
    """A drive that loses its key, without a word, with one of the blocks that are written."""

    def __init__(self, drive: Drive, at: int) -> None:
        self._drive, self._left = drive, at

    def __getattr__(self, name: str) -> object:
        return getattr(self._drive, name)

    def write_block(self, block: bytes | memoryview) -> bool:
        self._left -= 1
        if not self._left:
            self._drive.set_cipher(None)  # type: ignore[attr-defined]
        return self._drive.write_block(block)


def with_drive(rig: Rig, drive: object) -> None:
    rig.drive = drive  # type: ignore[assignment]
    rig.watcher._drive = drive  # type: ignore[assignment]


@pytest.mark.parametrize("spool", [False, True])
def test_only_labels_and_headers_are_clear(rig: Rig, tree: Path, spool: bool) -> None:
    identity = by_drive(rig)
    set_id = rig.backup(tree, spool=spool)
    (volume,) = volumes_of(rig, set_id)
    assert (volume.key_fingerprint, volume.by_drive) == (identity.fingerprint, True)
    assert {segment.key_fingerprint for segment in rig.ledger.segments(set_id)} == {""}
    check_sealed(rig, volume.label)
    files = tape_files(rig, volume.label)
    assert read_label(files[0].read_bytes()).volume == volume.volume_id
    for told in (read_set_label(files[1].read_bytes()), read_header(files[2].read_bytes())):
        assert (told.encryption, told.algorithm) == ("drive", "AES-256-GCM")
        assert told.key_fingerprint == identity.fingerprint
    assert "stenc" in files[2].read_text()


def test_reading_takes_the_key(rig: Rig, tree: Path) -> None:
    """With it all is read; locked, the key is named; the drive alone refuses; and unloading takes the key away."""
    by_drive(rig)
    (copy, *_) = copies = copies_of(rig, rig.backup(tree))
    keys = rig.home.keyring.identities()
    lock(rig)
    (failure,) = fetch_all(rig, copy).failures
    assert "key main.1, which is locked: `tapefs key unlock" in failure[2]
    rig.drive.locate(copy.payload_block)
    with pytest.raises(Undecryptable):
        rig.drive.read_into(memoryview(bytearray(1 << 20)))
    rig.home.keyring.replace(keys)
    for each in copies:
        assert not fetch_all(rig, each).failures
        stage = SegmentStage.open(rig.home.staging, each.segment_id)
        assert stage is not None
        stage.close()
    assert rig.drive.encryption().decrypts
    rig.drive.unload()
    assert not rig.drive.encryption().decrypts


def test_between_recalls_the_key_is_not_in_the_drive(rig: Rig, tree: Path) -> None:
    """The stager gives it again for the same segment; locked meanwhile, it does not."""
    by_drive(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    heard = Heard()
    reading = stager(rig, copy, heard)
    reading.fetch(copy.segment_id, FrameNo(0), FrameNo(1))
    reading.rest()
    assert not rig.drive.encryption().decrypts
    reading.fetch(copy.segment_id, FrameNo(2), FrameNo(3))
    assert (heard.arrivals, heard.failures) == ([0, 1, 2, 3], [])
    reading.rest()
    lock(rig)
    reading.fetch(copy.segment_id, FrameNo(4), FrameNo(5))
    reading.close()
    assert "which is locked" in heard.failures[0][2]


def test_the_key_of_another_tape_does_not_do(rig: Rig, tree: Path) -> None:
    """Each tape has its own, made of the pool's: the wrong one is refused by the drive."""
    identity = by_drive(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    other = rig.ledger.volume_by_label("TP0002L9")
    rig.drive.set_key(DriveKey(identity.drive_key(other.volume_id), identity.fingerprint), writes=False)
    rig.drive.locate(copy.payload_block)
    with pytest.raises(Undecryptable):
        rig.drive.read_into(memoryview(bytearray(1 << 20)))


def test_appending_goes_on_encrypted(rig: Rig, tree: Path) -> None:
    """By the key of the tape, though the settings say otherwise by now; the policy is flipped back and forth."""
    by_drive(rig)
    rig.backup(tree)
    set_encryption(rig, 'key = "main"\nby = "payload"')
    second = rig.backup(tree, name="second")
    (volume,) = volumes_of(rig, second)
    check_sealed(rig, volume.label)
    rig.ledger.mark_volume(volume.volume_id, VolumeState.FULL)
    third = rig.backup(tree, name="third")
    (volume,) = volumes_of(rig, third)
    assert volume.key_fingerprint
    assert not volume.by_drive
    set_encryption(rig, 'key = "main"\nby = "drive"')
    fourth = rig.backup(tree, name="fourth")
    assert volumes_of(rig, fourth) == [rig.ledger.volume(volume.volume_id)]
    for copy in (*copies_of(rig, third), *copies_of(rig, fourth)):
        assert rig.ledger.segment(copy.segment_id).preamble
    rig.ledger.mark_volume(volume.volume_id, VolumeState.FULL)
    (volume,) = volumes_of(rig, rig.backup(tree, name="fifth"))
    assert volume.by_drive


@pytest.mark.log_warnings
def test_a_set_over_tapes_of_both_kinds(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """The policy is flipped while the first tape has room: what follows goes the other way, and all is read."""
    rig = make_rig(tapes=3, tape_bytes=24 << 20, backup_settings=SMALL)
    by_drive(rig)
    tree = random_files(tmp_path / "large", 30, 1_000_000)

    rig.backup(tree / min(path.name for path in tree.iterdir()), name="first")
    set_encryption(rig, 'key = "main"\nby = "payload"')
    set_id = rig.backup(tree)
    kinds = {volume.label: volume.by_drive for volume in volumes_of(rig, set_id)}
    assert kinds["TP0001L9"]
    assert not kinds["TP0002L9"]
    for copy in copies_of(rig, set_id):
        rig.watcher.put_in(rig.ledger.volume(copy.volume_id).label)
        rig.drive.load()
        assert not fetch_all(rig, copy).failures


def untouched(rig: Rig) -> bool:
    return {volume.state for volume in rig.ledger.volumes()} == {VolumeState.BLANK} and not rig.ledger.backup_sets()


def test_a_drive_that_cannot_is_refused_before_anything_is_written(rig: Rig, tree: Path) -> None:
    by_drive(rig)
    with_drive(rig, NoEncryption(rig.drive))
    with pytest.raises(KeyUnfit, match=r'this drive cannot do that.*use a drive that encrypts.*by = "payload"'):
        rig.backup(tree)
    assert untouched(rig)


def test_a_locked_key_is_refused_before_anything_is_written(rig: Rig, tree: Path) -> None:
    by_drive(rig)
    lock(rig)
    with pytest.raises(KeyUnfit, match=r"tapefs key unlock main\.1"):
        rig.backup(tree)
    assert untouched(rig)


def test_a_drive_that_does_not_do_as_told_writes_nothing(rig: Rig, tree: Path) -> None:
    by_drive(rig)
    with_drive(rig, Deaf(rig.drive))
    with pytest.raises(DeviceFailed, match="does not encrypt"):
        rig.backup(tree)
    assert all(is_ours(path.read_bytes()[:64]) for path in tape_files(rig, "TP0001L9"))


@pytest.mark.log_warnings
@pytest.mark.parametrize("at", [6, 60])
def test_a_key_that_is_lost_on_the_way_commits_nothing_plain(rig: Rig, tree: Path, at: int) -> None:
    """The segment is written again, from its beginning."""
    by_drive(rig)
    with_drive(rig, Forgetful(rig.drive, at))
    (volume,) = volumes_of(rig, rig.backup(tree))
    check_sealed(rig, volume.label)


@pytest.mark.log_warnings
def test_a_reset_drive_gets_its_key_again(rig: Rig, tree: Path) -> None:
    by_drive(rig)
    with_drive(rig, FaultyDrive(rig.drive, [Reset(block=40)]))  # type: ignore[arg-type]
    (volume,) = volumes_of(rig, rig.backup(tree))
    check_sealed(rig, volume.label)


def test_reading_back_takes_the_key_and_finds_damage(rig: Rig, tree: Path) -> None:
    by_drive(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    bench = Bench(rig)
    assert bench.verify(copy).is_good
    keys = rig.home.keyring.identities()
    lock(rig)
    with pytest.raises(KeyMissing, match=r"TP0001L9 cannot be read.*main\.1"):
        bench.verify(copy)
    assert rig.ledger.copies(copy.segment_id)[0].state is CopyState.GOOD
    rig.home.keyring.replace(keys)
    bench.flip(copy, 5000)
    assert bench.verify(copy).files


def test_auto_is_by_the_drive_only_where_it_never_fails(rig: Rig) -> None:
    """All drives have said that they encrypt, and the secret is at hand; else it is the payload."""
    identity = by_drive(rig, settings='by = "auto"')
    say = (rig.home.drives, drive_name(0), "empty", rig.drive.status())

    def seal() -> Seal:
        return TapeKeys(rig.home, drive=rig.drive).of_new_tape("default")

    assert seal() == Seal(identity.fingerprint, by_drive=False)
    write_drive_file(*say, encrypts=True)
    assert seal() == Seal(identity.fingerprint, by_drive=True)
    assert not TapeKeys(rig.home, drive=NoEncryption(rig.drive)).of_new_tape("default").by_drive  # type: ignore[arg-type]
    lock(rig)
    assert not seal().by_drive
    rig.home.keyring.add(identity)
    write_drive_file(*say, encrypts=False)
    assert not seal().by_drive


def test_a_job_goes_to_a_drive_that_encrypts(rig: Rig, tree: Path) -> None:
    """If there is one; else it is refused by the one there is."""
    by_drive(rig)
    job, status, drives = rig.queued(tree), rig.drive.status(), [drive_name(0), drive_name(1)]
    write_drive_file(rig.home.drives, drives[0], "empty", status)
    write_drive_file(rig.home.drives, drives[1], "empty", status, encrypts=True)
    assert [may_encrypt(rig.home, job, each, drives) for each in drives] == [False, True]
    assert may_encrypt(rig.home, job, drives[0], drives[:1])
    set_encryption(rig, 'key = "main"')
    assert all(may_encrypt(rig.home, job, each, drives) for each in drives)


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def make_pair(tmp_path: Path) -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(**options: object) -> Pair:
        made.append(Pair(tmp_path, **{"backup_settings": SMALL, **options}))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def copied(pair: Rig, set_id: SetId) -> dict[str, tuple[str, bool]]:
    """Return how the tapes are encrypted on which the set lies, having seen that all is as it should be there."""
    for copy in copies_of(pair, set_id):
        volume = pair.ledger.volume(copy.volume_id)
        if volume.by_drive:
            check_sealed(pair, volume.label)
    return {volume.pool: (volume.key_fingerprint, volume.by_drive) for volume in volumes_of(pair, set_id)}


@pytest.mark.parametrize("at_once", [True, False])
def test_two_pools_have_two_keys_on_two_tapes(make_pair: Callable[..., Pair], tree: Path, at_once: bool) -> None:
    """The copy is encrypted by the key of its own pool, by another drive at once, or from tape."""
    pair = make_pair()
    one, two = encrypt(pair, "one"), encrypt(pair, "two")
    set_encryption(pair, 'key = "one"\nby = "drive"\n[encryption.pools]\nvault = "two"')
    if at_once:
        pair.watcher.wait_free = pair.rest
        reopen(pair)
    else:
        pair.watcher.companions = lambda _: 0
    set_id = pair.backup(tree, copy_pools=("vault",), verify=True)
    assert copied(pair, set_id) == {"default": (one.fingerprint, True), "vault": (two.fingerprint, True)}
    assert {copy.state for copy in copies_of(pair, set_id)} == {CopyState.GOOD}
    assert any(progress.stage == "copy" for progress in pair.watcher.progresses) is not at_once


def reopen(pair: Pair) -> None:
    """The second drive's thread takes the state folder as it is now."""
    keys = pair.home.keyring.identities()
    pair.close()
    pair.open()
    pair.home.keyring.replace(keys)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # What a drive has encrypted stays so, with its key where the other pool has none for its drives.
        ('[encryption.pools]\ndefault = "main"\nvault = ""', ("main", True)),
        ('key = "main"\n[encryption.pools]\nvault = "other"\n[encryption.pools_by]\nvault = "payload"', ("main", True)),
        ('key = "main"\n[encryption.pools]\nvault = "other"', ("other", True)),
    ],
)
def test_copies_between_pools_of_different_kinds(
    make_rig: Callable[..., Rig], tree: Path, settings: str, expected: tuple[str, bool]
) -> None:
    rig = make_rig(backup_settings=SMALL)
    vault_of(rig)
    identities = {"main": encrypt(rig, "main"), "other": encrypt(rig, "other")}
    set_encryption(rig, 'by = "drive"\n' + settings)
    set_id = rig.backup(tree, copy_pools=("vault",), verify=True)
    found = copied(rig, set_id)
    assert found["default"] == (identities["main"].fingerprint, True)
    assert found["vault"] == (identities[expected[0]].fingerprint, expected[1])


def vault_of(rig: Rig) -> None:
    rig.ledger.put_pool(None, Pool(name="vault"), NOW)
    for label in ("TP0003L9", "TP0004L9"):
        rig.ledger.assign_volume(rig.ledger.volume_by_label(label).volume_id, "vault", NOW)


@pytest.mark.parametrize("first", ["plain", "payload"])
def test_copies_into_a_pool_whose_drives_encrypt(make_rig: Callable[..., Rig], tree: Path, first: str) -> None:
    """Plain bytes are encrypted by the drive; encrypted ones keep their key, and need no second one."""
    rig = make_rig(backup_settings=SMALL)
    vault_of(rig)
    main, other = encrypt(rig, "main"), encrypt(rig, "other")
    default = "" if first == "plain" else "main"
    set_encryption(
        rig,
        f'[encryption.pools]\ndefault = "{default}"\nvault = "other"\n[encryption.pools_by]\nvault = "drive"',
    )
    set_id = rig.backup(tree, copy_pools=("vault",), verify=True)
    expected = (other.fingerprint, True) if first == "plain" else (main.fingerprint, False)
    assert copied(rig, set_id)["vault"] == expected


@pytest.mark.parametrize("is_unlocked", [True, False])
def test_a_tape_is_reclaimed(make_rig: Callable[..., Rig], tmp_path: Path, is_unlocked: bool) -> None:
    """To a tape with the same key, though new ones are plain by now; locked, the key is named and all stays."""
    rig = make_rig(backup_settings=SETTINGS)
    first = by_drive(rig)
    kept = almost_empty(rig, tmp_path)
    set_encryption(rig, "")
    if not is_unlocked:
        lock(rig)
        with pytest.raises(KeyMissing, match="TP0001L9 cannot be read"):
            reclaim(rig)
        assert rig.ledger.copies_on(first_tape(rig))
        return
    reclaim(rig)
    check_gone(rig, kept, first_tape(rig))
    second = rig.ledger.volume_by_label("TP0002L9")
    assert (second.key_fingerprint, second.by_drive) == (first.fingerprint, True)
    check_sealed(rig, "TP0002L9")


# -- from the tapes alone ----------------------------------------------------------------------------------------------


@pytest.mark.log_warnings
@pytest.mark.parametrize("method", list(Method))
def test_the_catalog_comes_back(make_rig: Callable[..., Rig], tree: Path, tmp_path: Path, method: Method) -> None:
    """Locked, the key is named and the tape passed over; with it every way works, and appending goes on."""
    rig = make_rig(tapes=2, backup_settings=SMALL)
    identity = by_drive(rig)
    set_id = rig.backup(tree)
    rig.close()
    before = Before(rig.home, LmdbLedger.open(rig.home.ledger), tmp_path / "aside")
    lock(rig)
    report = rebuilt(rig.home, method)
    assert identity.fingerprint in report.passed_over["TP0001L9"] or "main.1" in report.passed_over["TP0001L9"]
    rig.home.keyring.add(identity)
    report = rebuilt(rig.home, method)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    reopened(rig)
    if method is not Method.PAYLOADS:
        assert now_indexes(rig.home) == before.indexes()
    (volume,) = volumes_of(rig, set_id)
    assert (volume.key_fingerprint, volume.by_drive) == (identity.fingerprint, True)
    set_encryption(rig, 'key = "main"\nby = "drive"')
    second = rig.backup(tree, name="second")
    assert volumes_of(rig, second) == [rig.ledger.volume(volume.volume_id)]
    check_sealed(rig, volume.label)


@pytest.mark.log_warnings
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_label_does_not_lose_the_key(make_rig: Callable[..., Rig], tree: Path, number: int) -> None:
    """Every HEADER says what the SET LABEL says."""
    rig = make_rig(tapes=2, backup_settings=SMALL)
    by_drive(rig)
    set_id = rig.backup(tree)
    rig.close()
    path = tape_files(rig, "TP0001L9")[number]
    path.write_bytes(path.read_bytes()[:-3] + b"???")
    rig.home.ledger.rename(rig.home.path / "lost")
    report = rebuilt(rig.home, Method.INDEX)
    assert [each.set_id for each in report.outcome.complete] == [set_id]
    reopened(rig)
    assert all(volume.by_drive for volume in volumes_of(rig, set_id))


def test_states(rig: Rig, tree: Path) -> None:
    """Taking the key away is harmless, whatever is in the drive."""
    by_drive(rig)
    set_id = rig.backup(tree)
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    (volume,) = volumes_of(rig, set_id)
    give_key(rig.home, rig.drive, volume)
    give_key(rig.home, rig.drive, msgspec.structs.replace(volume, by_drive=False))
    assert not rig.drive.encryption().decrypts
