"""An archive of a full and an incremental set."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.ids import SetId
from tests.backup.rig import Rig
from tests.backup.trees import random_files


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()


@pytest.fixture
def made(rig: Rig, tmp_path: Path) -> list[SetId]:
    """A full set and one that builds on it."""
    tree = random_files(tmp_path / "tree", 30, 20_000)
    job = rig.queued(tree, type="full")
    first = rig.run(job)
    (tree / "more").write_text("more")
    return [first, rig.again(job, type="incremental")]
