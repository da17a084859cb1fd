"""Small staged files: their bytes come with the opening, and one pin serves many of them for a moment."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tapefs.mount.stages import Stages
from tapefs.mount.tuning import takes_bytes
from tapefs.staging.area import StagingArea
from tests.mount.conftest import Rig
from tests.mount.mount_process import mounted
from tests.mount.test_content import MAPPED, readers, wait_until_waiting
from tests.staging.content import SEGMENT, frame_content, opened, publish_all

given = pytest.mark.skipif(not takes_bytes(os.uname().release), reason="an old kernel is given no bytes")

LIBC = ctypes.CDLL(None, use_errno=True)


def cached_pages(descriptor: int) -> list[bool]:
    """Tell of each page of a file whether the kernel has it at hand; nothing is read for that."""
    size = os.fstat(descriptor).st_size
    mapping = mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    residence = (ctypes.c_ubyte * (-(-size // mmap.PAGESIZE)))()
    with closing(mapping):
        begin = ctypes.c_char.from_buffer(mapping)
        done = LIBC.mincore(ctypes.byref(begin), ctypes.c_size_t(size), residence)
        del begin
    assert done == 0, os.strerror(ctypes.get_errno())
    return [bool(page & 1) for page in residence]


@pytest.fixture
def fresh(evicted: Rig, tmp_path: Path) -> Iterator[Rig]:
    """A mount of which the kernel knows nothing."""
    with mounted(evicted.shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        yield replace(evicted, mount=mount)


# -- through the mount -----------------------------------------------------------------------------------------------


@given
@pytest.mark.fuse
def test_the_bytes_of_a_small_file_come_with_its_opening(fresh: Rig) -> None:
    fresh.shelf.stage_all()
    for number in range(100):
        name = f"small/file-{number:03}"
        with open(fresh.root / name, "rb", buffering=0) as file:
            assert all(cached_pages(file.fileno()))
            assert file.readall() == (fresh.source / name).read_bytes()
    with open(fresh.root / "large.bin", "rb", buffering=0) as large:
        assert not any(cached_pages(large.fileno()))


@pytest.mark.fuse
def test_behind_the_end_of_a_mapped_small_file_are_zeros(fresh: Rig) -> None:
    fresh.shelf.stage_all()
    # What may be in memory that was used before.
    with closing(mmap.mmap(-1, 64 * 1024**2)) as used:
        used.write(b"\xa5" * len(used))
    for number in range(200):
        with open(fresh.root / f"small/file-{number:03}", "rb") as file:
            size = os.fstat(file.fileno()).st_size
            with closing(mmap.mmap(file.fileno(), size, flags=mmap.MAP_PRIVATE)) as mapping:
                begin = ctypes.c_char.from_buffer(mapping)
                behind = ctypes.string_at(ctypes.addressof(begin) + size, -size % mmap.PAGESIZE)
                del begin
            assert not behind.strip(b"\0"), number


@given
@pytest.mark.fuse
def test_bytes_that_the_kernel_has_dropped_are_asked_for_and_given_again(fresh: Rig) -> None:
    fresh.shelf.stage_all()
    wanted = (fresh.source / "small/file-007").read_bytes()
    for _ in range(3):
        with open(fresh.root / "small/file-007", "rb", buffering=0) as file:
            assert all(cached_pages(file.fileno()))
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert not any(cached_pages(file.fileno()))
            assert file.readall() == wanted


@pytest.mark.fuse
def test_who_reads_past_the_cache_gets_the_bytes(fresh: Rig) -> None:
    fresh.shelf.stage_all()
    descriptor = os.open(fresh.root / "text", os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.read(descriptor, 100) == b"hello\n"
        assert not any(cached_pages(descriptor))
    finally:
        os.close(descriptor)


@given
@pytest.mark.fuse
def test_a_cold_file_comes_with_its_opening_only_once_it_is_staged(fresh: Rig) -> None:
    with open(fresh.root / "text", "rb", buffering=0) as file:
        assert not any(cached_pages(file.fileno()))
        assert fresh.sidecar.waiters == []
        assert file.readall() == b"hello\n"
    time.sleep(0.1)
    with open(fresh.root / "text", "rb", buffering=0) as file:
        assert all(cached_pages(file.fileno()))


@pytest.mark.fuse
def test_opening_does_not_wait_for_a_page_that_is_on_its_way(fresh: Rig) -> None:
    """Were the kernel given the bytes while it waits for us to read them, it would wait for itself, and we for it."""
    fresh.sidecar.delay_s = None
    path = fresh.root / "text"
    try:
        with readers([path], MAPPED) as [mapping]:
            wait_until_waiting(fresh)
            # Nobody tells the mount, so the page stays locked for a while.
            fresh.shelf.stage_all()
            for _ in range(20):
                with readers([path], "os.close(os.open(path, 0)); print('opened')") as [process]:
                    assert process.communicate(timeout=60)[0] == b"opened\n"
            assert mapping.communicate(timeout=60)[0] == b"104\n"
    finally:
        fresh.sidecar.delay_s = 0.0


@pytest.mark.fuse
def test_small_files_by_many_readers_while_frames_are_dropped(fresh: Rig) -> None:
    """Opened, read, mapped and closed by several processes at once, the kernel's pages dropped now and then."""
    program = (
        "import random, mmap\n"
        "top, source, seed = sys.argv[1:]\n"
        "chance = random.Random(int(seed))\n"
        "for _ in range(400):\n"
        "    name = f'small/file-{chance.randrange(60):03}'\n"
        "    wanted = open(f'{source}/{name}', 'rb').read()\n"
        "    with open(f'{top}/{name}', 'rb', buffering=0) as file:\n"
        "        how = chance.randrange(4)\n"
        "        if how == 0:\n"
        "            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)\n"
        "        if how == 1:\n"
        "            found = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ, flags=mmap.MAP_PRIVATE)[:]\n"
        "        else:\n"
        "            found = file.readall()\n"
        "    assert found == wanted, name\n"
    )
    fresh.shelf.stage_all()
    command = [sys.executable, "-c", f"import os, sys\n{program}", str(fresh.root), str(fresh.source)]
    processes = [subprocess.Popen([*command, str(seed)], stderr=subprocess.PIPE) for seed in range(3)]
    try:
        while any(process.poll() is None for process in processes):
            StagingArea(fresh.shelf.home.staging).evict_all()
            time.sleep(0.3)
    finally:
        for process in processes:
            process.kill()
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()


# -- pins ------------------------------------------------------------------------------------------------------------


def test_a_shared_pin_lasts_until_the_next_rest(tmp_path: Path) -> None:
    with opened(tmp_path) as other:
        publish_all(other)
        with closing(Stages(tmp_path)) as stages:
            stages.rest()
            stage = stages.take(SEGMENT)
            assert stage is not None
            first, second = stages.pin(stage, range(3, 4)), stages.pin(stage, range(3, 4))
            assert first is not None
            assert second is not None
            first.release()
            stages.rest()
            assert other.evict(range(3, 4)) == 0, "somebody still uses it"
            second.release()
            again = stages.pin(stage, range(3, 4))
            assert again is not None
            stages.rest()
            assert other.evict(range(3, 4)) == 0, "it was taken again before the rest"
            again.release()
            assert other.evict(range(3, 4)) == 0, "there was no rest yet"
            stages.rest()
            assert other.evict(range(3, 4)) > 0
            assert stages.pin(stage, range(3, 4)) is None
            stages.give_back(stage)


def test_nothing_outlasts_its_use_where_nobody_rests(tmp_path: Path) -> None:
    with opened(tmp_path) as other, closing(Stages(tmp_path)) as stages:
        publish_all(other)
        stage = stages.take(SEGMENT)
        assert stage is not None
        pin = stages.pin(stage, range(1))
        assert pin is not None
        pin.release()
        assert other.evict(range(1)) > 0
        stages.give_back(stage)


def test_a_pinned_frame_that_was_found_wrong_is_not_pinned_again(tmp_path: Path) -> None:
    with opened(tmp_path) as other, closing(Stages(tmp_path)) as stages:
        publish_all(other)
        stages.rest()
        stage = stages.take(SEGMENT)
        assert stage is not None
        pin = stages.pin(stage, range(2, 3))
        assert pin is not None
        plain = tmp_path / f"{SEGMENT}.plain"
        with plain.open("r+b") as file:
            file.seek(other.extent_of(2)[0])
            file.write(b"\0wrong\0")
        assert other.is_intact(2, drop=True) is False
        assert stages.pin(stage, range(2, 3)) is None
        other.publish(2, memoryview(frame_content(other, 2)))
        more = stages.pin(stage, range(2, 3))
        assert more is not None
        for each in (pin, more):
            each.release()
        stages.give_back(stage)


def test_files_that_were_removed_are_noticed_after_a_rest(tmp_path: Path) -> None:
    with opened(tmp_path) as other, closing(Stages(tmp_path)) as stages:
        publish_all(other)
        stages.rest()
        first = stages.take(SEGMENT)
        assert first is not None
        for path in tmp_path.iterdir():
            path.unlink()
        assert stages.take(SEGMENT) is first
        stages.give_back(first)
        stages.rest()
        assert stages.take(SEGMENT) is None
        stages.give_back(first)


@pytest.mark.parametrize(
    ("release", "wanted"),
    [
        ("6.11.0", True),
        ("6.18.44-generic", True),
        ("7.0-rc1", True),
        ("6.10.14", False),
        ("6.1.0-13-amd64", False),
        ("5.15.0", False),
        ("strange", False),
    ],
)
def test_which_kernels_are_given_bytes(release: str, wanted: bool) -> None:
    assert takes_bytes(release) is wanted
