"""A process killed while it writes: what was synced is there, the rest is a clean prefix of what was written."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drivers.errors import PositionLost
from drivers.interface import BlockNo
from tests.drivers.benches import VirtualBench
from tests.drivers.contract import FILEMARK, block_of, read_all, write

#: Writes blocks that tell their logical number for ever, with filemarks, and says what is synced.
WRITER = """
import itertools, sys
from pathlib import Path
from drivers.errors import EndOfMedium
from drivers.virtual import cartridge
from drivers.virtual.drive import VirtualDrive
from tests.drivers.contract import block_of

cartridge.NOTE_BYTES = 50_000
drive = VirtualDrive(Path(sys.argv[1]), 0)
drive.load()
drive.seek_end()
for number in itertools.count(drive.position().block):
    if number % 7 == 6:
        sync = number % 3 == 0
        drive.write_filemarks(1, sync=sync)
        if sync:
            print(number, flush=True)
    else:
        drive.write_block(block_of(number, 3000))
"""


def expected(number: int) -> bytes:
    return FILEMARK if number % 7 == 6 else block_of(number, 3000)


@pytest.mark.parametrize("wait_s", [0.0, 0.013, 0.037, 0.1])
def test_kill_while_writing(tmp_path: Path, wait_s: float) -> None:
    bench = VirtualBench(tmp_path / "library")
    synced = -1
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", WRITER, bench.folder], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(wait_s)
        child.kill()
        lines = child.stdout.read().split()
        assert child.wait(60) == -signal.SIGKILL
        child.stdout.close()
        synced = max([synced, *map(int, lines)])
        drive = bench.open()
        with pytest.raises(PositionLost):
            drive.position()
        drive.unload()
        drive.load()
        items = read_all(drive)
        assert len(items) > synced
        assert items == [expected(number) for number in range(len(items))]
        drive.unload()
        drive.close()


def test_a_new_process_unloads_what_the_dead_one_had_threaded(tmp_path: Path) -> None:
    bench = VirtualBench(tmp_path / "library")
    program = """
import os, signal, sys
from pathlib import Path
from drivers.virtual.drive import VirtualDrive
drive = VirtualDrive(Path(sys.argv[1]), 0)
drive.load()
drive.write_block(b"lost")
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, bench.folder]).returncode == -signal.SIGKILL
    drive = bench.open()
    assert drive.status().loaded
    drive.unload()
    drive.close()
    bench.take_out()
    assert (bench.cartridge / "00000").read_bytes() == b"lost"
    bench.put_in()
    drive = bench.loaded()
    assert read_all(drive) == []
    write(drive, b"new", FILEMARK)
    drive.unload()
    drive.close()
    assert (bench.cartridge / "00000").read_bytes() == b"new"


def test_a_dead_process_loses_what_came_after_the_last_note(tmp_path: Path) -> None:
    """The state is noted every so many bytes: torn structures are what readers must expect."""
    bench = VirtualBench(tmp_path / "library")
    program = """
import os, signal, sys
from pathlib import Path
from drivers.virtual import cartridge
from drivers.virtual.drive import VirtualDrive
cartridge.NOTE_BYTES = 50_000
drive = VirtualDrive(Path(sys.argv[1]), 0)
drive.load()
for number in range(13):
    drive.write_block(bytes([number]) * 10_000)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program, bench.folder]).returncode == -signal.SIGKILL
    drive = bench.loaded()
    assert read_all(drive) == [bytes([number]) * 10_000 for number in range(10)]
    drive.close()


def test_a_power_cut_by_environment_kills_the_process(tmp_path: Path) -> None:
    bench = VirtualBench(tmp_path / "library")
    program = """
import os, sys
from pathlib import Path
os.environ["TAPEFS_FAULTS"] = '[{"kind": "power_cut", "block": 4, "kill": true}]'
from drivers import registry
from drivers.config import LibraryConfig
drive = registry.open_drive(LibraryConfig(folder=Path(sys.argv[1])), 0)
drive.load()
drive.write_block(b"zero")
drive.write_filemarks(1, sync=True)
drive.write_block(b"two")
drive.write_filemarks(1, sync=False)
drive.write_block(b"four")
"""
    assert subprocess.run([sys.executable, "-c", program, bench.folder]).returncode == -signal.SIGKILL
    drive = bench.loaded()
    assert read_all(drive) == [b"zero", FILEMARK]
    drive.locate(BlockNo(0))
    drive.close()
