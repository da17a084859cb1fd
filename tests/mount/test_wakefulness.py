"""The wish for processors that stay awake: when it is made, when it ends, and that nothing depends on it."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import trio

from tapefs.mount.quick_wait import QuickWait
from tapefs.mount.wakefulness import LATENCY_DEVICE, Wakefulness


@pytest.fixture
def device(tmp_path: Path) -> Path:
    """A file that takes what the kernel would, one wish behind the other."""
    path = tmp_path / "latency"
    path.touch()
    return path


def wishes_us(device: Path) -> list[int]:
    return [wish for (wish,) in struct.iter_unpack("=i", device.read_bytes())]


def test_a_wish_is_stated_once_and_taken_back(device: Path) -> None:
    wakefulness = Wakefulness(device)
    assert wishes_us(device) == [2_000_000_000]
    wakefulness.release()
    wakefulness.hold()
    wakefulness.hold()
    assert wishes_us(device)[1:] == [0]
    wakefulness.release()
    assert wishes_us(device)[2:] == [2_000_000_000]
    wakefulness.close()
    wakefulness.close()
    wakefulness.hold()
    assert len(wishes_us(device)) == 3


def test_without_the_device_nothing_is_wished(tmp_path: Path) -> None:
    wakefulness = Wakefulness(tmp_path / "none")
    wakefulness.hold()
    wakefulness.release()
    wakefulness.close()
    assert not (tmp_path / "none").exists()


@pytest.mark.log_warnings
def test_a_device_that_refuses_is_let_go(device: Path) -> None:
    wakefulness = Wakefulness(device)
    assert wakefulness._fd is not None
    with Path("/dev/full").open("wb", buffering=0) as full:
        os.dup2(full.fileno(), wakefulness._fd)
    wakefulness.hold()
    assert wakefulness._fd is None
    wakefulness.release()


async def test_it_is_held_while_somebody_walks(device: Path) -> None:
    first, second = trio.socket.socketpair()
    prepared = 0

    def prepare() -> None:
        nonlocal prepared
        prepared += 1

    wait = QuickWait(prepare, lambda: None, Wakefulness(device))
    with first, second:
        await second.send(b"x")
        for _ in range(20):
            await wait.wait_readable(first.fileno())
        assert wishes_us(device)[1:] == [0]
        assert prepared == 0
        await first.recv(1)
        with trio.move_on_after(0.01):
            await wait.wait_readable(first.fileno())
        assert wishes_us(device)[2:] == [2_000_000_000]
        assert prepared == 1


@pytest.mark.skipif(not LATENCY_DEVICE.exists(), reason="this kernel has no PM QoS")
def test_the_kernel_takes_it() -> None:
    wakefulness = Wakefulness()
    assert wakefulness._fd is not None
    with LATENCY_DEVICE.open("rb", buffering=0) as asked:
        wakefulness.hold()
        assert struct.unpack("=i", asked.read(4)) == (0,)
    wakefulness.close()
