"""`tapefs report`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import click
from msgspec import UnsetType, structs, to_builtins

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.records import BackupSet
from tapefs.cli.output import contents, level_text, print_json, printable, short_moment, size
from tapefs.cli.place import Catalog, Place, catalog_of, sidecar_of
from tapefs.errors import NoSuchThing, TapefsError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.client.api import Client
    from tapefs.report.views import DamageView, FullReport, PathView, ReportView, StageView, TroubleView

T = TypeVar("T")
#: Troubles that are printed unless all are asked for.
TROUBLES = 20


@click.command("report", short_help="Show how a run went, and what is not in the set as it was.")
@click.argument("wanted", metavar="SET|JOB")
@click.option("--all", "everything", is_flag=True, help=f"Every trouble and lost file, not only the first {TROUBLES}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with everything.")
@click.pass_obj
def report_command(place: Place, wanted: str, everything: bool, as_json: bool) -> None:
    """Show how a run went: figures, what is not in the set as it was, and what reading it back has found.

    SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME; JOB is a number, for its newest run.
    """
    if not place.is_here:
        with sidecar_of(place) as client:
            told = client.report(_chosen_there(client, wanted))
        _tell(told, told.trouble_list, everything, as_json)
        return
    from tapefs.report.files import read_troubles
    from tapefs.report.present import set_report, trouble_view, view_of

    with catalog_of(place) as catalog:
        chosen = _choose(catalog, wanted)
        report = view_of(set_report(catalog.home, catalog.ledger, chosen))
        _tell(report, map(trouble_view, read_troubles(catalog.home, chosen.set_id)), everything, as_json)


def _choose(catalog: Catalog, wanted: str) -> BackupSet:
    """Return the set, complete or not. Raises NoSuchThing."""
    if _is_number(wanted):
        try:
            job = catalog.ledger.job(JobNumber(int(wanted)))
        except NotFound:
            return catalog.any_set(wanted)  # The beginning of an id may be digits alone.
        if job.set_id is None:
            raise NoSuchThing(f"job {job.number} ({printable(job.name)}) has made no set yet: see `tapefs jobs`")
        return catalog.ledger.backup_set(job.set_id)
    return catalog.any_set(wanted)


def _chosen_there(client: Client, wanted: str) -> str:
    """Return the id of the same of a sidecar elsewhere. Raises NoSuchThing."""
    from tapefs.cli.elsewhere import set_called

    if _is_number(wanted):
        try:
            job = client.job(JobNumber(int(wanted)))
        except NoSuchThing:
            return set_called(client, wanted).set_id
        if job.set_id is None:
            raise NoSuchThing(f"job {job.number} ({printable(job.name)}) has made no set yet: see `tapefs jobs`")
        return job.set_id
    return set_called(client, wanted).set_id


def _is_number(wanted: str) -> bool:
    return wanted.isascii() and wanted.isdigit() and len(wanted) < 19


def _tell(report: ReportView, troubles: Iterable[TroubleView], everything: bool, as_json: bool) -> None:
    if as_json:
        print_json(to_builtins(_in_full(report, troubles)))
        return
    for title, value in _facts(report):
        click.echo(f"{title:<12}{printable(value)}")
    for copy in report.verification.damaged:
        _tell_damage(copy, everything)
    told = 0
    for trouble in troubles:
        told += 1
        if everything or told <= TROUBLES:
            click.echo(f"  {_shown(trouble)}: {printable(trouble.reason)}")
    if told > TROUBLES and not everything:
        click.echo(f"  {told:,} in all: `tapefs report {report.set_id} --all` shows them")


def _in_full(report: ReportView, troubles: Iterable[TroubleView]) -> FullReport:
    from tapefs.report.views import FullReport

    return report if isinstance(report, FullReport) else FullReport(**structs.asdict(report), trouble_list=[*troubles])


def _facts(report: ReportView) -> list[tuple[str, str]]:
    based = f", builds on {report.parent}" if report.parent else ""
    facts = [
        ("set", report.set_id),
        ("job", f"{report.job} {report.name}"),
        ("type", f"{report.type}{based}; {report.codec} level {level_text(report.level)}"),
        ("state", report.state.value),
        ("started", _time(report.begun_at)),
    ]
    has_run = not isinstance(report.runs, UnsetType)
    facts += _run_facts(report) if has_run else [("report", "there is none of its run")]
    facts.append(("read back", _verification(report)))
    if has_run and report.troubles:
        facts.append(("troubles", f"{report.troubles:,}"))
    return [*facts, ("error", report.error)] if report.error else facts


def _run_facts(report: ReportView) -> list[tuple[str, str]]:
    runs, ratio = _told(report.runs), _told(report.ratio)
    facts = [
        ("finished", _ended(report) + (f", the last of {runs} runs" if runs > 1 else "")),
        ("content", contents(report.files, report.directories, report.bytes)),
    ]
    for move in _told(report.moves):
        tape = f" with tape {move.tape} in it" if move.tape else ""
        facts.append(("drive left", f"{_time(move.at)}: {move.drive} failed{tape}: {move.reason}"))
    if report.parent:
        changes = f"{report.new_files:,} new, {report.changed_files:,} changed, {report.removed_files:,} gone"
        facts.append(("changes", f"{changes}; {size(_told(report.read_bytes))} read to be stored"))
    tapes = " ".join(f"{tape.tape} ({tape.segments}: {size(tape.stored_bytes)})" for tape in _told(report.tapes))
    share = "" if ratio is None else f", {100 * ratio:.1f} % of what was read"
    segments = counted(_told(report.segments), "segment")
    facts.append(("on tape", f"{size(_told(report.stored_bytes))}{share}, {segments}: {tapes or 'no tape'}"))
    facts += [(title, _stage(stage)) for title, stage in _told(report.stages).items()]
    levels = _told(report.levels)
    if len(levels) > 1:
        facts.append(("levels", ", ".join(f"{level}: {levels[level]:,} frames" for level in sorted(levels))))
    facts.append(("drive", _drive(report)))
    buffer = _told(report.buffer)
    if buffer is not None and buffer.size_bytes:
        filled = f"{size(buffer.size_bytes)}, {counted(buffer.starts, 'start')}"
        facts.append(("buffer", f"{filled}, {buffer.stops:,} stops at the low-water mark"))
    return facts


def _ended(report: ReportView) -> str:
    started, finished = _told(report.started_at), _told(report.finished_at)
    if report.interrupted is True:
        return f"interrupted: noticed {_time(finished)}"
    if started is None or finished is None:
        return "not yet"
    seconds = (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()
    return f"{_time(finished)}, {max(0.0, seconds):.1f} s"


def _drive(report: ReportView) -> str:
    drive = _told(report.drive)
    if drive is None:
        return "it did not tell"
    stops = f"{counted(drive.backhitches, 'back-hitch', 'es')} ({drive.seconds.backhitch:.0f} s)"
    moves = f"{counted(drive.loads, 'load')}, {counted(drive.locates, 'locate')}"
    return f"{moves}, {stops}, {counted(drive.underruns, 'underrun')}"


def _stage(stage: StageView) -> str:
    return f"{size(stage.bytes_per_s)}/s: {stage.busy_s:.1f} s at work, {stage.waited_s:.1f} s waiting"


def _verification(report: ReportView) -> str:
    found = report.verification
    if not found.verified:
        return "never: `tapefs verify` does that"
    words = f"{found.verified} of {found.copies} copies of segments"
    when = f", all since {_time(found.oldest_at)}" if found.oldest_at else ""
    return f"{words}{when}; {len(found.damaged) or 'none'} damaged"


def _tell_damage(copy: DamageView, everything: bool) -> None:
    problems = "; ".join(printable(problem) for problem in copy.problems)
    click.echo(f"  damaged on tape {copy.tape}, segment {copy.segment_id}: {problems}")
    told = copy.lost if everything else copy.lost[:TROUBLES]
    for path in told:
        click.echo(f"    lost: {_shown(path)}")
    if copy.lost_files > len(told):
        click.echo(f"    {copy.lost_files:,} files in all")


def _told(value: T | UnsetType) -> T:
    """Return what is there wherever there is a report of the run."""
    if isinstance(value, UnsetType):
        raise TapefsError("the report lacks figures of its run, is the sidecar of another version?")
    return value


def _time(at: str | None) -> str:
    return short_moment(None if at is None else datetime.fromisoformat(at))


def _shown(view: PathView) -> str:
    raw = view.path.encode() if isinstance(view.path_b64, UnsetType) else base64.b64decode(view.path_b64)
    return printable(raw.decode("utf-8", "surrogateescape"))
