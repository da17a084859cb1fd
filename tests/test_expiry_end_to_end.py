"""A set expires under a mount that shows it, and under readers that have files of it open."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.test_end_to_end import Installation, pytestmark, wait_until

__all__ = ["pytestmark"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    place = Installation(tmp_path)
    place.run("init")
    yield place
    place.close()


def errno_of(act: Callable[[], object]) -> int:
    """With which errno an act fails; 0: it does not."""
    try:
        act()
    except OSError as error:
        return error.errno or 0
    return 0


def test_an_expired_set_vanishes_and_open_files_read_on(place: Installation, tmp_path: Path) -> None:
    """Staged or not: what is on tape is fetched for whoever had the file open. New looks find nothing."""
    tree = tmp_path / "tree"
    tree.mkdir()
    content = os.urandom(300_000)
    for name in ("staged", "cold"):
        (tree / name).write_bytes(content)
    first = place.backup(tree, "--name", "docs")
    second = place.backup(tree, "--name", "docs")
    place.serve()
    jobs = place.mount_point / "jobs/docs"
    folders = sorted(each for each in os.listdir(jobs) if each != "latest")
    assert len(folders) == 2
    old = jobs / folders[0] / str(tree)[1:]
    with (old / "staged").open("rb") as staged, (old / "cold").open("rb") as cold:
        assert staged.read(1000) == content[:1000]
        directory = os.open(old, os.O_RDONLY)
        place.run("expire", first, "--apply")
        wait_until(lambda: os.listdir(jobs) == [folders[1], "latest"], "the set to vanish")
        assert staged.read() == content[1000:]
        assert cold.read() == content
        assert errno_of((old / "other").stat) in (errno.ENOENT, errno.ESTALE)
        assert errno_of(lambda: os.listdir(directory)) in (0, errno.ENOENT, errno.ESTALE)
        os.close(directory)
    contents = (place.mount_point / "tapes/TP0001L9/CONTENTS.txt").read_text()
    assert second in contents
    assert (jobs / "latest" / str(tree)[1:] / "cold").read_bytes() == content
    assert [each["set_id"] for each in place.listing("sets")] == [second]
