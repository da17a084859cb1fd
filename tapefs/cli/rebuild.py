"""`tapefs rebuild` and `tapefs import`: a catalog from tapes alone."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from tapefs.cli.asking import secret
from tapefs.cli.output import print_table, printable, short_time, size
from tapefs.cli.place import Place
from tapefs.cli.progress import reporting
from tapefs.errors import SetDamaged, TapeError, UsageError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from catalog.ledger import Ledger
    from tapefs.home import Home
    from tapefs.rebuild.records import Method
    from tapefs.rebuild.run import Report, Tapes

_METHODS = ("index", "trailers", "payloads")
#: Sentences of one kind that are printed; the log has the others.
_TOLD = 50
#: As of a mover: millions of records are made that have no cycles.
_GARBAGE = (50_000, 20, 20)

Work = Callable[["Home", "Ledger", "Tapes", "Method", Sequence[str], Callable[[str, int, int], None]], "Report"]


@click.command("rebuild", short_help="Make the catalog anew from the tapes alone.")
@click.argument("tapes", metavar="[TAPE]...", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Choice(_METHODS),
    default="index",
    help="What to read of each tape: SET INDEXes (quick), trailers, or the archives themselves (slow).  [index]",
)
@click.pass_obj
def rebuild_command(place: Place, tapes: tuple[str, ...], source: str) -> None:
    """Make the catalog anew from the tapes alone: all that are in the library, or each TAPE.

    A TAPE is named by its barcode, or by its label if the catalog knows it.
    In a catalog that has sets, take in what it lacks of each TAPE, as `tapefs import` does.

    What is damaged is made up for by the next slower way, by itself. When it was interrupted, or a tape was missing,
    the same command goes on. No sidecar can use the state folder meanwhile. The exit code is 1 if a set that is on the
    tapes could not be brought back whole.
    """
    from tapefs.rebuild.run import rebuild

    _run(place, "rebuild", rebuild, tapes, source, fresh=True)


@click.command("import", short_help="Take in what the catalog lacks of tapes.")
@click.argument("tapes", metavar="TAPE...", nargs=-1, required=True)
@click.option("--from", "source", type=click.Choice(_METHODS), default="index", help="As of `tapefs rebuild`.  [index]")
@click.pass_obj
def import_command(place: Place, tapes: tuple[str, ...], source: str) -> None:
    """Take in what the catalog lacks of tapes: those of another installation, or our own.

    A TAPE is named by its barcode, or by its label if the catalog knows it.

    Our own tapes hold more than the catalog knows after an old copy of it was brought back: their new sets are as if
    the catalog had never been without them, and the tapes are appended to again. What the catalog knows stays as it is.

    Sets of another installation keep their numbers where these are free. No later set builds on one of them, and
    nothing is appended to their tapes. No sidecar can use the state folder meanwhile.

    Volumes of TAF's archives: `tapefs taf import`.
    """
    from tapefs.rebuild.run import import_tapes

    for each in tapes:
        if "/" in each:
            raise UsageError(f"{each} is no label of a tape; archives of TAF on a volume: `tapefs taf import {each}`")
    _run(place, "import", import_tapes, tapes, source, fresh=False)


def _run(place: Place, title: str, work: Work, tapes: Sequence[str], source: str, *, fresh: bool) -> None:
    from catalog.lmdb_ledger import LmdbLedger
    from sidecar.ownership import owned
    from sidecar.recovery import recover
    from tapefs.logs import configure_logs
    from tapefs.rebuild.loading import Loading
    from tapefs.rebuild.records import Method

    home = place.home()
    configure_logs()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    with owned(home, temporary=False):
        is_new = fresh and not home.ledger.exists()
        ledger = LmdbLedger.create(home.ledger, time.time_ns()) if is_new else LmdbLedger.open(home.ledger)
        for folder in (home.indexes, home.trailers):
            folder.mkdir(mode=0o700, exist_ok=True)
        with ledger, _loading(home, Loading) as loading, reporting(title) as reporter:
            tapes = _codes(ledger, tapes)
            # What a copy of the catalog has as running does not run here.
            recover(home, ledger, time.time_ns())

            def tell(what: str, done: int, of: int) -> None:
                words = f"{what}, tape file {done}" if not what.startswith("set ") else f"{what}, {done + 1} of {of}"
                reporter.update(done, None, words)

            report = work(home, ledger, loading, Method(source), tapes, tell)
    _tell(title, report, named_only=not fresh)


def _codes(ledger: Ledger, names: Sequence[str]) -> list[str]:
    """Return what the library calls tapes that are named by label or barcode; one that is not known is a barcode."""
    from tapefs.tape.names import code_called

    return list(dict.fromkeys(code_called(ledger, name) for name in names))


@contextmanager
def _loading(home: Home, make: Callable[..., Tapes]) -> Iterator[Tapes]:
    try:
        loading = make(home, _ask, _ask_passphrase)
    except ValueError as error:
        raise UsageError(str(error)) from error
    with loading:  # type: ignore[attr-defined]
        yield loading


def _ask(sentence: str) -> bool:
    """Have a human do something; False when none is there, or he cannot."""
    if not sys.stdin.isatty():
        return False
    answer: str = click.prompt(
        f"{sentence}, then press Enter (or type `none`)", default="", show_default=False, err=True
    )
    return answer.strip().lower() != "none"


def _ask_passphrase(key: str) -> bytes | None:
    if not sys.stdin.isatty():
        return None
    return secret(f"Passphrase of key {key}", "run it at a terminal", default="").encode() or None


# -- what was found --------------------------------------------------------------------------------------------------


def _tell(title: str, report: Report, *, named_only: bool) -> None:
    """Print tapes, sets, remarks. Raises SetDamaged when a set is not whole, TapeError when a named tape is not in."""
    _tell_tapes(report)
    _tell_sets(report)
    outcome = report.outcome
    _tell_sentences("remarks", outcome.remarks)
    _tell_sentences("what does not count", report.ignored)
    if report.unsettled:
        click.echo("\nno SET INDEX told of the settings (retention, filters) of:")
        for each in report.unsettled[:_TOLD]:
            click.echo(f"  {printable(each)}")
    complete, incomplete = len(outcome.complete), len(outcome.incomplete)
    of_which = "new and whole" if named_only else "whole"
    click.echo(
        f"{title}: {counted(len(report.surveys), 'tape')}, {counted(complete, 'set')} {of_which}, {incomplete} not",
        err=True,
    )
    if report.is_open:
        click.echo(f"{title}: with the missing tapes the same command goes on", err=True)
    if named_only and report.passed_over:
        raise TapeError(f"{counted(len(report.passed_over), 'tape')} could not be imported; see above")
    if incomplete:
        raise SetDamaged(f"{counted(incomplete, 'set')} on these tapes could not be brought back; see above")


def _tell_tapes(report: Report) -> None:
    rows: list[tuple[str, ...]] = [
        (
            survey.tape.label,
            survey.method.value,
            str(len(survey.segments)),
            str(sum(index.is_whole for index in survey.indexes)),
            size(sum(segment.payload_bytes for segment in survey.segments)),
            printable(report.notes.get(survey.tape.volume_id, "")),
        )
        for survey in report.surveys
    ]
    rows += [(label, "-", "-", "-", "-", printable(f"passed over: {why}")) for label, why in report.passed_over.items()]
    print_table(("TAPE", "FROM", "SEGMENTS", "INDEXES", "SIZE", ""), rows)


def _tell_sets(report: Report) -> None:
    outcome = report.outcome
    rows = [(each, "whole" + (", imported" if each.is_imported else "")) for each in outcome.complete]
    rows += outcome.incomplete
    if not rows:
        return
    click.echo()
    print_table(
        ("SET", "JOB", "TYPE", "BEGUN", "FILES", "SIZE", ""),
        [
            (
                each.number,
                printable(each.name),
                each.type,
                short_time(each.started_at_ns),
                each.files,
                size(each.bytes),
                printable(words),
            )
            for each, words in sorted(rows, key=lambda row: row[0].number)
        ],
    )


def _tell_sentences(title: str, sentences: Sequence[str]) -> None:
    if not sentences:
        return
    click.echo(f"\n{title}:")
    for sentence in sentences[:_TOLD]:
        click.echo(f"  {printable(sentence)}")
    if len(sentences) > _TOLD:
        click.echo(f"  and {len(sentences) - _TOLD} more")
