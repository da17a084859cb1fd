"""What a schedule does is told in words, with the name of its job."""

from __future__ import annotations

import pytest

from catalog.ids import JobNumber, SetId
from catalog.schedule_records import (
    Action,
    BackUp,
    CheckHealth,
    CheckRetention,
    Clean,
    CopyCatalog,
    Expire,
    Reclaim,
    Restore,
    Verify,
)
from tapefs.schedule.deeds import describe_action

SET = SetId("1b4e28ba-2fa1-11d2-883f-0016d3cca427")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (BackUp(job=JobNumber(3)), "backs up docs (job 3)"),
        (BackUp(job=JobNumber(3), type="full"), "backs up docs (job 3), full"),
        (BackUp(job=JobNumber(4)), "backs up job 4, which is gone"),
        (Restore(name="docs", target="/srv/back"), "restores docs to /srv/back"),
        (
            Restore(name="docs", set_id=SET, target="/x", paths=("a", "b"), overwrite=True),
            "restores 1b4e28ba of it a b to /x, over what is there",
        ),
        (Verify(), "reads back everything"),
        (
            Verify(sample=1, unless_days=30),
            "reads back everything, 1 segment of each tape, but not what was within 30 days",
        ),
        (Verify(sets=(SET,), tapes=("TP0001L9",)), "reads back 1b4e28ba TP0001L9"),
        (Expire(), "lets go of what has outlived its retention"),
        (Expire(failed=True), "lets go of what has outlived its retention, failed sets at once"),
        (CheckRetention(), "tells which sets may go"),
        (Clean(), "cleans the drives that ask for it"),
        (Clean(drives=("drive0",)), "cleans drive0"),
        (CheckHealth(), "checks catalog, drives and tapes"),
        (CopyCatalog(), "copies the catalog to tape, kept for ever"),
        (CopyCatalog(keep=90), "copies the catalog to tape, kept 90 days"),
        (CopyCatalog(folder="/srv", keep=7), "copies the catalog to /srv, where 7 stay"),
        (Reclaim(pool="daily"), "empties tapes of pool daily of which less than 20 % lives"),
    ],
)
def test_words(action: Action, words: str) -> None:
    assert describe_action(action, {JobNumber(3): "docs"}.get) == words
