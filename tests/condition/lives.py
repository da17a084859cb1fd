"""Tapes with a past, for tests."""

from __future__ import annotations

from itertools import count

from catalog.life_records import AlertSeen, CartridgeLife, MediumFacts, Mounting
from catalog.records import Volume
from tests.catalog.builders import NOW, uuid_of, volume_of

DAY_NS = 86_400 * 10**9
_numbers = count()


def tape(**fields: object) -> Volume:
    return volume_of("T00001L9", **{"generation": 9, "capacity_bytes": 18 * 10**12, **fields})


def mounting(code: str = "T00001L9", drive: str = "drive0", **fields: object) -> Mounting:
    number = next(_numbers)
    base: dict[str, object] = {"mounting_id": uuid_of(str(number)), "loaded_at_ns": NOW + number}
    return Mounting(code=code, drive=drive, **{**base, **fields})  # type: ignore[arg-type]


def life_of(mountings: list[Mounting], medium: MediumFacts | None = None, **fields: object) -> CartridgeLife:
    """Sum up as the ledger does."""
    alerts = sorted({number for each in mountings for number in each.alerts})
    sums: dict[str, object] = {
        "mountings": len(mountings),
        "first_at_ns": NOW,
        "write_failures": sum(each.write_failures for each in mountings),
        "read_failures": sum(each.read_failures for each in mountings),
        "alerts": tuple(
            AlertSeen(number=number, mountings=sum(number in each.alerts for each in mountings), last_at_ns=NOW)
            for number in alerts
        ),
        "medium": medium,
        "most_capacity_bytes": (medium.capacity_bytes or 0) if medium else 0,
    }
    return CartridgeLife(code="T00001L9", **{**sums, **fields})  # type: ignore[arg-type]


def facts(**fields: object) -> MediumFacts:
    return MediumFacts(asked_at_ns=NOW, **fields)  # type: ignore[arg-type]
