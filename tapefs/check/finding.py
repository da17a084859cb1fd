"""What a check finds, and what it is given. Blocking; nothing here is shared between threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState
from tapefs.home import Home


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be."""

    #: Name of the check.
    check: str
    #: What it is about: a set, a tape, a file.
    subject: str
    problem: str
    #: What an operator can do, where `repair` does not or cannot.
    advice: str = ""
    #: Puts it right and harms nothing else; None where a program must not decide. Raises CatalogError, TapefsError,
    #: OSError.
    repair: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class Scene:
    """What checks look at."""

    home: Home
    ledger: Ledger
    #: Told what is being looked at, for people.
    progress: Callable[[str], None] = lambda _: None

    def complete_sets(self) -> list[BackupSet]:
        """Return the sets that are shown, the oldest first, so that a base comes before what builds on it."""
        sets = [each for each in self.ledger.backup_sets() if each.state is SetState.COMPLETE]
        return sorted(sets, key=lambda each: each.number)


Check = Callable[[Scene], Iterator[Finding]]


def called(backup_set: BackupSet) -> str:
    """Return how people are told of a set."""
    return f"set {backup_set.set_id[:8]} ({backup_set.name})"
