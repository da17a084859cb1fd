"""A directory of a million names: opening it costs what opening a short one costs, and listing it takes no memory."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.mount.mount_process import Mounted, mounted
from tests.posix.calls import getdents
from tests.vfs.shelf import Shelf

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]

COUNT = 1_000_000
SHORT = 2000
TURNS = 40
LISTED = 200_000


@pytest.fixture(scope="module")
def mount() -> Iterator[Mounted]:
    with tempfile.TemporaryDirectory() as name, closing(Shelf(Path(name) / "home")) as shelf:
        shelf.add_long({"long": COUNT, "short": SHORT})
        with mounted(shelf.home.path, Path(name) / "mnt", Path(name) / "log") as made:
            yield made


def root(mount: Mounted) -> Path:
    return mount.path / "jobs/long/latest"


def memory_bytes(mount: Mounted) -> int:
    pages = Path(f"/proc/{mount.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def first_page_s(folder: Path) -> float:
    begin_s = time.perf_counter()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    assert len(getdents(fd, 4096)) > 20
    seconds = time.perf_counter() - begin_s
    os.close(fd)
    return seconds


def test_opening_a_long_one_costs_its_first_page(mount: Mounted) -> None:
    times: dict[str, list[float]] = {"long": [], "short": []}
    for _ in range(TURNS):
        for name, seconds in times.items():
            seconds.append(first_page_s(root(mount) / name))
    # The whole of it would take some two thousand times as long.
    # The quickest: on a busy machine many turns wait for a processor.
    assert min(times["long"]) < 4 * min(times["short"])


def test_going_on_from_anywhere_costs_a_page(mount: Mounted) -> None:
    fd = os.open(root(mount) / "long", os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Cookies are places here: the two dots come before the first name.
        times = []
        for place in (COUNT - 500, COUNT // 2, COUNT // 3, COUNT // 5, 10, 77):
            begin_s = time.perf_counter()
            os.lseek(fd, place, os.SEEK_SET)
            found = getdents(fd, 4096)
            times.append(time.perf_counter() - begin_s)
            assert found[0].name == b"file-%07d" % (place - 2)
        # The quickest of those that are far; on a busy machine many turns wait for a processor.
        assert min(times[:4]) < 0.1
    finally:
        os.close(fd)


def test_a_name_in_it_is_found_at_once(mount: Mounted) -> None:
    begin_s = time.perf_counter()
    for number in range(0, COUNT, COUNT // 100):
        os.lstat(root(mount) / f"long/file-{number:07}")
    assert not os.path.lexists(root(mount) / "long/file")
    # Looking through all of the names takes a second for each.
    assert time.perf_counter() - begin_s < 30


def test_listing_takes_no_memory(mount: Mounted) -> None:
    before = memory_bytes(mount)
    count, last = 0, b""
    fd = os.open(root(mount) / "long", os.O_RDONLY | os.O_DIRECTORY)
    try:
        while count < LISTED:
            names = [each.name for each in getdents(fd, 1 << 16)]
            assert names == sorted(names)
            assert names[0] > last
            count, last = count + len(names), names[-1]
    finally:
        os.close(fd)
    assert last == b"file-%07d" % (count - 3)
    # The pages of the index that were looked at count, and can be taken away at any time: 77 bytes a name.
    assert memory_bytes(mount) - before < LISTED * 77 + 10_000_000
