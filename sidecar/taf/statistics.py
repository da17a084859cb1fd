"""The figures of TAF's GET /api/system/statistics. Blocking; pure but for the ledger and the time zone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta

from catalog.ledger import Ledger
from catalog.records import BackupSet, JobState, SetState, Volume, VolumeState
from sidecar.http.answers import moment
from sidecar.notices.watching import expiry_states
from sidecar.taf.status_models import Figures, RecentBackup, Storage, SuccessRate, TapeCounts, TaskCounts, TrendDay
from tapefs.home import Home
from tapefs.retention.pools import Pools

#: How many days the trend goes back, and how many backups are shown.
TREND_DAYS, RECENT = 30, 10
_GOOD = (SetState.COMPLETE, SetState.EXPIRED)
_STATUS = {
    SetState.RUNNING: "running",
    SetState.SEALED: "running",
    SetState.COMPLETE: "completed",
    SetState.EXPIRED: "completed",
    SetState.FAILED: "failed",
}


def figures(home: Home, ledger: Ledger, in_library: Sequence[str], now_ns: int) -> Figures:
    """Return all but the uptime; `in_library` are codes of the cartridges that are there."""
    sets, volumes = ledger.backup_sets(), ledger.volumes()
    return Figures(
        backup_tasks=TaskCounts(
            total=ledger.job_count(),
            running=ledger.job_count((JobState.RUNNING,)),
            completed=ledger.job_count((JobState.COMPLETED,)),
            failed=ledger.job_count((JobState.FAILED,)),
        ),
        tape_inventory=inventory(Pools.of(home, ledger), volumes, set(in_library), now_ns),
        storage=storage(volumes),
        recent_backups=[_recent(each) for each in reversed(sets[-RECENT:])],
        storage_trend=trend(sets, _local(now_ns).date()),
        success_rate=success_rate(sets, _local(now_ns)),
    )


def inventory(pools: Pools, volumes: Sequence[Volume], in_library: set[str], now_ns: int) -> TapeCounts:
    """Count tapes."""
    online = sum(volume.code in in_library for volume in volumes)
    return TapeCounts(
        total=len(volumes),
        available=sum(volume.state is VolumeState.BLANK for volume in volumes),
        in_use=sum(volume.state is VolumeState.APPENDABLE for volume in volumes),
        expired=sum(1 for _ in expiry_states(pools, volumes, now_ns)),
        online=online,
        offline=len(volumes) - online,
    )


def storage(volumes: Sequence[Volume]) -> Storage:
    """Sum up room."""
    total, used = sum(volume.capacity_bytes for volume in volumes), sum(volume.used_bytes for volume in volumes)
    percent = round(100 * used / total, 2) if total else 0.0
    return Storage(total, used, percent)


def _recent(each: BackupSet) -> RecentBackup:
    return RecentBackup(
        id=each.number,
        task_name=each.name,
        task_type=each.type,
        status=_STATUS[each.state],
        size_bytes=each.bytes,
        started_at=moment(each.started_at_ns),
        completed_at=moment(each.finished_at_ns),
        error_message=each.error or None,
    )


def trend(sets: Sequence[BackupSet], today: date) -> list[TrendDay]:
    """Return for each of the last days what was written to tape in sets that ended on it, oldest first."""
    written: Counter[date] = Counter()
    for each in sets:
        if each.state in _GOOD and each.finished_at_ns:
            written[_local(each.finished_at_ns).date()] += each.stored_bytes
    days = [today - timedelta(days=back) for back in range(TREND_DAYS - 1, -1, -1)]
    return [TrendDay(day.isoformat(), written[day]) for day in days]


def success_rate(sets: Sequence[BackupSet], now: datetime) -> SuccessRate:
    """Return the share of runs that made a set, in percent; of none 0."""
    this_month = now.strftime("%Y-%m")
    last_month = (now.replace(day=1) - timedelta(days=1)).strftime("%Y-%m")
    ended = [each for each in sets if each.state in (*_GOOD, SetState.FAILED) and each.finished_at_ns]
    by_month: dict[str, list[BackupSet]] = {this_month: [], last_month: []}
    for each in ended:
        by_month.setdefault(_local(each.finished_at_ns).strftime("%Y-%m"), []).append(each)
    now_rate, last_rate = _percent(by_month[this_month]), _percent(by_month[last_month])
    return SuccessRate(
        overall=_percent(ended),
        this_month=now_rate,
        last_month=last_rate,
        change=round(now_rate - last_rate, 2),
        this_month_count=len(by_month[this_month]),
        last_month_count=len(by_month[last_month]),
    )


def _percent(sets: Sequence[BackupSet]) -> float:
    return round(100 * sum(each.state in _GOOD for each in sets) / len(sets), 2) if sets else 0.0


def _local(at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns / 1e9).astimezone()
