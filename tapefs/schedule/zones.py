"""Wall clocks and instants. Pure, but for the machine's time zone database.

A wall time that does not exist, because the clocks went forward over it, means the instant at which they did; one that
comes twice means the first. So what is due every night is due once in every night.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from zoneinfo import ZoneInfo

from tapefs.errors import UsageError

NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: zoneinfo knows no offsets beyond the years 1 and 9999; whoever is near them has mistyped.
FIRST_YEAR, LAST_YEAR = 1970, 9000
_LOCALTIME = Path("/etc/localtime")


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """Return a time zone of the IANA's database. Raises UsageError."""
    # A name is a path below the folders of the database: nothing else is looked up.
    if re.fullmatch(r"[A-Za-z0-9_+\-]+(/[A-Za-z0-9_+\-]+)*", name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            pass
    raise UsageError(f"{name!r} is no time zone: name one such as Europe/Berlin or UTC")


def local_zone_name() -> str:
    """Return the name of this machine's time zone: of TZ, of /etc/localtime, else UTC."""
    for name in (os.environ.get("TZ", "").removeprefix(":"), _localtime()):
        try:
            if name:
                return zone_of(name).key
        except UsageError:
            continue
    return "UTC"


def _localtime() -> str:
    try:
        target = str(_LOCALTIME.resolve(strict=True))
    except OSError:
        return ""
    return target.partition("/zoneinfo/")[2].removeprefix("posix/").removeprefix("right/")


def instant_of(wall: datetime, zone: ZoneInfo) -> int:
    """Return the instant, in ns, at which the clocks of the zone show `wall`, which is naive."""
    early, late = (_seconds(wall.replace(tzinfo=zone, fold=fold)) for fold in (1, 0))
    if early < late:  # With the offset of before it is behind the change, with that of behind before it.
        return _change_between(early, late, zone) * NS_PER_S
    return late * NS_PER_S


def _change_between(early: int, late: int, zone: ZoneInfo) -> int:
    """Return the second at which the offset changes; it does so once between these two."""
    before = _offset(early, zone)
    while late - early > 1:
        middle = (early + late) // 2
        if _offset(middle, zone) == before:
            early = middle
        else:
            late = middle
    return late


def _offset(at_s: int, zone: ZoneInfo) -> timedelta | None:
    return (_EPOCH + timedelta(seconds=at_s)).astimezone(zone).utcoffset()


def _seconds(at: datetime) -> int:
    return (at.astimezone(UTC) - _EPOCH) // timedelta(seconds=1)


def aware(at_ns: int, zone: ZoneInfo) -> datetime:
    """Return an instant by the clocks of the zone, to the second below."""
    return (_EPOCH + timedelta(seconds=at_ns // NS_PER_S)).astimezone(zone)


def wall_of(at_ns: int, zone: ZoneInfo) -> datetime:
    """Return what the clocks of the zone show, without zone, to the second below."""
    return aware(at_ns, zone).replace(tzinfo=None, fold=0)


def ns_of(at: datetime) -> int:
    """Return the instant of a time that has a zone; its fraction of a second is cut."""
    return _seconds(at) * NS_PER_S
