"""`tapefs restore`: from tape through the staging cache to a folder, with the permissions of whoever asks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapefs.cli.output import Json, named, print_json, printable, size
from tapefs.cli.place import Place, catalog_of, sidecar_of
from tapefs.cli.progress import Reporter, reporting
from tapefs.errors import TapefsError, UsageError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.client.address import Address
    from tapefs.restore.records import RestoreProgress, RestoreReport, Trouble

#: Troubles that are told one by one; the rest is counted.
TROUBLES = 50


@click.command("restore", short_help="Restore a set, or parts of it, beneath a folder.")
@click.argument("wanted", metavar="SET")
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=bytes))
@click.option("--to", "target", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already; they are left alone otherwise.")
@click.option(
    "--special/--no-special",
    default=None,
    help="Set-id bits, capabilities and device nodes as well.  [default: unless the set was imported]",
)
@click.option("--log", metavar="FILE", type=click.Path(path_type=Path), help="A line for all that was not restored.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the counts, and the first troubles.")
@click.pass_obj
def restore_command(
    place: Place,
    wanted: str,
    paths: tuple[bytes, ...],
    target: Path,
    overwrite: bool,
    special: bool | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Restore a set, or the named paths of it, beneath a folder; every file is checked against its SHA-256.

    Everything comes back: content, holes, owners, modes, times, links, device nodes, attributes and ACLs. What the
    system does not allow is told, and the exit code is 1; but for owners, which only root can restore.

    Paths are as `tapefs ls` shows them: the source's whole path, with or without its leading slash.

    With --url the files come over the network to this machine: without extended attributes and ACLs, each name of a
    file by itself, and at most 100,000 names at a time.
    """
    if place.address is not None:
        if as_json:
            raise UsageError("--json does not go with --url: POST /api/v1/restores restores there, and tells as JSON")
        _restore_there(place, place.address, wanted, paths, target, overwrite=overwrite, special=special, log=log)
        return
    from tapefs.client.presence import connected
    from tapefs.restore.calling import Recalls
    from tapefs.restore.engine import restore

    home = place.home()
    with (
        catalog_of(place) as catalog,
        connected(home) as presence,
        reporting("restore") as reporter,
        noting(log) as note,
    ):
        backup_set = catalog.archive.find_set(wanted)
        reader = catalog.archive.index(backup_set.set_id)
        recalls = Recalls(presence.client)
        presence.listen(recalls.arrived)
        report = restore(
            home,
            reader,
            paths,
            target,
            fetch=recalls.fetch,
            failed=recalls.failed,
            progress=progress_to(reporter),
            note=note,
            overwrite=overwrite,
            special=not backup_set.is_imported if special is None else special,
        )
    if as_json:
        print_json(report_json(report))
    tell_report(report)


def _restore_there(
    place: Place,
    address: Address,
    wanted: str,
    paths: tuple[bytes, ...],
    target: Path,
    *,
    overwrite: bool,
    special: bool | None,
    log: Path | None,
) -> None:
    from tapefs.cli.elsewhere import set_called
    from tapefs.cli.fetching import restore_from

    with sidecar_of(place) as client:
        folder = f"sets/{set_called(client, wanted).set_id}"
    restore_from(address, folder, paths, target, overwrite=overwrite, special=special is not False, log=log)


def progress_to(reporter: Reporter) -> Callable[[RestoreProgress], None]:
    """Return what shows the progress of a restore."""

    def tell(progress: RestoreProgress) -> None:
        words = f"{progress.files:,} of {counted(progress.files_total, 'file')}, {size(progress.bytes)}"
        waits = ", waiting for the tape" if progress.is_waiting else ""
        path = f", at {os.fsdecode(progress.path)}" if progress.path else ""
        # While it is planned the total still grows.
        total = None if progress.stage == "plan" else progress.bytes_total
        reporter.update(progress.bytes, total, f"{progress.stage}: {words}{waits}{path}")

    return tell


@contextmanager
def noting(log: Path | None) -> Iterator[Callable[[Trouble], None]]:
    """Yield what writes a line for every trouble to the log, if there is one. Raises UsageError."""
    if log is None:
        yield lambda _: None
        return
    try:
        file = log.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {log}: {error.strerror}") from error
    with file:
        yield lambda trouble: print(_line(trouble), file=file)


def _line(trouble: Trouble) -> str:
    return f"{printable(os.fsdecode(trouble.path))}: {printable(trouble.reason)}"


def tell_report(report: RestoreReport, command: str = "restore", what: str = "all checked") -> None:
    """Say what was done, by which command. Raises TapefsError when something is not as it was recorded."""
    for refusal in report.refusals:
        first = printable(os.fsdecode(refusal.path))
        whose = f"{refusal.what} of {counted(refusal.count, 'name')}"
        click.echo(f"{command}: not restored: {whose}: {refusal.reason}; the first: {first}", err=True)
    for trouble in report.troubles[:TROUBLES]:
        click.echo(f"{command}: {_line(trouble)}", err=True)
    if report.trouble_count > TROUBLES:
        click.echo(f"{command}: {report.trouble_count:,} troubles in all; --log FILE has them all", err=True)
    if report.changed:
        click.echo(f"{command}: {report.changed:,} files had changed while they were backed up", err=True)
    click.echo(f"{command}: {counted(report.files, 'file')}, {size(report.bytes)}, {what}{_others(report)}", err=True)
    if report.stopped:
        raise TapefsError(report.stopped)
    if not report.is_complete:
        from tapefs.restore.words import missing_of

        raise TapefsError(f"not everything is as it was recorded: {missing_of(report)}; see the lines above")


def report_json(report: RestoreReport) -> Json:
    """Return what a restore did as JSON, with the first troubles."""
    from dataclasses import asdict

    return asdict(report) | {
        "is_complete": report.is_complete,
        "refusals": [asdict(each) | named("path", each.path) for each in report.refusals],
        "troubles": [named("path", each.path) | {"reason": each.reason} for each in report.troubles],
    }


def _others(report: RestoreReport) -> str:
    counts = [
        (report.directories, ("director", "ies", "y")),
        (report.symlinks, ("symbolic link",)),
        (report.links, ("hard link",)),
        (report.specials, ("fifo or device node",)),
    ]
    return "".join(f"; {counted(count, *noun)}" for count, noun in counts if count)
