"""File handles, which NFS servers give to their clients, outlive what the kernel remembers, and the mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.mount.mount_process import mounted
from tests.posix.calls import Handle, name_to_handle, open_by_handle
from tests.posix.names import drop_caches
from tests.vfs.shelf import Shelf

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may open by handle"),
]

NAMES = ["deep/er/and/deeper", "deep/er", "deep/file", "other", "deep/link", "."]


@contextmanager
def descriptor(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def taken(root: Path) -> dict[str, tuple[Handle, int]]:
    """Return handle and inode of each name."""
    return {name: (name_to_handle(os.fsencode(root / name)), os.lstat(root / name).st_ino) for name in NAMES}


def check(mount_point: Path, source: Path, handles: dict[str, tuple[Handle, int]]) -> None:
    with descriptor(mount_point) as top:
        for name, (handle, inode) in handles.items():
            is_link = (source / name).is_symlink()
            fd = open_by_handle(top, handle, os.O_PATH if is_link else os.O_RDONLY)
            try:
                assert os.fstat(fd).st_ino == inode
                if (source / name).is_dir() and not is_link:
                    assert sorted(os.listdir(fd)) == sorted(os.listdir(source / name))
                    # Connected with the root, by asking for the parent of the parent.
                    assert os.readlink(f"/proc/self/fd/{fd}").endswith(os.path.normpath(source / name))
                elif not is_link:
                    assert os.read(fd, 100) == (source / name).read_bytes()
            finally:
                os.close(fd)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep/er/and/deeper").mkdir(parents=True)
    (source / "deep/file").write_text("file")
    (source / "deep/link").symlink_to("file")
    (source / "other").write_text("other")
    return source


def test_they_outlive_caches_and_mounts(tmp_path: Path, source: Path) -> None:
    with closing(Shelf(tmp_path / "home")) as shelf:
        shelf.add_set(source)
        shelf.stage_all()
        with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
            handles = taken(mount.path / "jobs/docs/latest" / source.relative_to("/"))
            tops = {name: name_to_handle(os.fsencode(mount.path / name)) for name in ("jobs", "sets", "README.txt")}
            drop_caches()
            check(mount.path, source, handles)
        # Another set and another mount between.
        shelf.add_set(source / "deep", name="another")
        with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log2") as mount:
            check(mount.path, source, handles)
            with descriptor(mount.path) as top:
                for name, handle in tops.items():
                    fd = open_by_handle(top, handle, os.O_PATH)
                    assert os.fstat(fd).st_ino == (mount.path / name).stat().st_ino
                    os.close(fd)


def test_one_of_another_set_is_stale(tmp_path: Path, source: Path) -> None:
    with closing(Shelf(tmp_path / "home")) as shelf, closing(Shelf(tmp_path / "home2")) as other:
        shelf.add_set(source)
        other.add_set(source)
        with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
            handles = taken(mount.path / "jobs/docs/latest" / source.relative_to("/"))
        # The same numbers, and other sets: the generation in the handle tells them apart.
        with mounted(other.home.path, tmp_path / "mnt", tmp_path / "log2") as mount, descriptor(mount.path) as top:
            for handle, _ in handles.values():
                with pytest.raises(OSError, match="Stale"):
                    open_by_handle(top, handle, os.O_PATH)
