"""What the writer does while others are at work in the target, step by step."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tapefs.restore import beneath
from tapefs.restore.writer import SafeWriter


class Plain(NamedTuple):
    """Owner, mode and time of what is restored: ours, so that no test needs root."""

    mode: int
    uid: int = os.getuid()
    gid: int = os.getgid()
    mtime_ns: int = 1_500_000_000_000_000_001


@pytest.fixture
def open_umask() -> Iterator[None]:
    """What the mask takes away is not what the writer has taken away."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def writer(target: Path) -> Iterator[SafeWriter]:
    made = SafeWriter(target, overwrite=False)
    yield made
    made.close()


def test_a_file_that_appears_while_its_content_is_written_stays(writer, target):
    file = writer.new_file(b"name")
    file.write_at(0, b"theirs")
    (target / "name").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        file.finish(6, Plain(stat.S_IFREG | 0o644), ())
    assert os.listdir(target) == ["name"]
    assert (target / "name").read_bytes() == b"mine"


@pytest.mark.parametrize("make", ["make_symlink", "make_node"])
def test_a_file_that_is_there_is_no_link_or_node_afterwards(writer, target, make):
    (target / "name").write_bytes(b"mine")
    attributes = Plain(stat.S_IFIFO | 0o644)
    with pytest.raises(FileExistsError):
        getattr(writer, make)(b"name", b"elsewhere" if make == "make_symlink" else 0, attributes, ())
    assert os.listdir(target) == ["name"]
    assert (target / "name").read_bytes() == b"mine"


def test_nobody_else_looks_in_before_it_is_finished(writer, target, open_umask):
    """Others must not read what only its owner may, nor put something into a directory that is not theirs."""
    made = writer.make_directory(b"d")
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o700
    file = writer.new_file(b"d/name")
    (unfinished,) = (target / "d").iterdir()
    assert unfinished.name.startswith(".tapefs-")
    assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600
    file.finish(0, Plain(stat.S_IFREG | 0o640), ())
    writer.finish_directory(b"d", made, Plain(stat.S_IFDIR | 0o751), ())
    assert stat.S_IMODE((target / "d/name").stat().st_mode) == 0o640
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o751


def test_a_directory_that_was_exchanged_gets_no_attributes(writer, target, monkeypatch):
    """It is somebody's; opened anew by name, it is another one."""
    monkeypatch.setattr(beneath, "_KEPT_OPEN", 1)
    made = writer.make_directory(b"d")
    writer.make_directory(b"other")
    (target / "d").rename(target / "away")
    (target / "d").mkdir(mode=0o700)
    before = (target / "d").stat()
    with pytest.raises(OSError, match="replaced by another one"):
        writer.finish_directory(b"d", made, Plain(stat.S_IFDIR | 0o777), ((b"user.a", b"1"),))
    after = (target / "d").stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_mode,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )
