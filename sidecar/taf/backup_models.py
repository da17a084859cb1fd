"""What TAF's calls about backup tasks answer with. Names are TAF's; null means nothing here."""

from __future__ import annotations

from datetime import datetime

import msgspec

from sidecar.taf.schedule_models import RunOptions


class StageStep(msgspec.Struct, frozen=True, kw_only=True):
    """One of TAF's stages."""

    #: `scan`, `prefetch`, `compress`, `copy` or `finalize`.
    code: str
    label: str
    #: `pending`, `active` or `completed`.
    status: str


class BackupTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task, and how its newest run is."""

    task_id: int
    task_name: str
    task_type: str
    #: `pending` (also while it waits for a drive), `running`, `completed`, `failed`, `cancelled` or `paused`.
    status: str
    progress_percent: float
    total_files: int
    processed_files: int
    total_bytes: int
    total_bytes_actual: int
    processed_bytes: int
    compressed_bytes: int
    compression_ratio: float
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    error_message: str | None
    source_paths: list[str]
    tape_device: str | None
    tape_id: str | None
    #: It has not run yet.
    is_template: bool
    #: A scheduled task runs it.
    from_scheduler: bool
    #: Of one that scheduled tasks run: is one of these enabled? Others may always be run.
    enabled: bool
    description: str
    estimated_archive_count: int | None
    operation_status: str
    operation_stage: str | None
    operation_stage_label: str | None
    stage_steps: list[StageStep]
    current_compression_progress: None = None


class BackupTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What a task is asked to do."""

    task_id: int
    task_name: str
    task_type: str
    description: str
    source_paths: list[str]
    tape_device: str | None
    compression_enabled: bool
    encryption_enabled: bool
    retention_days: int
    exclude_patterns: list[str]
    created_at: datetime | None


class TaskMade(msgspec.Struct, frozen=True, kw_only=True):
    """A task was recorded."""

    success: bool
    task_id: int
    message: str
    task_name: str
    is_template: bool


class TaskQueued(msgspec.Struct, frozen=True, kw_only=True):
    """A task was queued."""

    success: bool
    task_id: int
    message: str
    run_options: RunOptions
