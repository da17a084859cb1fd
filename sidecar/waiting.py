"""What a job waits for, in a sentence for people: a drive that works, or somebody who moves a tape. One trio run."""

from __future__ import annotations

from catalog.records import Job, JobState
from drivers.registry import drive_name
from sidecar.jobs import JobView
from sidecar.service import Service


def waits_for(service: Service, view: JobView) -> str | None:
    """Return it; None when the job runs, has ended, or waits for nothing but its turn."""
    if view.job.state is JobState.QUEUED:
        return _for_drive(service, view.job)
    if view.job.state is JobState.RUNNING and view.run is not None and view.run.mover is not None:
        return _for_human(service, view.run.mover.drive)
    return None


def _for_drive(service: Service, job: Job) -> str | None:
    failed = "; ".join(f"{health.name} failed: {health.sentence()}" for health in service.fleet.failed())
    if failed and not service.fleet.up():
        return f"for a drive that works: {failed}"
    if job.moves:
        last = job.moves[-1]
        return f"for another drive, {last.drive} failed: {service.fleet.of(last.drive).sentence() or last.reason}"
    return None


def _for_human(service: Service, drive: str) -> str | None:
    """Return what somebody is to do at the drive that the job has, if its robot is a human."""
    human = service.library.human
    prompts = [] if human is None else human.desk.open()
    whence = service.library.whence
    texts = [each.text + whence(each.put_in) for each in prompts if drive_name(each.drive) == drive]
    return f"for somebody: {'; '.join(texts)}" if texts else None
