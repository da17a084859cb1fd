"""The state folder: what is staged is what came from tape, and nothing lies about that belongs to nothing."""

from __future__ import annotations

from collections.abc import Iterator

from catalog.records import SetState
from tapefs.check.finding import Finding, Scene
from tapefs.retention.expire import remove_leftovers
from tapefs.staging.check import check_staging


def check_staged(scene: Scene) -> Iterator[Finding]:
    """Every staged frame has the checksum that it came with."""
    folder = scene.home.staging
    found = check_staging(
        folder, repair=False, progress=lambda segment_id, _: scene.progress(f"staged segment {segment_id}")
    )
    problems = {segment: "its files cannot be used" for segment in found.unusable}
    for segment, frame in found.wrong:
        problems[segment] = f"frame {frame} is not what came from tape"
    for segment, problem in problems.items():
        yield Finding("staging", f"staged segment {segment}", problem, repair=lambda: _drop(scene))


def _drop(scene: Scene) -> None:
    check_staging(scene.home.staging, repair=True)


def check_leftovers(scene: Scene) -> Iterator[Finding]:
    """No file of a set that is gone takes room."""
    scene.progress("files of sets that are gone")
    known = {each.set_id: each.state for each in scene.ledger.backup_sets()}
    for folder in (scene.home.indexes, scene.home.reports):
        for path in sorted(folder.glob("*")):
            name = path.name.partition(".")[0]
            if known.get(name, SetState.COMPLETE) is SetState.EXPIRED:  # type: ignore[call-overload]
                yield Finding("leftovers", str(path), "its set has expired", repair=lambda: _remove(scene))


def _remove(scene: Scene) -> None:
    remove_leftovers(scene.home, scene.ledger)
