"""How a mover begins and ends when its drive or its sidecar does not want it to."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest

from catalog.lmdb_ledger import LmdbLedger
from drivers.registry import open_drive
from sidecar.drives.movers import MoverDied, open_mover
from tapefs.home import Home
from tapefs.mover.messages import Report
from tapefs.mover.mover import Mover
from tapefs.mover.post import Post, SidecarGone
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


class _Gone:
    """A post whose sidecar has ended. A real one would end this process, too, after some seconds."""

    def send(self, report: Report) -> None:
        raise SidecarGone("the sidecar is gone")


def test_a_sidecar_that_ends_while_its_mover_starts_is_no_failure(home: Home) -> None:
    with closing(LmdbLedger.open(home.ledger)) as ledger, closing(open_drive(home.library_config, 0)) as drive:
        Mover(home, ledger, drive, "drive0", cast(Post, _Gone())).run()
