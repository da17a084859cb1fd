"""Payload files that are written past the page cache: nothing of what a plain write promises is lost."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from drivers.errors import DiskFull, PositionLost
from tests.drivers.benches import VirtualBench
from tests.drivers.contract import FILEMARK, block_of, read_all, write

#: Full blocks and an odd last one; more than the buffer takes.
_BIG = [Random(number).randbytes(size) for number, size in enumerate([262144] * 11 + [70001])]


@pytest.fixture
def bench(tmp_path: Path) -> VirtualBench:
    return VirtualBench(tmp_path / "library")


def refuse_direct(patch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, mode, dir_fd=dir_fd)

    patch.setattr(os, "open", refuse)


def write_pieces(patch: pytest.MonkeyPatch) -> None:
    """Let every write be short, at places that suit no disk."""
    real = os.pwrite
    patch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[: max(1, len(data) // 3)], offset))


def do_nothing(patch: pytest.MonkeyPatch) -> None:
    """As it is."""


@pytest.mark.parametrize("hinder", [do_nothing, refuse_direct, write_pieces])
@pytest.mark.parametrize("sync", [True, False])
def test_what_is_written_is_read(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch, hinder: Callable[[pytest.MonkeyPatch], None], sync: bool
) -> None:
    """Before and after a sync, by this process and by the next, and by others from the plain files."""
    hinder(monkeypatch)
    drive = bench.loaded()
    items = [block_of(0), FILEMARK, *_BIG, FILEMARK, block_of(1), *_BIG[:3], FILEMARK]
    write(drive, *items, sync=sync)
    drive.rewind()
    assert read_all(drive) == items
    drive.close()
    assert (bench.cartridge / "00001").read_bytes() == b"".join(_BIG)
    again = bench.loaded()
    assert read_all(again) == items
    again.close()


def test_a_clean_close_keeps_what_waited_in_the_buffer(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, *_BIG)
    drive.close()
    again = bench.loaded()
    assert read_all(again) == _BIG
    again.close()


def test_an_append_within_a_tape_file_goes_on_anywhere(bench: VirtualBench) -> None:
    drive = bench.loaded()
    write(drive, *_BIG[:5], sync=True)
    write(drive, block_of(7), *_BIG[5:], FILEMARK, sync=True)
    drive.rewind()
    assert read_all(drive) == [*_BIG[:5], block_of(7), *_BIG[5:], FILEMARK]
    drive.locate(drive.position().block.__class__(3))
    write(drive, *_BIG[8:], FILEMARK, sync=True)
    drive.rewind()
    assert read_all(drive) == [*_BIG[:3], *_BIG[8:], FILEMARK]
    drive.close()


def test_a_disk_that_fills_up_costs_what_was_not_synced_and_no_more(
    bench: VirtualBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = bench.loaded()
    write(drive, block_of(0), *_BIG[:4], FILEMARK, sync=True)

    def full(fd: int, data: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(DiskFull, match="No space"):
            write(drive, *_BIG)
        with pytest.raises(PositionLost):
            drive.write_block(block_of(1))
    drive.rewind()
    assert read_all(drive) == [block_of(0), *_BIG[:4], FILEMARK]
    write(drive, *_BIG[4:], FILEMARK, sync=True)
    drive.rewind()
    assert read_all(drive) == [block_of(0), *_BIG[:4], FILEMARK, *_BIG[4:], FILEMARK]
    drive.close()
