"""Whom the mount takes for somebody who goes through a tree, what it tells the sidecar of him, and when that ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.mount.conftest import Rig
from tests.test_end_to_end import wait_until

pytestmark = pytest.mark.fuse

_READ = """
import os, sys
folder = sys.argv[1]
os.listdir(folder)
for name in sys.argv[2:]:
    open(os.path.join(folder, name), "rb").read()
print("read", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def rig(evicted: Rig) -> Iterator[Rig]:
    evicted.sidecar.walks.clear()
    evicted.sidecar.ended_walks.clear()
    yield evicted
    evicted.sidecar.window_bytes = 1 << 40


def reader(rig: Rig, *names: str) -> subprocess.Popen[bytes]:
    """Return a process that has listed a folder and read files of it, and waits."""
    command = [sys.executable, "-c", _READ, str(rig.root / "small"), *names]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"read\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def to_come(rig: Rig) -> set[str]:
    messages: list[Any] = list(rig.sidecar.walks)
    return {span["segment"] for message in messages for span in message["to_come"]}


def test_who_lists_and_reads_the_first_file_goes_through_the_folder(rig: Rig) -> None:
    """What comes next is named to its end and no further, and taken back when the process is killed."""
    inside = {rig.segment_of(rig.root / f"small/file-{number:03}") for number in range(300)}
    outside = rig.segment_of(rig.root / "large.bin").split(",")[-1]
    process = reader(rig, "file-000")
    wait_until(lambda: to_come(rig) == inside, "the walk")
    assert outside not in inside
    message: Any = rig.sidecar.walks[-1]
    assert message["pid"] == process.pid
    assert any("python" in command for command in message["commands"])
    end(process)
    wait_until(lambda: message["id"] in rig.sidecar.ended_walks, "the end of the walk")


def test_who_reads_here_and_there_is_no_walk(rig: Rig) -> None:
    process = reader(rig, "file-150", "file-020", "file-222", "file-090")
    end(process)
    assert to_come(rig) == set()


def test_files_one_after_the_other_are_a_walk_in_the_end(rig: Rig) -> None:
    """Nothing but the order shows it: each file is read by another process."""
    folder = rig.root / "small"
    list(folder.iterdir())
    for number in range(100, 200):
        subprocess.run(["cat", folder / f"file-{number:03}"], check=True, stdout=subprocess.DEVNULL)
        if to_come(rig):
            break
    assert to_come(rig)


def test_nothing_is_named_for_whom_the_sidecar_wants_nothing(rig: Rig) -> None:
    rig.sidecar.window_bytes = 0
    process = reader(rig, "file-000", "file-001", "file-002")
    end(process)
    assert rig.sidecar.walks
    assert to_come(rig) == set()
