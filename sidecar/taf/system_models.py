"""What goes into TAF's calls about settings and comes out of them. Names and types are TAF's; null means nothing here.

In a PUT what is missing stays; see `sidecar.taf.configuration` for what can be changed.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

_Text = str | None | UnsetType
_Number = int | None | UnsetType
_Flag = bool | None | UnsetType


class SystemConfig(msgspec.Struct, frozen=True, kw_only=True):
    """TAF's most important settings."""

    default_retention_months: _Number = UNSET
    retention_months: _Number = UNSET
    auto_erase_expired: _Flag = UNSET
    monthly_backup_cron: _Text = UNSET
    dingtalk_api_url: _Text = UNSET
    dingtalk_api_key: _Text = UNSET
    dingtalk_default_phone: _Text = UNSET
    scheduler_enabled: _Flag = UNSET
    compression_level: _Number = UNSET
    max_file_size: _Number = UNSET
    enable_tape_format_before_full: _Flag = UNSET
    database_config: dict[str, object] | UnsetType | None = UNSET


class EnvConfig(msgspec.Struct, frozen=True, kw_only=True):
    """TAF's `.env`, as far as there is anything to say."""

    app_name: _Text = UNSET
    debug: _Flag = UNSET
    environment: _Text = UNSET
    web_host: _Text = UNSET
    web_port: _Number = UNSET
    enable_cors: _Flag = UNSET
    db_host: _Text = UNSET
    db_port: _Number = UNSET
    db_user: _Text = UNSET
    db_password: _Text = UNSET
    db_database: _Text = UNSET
    db_pool_size: _Number = UNSET
    db_max_overflow: _Number = UNSET
    db_query_dop: _Number = UNSET
    itdt_path: _Text = UNSET
    itdt_device_path: _Text = UNSET
    ltfs_tools_dir: _Text = UNSET
    tape_drive_letter: _Text = UNSET
    dingtalk_api_url: _Text = UNSET
    dingtalk_api_key: _Text = UNSET
    dingtalk_default_phone: _Text = UNSET
    default_retention_months: _Number = UNSET
    auto_erase_expired: _Flag = UNSET
    max_file_size: _Number = UNSET
    backup_compress_dir: _Text = UNSET
    scan_update_interval: _Number = UNSET
    scan_log_interval_seconds: _Number = UNSET
    scan_wait_timeout: _Number = UNSET
    scan_method: _Text = UNSET
    es_exe_path: _Text = UNSET
    use_scan_multithread: _Flag = UNSET
    scan_threads: _Number = UNSET
    use_checkpoint: _Flag = UNSET
    enable_background_copy_update: _Flag = UNSET
    compression_parallel_batches: _Number = UNSET
    use_memory_db: _Flag = UNSET
    memory_db_max_files: _Number = UNSET
    memory_db_sync_batch_size: _Number = UNSET
    memory_db_sync_interval: _Number = UNSET
    memory_db_checkpoint_interval: _Number = UNSET
    memory_db_checkpoint_retention_hours: _Number = UNSET
    sqlite_cache_size: _Number = UNSET
    sqlite_page_size: _Number = UNSET
    sqlite_timeout: float | UnsetType | None = UNSET
    sqlite_journal_mode: _Text = UNSET
    sqlite_synchronous: _Text = UNSET
    log_level: _Text = UNSET
    enable_tape_format_before_full: _Flag = UNSET


class EnvAnswer(msgspec.Struct, frozen=True):
    """The same, shown."""

    success: bool
    config: EnvConfig


class CompressionConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How new tasks of TAF's calls are compressed."""

    compression_method: _Text = UNSET
    sevenzip_path: _Text = UNSET
    compression_threads: _Number = UNSET
    compression_command_threads: _Number = UNSET
    compression_level: _Number = UNSET
    compress_directly_to_tape: _Flag = UNSET
    pgzip_block_size: _Text = UNSET
    pgzip_threads: _Number = UNSET
    zstd_threads: _Number = UNSET
    available_methods: list[str] | UnsetType = UNSET
    default_sevenzip_paths: list[str] | UnsetType = UNSET


class TapeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Which drive there is, and how it is written."""

    tape_device_path: _Text = UNSET
    tape_drive_letter: _Text = UNSET
    default_block_size: _Number = UNSET
    max_volume_size: _Number = UNSET
    tape_pool_size: _Number = UNSET
    tape_check_interval: _Number = UNSET
    auto_tape_cleanup: _Flag = UNSET
    itdt_path: _Text = UNSET
    ltfs_tools_dir: _Text = UNSET
    default_device_address: _Text = UNSET


class TapeState(msgspec.Struct, frozen=True):
    """How the first drive is."""

    connected: bool
    device_info: dict[str, str | int | None]


class TapeConfigAnswer(msgspec.Struct, frozen=True):
    """Both."""

    success: bool
    config: TapeConfig
    status: TapeState


class DriveRow(msgspec.Struct, frozen=True):
    """A folder that may be backed up, where TAF has drive letters."""

    path: str
    name: str
    type: str
    available: bool


class DriveRows(msgspec.Struct, frozen=True):
    """All of them."""

    drives: list[DriveRow]


class PathRow(msgspec.Struct, frozen=True, kw_only=True):
    """Something in a folder of this host."""

    name: str
    path: str
    type: str
    size: int
    modified: datetime | None
    readable: bool
    writable: bool


class PathRows(msgspec.Struct, frozen=True):
    """Some of a folder, by name."""

    current_path: str
    items: list[PathRow]
    parent_path: str | None


class SevenZip(msgspec.Struct, frozen=True):
    """Is 7-Zip here?"""

    success: bool
    message: str
    path: str | None
