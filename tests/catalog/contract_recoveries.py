"""What every ledger must do about restores."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import NotFound
from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.recovery_records import Recovery, RecoveryState
from tests.catalog.builders import NOW, uuid_of
from tests.catalog.contract_base import Again


def recovery_of(name: str, created_at_ns: int = NOW) -> Recovery:
    return Recovery(
        recovery_id=f"recovery_{name}",
        set_id=SetId(uuid_of("set")),
        paths=(b"/etc/hosts", b"/odd\xff"),
        target=b"/srv/\xff",
        created_by="ada",
        created_at_ns=created_at_ns,
    )


class RecoveriesContract:
    def test_a_restore_goes_on_and_is_forgotten(self, ledger: Ledger, again: Again) -> None:
        older, newer = recovery_of("older", NOW - 1), recovery_of("newer")
        for each in (newer, older, newer):
            ledger.put_recovery(each)
        assert again().recoveries() == [older, newer]
        done = msgspec.structs.replace(newer, state=RecoveryState.COMPLETED, files=2, finished_at_ns=NOW + 1)
        ledger.put_recovery(done)
        assert again().recoveries() == [older, done]
        for _ in range(2):
            ledger.drop_recovery(older.recovery_id)
        assert again().recoveries() == [done]

    def test_each_change_of_its_state_is_told_once(self, ledger: Ledger) -> None:
        before, new = ledger.newest_event(), recovery_of("told")
        running = msgspec.structs.replace(new, state=RecoveryState.RUNNING, started_at_ns=NOW + 1)
        done = msgspec.structs.replace(running, state=RecoveryState.COMPLETED, finished_at_ns=NOW + 2)
        for each in (new, new, running, msgspec.structs.replace(running, attempts=2), done, done):
            ledger.put_recovery(each)
        told = ledger.events_since(before)
        assert [(each.kind, each.subject, each.detail, each.at_ns) for each in told] == [
            ("restore.state", new.recovery_id, "pending", NOW),
            ("restore.state", new.recovery_id, "running", NOW + 1),
            ("restore.state", new.recovery_id, "completed", NOW + 2),
        ]
        assert ledger.recovery(new.recovery_id) == done
        with pytest.raises(NotFound):
            ledger.recovery("recovery_never")

    def test_its_reason_is_text(self, ledger: Ledger, again: Again) -> None:
        ledger.put_recovery(recovery_of("bad").with_error("no \udcff here"))
        assert "\udcff" not in again().recoveries()[0].error
