"""`tapefs jobs`."""

from __future__ import annotations

import click

from catalog.records import Job
from tapefs.cli.output import Json, iso_time, paths, print_json, print_table, short_time
from tapefs.cli.place import Place, ledger_of


@click.command("jobs")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def jobs_command(place: Place, as_json: bool) -> None:
    """List the backup jobs and how their newest run went, oldest first."""
    with ledger_of(place) as ledger:
        jobs = ledger.jobs()
    if as_json:
        print_json([_json(job) for job in jobs])
        return
    print_table(
        ("JOB", "NAME", "TYPE", "STATE", "QUEUED", "FINISHED", "SET", "ERROR"),
        [
            (
                str(job.number),
                job.name,
                job.type,
                job.state.value,
                short_time(job.queued_at_ns),
                short_time(job.finished_at_ns),
                job.set_id or "-",
                job.error,
            )
            for job in jobs
        ],
    )


def _json(job: Job) -> Json:
    return {
        "number": job.number,
        "job_id": job.job_id,
        "name": job.name,
        "type": job.type,
        "codec": job.codec,
        "level": job.level,
        **paths("sources", job.sources),
        "excludes": list(job.excludes),
        "state": job.state.value,
        "runs": job.runs,
        "set_id": job.set_id,
        "error": job.error or None,
        "created_at": iso_time(job.created_at_ns),
        "queued_at": iso_time(job.queued_at_ns),
        "started_at": iso_time(job.started_at_ns),
        "finished_at": iso_time(job.finished_at_ns),
    }
