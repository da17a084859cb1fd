"""What a job waits for, in a sentence for people. One trio run.

A time, another job, somebody who lets it or the queue go on, a drive that works, or somebody who moves a tape.
"""

from __future__ import annotations

from datetime import datetime

from catalog.records import Job, JobState
from drivers.registry import drive_name
from sidecar.jobs.line import Outlook
from sidecar.jobs.queue import JobView
from sidecar.service import Service


def waits_for(service: Service, view: JobView) -> str | None:
    """Return it; None when the job runs, has ended, or waits for nothing but its turn."""
    if view.job.state is JobState.PAUSED:
        return "until somebody resumes it, for it is paused"
    if view.job.state is JobState.QUEUED:
        return _before_a_drive(service, view.job) or _for_drive(service, view.job)
    if view.job.state is JobState.RUNNING and view.run is not None and view.run.is_pausing:
        return "for the end of a segment, to be paused"
    if view.job.state is JobState.RUNNING and view.run is not None and view.run.mover is not None:
        return _for_human(service, view.run.mover.drive)
    return None


def _before_a_drive(service: Service, job: Job) -> str | None:
    """Return why no drive may take it yet."""
    held = service.jobs.held
    if held.is_paused:
        return f"until the queue is resumed, for it is paused{f': {held.reason}' if held.reason else ''}"
    if job.not_before_ns > service.jobs.now_ns():
        at = datetime.fromtimestamp(job.not_before_ns / 1e9).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        return f"until {at} for its next try: {job.tries[-1].reason}" if job.tries else f"until {at}"
    if job.number in service.jobs.coming and (stream := service.streams.of(job.number)) is not None:
        return f"for its client to send more or to end: {stream.bytes} bytes so far"
    if job.after:
        verdict, words = service.jobs.outlook(job)
        return None if verdict is Outlook.READY else f"for the end of {words}"
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
