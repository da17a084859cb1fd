"""GET /metrics for Prometheus: all figures are read when they are asked for.

What is live is read in the trio run, what stands in the ledger in a thread; the sums over all sets are made anew only
when the ledger has changed. Names stand in docs/monitoring.md, and a test holds them against the dashboard.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from catalog.ledger import Ledger
from catalog.life_records import CartridgeLife
from catalog.notice_records import ChannelRecord
from catalog.records import JobState, SetState, Volume, VolumeState
from sidecar.http.accounting import BOUNDS_S, HttpFigures
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.service import Service
from tapefs import __version__
from tapefs.log_ring import RING
from tapefs.staging.area import StagingArea

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_OPEN = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)


@dataclass(frozen=True, slots=True)
class _Sums:
    """What is counted over all sets; of one state of the ledger."""

    event: int
    by_state: Counter[str]
    #: By name of the job, in seconds since 1970.
    last_success_s: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Stored:
    """What stands in the ledger."""

    sums: _Sums
    jobs: Counter[str]
    jobs_known: int
    oldest_job_s: float
    volumes: list[Volume]
    lives: list[CartridgeLife]
    channels: list[ChannelRecord]
    waiting: Counter[str]
    notices: int


class MetricsCalls:
    """The figures."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._sums: _Sums | None = None

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [Call("/metrics", self.metrics, needs=Role.VIEWER, media="text/plain")]

    async def metrics(self, request: Request) -> Response:
        """Tell all figures as Prometheus reads them."""
        service = self._service
        stored = await trio.to_thread.run_sync(self._stored)
        staged = await trio.to_thread.run_sync(StagingArea(service.home.staging).used_bytes)
        registry = CollectorRegistry()
        ProcessCollector(namespace="tapefs", registry=registry)
        registry.register(_Families([*live_metrics(service, staged), *stored_metrics(stored)]))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE)

    def _stored(self) -> _Stored:
        """Read the ledger. Blocking."""
        ledger = self._service.ledger
        now_ns = time.time_ns()
        is_new = self._sums is None or self._sums.event != ledger.newest_event()
        sums = self._sums = _sums_of(ledger) if is_new or self._sums is None else self._sums
        open_jobs = ledger.jobs_in(_OPEN)
        queued = [job.queued_at_ns for job in open_jobs if job.state is JobState.QUEUED]
        return _Stored(
            sums=sums,
            jobs=Counter(job.state.value for job in open_jobs),
            jobs_known=ledger.job_count(),
            oldest_job_s=max(now_ns - min(queued, default=now_ns), 0) / 1e9,
            volumes=ledger.volumes(),
            lives=ledger.lives(),
            channels=ledger.channel_records(),
            waiting=Counter(each.channel for each in ledger.deliveries() if not each.is_given_up),
            notices=ledger.newest_notice(),
        )


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """Return what was read."""
        return self._families


def _sums_of(ledger: Ledger) -> _Sums:
    event = ledger.newest_event()
    by_state: Counter[str] = Counter()
    last: dict[str, float] = {}
    for each in ledger.backup_sets():
        by_state[each.state.value] += 1
        if each.state in (SetState.COMPLETE, SetState.EXPIRED) and each.finished_at_ns:
            last[each.name] = max(last.get(each.name, 0.0), each.finished_at_ns / 1e9)
    return _Sums(event, by_state, last)


def live_metrics(service: Service, staged: int) -> Iterator[Metric]:
    """Yield what only the running sidecar knows. In the trio run."""
    info = GaugeMetricFamily("tapefs_info", "Which tapefs answers; always 1.", labels=["version"])
    info.add_metric([__version__], 1)
    yield info
    troubles = len(service.troubles())
    yield GaugeMetricFamily("tapefs_parts_failed", "Parts of the sidecar, and schedules, that failed lately.", troubles)
    yield GaugeMetricFamily("tapefs_uptime_seconds", "Since the sidecar began.", service.lag.uptime_s())
    yield GaugeMetricFamily(
        "tapefs_event_loop_lag_seconds", "Worst lateness of the event loop in 10 s.", service.lag.worst_s()
    )
    yield from _drive_metrics(service)
    queue = service.recalls.queue
    yield GaugeMetricFamily("tapefs_recalls_waiting", "Readers that wait for tape.", queue.waiting())
    waited = queue.waited_s(trio.current_time())
    yield GaugeMetricFamily(
        "tapefs_recalls_oldest_seconds", "How long the oldest of them has waited.", max(waited.values(), default=0.0)
    )
    yield GaugeMetricFamily("tapefs_staging_bytes", "Disk space that staged content takes.", staged)
    yield GaugeMetricFamily("tapefs_staging_limit_bytes", "What it may take.", service.evictor.limit_bytes)
    lines = CounterMetricFamily("tapefs_log_lines", "Warnings and errors in the log.", labels=["level"])
    for level in ("WARNING", "ERROR", "CRITICAL"):
        lines.add_metric([level.lower()], RING.totals.get(level, 0))
    yield lines
    yield from http_metrics(service.figures)


def _drive_metrics(service: Service) -> Iterator[Metric]:
    states = GaugeMetricFamily("tapefs_drive_state", "What a drive does now: 1.", labels=["drive", "state"])
    failed = GaugeMetricFamily("tapefs_drive_failed", "1 while a drive has failed.", labels=["drive"])
    seconds = CounterMetricFamily("tapefs_drive_seconds", "Time of a drive by state.", labels=["drive", "state"])
    for drive in service.drives:
        states.add_metric([drive.name, drive.state], 1)
        failed.add_metric([drive.name], bool(drive.health.reason))
    for (name, state), spent in sorted(service.lag.drive_seconds.items()):
        seconds.add_metric([name, state], spent)
    yield from (states, failed, seconds)


def http_metrics(figures: HttpFigures) -> Iterator[Metric]:
    """Yield what was asked over HTTP."""
    family = HistogramMetricFamily(
        "tapefs_http_request_duration_seconds", "Requests by method and status.", labels=["method", "status"]
    )
    for (method, status), each in sorted(figures.requests.items()):
        buckets = [(str(bound), count) for bound, count in zip(BOUNDS_S, each.within, strict=True)]
        family.add_metric([method, status], [*buckets, ("+Inf", each.count)], each.sum_s)
    yield family
    yield GaugeMetricFamily("tapefs_http_requests_in_flight", "Requests that are being served.", figures.in_flight)


def stored_metrics(stored: _Stored) -> Iterator[Metric]:
    """Yield what stands in the ledger. Pure."""
    jobs = GaugeMetricFamily("tapefs_jobs", "Jobs that have not ended, by state.", labels=["state"])
    for state in _OPEN:
        jobs.add_metric([state.value], stored.jobs[state.value])
    yield jobs
    yield GaugeMetricFamily("tapefs_jobs_known", "All jobs.", stored.jobs_known)
    yield GaugeMetricFamily("tapefs_jobs_oldest_seconds", "Age of the oldest queued job.", stored.oldest_job_s)
    sets = GaugeMetricFamily("tapefs_sets", "Backup sets by state.", labels=["state"])
    for each in SetState:
        sets.add_metric([each.value], stored.sums.by_state[each.value])
    yield sets
    last = GaugeMetricFamily(
        "tapefs_job_last_success_timestamp_seconds", "When a job made its newest complete set.", labels=["name"]
    )
    for name, at_s in sorted(stored.sums.last_success_s.items()):
        last.add_metric([name], at_s)
    yield last
    yield from _tape_metrics(stored.volumes, stored.lives)
    yield CounterMetricFamily("tapefs_notices", "Notices so far.", stored.notices)
    yield from _channel_metrics(stored)


def _tape_metrics(volumes: list[Volume], lives: list[CartridgeLife]) -> Iterator[Metric]:
    tapes = GaugeMetricFamily("tapefs_tapes", "Tapes by state and pool.", labels=["state", "pool"])
    capacity = GaugeMetricFamily("tapefs_tape_capacity_bytes", "Capacity of the tapes of a pool.", labels=["pool"])
    used = GaugeMetricFamily("tapefs_tape_used_bytes", "What is written on them.", labels=["pool"])
    for pool in sorted({volume.pool for volume in volumes}):
        own = [volume for volume in volumes if volume.pool == pool]
        for state in VolumeState:
            tapes.add_metric([state.value, pool], sum(volume.state is state for volume in own))
        capacity.add_metric([pool], sum(volume.capacity_bytes for volume in own))
        used.add_metric([pool], sum(volume.used_bytes for volume in own))
    yield from (tapes, capacity, used)
    yield CounterMetricFamily("tapefs_mounts", "Tapes put into drives.", sum(life.mountings for life in lives))
    yield CounterMetricFamily("tapefs_tape_written_bytes", "To all tapes.", sum(life.written_bytes for life in lives))
    yield CounterMetricFamily("tapefs_tape_read_bytes", "From all tapes.", sum(life.read_bytes for life in lives))
    failures = CounterMetricFamily("tapefs_tape_failures", "Writing and reading that failed.", labels=["direction"])
    failures.add_metric(["write"], sum(life.write_failures for life in lives))
    failures.add_metric(["read"], sum(life.read_failures for life in lives))
    yield failures


def _channel_metrics(stored: _Stored) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("tapefs_deliveries_waiting", "Notices to be delivered.", labels=["channel"])
    delivered = CounterMetricFamily("tapefs_deliveries", "Notices delivered.", labels=["channel"])
    given_up = CounterMetricFamily("tapefs_deliveries_given_up", "Notices given up.", labels=["channel"])
    for record in stored.channels:
        delivered.add_metric([record.name], record.delivered)
        given_up.add_metric([record.name], record.given_up)
    for name in sorted({*stored.waiting, *(record.name for record in stored.channels)}):
        waiting.add_metric([name], stored.waiting[name])
    yield from (waiting, delivered, given_up)
