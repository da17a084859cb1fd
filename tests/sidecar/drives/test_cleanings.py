"""Who is to be cleaned, and who writes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from catalog.lmdb_ledger import LmdbLedger
from drivers.interface import Element, ElementKind
from sidecar.bell import Bell
from sidecar.drives.cleanings import Cleanings
from sidecar.tapes.library import Library
from tapefs.errors import NotNow

BOTH = {"drive0", "drive1"}


class Places:
    """A library with one cleaning cartridge."""

    def cleaning_cartridges(self) -> list[Element]:
        return [Element(ElementKind.SLOT, 0, True, "CLNU01L1")]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LmdbLedger]:
    with LmdbLedger.create(tmp_path / "ledger", now_ns=1) as ledger:
        yield ledger


def test_a_drive_that_must_be_cleaned_leaves_jobs_to_one_that_need_not(ledger: LmdbLedger) -> None:
    cleanings = Cleanings(ledger, cast(Library, Places()), Bell(), "auto")
    cleanings.note("drive0", wants=True, must=False)
    assert not cleanings.leaves_writing_to("drive0", BOTH)
    cleanings.note("drive0", wants=True, must=True)
    assert cleanings.leaves_writing_to("drive0", BOTH)
    assert not cleanings.leaves_writing_to("drive0", {"drive0"})
    assert not cleanings.leaves_writing_to("drive1", BOTH)
    cleanings.note("drive1", wants=True, must=True)
    assert not cleanings.leaves_writing_to("drive0", BOTH)


@pytest.mark.log_warnings
def test_a_cleaning_that_failed_is_not_tried_again_by_itself(ledger: LmdbLedger) -> None:
    cleanings = Cleanings(ledger, cast(Library, Places()), Bell(), "auto")
    cleanings.note("drive0", wants=True, must=True)
    task = cleanings.next_for("drive0")
    assert task is not None
    with pytest.raises(NotNow):
        cleanings.add("drive0")
    cleanings.begin(task)
    cleanings.fail(task, "drive", "it hangs")
    cleanings.note("drive0", wants=True, must=True)
    assert cleanings.next_for("drive0") is None
    assert "it hangs; then `tapefs tape clean drive0`" in cleanings.sentence("drive0")
    by_hand = cleanings.add("drive0")
    cleanings.begin(by_hand)
    cleanings.done(by_hand)
    assert cleanings.asking() == []
