"""`tapefs report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec import structs, to_builtins

from catalog.errors import NotFound
from catalog.ids import JobNumber
from catalog.records import BackupSet
from tapefs.cli.output import contents, level_text, print_json, printable, short_time, size
from tapefs.cli.place import Catalog, Place, catalog_of
from tapefs.errors import NoSuchThing
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.report.present import DamagedCopy, SetReport
    from tapefs.report.records import RunReport, Stage

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
    from tapefs.report.files import read_troubles
    from tapefs.report.present import set_report, trouble_view, view_of
    from tapefs.report.views import FullReport

    with catalog_of(place) as catalog:
        chosen = _choose(catalog, wanted)
        report = set_report(catalog.home, catalog.ledger, chosen)
        troubles = read_troubles(catalog.home, chosen.set_id)
        if as_json:
            shown = structs.asdict(view_of(report))
            print_json(to_builtins(FullReport(**shown, trouble_list=[trouble_view(each) for each in troubles])))
            return
        for title, value in _facts(report):
            click.echo(f"{title:<12}{printable(value)}")
        for copy in report.verification.damaged:
            _tell_damage(copy, everything)
        told = 0
        for trouble in troubles:
            told += 1
            if everything or told <= TROUBLES:
                click.echo(f"  {_shown(trouble.raw)}: {printable(trouble.reason)}")
        if told > TROUBLES and not everything:
            click.echo(f"  {told:,} in all: `tapefs report {chosen.set_id} --all` shows them")


def _choose(catalog: Catalog, wanted: str) -> BackupSet:
    """Return the set, complete or not. Raises NoSuchThing."""
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 19:
        try:
            job = catalog.ledger.job(JobNumber(int(wanted)))
        except NotFound:
            return catalog.any_set(wanted)  # The beginning of an id may be digits alone.
        if job.set_id is None:
            raise NoSuchThing(f"job {job.number} ({printable(job.name)}) has made no set yet: see `tapefs jobs`")
        return catalog.ledger.backup_set(job.set_id)
    return catalog.any_set(wanted)


def _facts(report: SetReport) -> list[tuple[str, str]]:
    chosen, run = report.backup_set, report.run
    based = f", builds on {chosen.parent_id}" if chosen.parent_id else ""
    facts = [
        ("set", chosen.set_id),
        ("job", f"{chosen.job_number} {chosen.name}"),
        ("type", f"{chosen.type}{based}; {chosen.codec} level {level_text(chosen.level)}"),
        ("state", chosen.state.value),
        ("started", short_time(chosen.started_at_ns)),
    ]
    if run is None:
        facts.append(("report", "there is none of its run"))
    else:
        facts += _run_facts(chosen, run)
    facts.append(("read back", _verification(report)))
    if run is not None and run.troubles:
        facts.append(("troubles", f"{run.troubles:,}"))
    error = chosen.error or (run.error if run is not None else "")
    return [*facts, ("error", error)] if error else facts


def _run_facts(chosen: BackupSet, run: RunReport) -> list[tuple[str, str]]:
    content = run.content
    seconds = max(0, run.finished_at_ns - run.started_at_ns) / 1e9
    ended = f"{short_time(run.finished_at_ns)}, {seconds:.1f} s" if run.finished_at_ns else "not yet"
    if run.interrupted:
        ended = f"interrupted: noticed {short_time(run.finished_at_ns)}"
    ratio = "" if run.ratio is None else f", {100 * run.ratio:.1f} % of what was read"
    facts = [
        ("finished", ended + (f", the last of {run.runs} runs" if run.runs > 1 else "")),
        ("content", contents(content.files, content.directories, content.bytes)),
    ]
    for move in run.moves:
        tape = f" with tape {move.tape} in it" if move.tape else ""
        facts.append(("drive left", f"{short_time(move.at_ns)}: {move.drive} failed{tape}: {move.reason}"))
    if chosen.parent_id:
        changes = f"{content.new_files:,} new, {content.changed_files:,} changed, {content.removed_files:,} gone"
        facts.append(("changes", f"{changes}; {size(content.read_bytes)} read to be stored"))
    tapes = " ".join(f"{tape.tape} ({tape.segments}: {size(tape.stored_bytes)})" for tape in run.tapes)
    facts.append(
        ("on tape", f"{size(run.stored_bytes)}{ratio}, {counted(run.segments, 'segment')}: {tapes or 'no tape'}")
    )
    for title, stage in (("read", run.read), ("compress", run.compress), ("write", run.write)):
        if stage is not None:
            facts.append((title, _stage(stage)))
    if len(run.levels) > 1:
        facts.append(("levels", ", ".join(f"{level}: {run.levels[level]:,} frames" for level in sorted(run.levels))))
    facts.append(("drive", _drive(run)))
    if run.buffer is not None and run.buffer.size_bytes:
        filled = f"{size(run.buffer.size_bytes)}, {counted(run.buffer.starts, 'start')}"
        facts.append(("buffer", f"{filled}, {run.buffer.stops:,} stops at the low-water mark"))
    return facts


def _drive(run: RunReport) -> str:
    drive = run.drive
    if drive is None:
        return "it did not tell"
    stops = f"{counted(drive.backhitches, 'back-hitch', 'es')} ({drive.seconds.backhitch:.0f} s)"
    moves = f"{counted(drive.loads, 'load')}, {counted(drive.locates, 'locate')}"
    return f"{moves}, {stops}, {counted(drive.underruns, 'underrun')}"


def _stage(stage: Stage) -> str:
    return f"{size(round(stage.bytes_per_s))}/s: {stage.busy_s:.1f} s at work, {stage.waited_s:.1f} s waiting"


def _verification(report: SetReport) -> str:
    found = report.verification
    if not found.verified:
        return "never: `tapefs verify` does that"
    words = f"{found.verified} of {found.copies} copies of segments"
    when = f", all since {short_time(found.oldest_at_ns)}" if found.oldest_at_ns else ""
    return f"{words}{when}; {len(found.damaged) or 'none'} damaged"


def _tell_damage(copy: DamagedCopy, everything: bool) -> None:
    problems = "; ".join(printable(problem) for problem in copy.problems)
    click.echo(f"  damaged on tape {copy.tape}, segment {copy.segment_id}: {problems}")
    for path in copy.lost if everything else copy.lost[:TROUBLES]:
        click.echo(f"    lost: {_shown(path)}")
    if len(copy.lost) > TROUBLES and not everything:
        click.echo(f"    {len(copy.lost):,} files in all")


def _shown(path: bytes) -> str:
    return printable(path.decode("utf-8", "surrogateescape"))
