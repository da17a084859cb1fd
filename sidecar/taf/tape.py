"""TAF's /api/tape/list. A tape's id there is its label here."""

from __future__ import annotations

import time
from collections import Counter

from starlette.requests import Request
from starlette.responses import Response

from catalog.pool_records import RetentionKind
from catalog.records import SetState, Volume, VolumeState
from drivers.interface import ElementKind
from sidecar.answers import json_answer, moment
from sidecar.callers import Role
from sidecar.calls import Call
from sidecar.service import Service
from tapefs.condition.blame import Blame
from tapefs.condition.known import blame_now, condition_now
from tapefs.retention.calendar import end_of_month
from tapefs.retention.pools import Pools

STATUSES = {
    VolumeState.BLANK: "available",
    VolumeState.APPENDABLE: "in_use",
    VolumeState.FULL: "full",
    VolumeState.SUSPECT: "error",
}


class TapeCalls:
    """The tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [Call("/api/tape/list", self.list, needs=Role.VIEWER)]

    async def list(self, request: Request) -> Response:
        """Show all tapes by label."""
        written: Counter[str] = Counter()
        complete: Counter[str] = Counter()
        for backup_set in self._service.ledger.backup_sets():
            written.update(backup_set.tapes)
            if backup_set.state is SetState.COMPLETE:
                complete.update(backup_set.tapes)
        now_ns = time.time_ns()
        whose = blame_now(self._service.ledger, now_ns)
        tapes = [
            self._tape(volume, written[volume.label], complete[volume.label], now_ns, whose)
            for volume in self._service.ledger.volumes()
        ]
        return json_answer({"success": True, "tapes": tapes, "count": len(tapes)})

    def _tape(self, volume: Volume, written: int, complete: int, now_ns: int, whose: Blame) -> dict[str, object]:
        """Return a tape with all of TAF's fields; null is what nobody has measured or set."""
        capacity, used, life = volume.capacity_bytes, volume.used_bytes, self._service.ledger.life(volume.code)
        is_begun = volume.state is not VolumeState.BLANK and used > 0
        return {
            "tape_id": volume.label,
            "label": volume.label,
            "status": STATUSES[volume.state],
            "media_type": "LTO",
            "generation": volume.generation,
            "serial_number": life.medium.serial or None if life.medium else None,
            "location": self._location(volume),
            "capacity_bytes": capacity,
            "used_bytes": used,
            "usage_percent": round(100 * used / capacity, 2) if capacity else 0.0,
            "write_count": written,
            "read_count": sum(bool(each.read_bytes) for each in self._service.ledger.mountings(volume.code)),
            "load_count": max(life.mountings, (life.medium.loads if life.medium else None) or 0),
            "health_score": condition_now(self._service.ledger, volume, now_ns, whose).score,
            "first_use_date": moment(volume.labelled_at_ns or volume.created_at_ns) if is_begun else None,
            "last_erase_date": moment(life.erased_at_ns),
            **self._expiry(volume),
            "backup_set_count": complete,
            "notes": volume.reason,
        }

    def _expiry(self, volume: Volume) -> dict[str, object]:
        """Return how long its pool keeps the tape, where the pool's rule is TAF's; null otherwise."""
        pool = Pools.of(self._service.home, self._service.ledger).find(volume.pool)
        if pool is None or pool.retention.kind is not RetentionKind.TAPE_MONTHS:
            return {"expiry_date": None, "retention_months": None}
        months, begun_ns = pool.retention.count, volume.labelled_at_ns
        expires = moment(end_of_month(begun_ns, months)) if begun_ns else None
        return {"expiry_date": expires, "retention_months": months}

    def _location(self, volume: Volume) -> str:
        place = self._service.library.place_of(volume.code)
        if place is None:
            return volume.location or "not in the library"
        return f"{'drive' if place.kind is ElementKind.DRIVE else 'slot'} {place.number}"
