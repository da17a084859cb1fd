"""Sets of 7z segments: every kind of file, files over segments and tapes, and a disk without room for the archive."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catalog.errors import StorageFailed
from catalog.records import SetState
from tapefs.backup import payload
from tapefs.errors import CodecFailed, UsageError
from tests.backup.rig import Rig, rigs
from tests.backup.trees import payloads, random_files
from tests.compare.every_kind import every_kind
from tests.compare.look import differences, look
from tests.compare.ways_back import bring_back

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


def _extract(rig: Rig, target: Path) -> dict[str, bytes]:
    """Unpack all payloads with 7z; return the contents of the files by path from the root."""
    target.mkdir()
    for each in payloads(rig):
        subprocess.run(["7z", "x", "-aoa", "-snld", f"-o{target}", each], check=True, capture_output=True)
    files = (Path(folder) / name for folder, _, names in os.walk(target) for name in names)
    return {str(path)[len(str(target)) :]: path.read_bytes() for path in files if not path.is_symlink()}


@needs_root
def test_every_kind_of_file_comes_back(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """What 7z cannot hold is in the trailer: all comes back but the holes, over many segments and split files too."""
    tree = every_kind(tmp_path / "tree")
    (tree / "sparse/huge").unlink(missing_ok=True)
    rig = make_rig(tapes=4, tape_bytes=512 * 1024**2, backup_settings="segment_bytes = 3145728")
    set_id = rig.backup(tree, codec="py7zr", level=0)
    assert len(payloads(rig)) > 10
    bring_back(rig, set_id, tmp_path / "out")
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree), ignore=("data",)) == []


@pytest.mark.parametrize("name", ["py7zr", "7zip_command"])
def test_files_over_segments_and_tapes(make_rig: Callable[..., Rig], tmp_path: Path, name: str) -> None:
    """Each segment is an archive of its own; a file larger than one lies in parts that `cat` joins."""
    tree = random_files(tmp_path / "tree", 25, 500_000)
    (tree / "large").write_bytes(os.urandom(7_000_000))
    (tree / "zz").write_text("behind it")
    os.link(tree / "zz", tree / "zz-too")
    rig = make_rig(tapes=4, tape_bytes=24 * 1024**2)
    set_id = rig.backup(tree, codec=name, level=1)
    assert len(rig.ledger.backup_set(set_id).tapes) > 1
    found = _extract(rig, tmp_path / "foreign")
    parts = sorted(path for path in found if "/large.tapefs-part-" in path)
    assert len(parts) > 1
    assert b"".join(found.pop(path) for path in parts) == (tree / "large").read_bytes()
    # Another name of a file in the same archive is in the trailer only.
    expected = {str(path): path.read_bytes() for path in tree.iterdir() if path.name not in ("large", "zz-too")}
    assert found == expected
    bring_back(rig, set_id, tmp_path / "out")
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree)) == []


def test_sets_without_content(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Directories and empty files make an archive without a single block, and a set."""
    tree = tmp_path / "tree"
    (tree / "deep/er").mkdir(parents=True)
    (tree / "deep/empty").touch()
    rig = make_rig()
    set_id = rig.backup(tree, codec="py7zr", level=5)
    assert _extract(rig, tmp_path / "foreign") == {f"{tree}/deep/empty": b""}
    bring_back(rig, set_id, tmp_path / "out")
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree)) == []


def test_an_incremental_set_in_another_codec(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A set builds on one in another format: each segment is read in its own."""
    tree = random_files(tmp_path / "tree", 5, 100_000)
    rig = make_rig()
    job = rig.queued(tree)
    rig.run(job)
    (tree / "new").write_bytes(os.urandom(200_000))
    (tree / "file-00002").write_bytes(b"other")
    set_id = rig.again(job, type="incremental", codec="py7zr", level=3)
    assert {segment.codec for each in rig.ledger.backup_sets() for segment in rig.ledger.segments(each.set_id)} == {
        "zstd",
        "7z",
    }
    bring_back(rig, set_id, tmp_path / "out")
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree)) == []


@needs_root
@pytest.mark.parametrize("checked", [True, False])
def test_a_disk_without_room(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: bool
) -> None:
    """Too little room is told before a tape is touched; a disk that fills up meanwhile fails the job, not the tape."""
    tree = random_files(tmp_path / "tree", 12, 1_000_000)
    rig = make_rig(backup_settings="segment_bytes = 16777216")
    rig.home.spool.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", rig.home.spool], check=True)
    try:
        if not checked:
            monkeypatch.setattr(payload, "archive_room", lambda scratch, needed_bytes: 2**40)
            monkeypatch.setattr("tapefs.backup.cutter.archive_room", lambda scratch, needed_bytes: 2**40)
        asked = rig.watcher.asked
        with pytest.raises(StorageFailed, match=r"spool.*(room for|No space)"):
            rig.backup(tree, codec="py7zr", level=0)
        assert (rig.watcher.asked == asked) is checked
        assert os.listdir(rig.home.spool) == []
    finally:
        subprocess.run(["umount", rig.home.spool], check=True)
    assert [each.state for each in rig.ledger.backup_sets()] == [SetState.FAILED]
    set_id = rig.backup(tree, codec="py7zr", level=0)
    bring_back(rig, set_id, tmp_path / "out")
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree)) == []


def test_segments_shrink_to_the_room(
    make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a whole segment would not fit the disk, more and smaller ones are made."""
    tree = random_files(tmp_path / "tree", 10, 1_000_000)
    monkeypatch.setattr("tapefs.backup.cutter.archive_room", lambda scratch, needed_bytes: 3_000_000)
    rig = make_rig(backup_settings="segment_bytes = 33554432")
    rig.backup(tree, codec="py7zr", level=0)
    assert len(payloads(rig)) == 5


def test_without_the_program(make_rig: Callable[..., Rig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing 7z is told before a set or a tape is touched; one that fails fails the job with its words."""
    tree = random_files(tmp_path / "tree", 2, 1000)
    rig = make_rig()
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(UsageError, match="needs the program 7z"):
        rig.backup(tree, codec="7zip_command", level=5)
    assert (rig.watcher.asked, rig.ledger.backup_sets()) == (0, [])
    (programs / "7z").write_text("#!/bin/sh\necho out of order >&2\nexit 2\n")
    (programs / "7z").chmod(0o755)
    with pytest.raises(CodecFailed, match="ended with 2: out of order"):
        rig.backup(tree, codec="7zip_command", level=5)
    (programs / "7z").write_text("#!/bin/sh\necho nonsense that is longer than any header\n")
    with pytest.raises(CodecFailed, match="has not made an xz file"):
        rig.backup(tree, codec="7zip_command", level=5)
    assert {each.state for each in rig.ledger.backup_sets()} == {SetState.FAILED}
