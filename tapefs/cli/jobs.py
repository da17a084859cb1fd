"""`tapefs jobs`."""

from __future__ import annotations

import click

from catalog.records import Job, JobState
from tapefs.cli.output import Json, iso_time, paths, print_json, print_table, short_ids, short_time
from tapefs.cli.place import Place, ledger_of
from tapefs.client.job_fields import asked_of


@click.command("jobs", short_help="List the backup jobs and how their newest run went.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def jobs_command(place: Place, as_json: bool) -> None:
    """List the backup jobs and how their newest run went, oldest first."""
    list_jobs(place, as_json)


def list_jobs(place: Place, as_json: bool) -> None:
    """Print all jobs."""
    with ledger_of(place) as ledger:
        jobs = ledger.jobs()
        short = short_ids(each.set_id for each in ledger.backup_sets())
    if as_json:
        print_json([job_json(job) for job in jobs])
        return
    if not jobs:
        click.echo("No jobs yet: `tapefs backup DIR` makes and runs one, `tapefs job create DIR` makes one for later.")
        return
    print_table(
        ("JOB", "NAME", "TYPE", "STATE", "QUEUED", "FINISHED", "SET", "ERROR"),
        [
            (
                str(job.number),
                job.name,
                job.run_type or job.type,
                job.state.value,
                short_time(job.queued_at_ns),
                short_time(job.finished_at_ns),
                short.get(job.set_id, job.set_id) if job.set_id is not None else "-",
                job.error or _why_it_waits(job),
            )
            for job in jobs
        ],
    )


def _why_it_waits(job: Job) -> str:
    """Return why a job that has begun is queued again."""
    if job.state is not JobState.QUEUED or not job.moves:
        return ""
    return f"waits for another drive: {job.moves[-1].drive} failed: {job.moves[-1].reason}"


def job_json(job: Job) -> Json:
    """Return a job as JSON shows it."""
    return {
        "number": job.number,
        "job_id": job.job_id,
        "name": job.name,
        **paths("sources", job.sources),
        **{field: value for field, value in asked_of(job).items() if field not in ("name", "sources")},
        "state": job.state.value,
        "runs": job.runs,
        "set_id": job.set_id,
        "error": job.error or None,
        "moves": [
            {"drive": move.drive, "tape": move.tape or None, "reason": move.reason, "at": iso_time(move.at_ns)}
            for move in job.moves
        ],
        "created_at": iso_time(job.created_at_ns),
        "queued_at": iso_time(job.queued_at_ns),
        "started_at": iso_time(job.started_at_ns),
        "finished_at": iso_time(job.finished_at_ns),
    }
