"""`tapefs jobs`: the list, and what holds the queue or a job."""

from __future__ import annotations

import time
from contextlib import suppress

import click

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.queue_records import HIGHEST_PRIORITY, CheckState
from catalog.records import Job, JobState
from tapefs.cli.output import Json, iso_time, paths, print_json, print_table, printable, short_ids, short_time
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.cli.standstill import tell_standstill
from tapefs.client.job_fields import asked_of
from tapefs.errors import NoSuchThing, UsageError
from tapefs.sizes import counted

#: So often a command looks whether a job has stopped.
POLL_S = 0.2
#: Jobs in one list when nobody says how many.
USUAL_LIMIT = 1000


@click.group(
    "jobs", invoke_without_command=True, no_args_is_help=False, short_help="List the backup jobs; pause and resume."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--limit", type=click.IntRange(0), default=USUAL_LIMIT, show_default=True, help="The newest ones; 0: all."
)
@click.pass_context
def jobs_command(context: click.Context, as_json: bool, limit: int) -> None:
    """List the backup jobs and how their newest run went, oldest first; hold and let go what waits and runs."""
    if context.invoked_subcommand is None:
        list_jobs(context.obj, as_json, limit)


@jobs_command.command("pause")
@click.argument("job", metavar="[JOB]", required=False)
@click.option("--reason", default="", metavar="TEXT", help="Of the whole queue: shown to those whose jobs wait.")
@click.pass_obj
def pause_command(place: Place, job: str | None, reason: str) -> None:
    """Pause a job, or the whole queue.

    A job that waits is not begun; one that runs stops where its segment ends, and keeps what is on tape. With the queue
    paused no job begins, and those that run go on to their end: pause it before maintenance, and wait until none runs.
    Both last until `tapefs jobs resume`, whatever is restarted meanwhile.
    """
    number = None if job is None else job_number(place, job)
    with sidecar_of(place) as client:
        if number is not None:
            view = client.pause_job(number)
            while view.is_pausing:
                time.sleep(POLL_S)
                view = client.job(number)
            click.echo(f"job {number} is {view.state.value}", err=True)
            return
        queue = client.pause_queue(reason)
    running = f"; {counted(queue.running, 'job')} still running, see `tapefs jobs`" if queue.running else ""
    click.echo(f"the queue is paused, {counted(queue.queued, 'job')} waiting{running}", err=True)


@jobs_command.command("resume")
@click.argument("job", metavar="[JOB]", required=False)
@click.pass_obj
def resume_command(place: Place, job: str | None) -> None:
    """Let a paused job, or the whole queue, go on.

    A run goes on behind what it has brought to tape. A sidecar that keeps running has to do it: `tapefs serve`.
    `tapefs job resume JOB` goes on at once and waits.
    """
    number = None if job is None else job_number(place, job)
    with sidecar_of(place) as client:
        if number is not None:
            client.resume_job(number)
            return
        queue = client.resume_queue()
    click.echo(f"the queue goes on, {counted(queue.queued, 'job')} waiting", err=True)


@jobs_command.command("priority")
@click.argument("job", metavar="JOB")
@click.argument("priority", metavar="N", type=click.IntRange(0, HIGHEST_PRIORITY))
@click.pass_obj
def priority_command(place: Place, job: str, priority: int) -> None:
    """Give a job another priority, 0 to 100; 50 is usual.

    Of those that wait the highest runs first. An hour of waiting counts like one step.
    """
    number = job_number(place, job)
    with sidecar_of(place) as client:
        client.rank_job(number, priority)


def list_jobs(place: Place, as_json: bool, limit: int = USUAL_LIMIT) -> None:
    """Print the newest jobs."""
    if not place.is_here:
        from tapefs.cli.elsewhere import list_jobs_of

        with sidecar_of(place) as client:
            list_jobs_of(client, limit, as_json)
        return
    with ledger_of(place) as ledger:
        count, held = ledger.job_count(), ledger.queue_state()
        jobs = ledger.job_page(limit or count, newest_first=True)[::-1]
        running = [f"job {each.number}" for each in ledger.jobs_in([JobState.RUNNING])]
        is_queued = bool(ledger.jobs_in([JobState.QUEUED])) and not held.is_paused
        short = short_ids(each.set_id for each in ledger.backup_sets())
    if as_json:
        print_json([job_json(job) for job in jobs])
        tell_standstill(place.home(), running, queued=is_queued, err=True)
        return
    if not jobs:
        click.echo("No jobs yet: `tapefs backup DIR` makes and runs one, `tapefs job create DIR` makes one for later.")
        return
    print_table(
        ("JOB", "NAME", "TYPE", "STATE", "PRIO", "QUEUED", "FINISHED", "SET", "REMARKS"),
        [
            (
                str(job.number),
                job.name,
                job.run_type or job.type,
                job.state.value,
                str(job.priority),
                short_time(job.queued_at_ns),
                short_time(job.finished_at_ns),
                short.get(job.set_id, job.set_id) if job.set_id is not None else "-",
                job.error or remark(job, is_held=held.is_paused),
            )
            for job in jobs
        ],
    )
    if held.is_paused:
        why = f" ({printable(held.reason)})" if held.reason else ""
        click.echo(f"The queue is paused since {short_time(held.at_ns)}{why}: `tapefs jobs resume` lets it go on.")
    if count > len(jobs):
        click.echo(f"{count - len(jobs):,} older ones are not shown: --limit 0 shows all.")
    tell_standstill(place.home(), running, queued=is_queued)


def remark(job: Job, *, is_held: bool) -> str:
    """Return in a few words why a job waits, or how its verification went; empty when there is nothing to say."""
    if job.state is JobState.PAUSED:
        return f"`tapefs jobs resume {job.number}` lets it go on"
    if job.state is JobState.QUEUED:
        return _why_it_waits(job, is_held=is_held)
    bad = [f"HOOK {each.name}: {each.error}" for each in job.hooks if each.is_after and each.error]
    if bad:
        return bad[0]
    if job.check is not None:
        return {
            CheckState.WAITING: "its set is being verified",
            CheckState.GOOD: "verified",
            CheckState.CANCELLED: "its verification was cancelled",
            CheckState.FAILED: f"NOT VERIFIED: {job.check.reason}",
        }[job.check.state]
    return ""


def _why_it_waits(job: Job, *, is_held: bool) -> str:
    if is_held:
        return "the queue is paused"
    if job.not_before_ns > time.time_ns():
        why = f": {job.tries[-1].reason}" if job.tries else ""
        return f"waits until {short_time(job.not_before_ns)}{why}"
    if job.after:
        return f"runs after job {', '.join(str(number) for number in job.after)}"
    if job.moves:
        return f"waits for another drive: {job.moves[-1].drive} failed: {job.moves[-1].reason}"
    return f"goes on: {job.tries[-1].reason}" if job.tries else ""


def job_number(place: Place, text: str) -> JobNumber:
    """Return the number of the job of that number or name. Raises as find_job."""
    if place.is_here:
        return find_job(place, text).number
    from tapefs.cli.elsewhere import number_of_job

    with sidecar_of(place) as client:
        return number_of_job(client, text)


def find_job(place: Place, text: str) -> Job:
    """Return the job of that number or name. Raises NoSuchThing, UsageError when several have the name."""
    with ledger_of(place) as ledger:
        found = []
        if text.isascii() and text.isdigit():
            with suppress(NotFound):
                found = [ledger.job(JobNumber(int(text)))]
        found = found or ledger.jobs_named(text)
    if not found:
        raise NoSuchThing(f"there is no job {printable(text)}; see `tapefs jobs`")
    if len(found) > 1:
        numbers = ", ".join(f"{job.number} ({short_time(job.created_at_ns)})" for job in found)
        raise UsageError(f"several jobs have the name {printable(text)}: use the number of one of {numbers}")
    return found[0]


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
        "tries": [
            {"kind": each.kind.value, "reason": each.reason, "at": iso_time(each.at_ns), "segments": each.segments}
            for each in job.tries
        ],
        "hooks": [
            {
                "name": each.name,
                "is_after": each.is_after,
                "error": each.error or None,
                "output": each.output,
                "duration_s": round(each.duration_ns / 1e9, 3),
            }
            for each in job.hooks
        ],
        "not_before": iso_time(job.not_before_ns),
        "paused_at": iso_time(job.paused_at_ns),
        "check": None
        if job.check is None
        else {
            "state": job.check.state.value,
            "reason": job.check.reason or None,
            "at": iso_time(job.check.at_ns),
        },
        "created_at": iso_time(job.created_at_ns),
        "queued_at": iso_time(job.queued_at_ns),
        "started_at": iso_time(job.started_at_ns),
        "finished_at": iso_time(job.finished_at_ns),
    }
