"""A tape of the virtual library as a device server, and a hand that gives it commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.vtl.tape import TapeServer
from tests.drivers.vtl.bench import Hand, make_tape


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TapeServer]:
    server = make_tape(tmp_path / "library")
    yield server
    server.close()


@pytest.fixture
def hand(server: TapeServer) -> Hand:
    return Hand(server)
