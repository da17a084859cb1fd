"""The operations on pins, on requests to stage, and on restores over HTTP.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from catalog.ids import PinId
from catalog.ledger_store import pins, recoveries, stage_requests
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.records import StagePin
from catalog.recovery_records import Recovery
from catalog.stage_records import StageRequest

_PUT_PIN = operation("put_pin")
_DROP_PIN = operation("drop_pin")
_PUT_STAGE_REQUEST = operation("put_stage_request")
_DROP_STAGE_REQUEST = operation("drop_stage_request")
_PUT_RECOVERY = operation("put_recovery")
_DROP_RECOVERY = operation("drop_recovery")


class StagingOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def put_pin(self, pin: StagePin) -> StagePin:
        """Record a pin, or extend the one of that id. Raises Conflict when that is another owner's."""
        return self._write(_PUT_PIN, pins.put, pin)

    def drop_pin(self, pin_id: PinId, now_ns: int) -> None:
        """Forget a pin. Idempotent."""
        self._write(_DROP_PIN, pins.drop, pin_id, now_ns)

    def pins(self) -> list[StagePin]:
        """Return all pins, oldest first."""
        return self._read(pins.oldest_first)

    def put_stage_request(self, request: StageRequest) -> None:
        """Record a request, or how far it is now. Idempotent."""
        self._write(_PUT_STAGE_REQUEST, stage_requests.put, request)

    def drop_stage_request(self, request_id: str) -> None:
        """Forget a request. Idempotent."""
        self._write(_DROP_STAGE_REQUEST, stage_requests.drop, request_id)

    def stage_requests(self) -> list[StageRequest]:
        """Return all requests, oldest first."""
        return self._read(stage_requests.oldest_first)

    def put_recovery(self, recovery: Recovery) -> None:
        """Record a restore, or how far it is now. Idempotent."""
        self._write(_PUT_RECOVERY, recoveries.put, recovery)

    def drop_recovery(self, recovery_id: str) -> None:
        """Forget a restore. Idempotent."""
        self._write(_DROP_RECOVERY, recoveries.drop, recovery_id)

    def recovery(self, recovery_id: str) -> Recovery:
        """Return a restore. Raises NotFound."""
        return self._read(recoveries.get, recovery_id)

    def recoveries(self) -> list[Recovery]:
        """Return all restores that are kept, oldest first."""
        return self._read(recoveries.oldest_first)
