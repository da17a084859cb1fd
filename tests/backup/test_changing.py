"""Sources that change between listing and reading, and names that no index can keep."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

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

    rig = make_rig(tapes=1, tape_bytes=20_000 * _MIB)
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
        def __init__(self, path: bytes) -> None:
            with real(path) as found:
                self._entries = change(list(found))

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
