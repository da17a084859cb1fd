"""All checks in their order, and the repairs. Blocking; a sidecar may be at work meanwhile, but see `run_checks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from catalog.errors import CatalogError
from tapefs.check.finding import Check, Finding, Scene
from tapefs.check.folder import check_leftovers, check_staged
from tapefs.check.indexes import check_indexes, check_names
from tapefs.check.ledger import check_ledger
from tapefs.check.sets import check_sets, check_tapes
from tapefs.check.trailers import check_trailers
from tapefs.errors import TapefsError

#: By name, in the order in which one relies on the one before.
CHECKS: dict[str, Check] = {
    "ledger": check_ledger,
    "sets": check_sets,
    "tapes": check_tapes,
    "trailers": check_trailers,
    "indexes": check_indexes,
    "names": check_names,
    "staging": check_staged,
    "leftovers": check_leftovers,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finding, and what came of its repair."""

    finding: Finding
    repaired: bool = False
    #: Why a repair that was tried has failed.
    error: str = ""


def run_checks(scene: Scene, names: Sequence[str], *, repair: bool) -> Iterator[Outcome]:
    """Yield what these checks find; with `repair` it is put right at once where a program may do that.

    A set that expires or is made meanwhile may be reported although nothing is wrong: what is found is looked at once
    more before it is told. What a check itself cannot read is a finding of it.
    """
    for name in names:
        found = list(_of(scene, name))
        if not found:
            continue
        still = {(each.subject, each.problem) for each in _of(scene, name)}
        for finding in found:
            if (finding.subject, finding.problem) in still:
                yield _mend(finding, finding.repair) if repair and finding.repair is not None else Outcome(finding)


def _of(scene: Scene, name: str) -> Iterator[Finding]:
    try:
        yield from CHECKS[name](scene)
    except (CatalogError, TapefsError, OSError) as error:
        yield Finding(name, "the check itself", f"could not go on: {error}", "run the check `ledger` first")


def _mend(finding: Finding, repair: Callable[[], None]) -> Outcome:
    try:
        repair()
    except (CatalogError, TapefsError, OSError) as error:
        return Outcome(finding, error=str(error))
    return Outcome(finding, repaired=True)
