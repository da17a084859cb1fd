"""What every ledger must do about restores."""

from __future__ import annotations

import msgspec

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

    def test_its_reason_is_text(self, ledger: Ledger, again: Again) -> None:
        ledger.put_recovery(recovery_of("bad").with_error("no \udcff here"))
        assert "\udcff" not in again().recoveries()[0].error
