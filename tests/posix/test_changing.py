"""Nothing can be changed: every call that would is refused, and as on any other file system that is read-only."""

from __future__ import annotations

import errno
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mount.mount_process import mounted
from tests.posix.answers import answer
from tests.posix.changing import CHANGES, NOT_FOR_WRITING, WRITABLE, make_tree
from tests.posix.names import all_names, of_names
from tests.vfs.shelf import Shelf

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may try all of it"),
]


@dataclass
class Trees:
    """The same tree three times."""

    source: Path
    #: In tapefs's mount.
    root: Path
    mount_point: Path


@pytest.fixture(scope="module")
def trees() -> Iterator[Trees]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = make_tree(folder / "source")
        with closing(Shelf(folder / "home")) as shelf:
            shelf.add_set(source)
            shelf.stage_all()
            with mounted(shelf.home.path, folder / "mnt", folder / "log") as mount:
                yield Trees(source, mount.path / "jobs/docs/latest" / source.relative_to("/"), mount.path)


@pytest.fixture(scope="module")
def read_only(trees: Trees) -> Iterator[Path]:
    """The source as the kernel shows it read-only."""
    folder = trees.source.parent / "read-only"
    folder.mkdir()
    done = subprocess.run(["mount", "--bind", "-o", "ro", trees.source, folder], stderr=subprocess.PIPE)
    if done.returncode != 0:
        pytest.skip(f"bind mounts are not allowed here: {done.stderr.decode()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("word", CHANGES)
def test_each_change_is_refused(trees: Trees, word: str) -> None:
    before = all_names(os.fsencode(trees.source))
    assert answer(lambda: CHANGES[word](trees.root)) == errno.errorcode[NOT_FOR_WRITING.get(word, errno.EROFS)]
    assert list(of_names(os.fsencode(trees.source), os.fsencode(trees.root))) == []
    assert all_names(os.fsencode(trees.source)) == before


def test_each_is_refused_as_elsewhere(trees: Trees, read_only: Path) -> None:
    for word, change in CHANGES.items():
        wanted, found = (answer(lambda: change(top)) for top in (read_only, trees.root))  # noqa: B023
        assert found == wanted, word


def test_they_would_change_something_where_they_may(tmp_path: Path) -> None:
    """The same calls on a tree that can be changed: but for what nobody allows, they are done."""
    refused = {}
    for number, (word, change) in enumerate(CHANGES.items()):
        found = answer(lambda: change(make_tree(tmp_path / str(number))))  # noqa: B023
        if found.isupper():
            refused[word] = found
    # One of them cannot be changed from now on: nobody could clear it away.
    subprocess.run(["chattr", "-R", "-f", "-i", tmp_path], check=False)
    missing = {"unlink of a missing name", "rename of a missing name", "removexattr of a missing one"}
    assert set(refused) - missing <= {*NOT_FOR_WRITING, "setxattr of a capability", "rename of a directory"}


def test_the_virtual_part_cannot_be_changed_either(trees: Trees) -> None:
    top = trees.mount_point
    for change in (
        lambda: os.mkdir(top / "new"),
        lambda: os.unlink(top / "README.txt"),
        lambda: os.rename(top / "jobs/docs", top / "jobs/other"),
        lambda: os.rmdir(top / "jobs/docs/latest/"),
        lambda: os.unlink(top / "jobs/docs/latest"),
        lambda: os.chmod(top / "tapes", 0o777),
        lambda: os.symlink("x", top / "sets/x"),
        lambda: os.truncate(top / "README.txt", 0),
    ):
        assert answer(change) == "EROFS"
    assert not os.access(trees.root / "file", os.W_OK)


def test_remounted_for_writing_it_still_refuses(trees: Trees) -> None:
    """Root may tell the kernel to let writes through; then it is the mount that refuses."""
    done = subprocess.run(["mount", "-i", "-o", "remount,rw", trees.mount_point], stderr=subprocess.PIPE)
    if done.returncode != 0:
        pytest.skip(f"the kernel does not remount: {done.stderr.decode()}")
    try:
        for word, change in CHANGES.items():
            expected = errno.errorcode[WRITABLE.get(word, errno.EROFS)]
            assert answer(lambda: change(trees.root)) == expected, word  # noqa: B023
    finally:
        subprocess.run(["mount", "-i", "-o", "remount,ro", trees.mount_point], check=True)
    assert list(of_names(os.fsencode(trees.source), os.fsencode(trees.root))) == []
