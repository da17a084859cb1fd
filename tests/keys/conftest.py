"""The rig as a fixture, and a way to make more of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backup.rig import Rig, rigs


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fail a test after which a thread runs that would keep a mover from ending."""
    before = set(threading.enumerate())
    yield
    left = [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
    assert not left


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    """Return a function that makes the rig; it is closed at the end."""
    yield from rigs(tmp_path)


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """Return a rig of four tapes of 256 MiB."""
    return make_rig()
