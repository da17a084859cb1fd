"""Sources that change between listing and reading, and names that no index can keep."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from catalog.ids import SegmentNo, SetId
from catalog.index.model import EntryFlag
from catalog.index.reader import IndexReader
from catalog.records import SetState
from tests.backup.rig import Rig
from tests.backup.test_trouble import MeddlingDrive, big_then_small
from tests.backup.trees import entries, extract, random_files, snapshot

_MIB = 1024**2


@pytest.mark.parametrize("kind", ["link", "socket", "fifo", "directory"])
def test_a_file_that_becomes_something_else(make_rig: Callable[..., Rig], tmp_path: Path, kind: str) -> None:
    """It was listed as a file and is none when its turn comes: it is left out, told, and the set complete."""
    tree = big_then_small(tmp_path)
    victim = tree / "small-1"

    def meddle() -> None:
        victim.unlink()
        if kind == "link":
            victim.symlink_to("elsewhere")
        elif kind == "fifo":
            os.mkfifo(victim)
        elif kind == "directory":
            victim.mkdir()
        else:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(victim))

    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB, backup_settings="buffer_bytes = 0")
    rig.drive = MeddlingDrive(rig.drive, 40, meddle)  # type: ignore[assignment]
    set_id = rig.backup(tree)
    done = rig.ledger.backup_set(set_id)
    assert (done.state, done.troubled_files) == (SetState.COMPLETE, 1)
    assert rig.watcher.troubles == [(bytes(victim), "left out: it is no regular file any more")]
    found = entries(IndexReader(rig.home.index(set_id)))
    assert bytes(victim)[1:] not in found
    assert bytes(tree / "small-2")[1:] in found


def listing_with(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[object]], list[object]]) -> None:
    """Have the system list directories differently."""
    real = os.scandir

    class Listing:
        def __init__(self, path: object) -> None:
            with real(path) as found:  # type: ignore[call-overload]
                # A backup lists by descriptor or bytes; what else is listed meanwhile is not its tree.
                self._entries = list(found) if isinstance(path, str | os.PathLike) else change(list(found))

        def __enter__(self) -> Iterator[object]:
            return iter(self._entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(os, "scandir", Listing)


def test_a_name_that_is_listed_twice(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that changes while it is listed may show a name twice: it is in the backup once."""
    tree = random_files(tmp_path / "tree", 5, 1000)
    (tree / "below").mkdir()
    listing_with(monkeypatch, lambda found: found + found)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert rig.ledger.backup_set(set_id).state is SetState.COMPLETE
    assert snapshot(Path(f"{extract(rig, tmp_path / 'out')}{tree}")) == snapshot(tree)


def test_a_name_that_is_too_long(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some filesystems have names of more than 255 bytes, which no index can keep: left out, told and counted."""
    tree = random_files(tmp_path / "tree", 2, 1000)
    longest = b"\xe6\x97\xa5" * 86
    stranger = SimpleNamespace(name=longest, is_dir=lambda **_: False, is_file=lambda **_: True)
    listing_with(monkeypatch, lambda found: [*found, stranger])
    set_id = rig.backup(tree)
    monkeypatch.undo()
    done = rig.ledger.backup_set(set_id)
    assert (done.state, done.files, done.troubled_files) == (SetState.COMPLETE, 2, 1)
    assert rig.watcher.troubles == [(bytes(tree) + b"/" + longest, "left out: its name is longer than 255 bytes")]


def test_directories_that_cannot_be_read_are_counted(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set that lacks a whole directory does not call itself flawless."""
    tree = random_files(tmp_path / "tree", 2, 1000)
    random_files(tree / "closed", 2, 1000)
    real = os.open

    def refuse(path: object, *arguments: object, **options: object) -> int:
        if path == b"closed":
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert rig.watcher.troubles == [(bytes(tree / "closed"), "directory left out: Permission denied")]
    assert rig.ledger.backup_set(set_id).troubled_files == 1


class Meddler:
    """Does something whenever a file of that name is read, behind the first bytes of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, meddle: Callable[[int], None]) -> None:
        self.reads = 0
        self._name = name
        self._meddle = meddle
        self._real = os.preadv
        monkeypatch.setattr(os, "preadv", self._read)

    def _read(self, fd: int, buffers: list[memoryview], offset: int) -> int:
        got = self._real(fd, buffers, offset)
        if not offset and self._name in os.readlink(f"/proc/self/fd/{fd}"):
            self.reads += 1
            self._meddle(self.reads)
        return got


def check_sums(rig: Rig, set_id: SetId, tree: Path, contents: dict[str, bytes]) -> None:
    """The index has the sums of these contents, and tar restores them."""
    reader = IndexReader(rig.home.index(set_id))
    found = entries(reader)
    out = Path(f"{extract(rig, tree.parent / 'out')}{tree}")
    for name, content in contents.items():
        assert (out / name).read_bytes() == content
        entry = found[bytes(tree / name)[1:]]
        if content:
            assert reader.sha256(SegmentNo(entry.segment), entry.offset) == sha256(content).digest()
        assert entry.size == len(content)


@pytest.mark.parametrize(
    "after", [b"short", b"x" * 1000, b"y" * 100_000, b"z" * 4_700_000], ids=["short", "same", "longer", "over a frame"]
)
def test_a_small_file_that_changes_is_read_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bytes
) -> None:
    """What was read first is taken back: the file is in the backup as it is now, without a mark, as its neighbours."""
    tree = tmp_path / "tree"
    tree.mkdir()
    contents = {"a": b"before it", "b": b"x" * 999 + b"-", "c": b"behind it"}
    for name, content in contents.items():
        (tree / name).write_bytes(content)
    meddler = Meddler(monkeypatch, "tree/b", lambda reads: (tree / "b").write_bytes(after) if reads == 1 else None)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert meddler.reads == 2
    assert rig.watcher.troubles == []
    assert rig.ledger.backup_set(set_id).troubled_files == 0
    check_sums(rig, set_id, tree, contents | {"b": after})


def test_a_file_that_never_rests_is_kept_with_a_mark(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read twice, not more; it has its length and a mark, and is told once."""
    tree = random_files(tmp_path / "tree", 3, 1000)
    name = tree / "file-00001"
    meddler = Meddler(monkeypatch, "file-00001", lambda reads: (name.write_bytes(b"%d" % reads * 900), None)[1])
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert meddler.reads == 2
    assert rig.watcher.troubles == [(bytes(name), "kept with a mark: it changed while it was read")]
    entry = entries(IndexReader(rig.home.index(set_id)))[bytes(name)[1:]]
    assert entry.flags & EntryFlag.CHANGED
    assert rig.ledger.backup_set(set_id).troubled_files == 1
    others = {each: (tree / each).read_bytes() for each in ("file-00000", "file-00002")}
    check_sums(rig, set_id, tree, others | {"file-00001": b"1" * 900})


@pytest.mark.parametrize("how", ["replaced", "removed", "a link"])
def test_a_file_that_goes_away_while_it_is_read(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """If another has its name, that one is taken; if no file has it, what was read is kept, with a mark."""
    tree = random_files(tmp_path / "tree", 2, 1000)
    name = tree / "file-00000"
    before = name.read_bytes()

    def meddle(reads: int) -> None:
        if reads == 1 and how == "replaced":
            (tmp_path / "other").write_bytes(b"another")
            (tmp_path / "other").rename(name)
        elif reads == 1:
            name.unlink()
            if how == "a link":
                name.symlink_to("elsewhere")

    Meddler(monkeypatch, "file-00000", meddle)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    marked = entries(IndexReader(rig.home.index(set_id)))[bytes(name)[1:]].flags & EntryFlag.CHANGED
    assert bool(marked) == (how != "replaced")
    assert len(rig.watcher.troubles) == (how != "replaced")
    check_sums(rig, set_id, tree, {"file-00000": b"another" if how == "replaced" else before})


def test_a_file_that_cannot_be_read_to_its_end_is_not_read_again(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails is not asked twice: what is missing is zeros, with a mark."""
    tree = random_files(tmp_path / "tree", 1, 1000)
    name = tree / "file-00000"
    before = name.read_bytes()
    real = os.preadv
    asked: list[int] = []

    def failing(fd: int, buffers: list[memoryview], offset: int) -> int:
        if "file-00000" not in os.readlink(f"/proc/self/fd/{fd}"):
            return real(fd, buffers, offset)
        asked.append(offset)
        if offset:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, [buffers[0][:400]], offset)

    monkeypatch.setattr(os, "preadv", failing)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert asked == [0, 400]
    assert "reading failed at byte 400" in rig.watcher.troubles[0][1]
    check_sums(rig, set_id, tree, {"file-00000": before[:400] + bytes(600)})


def test_a_link_that_changes_while_it_is_looked_at(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at once more, and is in the backup as it is then."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to("before")
    real = os.readlink
    done: list[bool] = []

    def meddle(path: object, *arguments: object, **options: object) -> object:
        found = real(path, *arguments, **options)  # type: ignore[call-overload]
        if path == b"link" and not done:
            done.append(True)
            (tree / "new").symlink_to("after")
            (tree / "new").rename(tree / "link")
        return found

    monkeypatch.setattr(os, "readlink", meddle)
    set_id = rig.backup(tree)
    monkeypatch.undo()
    assert rig.watcher.troubles == []
    assert entries(IndexReader(rig.home.index(set_id)))[bytes(tree / "link")[1:]].target == b"after"
    assert os.readlink(f"{extract(rig, tmp_path / 'out')}{tree}/link") == "after"
