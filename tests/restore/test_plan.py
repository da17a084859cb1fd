import random

import pytest

from catalog.ids import DirectoryNo, EntryNo, SegmentNo
from tapefs.errors import HomeError
from tapefs.restore import plan as plan_module
from tapefs.restore.plan import TARGET, Directories, Plan, PlannedFile
from tapefs.restore.writer import MadeDirectory


def random_files(count: int) -> list[PlannedFile]:
    chance = random.Random(1)
    return [
        PlannedFile(
            SegmentNo(chance.randrange(300)),
            chance.randrange(1 << 45),
            chance.randrange(1 << 40),
            EntryNo(number),
            chance.choice((TARGET, 0, 1 << 40)),
            chance.random() < 0.5,
        )
        for number in range(count)
    ]


def test_files_come_in_the_order_of_the_tape_also_when_they_are_spilled(tmp_path):
    files = random_files(10_000)
    for run_files in (100_000, 10_000, 777):
        plan = Plan(tmp_path, run_files)
        for file in files:
            plan.add(file)
        plan.sort()
        assert list(plan) == sorted(files)
        # Two at once do not disturb each other.
        one, two = iter(plan), iter(plan)
        assert [next(one) for _ in range(5000)][-1] == [next(two) for _ in range(5000)][-1]
        plan.close()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_plan(tmp_path):
    plan = Plan(tmp_path)
    plan.sort()
    assert list(plan) == []


def test_directories_by_place_and_newest_first(tmp_path):
    directories = Directories(tmp_path)
    made = [
        (b"n" * number + b"\xff", DirectoryNo(number), MadeDirectory(number % 2 == 0, 5, (1 << 64) - 1 - number))
        for number in range(1000)
    ]
    places = [directories.add(*what) for what in made]
    assert directories.path(TARGET) == b""
    assert [directories.path(place) for place in places] == [path for path, _, _ in made]
    assert list(directories.newest_first()) == made[::-1]
    directories.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_below_the_lists_is_named(tmp_path, monkeypatch):
    """It is that of the state folder, which nobody thinks of who restores to another one."""
    monkeypatch.setattr(plan_module, "scratch_file", lambda _: open("/dev/full", "w+b", buffering=100))  # noqa: SIM115
    directories, plan = Directories(tmp_path), Plan(tmp_path, 10)

    def fill_directories() -> None:
        for number in range(10):
            directories.add(b"name" * 10, DirectoryNo(number), MadeDirectory(True, 1, 2))

    def fill_plan() -> None:
        for file in random_files(20):
            plan.add(file)

    for fill in (fill_directories, fill_plan):
        with pytest.raises(HomeError, match=r"disk of the state folder .*No space left.*make room there"):
            fill()
    directories.close()
    plan.close()
