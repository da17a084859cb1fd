"""A few seconds of `scripts/soak`, and a disk that fills up while frames come from tape."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tapefs.staging.check import check_staging
from tests.mount.soak import soak
from tests.mount.world import World, world

pytestmark = pytest.mark.fuse

MIB = 1024**2


@pytest.mark.slow
def test_no_byte_is_wrong_whoever_is_killed(tmp_path):
    """That no byte was wrong is asserted in there; the figures tell that readers and killers were at work."""
    figures = soak(tmp_path, 6.0, pause_s=1.0, seed=3)
    # Some 130 on an idle machine, 6 with a load of 60.
    assert figures["reads"]["right"] > 0
    assert sum(figures["kills"].values()) >= 1


@contextmanager
def small_disk(at: World, size_bytes: int) -> Iterator[None]:
    """The staging folder is a file system of its own, of that size."""
    at.home.staging.mkdir(exist_ok=True)
    if os.geteuid():
        pytest.skip("only root may mount a small file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=700", "tmpfs", str(at.home.staging)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at.home.staging)], check=True)


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[World]:
    """24 MB of files, a disk of 14 MiB for them, and a limit that says there is plenty of room."""
    with world(tmp_path, files=12, file_bytes=3_000_000, staging="limit_bytes = 1_000_000_000") as at:
        with small_disk(at, 14 * MIB):
            try:
                yield at
            finally:
                at.end()


def read(path: Path) -> bytes | int:
    """Return the content, or the errno of the error."""
    try:
        return path.read_bytes()
    except OSError as error:
        return error.errno or 0


def test_readers_get_their_bytes_though_the_disk_is_full(crowded):
    """Room is made by dropping frames: everybody is served, several at once and over and over."""
    tree = crowded.mount("mnt")
    names = sorted(os.listdir(crowded.source))
    wrong: list[str] = []

    def reader(order: list[str]) -> None:
        for name in order:
            if read(tree / name) != (crowded.source / name).read_bytes():
                wrong.append(name)

    threads = [threading.Thread(target=reader, args=(order,)) for order in (names, names[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
        assert not thread.is_alive()
    assert not wrong
    assert check_staging(crowded.home.staging, repair=False).is_clean
    assert "the disk of the staging area is full" in crowded.log()


def test_a_disk_full_of_pins_is_a_clear_error_and_no_hang(crowded):
    """Pins fill the disk (the limit is larger than it): a read is told so at once; when one ends, it gets its bytes."""
    tree = crowded.mount("mnt")
    names = [name for name in sorted(os.listdir(crowded.source)) if (crowded.source / name).stat().st_size > MIB]
    # As many as fit, each whole or not at all.
    for name in names:
        if crowded.run("stage", f"docs:{crowded.source}/{name}", "--pin", "1h").returncode:
            break
    began_s = time.monotonic()
    assert read(tree / names[-1]) in (errno.EIO, errno.ENOSPC)
    assert time.monotonic() - began_s < 20
    assert "all that is there is pinned or open" in crowded.log()
    assert crowded.run("unpin", "--all").returncode == 0
    assert read(tree / names[-1]) == (crowded.source / names[-1]).read_bytes()
