"""What a job leaves out of its sources, seen in the set it makes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from catalog.index.reader import IndexReader
from tapefs.backup.rules import CACHE_SIGNATURE
from tests.backup.rig import Rig
from tests.backup.trees import entries


def backed_up(rig: Rig, *sources: Path, **fields: Any) -> set[str]:
    """The paths below the first source that are in a set made so, which must be without troubles."""
    found = entries(IndexReader(rig.home.index(rig.backup(*sources, **fields))))
    assert rig.watcher.troubles == []
    below = bytes(sources[0])[1:] + b"/"
    return {os.fsdecode(path[len(below) :]) for path in found if path.startswith(below)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    for name in ("a.txt", "b.o", "sub/c.txt", "sub/d.o", "sub/deep/e.txt"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    return tree


def test_patterns_of_a_job(rig: Rig, tree: Path) -> None:
    assert backed_up(rig, tree, excludes=("*.o", "/sub/deep/")) == {"a.txt", "sub", "sub/c.txt"}
    assert backed_up(rig, tree, excludes=("*.o", "!/b.o", f"{tree}/sub")) == {"a.txt", "b.o"}


def test_what_is_named_is_not_left_out(rig: Rig, tree: Path) -> None:
    """Not by patterns, not by bounds, not as a cache."""
    (tree / "CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE)
    fields: dict[str, Any] = {"excludes": ("tree", "b.o"), "exclude_caches": True}
    assert "sub/c.txt" in backed_up(rig, tree, **fields)
    assert backed_up(rig, tree / "sub", tree / "b.o", max_bytes=1) == {"deep"}


def test_caches_are_left_out_but_for_their_tag(rig: Rig, tree: Path) -> None:
    """As GNU tar's --exclude-caches decides; a tag without the signature, or as a link, is none."""
    for name in ("sub", "no", "link"):
        (tree / name).mkdir(exist_ok=True)
        (tree / name / "content").write_text("x")
    (tree / "sub/CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE + b"\n# by somebody\n")
    (tree / "no/CACHEDIR.TAG").write_text("Signature: another")
    os.symlink(tree / "sub/CACHEDIR.TAG", tree / "link/CACHEDIR.TAG")
    found = backed_up(rig, tree, exclude_caches=True)
    command = ["tar", "-c", "--exclude-caches", "-C", tree, "--warning=no-cachedir", "."]
    archive = subprocess.run(command, capture_output=True, check=True).stdout
    listed = subprocess.run(["tar", "-t"], input=archive, capture_output=True, check=True).stdout.decode().split()
    expected = {name.strip("./") for name in listed if name != "./"}
    assert found == expected
    assert {name for name in found if name.startswith(("sub/", "link/"))} == {
        "sub/CACHEDIR.TAG",
        "link/CACHEDIR.TAG",
        "link/content",
    }
    assert "sub/deep/e.txt" in backed_up(rig, tree, exclude_caches=False)


def test_sizes(rig: Rig, tree: Path) -> None:
    """Both ends belong; directories and links have no size that counts."""
    for name, size in (("s1", 999), ("s2", 1000), ("s3", 2000), ("s4", 2001)):
        (tree / name).write_bytes(bytes(size))
    os.symlink("s1", tree / "l")
    assert backed_up(rig, tree, min_bytes=1000, max_bytes=2000) == {"s2", "s3", "l", "sub", "sub/deep"}
    assert backed_up(rig, tree, min_bytes=2001) == {"s4", "l", "sub", "sub/deep"}
    assert "a.txt" in backed_up(rig, tree, max_bytes=5)
    assert "s1" not in backed_up(rig, tree, max_bytes=5)


def test_ages(rig: Rig, tree: Path) -> None:
    """By the mtime when the run begins; a file from the future is newer than any age."""
    now = time.time()
    for name, age_s in (("week", 7 * 86_400), ("day", 86_400), ("minute", 60), ("future", -3600)):
        (tree / name).write_text("")
        os.utime(tree / name, (now - age_s,) * 2)
    old = {"week", "day", "minute", "future"}
    assert backed_up(rig, tree, max_age_s=2 * 86_400) & old == {"day", "minute", "future"}
    assert backed_up(rig, tree, min_age_s=3600) & old == {"week", "day"}
    assert backed_up(rig, tree, min_age_s=3600, max_age_s=2 * 86_400) & old == {"day"}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")
def test_one_file_system(rig: Rig, tree: Path) -> None:
    """A mount point is there, empty; a source that is one is taken whole."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tapefs-test", tree / "sub"], check=True)
    try:
        (tree / "sub/other").mkdir()
        (tree / "sub/other/file").write_text("x")
        assert backed_up(rig, tree, one_file_system=True) == {"a.txt", "b.o", "sub"}
        assert backed_up(rig, tree) == {"a.txt", "b.o", "sub", "sub/other", "sub/other/file"}
        assert backed_up(rig, tree / "sub", one_file_system=True) == {"other", "other/file"}
    finally:
        subprocess.run(["umount", tree / "sub"], check=True)
