"""Encrypted tapes: nothing in the clear, plain tools with the key, any place read at once, no key no content."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from catalog.errors import StorageFailed
from catalog.ids import FrameNo, SetId
from catalog.index.reader import IndexReader
from catalog.records import CopyState, SegmentCopy, VolumeState
from drivers.virtual.faults import FaultyDrive, ReadError
from tapefs.codecs import CODECS
from tapefs.errors import KeyMissing, KeyUnfit, NoTape, UsageError
from tapefs.format.lines import read_lines
from tapefs.format.records import IndexEnd, IndexHead, IndexLine, TrailerLine
from tapefs.format.structures import read_header, read_set_label
from tapefs.keys import age
from tapefs.keys.chunks import unsealed
from tapefs.keys.identity import Identity
from tapefs.keys.reading import open_file, preamble_of
from tapefs.recall.stager import Stager
from tapefs.staging.stage import SegmentStage
from tests.backup.rig import Rig
from tests.backup.test_recall import Heard
from tests.backup.trees import entries, random_files
from tests.keys.programs import decrypted, key_file
from tests.keys.rig import encrypt, set_encryption, tape_files
from tests.verify.conftest import SMALL, Bench

SECRET = b"nobody may know this name"


@pytest.fixture
def rig(make_rig):  # type: ignore[no-untyped-def]
    return make_rig(backup_settings=SMALL)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of all sizes, some of one line that compresses, one over many chunks."""
    tree = random_files(tmp_path / "tree", 60, 30_000)
    (tree / SECRET.decode()).write_bytes(SECRET * 1000)
    (tree / "large").write_bytes(os.urandom(3_000_000))
    return tree


def copies_of(rig: Rig, set_id: SetId) -> list[SegmentCopy]:
    return [copy for each in rig.ledger.segments(set_id) for copy in rig.ledger.copies(each.segment_id)]


def stager(rig: Rig, copy: SegmentCopy, heard: Heard) -> Stager:
    return Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, heard)


def label_of(rig: Rig, copy: SegmentCopy) -> str:
    return rig.ledger.volume(copy.volume_id).label


@pytest.mark.parametrize("codec", ["zstd", "pgzip", "tar", "7zip_command"])
@pytest.mark.parametrize("spool", [False, True])
def test_plain_tools_read_a_tape_with_the_key(rig: Rig, tree: Path, tmp_path: Path, codec: str, spool: bool) -> None:
    """The very command that the HEADER prints, the tape file for `dd`; without the key nothing is to be seen."""
    identity = encrypt(rig)
    set_id = rig.backup(tree, codec=codec, level=CODECS[codec].default_level, spool=spool)
    key_file(tmp_path, identity)
    out = tmp_path / "out"
    out.mkdir()
    for copy in copies_of(rig, set_id):
        files = tape_files(rig, label_of(rig, copy))
        header = files[copy.header_file].read_bytes()
        text = header.decode()
        assert read_header(header).key_fingerprint == identity.fingerprint
        assert identity.fingerprint in text.split("\n\n")[0]
        commands = [line.strip() for line in text.splitlines() if "| age -d" in line or "7z x" in line]
        payload = files[copy.header_file + 1]
        for line in commands[: 2 if codec == "7zip_command" else 1]:
            command = line.replace("if=/dev/nst0", f"status=none if={payload}").replace("key.txt", "../key.txt")
            subprocess.run(["sh", "-ec", command], cwd=out, check=True, capture_output=True)
    restored = next(out.rglob("large")).parent
    same = subprocess.run(["diff", "-r", str(tree), str(restored)], capture_output=True, text=True)
    assert same.stdout.replace("Only in", "") == ""
    for label in {label_of(rig, copy) for copy in copies_of(rig, set_id)}:
        for path in tape_files(rig, label):
            assert SECRET not in path.read_bytes()
            assert bytes(tree) not in path.read_bytes()


def test_all_but_labels_and_headers_is_encrypted(rig: Rig, tree: Path, tmp_path: Path) -> None:
    """The SET LABEL names the key; trailers and indexes are what they are without encryption."""
    identity = encrypt(rig)
    set_id = rig.backup(tree)
    (copy, *_) = copies_of(rig, set_id)
    files = tape_files(rig, label_of(rig, copy))
    assert read_set_label(files[1].read_bytes()).key_fingerprint == identity.fingerprint
    volume = rig.ledger.volume(copy.volume_id)
    assert volume.key_fingerprint == identity.fingerprint
    assert volume.used_bytes == sum(path.stat().st_size for path in files) - files_between(rig, set_id)
    kinds = []
    key = key_file(tmp_path, identity)
    for path in files[2:]:
        stored = path.read_bytes()
        if not age.is_age(stored):
            assert read_header(stored).encryption == "age"
            continue
        clear = age.parse(stored).clear
        assert clear is not None
        assert clear.fingerprint == identity.fingerprint
        kinds.append(clear.what)
        plain = decrypted(stored, key)
        assert b"".join(open_file(rig.home, [stored[:5000], stored[5000:]])) == plain
        if clear.what == "trailer":
            assert plain == rig.home.trailer(clear.uuid).read_bytes()
        elif clear.what == "payload":
            segment = rig.ledger.segment(clear.uuid)
            assert segment.preamble == preamble_of(stored)
            assert segment.stored_bytes == len(stored)
        else:
            lines = list(read_lines([plain], IndexLine))
            assert isinstance(lines[0], IndexHead)
            assert lines[0].index == clear.uuid
            assert isinstance(lines[-1], IndexEnd)
    assert set(kinds) == {"payload", "trailer", "index"}


def files_between(rig: Rig, set_id: SetId) -> int:
    """Bytes of HEADERs, which `used_bytes` does not count."""
    headers = 0
    for copy in copies_of(rig, set_id):
        headers += tape_files(rig, label_of(rig, copy))[copy.header_file].stat().st_size
    return headers


def test_any_frame_comes_back_at_once(rig: Rig, tree: Path) -> None:
    """In random order, and as a whole; what is read behind another costs no locate."""
    encrypt(rig)
    set_id = rig.backup(tree)
    reader = IndexReader(rig.home.index(set_id))
    chosen = random.Random(1)
    for copy in copies_of(rig, set_id):
        heard = Heard()
        frames = rig.ledger.segment(copy.segment_id).frames
        one = stager(rig, copy, heard)
        for number in chosen.sample(range(frames), frames // 2):
            one.fetch(copy.segment_id, FrameNo(number), FrameNo(number))
        before = rig.drive.status().counters.locates
        stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(0), FrameNo(frames - 1))
        assert rig.drive.status().counters.locates - before <= frames // 2 + 1
        assert heard.failures == []
        assert set(heard.arrivals) == set(range(frames))
    numbers = {segment.number: segment.segment_id for segment in reader.segments()}
    compared = 0
    for path, entry in entries(reader).items():
        source = Path(f"/{path.decode()}")
        if source.is_file() and entry.size:
            stage = SegmentStage.open(rig.home.staging, numbers[entry.segment])
            assert stage is not None
            assert stage.read(entry.offset, entry.size) == source.read_bytes()
            stage.close()
            compared += 1
    assert compared == 62
    reader.close()


def test_without_the_key_nothing_comes_back(rig: Rig, tree: Path) -> None:
    """The key is named, and the drive is not moved for it; with the key unlocked all is well."""
    identity = encrypt(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    rig.home.keyring.remove(identity.fingerprint)
    heard = Heard()
    before = rig.drive.status().counters
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(0), FrameNo(3))
    ((first, last, message),) = heard.failures
    assert (first, last) == (0, 3)
    assert "tapefs key unlock main.1" in message
    assert rig.drive.status().counters == before
    rig.home.keyring.add(identity)
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(0), FrameNo(3))
    assert heard.arrivals == [0, 1, 2, 3]


@pytest.mark.log_warnings
def test_an_expired_sets_frames_come_by_the_trailer_on_tape(rig: Rig, tree: Path) -> None:
    """It is decrypted; without the key that is told."""
    identity = encrypt(rig)
    set_id = rig.backup(tree)
    (copy, *_) = copies_of(rig, set_id)
    rig.home.index(set_id).unlink()
    rig.home.trailer(copy.segment_id).unlink()
    heard = Heard()
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(1), FrameNo(2))
    assert heard.arrivals == [1, 2]
    rig.home.keyring.remove(identity.fingerprint)
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(5), FrameNo(5))
    assert "unlock" in heard.failures[0][2]


@pytest.mark.parametrize("unlocked", [True, False])
def test_reading_back_needs_no_key(rig: Rig, tree: Path, unlocked: bool) -> None:
    """What is good is found good, every copy of it, and with the local trailer gone as well."""
    identity = encrypt(rig)
    bench = Bench(rig)
    set_id = rig.backup(tree)
    copies = copies_of(rig, set_id)
    if not unlocked:
        rig.home.keyring.remove(identity.fingerprint)
    for copy in copies:
        assert bench.verify(copy).problems == []
    rig.home.trailer(copies[0].segment_id).unlink()
    assert bench.verify(copies[0]).problems == []
    assert [copy.state for copy in copies_of(rig, set_id)] == [CopyState.GOOD] * len(copies)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 0.999])
def test_a_flipped_bit_costs_the_files_of_its_chunk(rig: Rig, tree: Path, share: float) -> None:
    """With the key they are named; without it the copy is damaged, and the key that would tell more is named."""
    identity = encrypt(rig)
    bench = Bench(rig)
    copies = copies_of(rig, rig.backup(tree))
    copy = copies[0]
    segment = rig.ledger.segment(copy.segment_id)
    begin = len(segment.preamble)
    bench.flip(copy, begin + int(share * (segment.stored_bytes - begin)))
    finding = bench.verify(copy)
    assert not finding.is_good
    assert 0 < len(finding.frames) < segment.frames
    assert finding.files == len(set(bench.follower.lost)) > 0
    lost = finding.frames
    heard = Heard()
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(0), FrameNo(segment.frames - 1))
    assert [first for first, _, _ in heard.failures] == lost
    assert set(heard.arrivals) == set(range(segment.frames)) - set(lost)
    rig.home.keyring.remove(identity.fingerprint)
    blind = bench.verify(copy)
    assert blind.frames == []
    assert identity.fingerprint in blind.problems[0]


def test_an_unreadable_block_is_told_file_by_file_without_the_key(rig: Rig, tree: Path) -> None:
    """Where chunks lie is known without it."""
    identity = encrypt(rig)
    bench = Bench(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    rig.home.keyring.remove(identity.fingerprint)
    faulty = FaultyDrive(rig.drive, [ReadError(block=copy.payload_block + 2)])
    finding = bench.verify(copy, faulty)
    assert 0 < len(finding.frames) < rig.ledger.segment(copy.segment_id).frames
    assert finding.files > 0


@pytest.mark.parametrize("behind_header", [0, 2])
def test_damage_of_header_and_trailer_is_found_without_the_key(rig: Rig, tree: Path, behind_header: int) -> None:
    identity = encrypt(rig)
    bench = Bench(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    rig.home.keyring.remove(identity.fingerprint)
    bench.flip(copy, 400, behind_header)
    (problem,) = bench.verify(copy).problems
    assert problem.startswith(("HEADER", "TRAILER")[behind_header // 2])


def test_a_tape_keeps_its_key(rig: Rig, tree: Path) -> None:
    """After a rotation, and when new tapes are not encrypted any more: what is appended is encrypted as before."""
    first = encrypt(rig)
    sets = [rig.backup(tree)]
    second = encrypt(rig, rotates=True)
    sets.append(rig.backup(tree, name="second"))
    set_encryption(rig, "")
    sets.append(rig.backup(tree, name="third"))
    (copy, *_) = copies_of(rig, sets[-1])
    assert len({volume.label for volume in rig.ledger.volumes() if volume.state is not VolumeState.BLANK}) == 1
    assert {segment_key(rig, each) for each in sets} == {first.fingerprint}
    # A new tape has the newest key.
    set_encryption(rig, 'key = "main"')
    rig.ledger.mark_volume(copy.volume_id, VolumeState.FULL)
    set_id = rig.backup(tree, name="fourth")
    assert segment_key(rig, set_id) == second.fingerprint


def segment_key(rig: Rig, set_id: SetId) -> str:
    (key,) = {segment.key_fingerprint for segment in rig.ledger.segments(set_id)}
    return key


@pytest.mark.log_warnings
def test_nothing_is_written_in_the_clear_when_it_is_to_be_encrypted(rig: Rig, tree: Path) -> None:
    """A plain tape with room is passed over, as it is; a key that is not there fails the job."""
    plain = rig.backup(tree)
    assert segment_key(rig, plain) == ""
    identity = encrypt(rig)
    set_id = rig.backup(tree, name="second")
    assert segment_key(rig, set_id) == identity.fingerprint
    states = sorted(volume.state.value for volume in rig.ledger.volumes())
    assert states == ["appendable", "appendable", "blank", "blank"]
    set_encryption(rig, 'key = "nothing"')
    for volume in rig.ledger.volumes():
        if volume.key_fingerprint:
            rig.ledger.mark_volume(volume.volume_id, VolumeState.FULL)
    with pytest.raises(UsageError, match="key nothing, which is not here"):
        rig.backup(tree, name="third")


@pytest.mark.log_warnings
def test_a_tape_whose_key_is_not_here_is_not_written(rig: Rig, tree: Path) -> None:
    """It is passed over; when no other tape is left, that is the end."""
    encrypt(rig)
    rig.backup(tree)
    for path in rig.home.keys.iterdir():
        path.unlink()
    set_encryption(rig, "")
    for volume in rig.ledger.volumes():
        if volume.state is VolumeState.BLANK:
            rig.ledger.mark_volume(volume.volume_id, VolumeState.FULL)
    with pytest.raises(NoTape):
        rig.backup(tree, name="second")
    assert VolumeState.SUSPECT not in {volume.state for volume in rig.ledger.volumes()}


def test_pools_have_keys_of_their_own(rig: Rig, tree: Path) -> None:
    encrypt(rig, "main")
    other = encrypt(rig, "other")
    set_encryption(rig, 'key = "main"\n[encryption.pools]\ndefault = "other"')
    assert segment_key(rig, rig.backup(tree)) == other.fingerprint


def test_copies_are_of_stored_bytes(rig: Rig, tree: Path) -> None:
    """The secret is locked all the while; the tape of the copy has the same key, its trailer is encrypted, too."""
    identity = encrypt(rig)
    rig.home.keyring.remove(identity.fingerprint)
    set_id = rig.backup(tree, type="archive", copies=2, keep_sources=True, verify=True)
    for segment in rig.ledger.segments(set_id):
        one, two = rig.ledger.copies(segment.segment_id)
        assert one.volume_id != two.volume_id
        assert one.state is two.state is CopyState.GOOD
        first, second = (tape_files(rig, label_of(rig, copy)) for copy in (one, two))
        assert first[one.header_file + 1].read_bytes() == second[two.header_file + 1].read_bytes()
        stored = second[two.header_file + 2].read_bytes()
        assert list(read_lines(unsealed([stored], [identity]), TrailerLine))
        assert read_set_label(second[1].read_bytes()).key_fingerprint == identity.fingerprint


def test_an_encrypted_index_that_was_not_committed_is_overwritten(
    rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose it is stands in the clear, so that no secret is needed to append."""
    identity = encrypt(rig)
    rig.home.keyring.remove(identity.fingerprint)
    rig.backup(tree)
    (volume,) = (each for each in rig.ledger.volumes() if each.state is VolumeState.APPENDABLE)

    def fail(*_: object) -> None:
        raise StorageFailed("the disk of the ledger is gone", retryable=False)

    monkeypatch.setattr(rig.ledger, "seal_set", fail)
    with pytest.raises(StorageFailed):
        rig.backup(tree, name="second")
    monkeypatch.undo()
    index = tape_files(rig, volume.label)[-1]
    clear = age.parse(index.read_bytes()).clear
    assert clear is not None
    assert clear.what == "index"
    assert clear.uuid in {intent.structure_id for intent in rig.ledger.intents(volume.volume_id)}
    set_id = rig.backup(tree, name="third")
    assert {copy.volume_id for copy in copies_of(rig, set_id)} == {volume.volume_id}
    assert rig.ledger.volume(volume.volume_id).state is VolumeState.APPENDABLE
    assert rig.ledger.intents(volume.volume_id) == []


def test_a_wrong_key_is_no_key(rig: Rig, tree: Path) -> None:
    """One that somebody calls by the same fingerprint, say: the header does not open."""
    identity = encrypt(rig)
    (copy, *_) = copies_of(rig, rig.backup(tree))
    rig.home.keyring._identities[identity.fingerprint] = Identity.new()
    heard = Heard()
    stager(rig, copy, heard).fetch(copy.segment_id, FrameNo(0), FrameNo(0))
    assert identity.fingerprint in heard.failures[0][2]


def test_errors_are_what_they_are() -> None:
    """Neither makes a tape SUSPECT: they are no errors of the tape."""
    from tapefs.errors import TapeError

    assert not issubclass(KeyMissing, TapeError)
    assert not issubclass(KeyUnfit, TapeError)
