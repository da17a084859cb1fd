"""The local copies of the trailers: what indexes are built from again, and what damage is named by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from catalog.records import Segment
from tapefs.check.finding import Finding, Scene, called
from tapefs.errors import BadStructure
from tapefs.verify.trailer import Trailer

_ADVICE = "none is needed: what wants it reads it from tape; `tapefs rebuild` brings it back"


def check_trailers(scene: Scene) -> Iterator[Finding]:
    """Every segment's trailer is here, and says what the ledger does."""
    for backup_set in scene.complete_sets():
        scene.progress(called(backup_set))
        for segment in scene.ledger.segments(backup_set.set_id):
            if segment.archive is not None:
                continue  # An archive of another program has no trailer.
            path = scene.home.trailer(segment.segment_id)
            problem = _problem(path, segment)
            if problem:
                yield Finding("trailers", f"{called(backup_set)}, segment {segment.number}", problem, _ADVICE)


def _problem(path: Path, segment: Segment) -> str:
    try:
        with path.open("rb") as file:
            Trailer(file).check(segment)
    except FileNotFoundError:
        return "its local trailer is missing"
    except BadStructure as error:
        return f"its local trailer is damaged: {error}"
    return ""
