"""`tapefs schedule`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import click
import msgspec

from tapefs.cli.output import print_json, print_table, printable
from tapefs.cli.place import Place, sidecar_of
from tapefs.cli.schedule_options import ACTIONS, POLICIES, RULES, fields_of
from tapefs.client.schedules import RunView, ScheduleClient, ScheduleView
from tapefs.errors import NoSuchThing, UsageError
from tapefs.sizes import counted

Function = Callable[..., None]


@click.group("schedule", no_args_is_help=False, short_help="Backups and other work by the clock.")
def schedule_command() -> None:
    """Backups and other work by the clock. They run under `tapefs serve`.

    A SCHEDULE is named by its number or its name.
    """


def _options(*groups: tuple[Callable[[Function], Function], ...]) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        command = function
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return add


@schedule_command.command("create")
@click.argument("name", metavar="NAME")
@_options(RULES, ACTIONS, POLICIES)
@click.pass_obj
def create_command(place: Place, /, name: str, **options: object) -> None:
    """Make a schedule: one option says when, one says what.

    \b
    tapefs schedule create nightly --daily 02:30 --backup 3
    tapefs schedule create drill --cron '0 6 * * sun' --verify --sample 5
    tapefs schedule create office --calendar 'Mon..Fri 18:00' --backup docs --blackout 'Fri 17:00-20:00'
    """
    with _calls(place) as calls:
        made = calls.create(fields_of(place, {**options, "name": name}, is_new=True))
    _tell(made)


@schedule_command.command("edit")
@click.argument("wanted", metavar="SCHEDULE")
@click.option("--name", metavar="NAME", help="Another name.")
@_options(RULES, ACTIONS, POLICIES)
@click.pass_obj
def edit_command(place: Place, /, wanted: str, **options: object) -> None:
    """Change a schedule; what is not named stays."""
    fields = fields_of(place, options, is_new=False)
    if not fields.changes():
        raise UsageError("nothing to change was named; see `tapefs schedule edit --help`")
    with _calls(place) as calls:
        _tell(calls.edit(_find(calls, wanted).number, fields))


def _tell(view: ScheduleView) -> None:
    click.echo(f"schedule {view.number} ({view.name}): {view.when}, next {_moment(view.next_at)}", err=True)
    if view.remark:
        click.echo(f"schedule: {view.remark}", err=True)


@schedule_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the schedules, and how their runs went."""
    with _calls(place) as calls:
        views = calls.list()
    if as_json:
        print_json([msgspec.to_builtins(view) for view in views])
        return
    if not views:
        click.echo("No schedules yet: `tapefs schedule create NAME --daily 02:30 --backup JOB` makes one.")
        return
    print_table(
        ("NO", "NAME", "WHEN", "WHAT", "STATE", "NEXT", "LAST RUN", "OK", "FAILED", "ERROR"),
        [
            (
                str(view.number),
                view.name,
                f"{view.when} ({view.zone})",
                view.what,
                view.state,
                _moment(view.next_at),
                _moment(view.statistics.last_run_at),
                view.statistics.successes,
                view.statistics.failures,
                view.statistics.last_error or "",
            )
            for view in views
        ],
    )


@schedule_command.command("show")
@click.argument("wanted", metavar="SCHEDULE")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, wanted: str, as_json: bool) -> None:
    """Show all that a schedule says, and its statistics."""
    with _calls(place) as calls:
        view = _find(calls, wanted)
    if as_json:
        print_json(msgspec.to_builtins(view))
        return
    for key, value in _facts(view):
        click.echo(f"{key:<14}{printable(value)}")


def _facts(view: ScheduleView) -> Iterator[tuple[str, str]]:
    numbers = view.statistics
    yield "schedule", f"{view.number} ({view.name})"
    if view.description:
        yield "description", view.description
    yield "when", f"{view.when}, by the clocks of {view.zone}"
    yield "what", view.what
    yield "state", view.state
    yield "next", _moment(view.next_at)
    yield (
        "missed runs",
        {"skip": "are skipped", "once": "one makes up for all", "all": "are made up for"}[view.missed.value],
    )
    yield "overlap", {"skip": "is skipped", "queue": "waits", "cancel": "cancels the older"}[view.overlap.value]
    for window in view.blackouts:
        days = " ".join(_DAYS[day] for day in window.days) or "daily"
        yield "blackout", f"{days} {window.begins}-{window.ends}: {'waits' if view.blackout_waits else 'is skipped'}"
    if view.jitter_s:
        yield "jitter", f"up to {view.jitter_s} s"
    yield "hooks before", " ".join(view.before) or "none"
    yield "hooks after", " ".join(view.after) or "none"
    yield (
        "runs",
        f"{numbers.runs}: {numbers.successes} good, {numbers.failures} failed, {numbers.cancelled} cancelled; "
        f"{numbers.skipped} skipped",
    )
    if numbers.average_s is not None:
        yield "average", f"{numbers.average_s:,.1f} s"
    yield "last run", _moment(numbers.last_run_at)
    if numbers.last_error:
        yield "last error", numbers.last_error
    if view.remark:
        yield "remark", view.remark


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@schedule_command.command("delete")
@click.argument("wanted", metavar="SCHEDULE")
@click.pass_obj
def delete_command(place: Place, wanted: str) -> None:
    """Forget a schedule and its history."""
    with _calls(place) as calls:
        calls.delete(_find(calls, wanted).number)


@schedule_command.command("enable")
@click.argument("wanted", metavar="SCHEDULE")
@click.pass_obj
def enable_command(place: Place, wanted: str) -> None:
    """Have it run from now on.

    What was due meanwhile is not made up for.
    """
    with _calls(place) as calls:
        _tell(calls.enable(_find(calls, wanted).number, True))


@schedule_command.command("disable")
@click.argument("wanted", metavar="SCHEDULE")
@click.pass_obj
def disable_command(place: Place, wanted: str) -> None:
    """Have it run no more; what runs goes on."""
    with _calls(place) as calls:
        calls.enable(_find(calls, wanted).number, False)


@schedule_command.command("run")
@click.argument("wanted", metavar="SCHEDULE")
@click.pass_obj
def run_command(place: Place, wanted: str) -> None:
    """Have it run now, whether it is enabled or not.

    `tapefs schedule history` tells how it goes.
    """
    with _calls(place) as calls:
        run = calls.run(_find(calls, wanted).number)
    click.echo(f"schedule: run {run.number} is {run.state}", err=True)


@schedule_command.command("stop")
@click.argument("wanted", metavar="SCHEDULE")
@click.pass_obj
def stop_command(place: Place, wanted: str) -> None:
    """Give up what of it waits or runs."""
    with _calls(place) as calls:
        runs = calls.stop(_find(calls, wanted).number)
    click.echo(f"schedule: {counted(len(runs), 'run')} given up", err=True)


@schedule_command.command("history")
@click.argument("wanted", metavar="SCHEDULE")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def history_command(place: Place, wanted: str, limit: int, as_json: bool) -> None:
    """List its runs, the newest first; 200 are kept."""
    with _calls(place) as calls:
        runs = calls.history(_find(calls, wanted).number, limit)
    if as_json:
        print_json([msgspec.to_builtins(run) for run in runs])
        return
    if not runs:
        click.echo("No runs yet.")
        return
    print_table(
        ("RUN", "PLANNED", "STARTED", "STATE", "SECONDS", "RESULT"),
        [
            (
                run.number,
                "by hand" if run.by_hand else _moment(run.planned_at),
                _moment(run.started_at),
                run.state,
                "-" if run.duration_s is None else f"{run.duration_s:.1f}",
                _result(run),
            )
            for run in runs
        ],
    )


def _result(run: RunView) -> str:
    parts = [run.error or "", run.result or "", f"{counted(run.missed, 'earlier run')} missed" if run.missed else ""]
    return "; ".join(part for part in parts if part)


@schedule_command.command("next")
@click.argument("wanted", metavar="SCHEDULE")
@click.option("--count", type=click.IntRange(1, 1000), default=10, show_default=True, help="So many.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def next_command(place: Place, wanted: str, count: int, as_json: bool) -> None:
    """List its next runs, by the clocks of its zone."""
    with _calls(place) as calls:
        found = calls.next(_find(calls, wanted).number, count)
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
        return
    print_table(
        ("PLANNED", "BEGINS"),
        [
            (
                f"{each.planned_at:%a %Y-%m-%d %H:%M:%S %z}",
                f"{each.begins_at:%a %Y-%m-%d %H:%M:%S %z}" if each.begins_at else f"not: {each.skipped}",
            )
            for each in found
        ],
    )


def _find(calls: ScheduleClient, wanted: str) -> ScheduleView:
    """Return the schedule that somebody names. Raises NoSuchThing, UsageError when several have that name."""
    if wanted.isascii() and wanted.isdigit():
        return calls.show(int(wanted))
    found = [view for view in calls.list() if view.name == wanted]
    if not found:
        raise NoSuchThing(f"there is no schedule {wanted}: see `tapefs schedule list`")
    if len(found) > 1:
        numbers = ", ".join(str(view.number) for view in found)
        raise UsageError(f"several schedules are called {wanted}: name one by its number: {numbers}")
    return found[0]


def _moment(at: datetime | None) -> str:
    return "-" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"


@contextmanager
def _calls(place: Place) -> Iterator[ScheduleClient]:
    with sidecar_of(place) as client:
        yield ScheduleClient(client)
