"""What keeps a tape from being given up: the live sets on it, and how long they stay. Blocking; any thread."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from catalog.ids import VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet
from tapefs.errors import NotNow
from tapefs.retention.expire import verdicts_of
from tapefs.retention.policy import Verdict

#: Sets that are told one by one.
_TOLD = 5


def require_nothing_live(ledger: Ledger, volume_id: VolumeId, label: str, now_ns: int) -> None:
    """Raise NotNow when sets that have not expired lie on the tape: which, and how long they stay."""
    live = ledger.live_sets(volume_id)
    if live:
        raise NotNow(f"tape {label} holds {sentence_of(verdicts_on(ledger, live, now_ns))}; nothing was changed")


def verdicts_on(ledger: Ledger, live: Iterable[BackupSet], now_ns: int) -> list[Verdict]:
    """Return what becomes of these sets."""
    wanted = {each.set_id for each in live}
    return [each for each in verdicts_of(ledger, now_ns) if each.backup_set.set_id in wanted]


def sentence_of(verdicts: list[Verdict]) -> str:
    """Name the sets with what keeps each of them; without a full stop."""
    told = [f"{called(each.backup_set)}: {_fate(each)}" for each in verdicts[:_TOLD]]
    more = len(verdicts) - len(told)
    return "; ".join([*told, f"and {more} more"] if more else told)


def called(backup_set: BackupSet) -> str:
    """Name a set for people."""
    when = datetime.fromtimestamp(backup_set.started_at_ns / 1e9, UTC)
    return f"set {backup_set.name} of {when:%Y-%m-%d %H:%M}Z ({backup_set.set_id[:8]})"


def _fate(verdict: Verdict) -> str:
    if verdict.goes:
        return f"it may go ({verdict.reason}), but `tapefs expire --apply` has not let it go yet"
    return f"it stays, because {verdict.reason}"
