"""Forgetting a tape that is gone for ever. Blocking; any thread of the process that owns the state folder."""

from __future__ import annotations

from catalog.ledger import Ledger
from catalog.records import BackupSet, SetState, Volume
from tapefs.errors import NotNow
from tapefs.retention.living import called


def forget_tape(ledger: Ledger, volume: Volume, identity: str, now_ns: int) -> list[BackupSet]:
    """Forget a tape; return the sets that have lost something for ever, as they are now.

    When live sets lie on it, `identity` must be its label or its id. Raises NotNow, which says what would be lost and
    what to repeat, and what the ledger raises.
    """
    lost = ledger.lost_sets(volume.volume_id)
    live = ledger.live_sets(volume.volume_id)
    if live and identity not in (volume.label, volume.volume_id):
        raise NotNow(
            f"tape {volume.label} holds {_consequences(live, lost)}; if it is gone for ever, say so with "
            f"`--yes-it-is {volume.volume_id}`"
        )
    claim = ledger.claim_volume(volume.volume_id)
    ledger.forget_volume(volume.volume_id, claim, frozenset(each.set_id for each in lost), now_ns)
    return [ledger.backup_set(each.set_id) for each in lost]


def _consequences(live: list[BackupSet], lost: list[BackupSet]) -> str:
    gone = {each.set_id for each in lost}
    words = [f"{called(each)}, {_fate(each, each.set_id in gone)}" for each in live]
    return "; ".join(words)


def _fate(backup_set: BackupSet, is_lost: bool) -> str:
    if not is_lost:
        return "which lies on other tapes, too"
    if backup_set.state is SetState.FAILED:
        return "which failed, and could not go on without it"
    return "of which nothing else has what lies there: it would be lost"
