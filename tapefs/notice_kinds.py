"""The kinds of notices: how grave each is, its title, and which of TAF's flags switches it. Pure data.

A channel that names no kinds gets those that are grave enough; TAF's gateway gets those whose flag is set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from fnmatch import fnmatchcase


class Gravity(IntEnum):
    """How much a notice matters."""

    #: For those who follow along.
    DETAIL = 0
    #: Something came to its end as it should.
    NEWS = 1
    #: Somebody should look at it, or do something, within days.
    WARNING = 2
    #: Something has failed, or waits for somebody now.
    ALARM = 3


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind."""

    name: str
    gravity: Gravity
    #: What stands above the message, in English and as TAF has it.
    title: str
    title_zh: str
    #: Name of TAF's flag that switches it; empty: TAF has none for it.
    flag: str = ""


_D, _N, _W, _A = Gravity.DETAIL, Gravity.NEWS, Gravity.WARNING, Gravity.ALARM

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("backup.started", _N, "🚀 Backup started", "🚀 备份任务开始", "notify_backup_started"),
        Kind("backup.succeeded", _N, "✅ Backup complete", "✅ 备份任务完成", "notify_backup_success"),
        Kind("backup.failed", _A, "❌ Backup failed", "❌ 备份任务失败", "notify_backup_failed"),
        Kind("backup.cancelled", _W, "⏹️ Backup cancelled", "⏹️ 备份任务已取消", "notify_backup_failed"),
        Kind("backup.queued", _D, "⏳ Backup queued", "⏳ 备份任务排队"),
        Kind("restore.started", _D, "🚀 Restore started", "🚀 恢复任务开始"),
        Kind("restore.succeeded", _N, "✅ Restore complete", "✅ 恢复任务完成", "notify_recovery_success"),
        Kind("restore.failed", _A, "❌ Restore failed", "❌ 恢复任务失败", "notify_recovery_failed"),
        Kind("restore.cancelled", _W, "⏹️ Restore cancelled", "⏹️ 恢复任务已取消", "notify_recovery_failed"),
        Kind("verify.started", _D, "🔎 Reading back started", "🔎 校验任务开始"),
        Kind("verify.succeeded", _N, "✅ Reading back complete", "✅ 校验任务完成"),
        Kind("verify.failed", _A, "❌ Reading back failed", "❌ 校验任务失败", "notify_tape_error"),
        Kind("copy.damaged", _A, "⚠️ A copy on tape is damaged", "⚠️ 磁带副本损坏", "notify_tape_error"),
        Kind("tape.wanted", _A, "📼 A tape is wanted", "📼 需要更换磁带", "notify_tape_change"),
        Kind("tape.expired", _N, "⏰ A tape has expired", "⏰ 磁带已过期", "notify_tape_expired"),
        Kind("tape.error", _A, "⚠️ A tape makes trouble", "⚠️ 磁带操作异常", "notify_tape_error"),
        Kind("tape.full", _D, "📼 A tape is full", "📼 磁带已满"),
        Kind("tape.renewed", _N, "✅ A tape begins anew", "✅ 磁带格式化", "notify_tape_change"),
        Kind("capacity.low", _W, "⚠️ Room runs out", "⚠️ 存储容量预警", "notify_capacity_warning"),
        Kind("capacity.enough", _N, "✅ There is room again", "✅ 存储容量恢复", "notify_capacity_warning"),
        Kind("drive.failed", _A, "⚠️ A drive has failed", "⚠️ 磁带机故障", "notify_tape_error"),
        Kind("drive.back", _N, "✅ A drive works again", "✅ 磁带机恢复", "notify_tape_error"),
        Kind("cleaning.wanted", _W, "🧽 A drive wants cleaning", "🧽 磁带机需要清洁", "notify_tape_error"),
        Kind("key.locked", _N, "🔒 A key is locked", "🔒 密钥已锁定"),
        Kind("system.started", _N, "🚀 tapefs has started", "🚀 系统启动", "notify_system_started"),
        Kind("system.stopping", _N, "⏹️ tapefs is ending", "⏹️ 系统停止", "notify_system_started"),
        Kind("system.error", _A, "❌ tapefs has an error", "❌ 系统错误", "notify_system_error"),
        Kind("catalog.copied", _N, "✅ The catalog was copied", "✅ 目录备份完成"),
        Kind("schedule.failed", _A, "❌ A scheduled run has failed", "❌ 计划任务失败", "notify_system_error"),
        Kind("hook.failed", _A, "❌ A hook has failed", "❌ 任务脚本失败", "notify_system_error"),
        Kind("set.expired", _D, "🗑️ A set has expired", "🗑️ 备份集已过期"),
        Kind("test", _A, "🔔 A test of tapefs", "🔔 测试消息"),
    )
}

#: TAF's flags, in its order.
FLAGS = (
    "notify_backup_success",
    "notify_backup_started",
    "notify_backup_failed",
    "notify_recovery_success",
    "notify_recovery_failed",
    "notify_tape_change",
    "notify_tape_expired",
    "notify_tape_error",
    "notify_capacity_warning",
    "notify_system_error",
    "notify_system_started",
)


def kinds_switched_on(off: Iterable[str]) -> list[str]:
    """Return the names of the kinds that a flag of TAF's switches, but for flags that are off."""
    off = frozenset(off)
    return [kind.name for kind in KINDS.values() if kind.flag and kind.flag not in off]


def is_wanted(kind: Kind, patterns: Iterable[str]) -> bool:
    """Does a channel with these patterns (`backup.*`) want that kind? Without patterns: warnings and alarms."""
    patterns = tuple(patterns)
    if not patterns:
        return kind.gravity >= Gravity.WARNING
    return any(fnmatchcase(kind.name, pattern) for pattern in patterns)


def unknown_patterns(patterns: Iterable[str]) -> list[str]:
    """Return the patterns that fit no kind."""
    return [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in KINDS)]
