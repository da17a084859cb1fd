"""What every ledger must do about bulk requests to stage files."""

from __future__ import annotations

import msgspec

from catalog.ledger import Ledger
from catalog.stage_records import StageFile, StageRequest, StageState
from tests.catalog.builders import NOW, uuid_of
from tests.catalog.contract_base import Again


def request_of(name: str, *states: StageState, created_at_ns: int = NOW) -> StageRequest:
    files = tuple(
        StageFile(
            path=f"/jobs/{number}", state=state, lifetime_s=60, started_at_ns=NOW + number, finished_at_ns=NOW + 9
        )
        for number, state in enumerate(states, 1)
    )
    return StageRequest(request_id=uuid_of(name), owner="fts", created_at_ns=created_at_ns, files=files)


class StagingContract:
    def test_a_request_changes_and_is_forgotten(self, ledger: Ledger, again: Again) -> None:
        older = request_of("older", StageState.COMPLETED, created_at_ns=NOW - 1)
        request = request_of("request", StageState.STARTED, StageState.SUBMITTED)
        for each in (request, older, request):
            ledger.put_stage_request(each)
        assert again().stage_requests() == [older, request]
        done = msgspec.structs.replace(request, files=request.files[:1])
        ledger.put_stage_request(done)
        assert again().stage_requests() == [older, done]
        for _ in range(2):
            ledger.drop_stage_request(older.request_id)
        assert again().stage_requests() == [done]

    def test_when_a_request_is_over(self) -> None:
        assert request_of("open", StageState.COMPLETED, StageState.STARTED).completed_at_ns == 0
        over = request_of("over", StageState.COMPLETED, StageState.FAILED, StageState.CANCELLED)
        assert (over.is_open, over.started_at_ns, over.completed_at_ns) == (False, NOW + 1, NOW + 9)
