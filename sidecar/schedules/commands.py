"""Hooks: commands of the settings that run before and behind a run of a schedule or of a job. One trio run.

Only `tapefs.toml` says what a hook is; schedules name it. Whoever may call HTTP may choose among hooks, and make none.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import trio

from catalog.queue_records import HookResult
from catalog.records import Job, JobState
from catalog.schedule_records import Schedule, ScheduleRun
from sidecar.http.requests import Invalid
from sidecar.schedules.programs import run_program
from tapefs.errors import NoSuchThing
from tapefs.home import Home


def check_hooks(home: Home, names: tuple[str, ...]) -> None:
    """Raise NoSuchThing for a name that the settings do not have."""
    for name in names:
        if name not in home.settings.hooks:
            known = ", ".join(home.settings.hooks) or "none"
            raise NoSuchThing(
                f"there is no hook {name}: `[hooks.NAME]` in {home.path}/tapefs.toml makes one; known: {known}"
            )


def check_job_hooks(home: Home, job: Job) -> None:
    """Raise Invalid for a hook of a job that the settings do not have."""
    for field in ("hooks_before", "hooks_after"):
        try:
            check_hooks(home, getattr(job, field))
        except NoSuchThing as error:
            raise Invalid("value_error", ["body", field], str(error)) from error


async def run_hook(
    home: Home, name: str, facts: Mapping[str, str], given_up: trio.Event | None, *, is_after: bool
) -> HookResult:
    """Run a hook to its end, or to the end of its time."""
    hook = home.settings.hooks.get(name)
    if hook is None:
        return HookResult(name=name, error="the settings have no such hook any more", is_after=is_after)
    began_ns = time.monotonic_ns()
    ended = await run_program(hook.argv, {**hook.environment, **facts}, hook.timeout_s, given_up)
    return HookResult(
        name=name,
        error=ended.error,
        output=ended.output,
        duration_ns=time.monotonic_ns() - began_ns,
        is_after=is_after,
    )


def facts_of(home: Home, schedule: Schedule, run: ScheduleRun, set_id: str = "") -> dict[str, str]:
    """Return what a hook is told, as environment variables."""
    return _plain(
        {
            "TAPEFS_HOME": str(home.path),
            "TAPEFS_SCHEDULE": schedule.name,
            "TAPEFS_SCHEDULE_NUMBER": str(schedule.number),
            "TAPEFS_RUN": str(run.number),
            "TAPEFS_ACTION": str(type(schedule.action).__struct_config__.tag or ""),
            "TAPEFS_JOB": "" if run.job is None else str(run.job),
            "TAPEFS_SET": set_id,
            "TAPEFS_OUTCOME": "" if run.outcome is None else run.outcome.value,
            "TAPEFS_ERROR": run.error,
        }
    )


def facts_of_job(home: Home, job: Job) -> dict[str, str]:
    """Return what a hook of a job is told; the outcome once the run has ended."""
    has_ended = job.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)
    return _plain(
        {
            "TAPEFS_HOME": str(home.path),
            "TAPEFS_ACTION": "backup",
            "TAPEFS_JOB": str(job.number),
            "TAPEFS_JOB_NAME": job.name,
            "TAPEFS_RUN": str(job.runs),
            "TAPEFS_SET": job.set_id or "",
            "TAPEFS_OUTCOME": job.state.value if has_ended else "",
            "TAPEFS_ERROR": job.error,
        }
    )


def _plain(facts: Mapping[str, str]) -> dict[str, str]:
    return {name: value.replace("\0", "") for name, value in facts.items()}


def failure(results: tuple[HookResult, ...]) -> str:
    """Return what to say of the first hook that failed; empty when none did."""
    bad = next((each for each in results if each.error), None)
    return "" if bad is None else f"hook {bad.name}: {bad.error}"
