"""An interrupted backup goes on behind its last committed segment, and its set is as if nothing had happened."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from catalog.errors import NotFound
from catalog.ids import SegmentId, SetId
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import CopyState, Job, JobState, SetState
from tapefs.errors import Cancelled, SourceError
from tapefs.verify.whole_set import verify_set
from tests.backup.edits import Editor, looks, shown
from tests.backup.rig import Rig
from tests.backup.trees import entries, extract, random_files, snapshot
from tests.compare.every_kind import every_kind
from tests.compare.look import differences, look
from tests.compare.ways_back import bring_back

#: Many segments from a small tree.
SMALL = "segment_members = 5\nsegment_bytes = 1048576\nframe_bytes = 65536"


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig(backup_settings=SMALL)


class Interrupter:
    """Ends runs at a segment's commit: just before it, or just behind it."""

    def __init__(self, rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
        self._rig = rig
        self._commit = rig.ledger.commit_segment
        self._left: int | None = None
        self._is_behind = True
        monkeypatch.setattr(rig.ledger, "commit_segment", self._commit_or_die)

    def _commit_or_die(self, *arguments: object) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0 and not self._is_behind:
                raise Cancelled("interrupted")
        self._commit(*arguments)  # type: ignore[arg-type]
        if self._left is not None and self._left < 0:
            raise Cancelled("interrupted")

    def run(self, job: Job, commits: int, *, is_behind: bool = True) -> bool:
        """Run the job until that many segments are committed (and one more, `is_behind`); False: it came to its end."""
        self._left, self._is_behind = commits, is_behind
        try:
            self._rig.run(job)
        except Cancelled:
            return True
        finally:
            self._left = None
        return False


@pytest.fixture
def interrupter(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Interrupter:
    return Interrupter(rig, monkeypatch)


def to_resume(rig: Rig, job: Job) -> Job:
    """Do what the sidecar does: the failed run's job is queued to go on."""
    rig.ledger.finish_job(job.number, JobState.FAILED, "interrupted", time.time_ns())
    return rig.ledger.queue_job(job.number, time.time_ns(), resume=True)


def check(rig: Rig, set_id: SetId, tree: Path, expected: object = None, *, parts_links: bool = False) -> None:
    """The set shows the tree, and its totals are those of its index."""
    backup_set = rig.ledger.backup_set(set_id)
    assert backup_set.state is SetState.COMPLETE
    assert rig.ledger.job(backup_set.job_number).state is JobState.COMPLETED
    with IndexReader(rig.home.index(set_id)) as reader:
        assert shown(reader, tree, parts_links=parts_links) == (expected or looks(tree))
        assert reader.totals[1:] == (backup_set.directories, backup_set.files, backup_set.bytes)
    segments = rig.ledger.segments(set_id)
    assert [segment.number for segment in segments] == list(range(len(segments)))
    assert backup_set.stored_bytes == sum(segment.stored_bytes for segment in segments)
    assert not list(rig.home.indexes.glob(".*"))


@pytest.mark.parametrize("is_behind", [True, False])
def test_goes_on_behind_every_segment(rig: Rig, interrupter: Interrupter, tmp_path: Path, is_behind: bool) -> None:
    """Wherever a full backup is interrupted: what was committed stays, and the set is that of one run."""
    tree = tmp_path / "tree"
    Editor(tree, 3)
    commits = 0
    while interrupter.run(job := rig.queued(tree), commits, is_behind=is_behind):
        set_id = rig.ledger.job(job.number).set_id
        assert set_id is not None
        kept = [segment.segment_id for segment in rig.ledger.segments(set_id)]
        assert len(kept) == commits + is_behind
        assert rig.run(to_resume(rig, job)) == set_id
        assert [segment.segment_id for segment in rig.ledger.segments(set_id)][: len(kept)] == kept
        check(rig, set_id, tree)
        assert rig.watcher.troubles == []
        commits += 1
    assert commits > 5


def test_interrupted_again_and_again(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """Every run brings one segment, and the tapes hold the archive of one run."""
    tree = tmp_path / "tree"
    Editor(tree, 4)
    job = rig.queued(tree)
    runs = 0
    while interrupter.run(job, 0):
        job = to_resume(rig, job)
        runs += 1
    assert runs > 5
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    check(rig, set_id, tree)
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)
    assert verify_set(rig.home, rig.ledger, rig.drive, set_id, _Quiet(rig)).is_good


@pytest.mark.parametrize("seed", range(3))
def test_incremental_sets_go_on(rig: Rig, interrupter: Interrupter, tmp_path: Path, seed: int) -> None:
    """Interrupted behind each of its segments, a set that builds on another shows the tree as it is."""
    tree = tmp_path / "tree"
    editor = Editor(tree, 10 + seed)
    job = rig.queued(tree)
    rig.run(job)
    for commits in range(6):
        editor.edit(12)
        known = rig.ledger.job(job.number)
        rig.ledger.edit_job(known, _typed(known), time.time_ns())
        queued = rig.ledger.queue_job(job.number, time.time_ns())
        if interrupter.run(queued, commits % 3):
            rig.run(to_resume(rig, job))
        set_id = rig.ledger.job(job.number).set_id
        assert set_id is not None
        assert rig.ledger.backup_set(set_id).parent_id is not None
        check(rig, set_id, tree)


def _typed(job: Job) -> Job:
    import msgspec

    return msgspec.structs.replace(job, type="incremental")


@pytest.mark.parametrize("seed", range(8))
def test_the_tree_changes_while_it_is_interrupted(
    rig: Rig, interrupter: Interrupter, tmp_path: Path, seed: int
) -> None:
    """Whatever happened meanwhile, the set is completed, all its content is right, and the next one shows it all."""
    tree = tmp_path / "tree"
    editor = Editor(tree, 20 + seed)
    source = random.Random(seed)
    job = rig.queued(tree)
    for round_ in range(3):
        if round_:
            editor.edit(10)
            known = rig.ledger.job(job.number)
            rig.ledger.edit_job(known, _typed(known), time.time_ns())
            job = rig.ledger.queue_job(job.number, time.time_ns())
        while interrupter.run(job, source.randrange(3)):
            editor.edit(source.randrange(8))
            job = to_resume(rig, job)
        set_id = rig.ledger.job(job.number).set_id
        assert set_id is not None
        assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
        assert verify_set(rig.home, rig.ledger, rig.drive, set_id, _Quiet(rig)).is_good
        # A name given to a file during an interruption, where its other names were committed, is one by itself.
        check(rig, rig.again(rig.ledger.job(job.number), type="incremental"), tree, parts_links=True)


class _Quiet:
    def __init__(self, rig: Rig) -> None:
        self.this_volume = rig.watcher.this_volume

    def verified(self, *_: object) -> None: ...

    def lost_file(self, *_: object) -> None: ...

    def check_cancelled(self) -> None: ...


# -- files over several segments -------------------------------------------------------------------------------------


def large_file(tmp_path: Path) -> Path:
    tree = random_files(tmp_path / "tree", 1, 6_000_000)
    (tree / "a").write_text("before")
    (tree / "z").write_text("behind")
    return tree


def test_a_split_file_goes_on(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """Between any two of its parts."""
    tree = large_file(tmp_path)
    for commits in range(5):
        job = rig.queued(tree)
        assert interrupter.run(job, commits)
        set_id = rig.run(to_resume(rig, job))
        with IndexReader(rig.home.index(set_id)) as reader:
            found = entries(reader)
            entry = found[bytes(tree)[1:] + b"/file-00000"]
            assert entry.flags & (EntryFlag.SPLIT | EntryFlag.CHANGED) == EntryFlag.SPLIT
            assert bytes(tree)[1:] + b"/z" in found
        assert _content(rig, set_id, tmp_path / f"out-{commits}", tree) == (tree / "file-00000").read_bytes()


def _content(rig: Rig, set_id: SetId, out: Path, tree: Path) -> bytes:
    """The file's content by its parts, which `cat` joins."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for segment in rig.ledger.segments(set_id):
        (copy,) = rig.ledger.copies(segment.segment_id)
        label = rig.ledger.volume(copy.volume_id).label
        payload = rig.home.library / "cartridges" / label / f"{copy.header_file + 1:05}"
        assert os.system(f"zstd -qdc {payload} | tar -xf - -C {out}") == 0
    parts = sorted(Path(f"{out}{tree}").glob("file-00000*"))
    return b"".join(part.read_bytes() for part in parts)


@pytest.mark.parametrize("what", ["changed", "grown", "gone", "a directory now"])
def test_a_split_file_that_is_another_by_now(rig: Rig, interrupter: Interrupter, tmp_path: Path, what: str) -> None:
    """It keeps its length, is marked, and breaks nothing."""
    tree = large_file(tmp_path)
    file = tree / "file-00000"
    job = rig.queued(tree)
    assert interrupter.run(job, 2)
    if what == "changed":
        file.write_bytes(b"x" * 6_000_000)
    elif what == "grown":
        file.write_bytes(file.read_bytes() + b"more")
    else:
        file.unlink()
        if what == "a directory now":
            file.mkdir()
    set_id = rig.run(to_resume(rig, job))
    with IndexReader(rig.home.index(set_id)) as reader:
        found = entries(reader)
    if what == "a directory now":
        # The name is in the set twice, once as what it was; the walk cannot know better.
        del found[bytes(tree)[1:] + b"/z"]
    else:
        entry = found[bytes(tree)[1:] + b"/file-00000"]
        assert entry.size == 6_000_000
        assert entry.flags & EntryFlag.CHANGED
        assert bytes(tree)[1:] + b"/z" in found
    assert any(path == bytes(file) for path, _ in rig.watcher.troubles)
    assert verify_set(rig.home, rig.ledger, rig.drive, set_id, _Quiet(rig)).is_good


# -- links -----------------------------------------------------------------------------------------------------------


def test_links_over_the_interruption(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """Names of one file before and behind it are names of one file in the set, with its content."""
    tree = random_files(tmp_path / "tree", 12, 5000)
    for number in range(4):
        os.link(tree / f"file-{number:05}", tree / f"z-link-{number}")
    job = rig.queued(tree)
    assert interrupter.run(job, 0)
    set_id = rig.run(to_resume(rig, job))
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    with IndexReader(rig.home.index(set_id)) as reader:
        found = entries(reader)
        for number in range(4):
            first = found[bytes(tree)[1:] + b"/file-%05d" % number]
            second = found[bytes(tree)[1:] + b"/z-link-%d" % number]
            assert second.flags & EntryFlag.LINKED
            assert (second.segment, second.offset) == (first.segment, first.offset)


def test_an_inode_used_anew_is_not_linked_to(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """The file of before is gone, and a pair of new names may have its inode: their content is stored."""
    tree = random_files(tmp_path / "tree", 8, 5000)
    os.link(tree / "file-00000", tree / "file-00000b")
    job = rig.queued(tree)
    assert interrupter.run(job, 0)
    (tree / "file-00000").unlink()
    (tree / "file-00000b").unlink()
    (tree / "z").write_bytes(b"z" * 5000)
    os.link(tree / "z", tree / "zz")
    set_id = rig.run(to_resume(rig, job))
    with IndexReader(rig.home.index(set_id)) as reader:
        found = entries(reader)
        for name in (b"/z", b"/zz"):
            entry = found[bytes(tree)[1:] + name]
            assert reader.sha256(entry.segment, entry.offset) == hashlib.sha256(b"z" * 5000).digest()


def test_a_linked_file_that_comes_by_once_more(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """Its directory was moved: there are more names than the file has links, and the set is complete all the same."""
    tree = tmp_path / "tree"
    random_files(tree / "a", 1, 5000)
    (tree / "b").mkdir()
    os.link(tree / "a" / "file-00000", tree / "b" / "linked")
    random_files(tree / "c", 8, 10)
    job = rig.queued(tree)
    assert interrupter.run(job, 0)
    (tree / "b").rename(tree / "z")
    set_id = rig.run(to_resume(rig, job))
    with IndexReader(rig.home.index(set_id)) as reader:
        found = entries(reader)
        digest = hashlib.sha256((tree / "z" / "linked").read_bytes()).digest()
        for name in (b"/a/file-00000", b"/b/linked", b"/z/linked"):
            entry = found[bytes(tree)[1:] + name]
            assert reader.sha256(entry.segment, entry.offset) == digest


# -- what stands in the way ------------------------------------------------------------------------------------------


def test_only_the_index_is_missing(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All segments are committed: nothing of the tree is read again, the set is sealed."""
    tree = tmp_path / "tree"
    Editor(tree, 5)
    job = rig.queued(tree)

    def refuse(*_: object) -> None:
        raise Cancelled("interrupted")

    with monkeypatch.context() as patched:
        patched.setattr(rig.ledger, "seal_set", refuse)
        with pytest.raises(Cancelled):
            rig.run(job)
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    before = rig.ledger.segments(set_id)
    expected = looks(tree)
    (tree / "new").write_text("too late")
    rig.run(to_resume(rig, job))
    assert rig.ledger.segments(set_id) == before
    with IndexReader(rig.home.index(set_id)) as reader:
        assert set(shown(reader, tree)) == set(expected)


def test_a_source_that_is_gone(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """It is told, the set stays as it is, and goes on when the source is back."""
    tree = tmp_path / "tree"
    Editor(tree, 6)
    job = rig.queued(tree)
    assert interrupter.run(job, 2)
    tree.rename(tmp_path / "away")
    with pytest.raises(SourceError, match="tree"):
        rig.run(to_resume(rig, job))
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    assert rig.ledger.backup_set(set_id).state is SetState.FAILED
    (tmp_path / "away").rename(tree)
    rig.run(to_resume(rig, job))
    check(rig, set_id, tree)


def test_a_directory_that_is_gone(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """What was taken of it stays in the set; the rest is told to be missing."""
    tree = tmp_path / "tree"
    random_files(tree / "a" / "deep", 12, 100)
    random_files(tree / "b", 3, 100)
    job = rig.queued(tree)
    assert interrupter.run(job, 0)
    shutil.rmtree(tree / "a")
    set_id = rig.run(to_resume(rig, job))
    with IndexReader(rig.home.index(set_id)) as reader:
        names = {os.path.basename(path) for path in entries(reader)}
    assert {b"a", b"deep", b"file-00000", b"b"} <= names
    assert b"file-00011" not in names
    assert any(path == bytes(tree / "a" / "deep") or path == bytes(tree / "a") for path, _ in rig.watcher.troubles)
    check(rig, rig.again(rig.ledger.job(job.number), type="incremental"), tree)


def test_what_comes_too_late_is_told(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """A name that sorts before the place where the backup stood is left for the next one."""
    tree = random_files(tmp_path / "tree", 12, 100)
    job = rig.queued(tree)
    assert interrupter.run(job, 0)
    (tree / "a-new").write_text("new")
    (tree / "z-new").write_text("new")
    set_id = rig.run(to_resume(rig, job))
    with IndexReader(rig.home.index(set_id)) as reader:
        names = {os.path.basename(path) for path in entries(reader)}
    assert b"z-new" in names
    assert b"a-new" not in names
    assert [path for path, _ in rig.watcher.troubles] == [bytes(tree / "a-new")]
    assert rig.ledger.backup_set(set_id).troubled_files == 1


def test_without_its_trailers(rig: Rig, interrupter: Interrupter, tmp_path: Path) -> None:
    """It cannot go on, says so, and writes nothing."""
    tree = tmp_path / "tree"
    Editor(tree, 7)
    job = rig.queued(tree)
    assert interrupter.run(job, 2)
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    segment: SegmentId = rig.ledger.segments(set_id)[1].segment_id
    rig.home.trailer(segment).unlink()
    ends = [volume.end_block for volume in rig.ledger.volumes()]
    with pytest.raises(NotFound, match="run the job anew"):
        rig.run(to_resume(rig, job))
    assert [volume.end_block for volume in rig.ledger.volumes()] == ends
    assert rig.ledger.backup_set(set_id).state is SetState.FAILED


def test_a_verification_goes_on(rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The set is complete; its copies are read back, and the job is done."""
    tree = tmp_path / "tree"
    Editor(tree, 8)
    job = rig.queued(tree, verify=True)

    def refuse(_: object) -> None:
        raise Cancelled("it was cancelled")

    with monkeypatch.context() as patched:
        patched.setattr(rig.watcher, "this_volume", refuse)
        with pytest.raises(Cancelled):
            rig.run(job)
    set_id = rig.run(to_resume(rig, job))
    assert rig.ledger.job(job.number).state is JobState.COMPLETED
    copies = [copy for each in rig.ledger.segments(set_id) for copy in rig.ledger.copies(each.segment_id)]
    assert all(copy.verified_at_ns and copy.state is CopyState.GOOD for copy in copies)


# -- every kind of file ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="device nodes and owners need root")
@pytest.mark.parametrize("step", [1, 4])
def test_every_kind_of_file(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int
) -> None:
    """Holes, split files, links, attributes: restored, a set of several runs is the tree."""
    rig = make_rig(backup_settings="segment_members = 9\nsegment_bytes = 3145728")
    interrupter = Interrupter(rig, monkeypatch)
    tree = every_kind(tmp_path / "tree")
    job, runs = rig.queued(tree), 0
    while interrupter.run(job, step - 1):
        job, runs = to_resume(rig, job), runs + 1
    assert runs > 3
    set_id = rig.ledger.job(job.number).set_id
    assert set_id is not None
    report = bring_back(rig, set_id, tmp_path / "back")
    assert report.is_complete, report.troubles
    assert differences(look(Path(f"{tmp_path / 'back'}{tree}")), look(tree)) == []


def test_what_is_left_out_stays_left_out(rig: Rig, tmp_path: Path, interrupter: Interrupter) -> None:
    """The job was edited while it rested: the run that goes on is the one that was begun, its successor another."""
    tree = random_files(tmp_path / "tree", 30, 100_000)
    for folder in ("cache", "other"):
        (tree / folder).mkdir()
        (tree / folder / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55")
        (tree / folder / "kept").write_text("x")
    (tree / "zz.o").write_text("x")
    (tree / "zz.c").write_text("x")
    (tree / "large").write_bytes(bytes(200_000))
    job = rig.queued(tree, excludes=("*.o",), exclude_caches=True, max_bytes=150_000)
    assert interrupter.run(job, 2)
    rig.ledger.finish_job(job.number, JobState.FAILED, "interrupted", time.time_ns())
    known = rig.ledger.job(job.number)
    edited = msgspec.structs.replace(known, excludes=("*.c",), exclude_caches=False, max_bytes=0, min_bytes=50_000)
    rig.ledger.edit_job(known, edited, time.time_ns())
    set_id = rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=True))
    found = {path.name for path in map(Path, map(os.fsdecode, entries(IndexReader(rig.home.index(set_id)))))}
    assert {"zz.c", "cache", "CACHEDIR.TAG", "file-00029"} <= found
    assert not {"zz.o", "kept", "large"} & found
    assert rig.ledger.job(job.number).excludes == ("*.c",)
    set_id = rig.again(rig.ledger.job(job.number))
    found = {path.name for path in map(Path, map(os.fsdecode, entries(IndexReader(rig.home.index(set_id)))))}
    assert {"large", "file-00029"} <= found
    assert not {"zz.o", "zz.c", "kept"} & found
