"""What TAF's calls about the system as a whole answer with. Names are TAF's; null means nothing here."""

from __future__ import annotations

from datetime import datetime

import msgspec


class DatabaseInfo(msgspec.Struct, frozen=True):
    """The catalog."""

    type: str
    path: str


class CompressionInfo(msgspec.Struct, frozen=True):
    """How new jobs compress."""

    method: str
    threads: int


class SystemInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What runs here."""

    app_name: str
    version: str
    python_version: str
    platform: str
    database: DatabaseInfo
    compression: CompressionInfo


class SystemVersion(msgspec.Struct, frozen=True, kw_only=True):
    """The version."""

    version: str
    app_name: str
    changelog: str = ""


class HealthChecks(msgspec.Struct, frozen=True):
    """Each `healthy`, `degraded` or `unhealthy`."""

    database: str
    tape_drive: str
    scheduler: str


class SystemHealth(msgspec.Struct, frozen=True):
    """The worst of the checks, and all."""

    status: str
    checks: HealthChecks


class TaskCounts(msgspec.Struct, frozen=True):
    """Tasks by how they are."""

    total: int
    running: int
    completed: int
    failed: int


class TapeCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Tapes by how they are, and where."""

    total: int
    available: int
    in_use: int
    expired: int
    online: int
    offline: int


class Storage(msgspec.Struct, frozen=True):
    """Room on all tapes, in bytes."""

    total_capacity: int
    used_capacity: int
    usage_percent: float


class RecentBackup(msgspec.Struct, frozen=True, kw_only=True):
    """A set."""

    id: int
    task_name: str
    task_type: str
    status: str
    size_bytes: int
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None


class TrendDay(msgspec.Struct, frozen=True):
    """What was written on a day."""

    date: str
    bytes: int


class SuccessRate(msgspec.Struct, frozen=True, kw_only=True):
    """The share of runs that made a set, in percent."""

    overall: float
    this_month: float
    last_month: float
    change: float
    this_month_count: int
    last_month_count: int


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that is counted."""

    backup_tasks: TaskCounts
    tape_inventory: TapeCounts
    storage: Storage
    #: The newest first.
    recent_backups: list[RecentBackup]
    #: Of the last 30 days, oldest first.
    storage_trend: list[TrendDay]
    success_rate: SuccessRate


class SystemStatistics(Figures, frozen=True, kw_only=True):
    """All that is counted, and for how long the sidecar has run."""

    #: Seconds.
    uptime: int


class OperationDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation was asked for by."""

    request_method: str
    request_url: str
    response_status: int
    request_id: str
    #: Where it was a setting that changed: what it was, and what it is; without secrets.
    old_values: object
    new_values: object


class OperationRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="operation"):
    """A line of the audit log."""

    id: int
    timestamp: str
    level: str
    category: str
    operation_type: str
    resource_type: str
    resource_id: str
    resource_name: str
    user_id: int | None
    username: str
    operation_name: str
    operation_description: str
    success: bool
    result_message: str
    error_message: str | None
    ip_address: str | None
    duration_ms: float
    details: OperationDetails


class SystemRow(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="system"):
    """A line of the log: a warning or an error."""

    id: int
    timestamp: str
    level: str
    category: str
    message: str
    module: str
    function: str
    file_path: str
    line_number: int
    user_id: None = None
    #: Number of the job that it is about.
    task_id: str | None
    #: What stood beside the message.
    details: dict[str, str]
    exception_type: str | None
    stack_trace: str | None
    duration_ms: None = None
    memory_usage_mb: None = None
    cpu_usage_percent: None = None


class Pagination(msgspec.Struct, frozen=True):
    """Which part it is."""

    limit: int
    offset: int
    has_more: bool


class SystemLogs(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of both logs, the newest first."""

    success: bool
    #: Of this page.
    total: int
    logs: list[OperationRow | SystemRow]
    pagination: Pagination
