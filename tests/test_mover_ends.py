"""How a mover begins and ends when its drive or its sidecar does not want it to."""

from __future__ import annotations

import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from catalog.lmdb_ledger import LmdbLedger
from drivers.registry import open_drive
from sidecar.drives.movers import MoverDied, open_mover
from tapefs.home import Home
from tapefs.mover.mover import Mover
from tapefs.mover.post import Post
from tapefs.setup_home import NewHome, create_home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return create_home(NewHome(path=tmp_path / "home", tapes=1, tape_bytes=16 * 1024**2), time.time_ns())


async def test_why_a_drive_cannot_be_opened_is_told(home: Home) -> None:
    """A full disk, a cable, another process: whoever waits for the drive is to read which."""
    with closing(open_drive(home.library_config, 0)) as drive:
        drive.status()
        async with open_mover(home, "drive0", 0) as mover:
            with pytest.raises(MoverDied, match=r"in use"):
                await mover.wait_ready()


def test_a_sidecar_that_ends_while_its_mover_starts_is_no_failure(home: Home) -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs, closing(LmdbLedger.open(home.ledger)) as ledger, closing(open_drive(home.library_config, 0)) as drive:
        Mover(home, ledger, drive, "drive0", Post(theirs)).run()
