"""`tapefs job`: backup jobs as templates, made once and run many times."""

from __future__ import annotations

from collections.abc import Mapping

import click
from msgspec import UNSET, structs, to_builtins

from tapefs.cli.backup import absolute, submitting, wait_ended, wait_unless, with_sources
from tapefs.cli.job_facts import job_facts
from tapefs.cli.job_options import check_level_of, job_options, set_or
from tapefs.cli.jobs import find_job, job_json, job_number, list_jobs, remark
from tapefs.cli.output import print_json
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.cli.values import TYPES, JobName
from tapefs.client.job_fields import JobFields, encoded
from tapefs.errors import UsageError


@click.group("job", no_args_is_help=False)
def job_command() -> None:
    """Make, show, change, run, resume and delete backup jobs.

    JOB is a job's number, or its name when only one has it.
    """


@job_command.command("create")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=bytes))
@click.option("--name", type=JobName(), help="Name in the archive; else the last component of the first source.")
@job_options
@click.pass_obj
def create_command(place: Place, sources: tuple[bytes, ...], name: str | None, fields: JobFields) -> None:
    """Record a job without running it; its number is printed."""
    check_level_of(fields)
    fields = with_sources(place, fields, name, sources)
    with submitting(place) as client:
        click.echo(client.submit(fields, run=False).number)


@job_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List all jobs, as `tapefs jobs` does."""
    list_jobs(place, as_json)


@job_command.command("show")
@click.argument("job", metavar="JOB")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, job: str, as_json: bool) -> None:
    """Show what a job is asked to do, and how its newest run went."""
    from tapefs.report.present import streaming_of

    if not place.is_here:
        with sidecar_of(place) as client:
            shown = client.call("GET", f"/api/v1/jobs/{job_number(place, job)}", None, dict[str, object])
        _print_job(shown, as_json)
        return
    found = find_job(place, job)
    shown = {**job_json(found), **to_builtins(streaming_of(place.home(), found))}
    if as_json:
        _print_job(shown, as_json)
        return
    with ledger_of(place) as ledger:
        shown["remarks"] = remark(found, is_held=ledger.queue_state().is_paused)
    _print_job(shown, as_json)


def _print_job(shown: Mapping[str, object], as_json: bool) -> None:
    if as_json:
        print_json(shown)
        return
    for title, value in job_facts(shown):
        click.echo(f"{title:<16}{value}")


@job_command.command("edit")
@click.argument("job", metavar="JOB")
@click.option("--name", type=JobName(), help="Another name; sets that exist keep theirs.")
@click.option(
    "--source", "sources", metavar="PATH", multiple=True, type=click.Path(path_type=bytes), help="In place of all."
)
@click.option("--no-exclude", is_flag=True, help="Drop all patterns; giving some takes the place of all, too.")
@job_options
@click.pass_obj
def edit_command(
    place: Place, job: str, name: str | None, sources: tuple[bytes, ...], no_exclude: bool, fields: JobFields
) -> None:
    """Change what a job is asked to do; what is not named stays."""
    number = job_number(place, job)
    paths = [encoded(absolute(place, source)) for source in sources]
    fields = structs.replace(fields, name=set_or(name), sources=paths or UNSET)
    if no_exclude and fields.excludes is UNSET:
        fields = structs.replace(fields, excludes=[])
    if not fields.changes():
        raise UsageError("nothing to change was named; see `tapefs job edit --help`")
    with submitting(place) as client:
        client.edit_job(number, fields)


@job_command.command("delete")
@click.argument("job", metavar="JOB")
@click.pass_obj
def delete_command(place: Place, job: str) -> None:
    """Forget a job; the sets that it has made stay."""
    number = job_number(place, job)
    with submitting(place) as client:
        client.delete_job(number)


@job_command.command("run")
@click.argument("job", metavar="JOB")
@click.option("--type", "run_type", type=click.Choice(TYPES), help="Of the set that this run makes.")
@click.option("--no-wait", is_flag=True, help="Print the job's number instead, and let `tapefs serve` do it.")
@click.pass_obj
def run_command(place: Place, job: str, run_type: str | None, no_wait: bool) -> None:
    """Run a job; the id of the new set is printed last."""
    number = job_number(place, job)
    with submitting(place) as client:
        wait_unless(client, client.run_job(number, run_type), no_wait)


@job_command.command("resume")
@click.argument("job", metavar="JOB")
@click.option("--no-wait", is_flag=True, help="Print the job's number instead, and let `tapefs serve` do it.")
@click.pass_obj
def resume_command(place: Place, job: str, no_wait: bool) -> None:
    """Go on with a run that was cut off, cancelled or paused.

    What it has brought to tape is kept: it goes on behind its last committed segment, with the sources as they are now.
    """
    number = job_number(place, job)
    with submitting(place) as client:
        wait_unless(client, client.resume_job(number), no_wait)


@job_command.command("cancel")
@click.argument("job", metavar="JOB")
@click.pass_obj
def cancel_command(place: Place, job: str) -> None:
    """Cancel a job that waits or runs.

    A run stops at the next good place. What it has brought to tape is not shown; `tapefs job resume` goes on with it.
    """
    number = job_number(place, job)
    with submitting(place) as client:
        client.cancel(number)
        view = wait_ended(client, number)
    click.echo(f"job {number} is {view.state.value}", err=True)
