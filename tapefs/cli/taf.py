"""`tapefs taf`: what TAF has written to LTFS volumes. Only `import` needs a state folder."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import named, print_json, print_table, printable, short_time, size
from tapefs.cli.place import Place
from tapefs.cli.progress import reporting
from tapefs.cli.restore import noting, progress_to, tell_report
from tapefs.errors import Cancelled, HomeInUse, SetDamaged, TapefsError, UsageError
from tapefs.sizes import counted

if TYPE_CHECKING:
    from tapefs.home import Home
    from tapefs.taf.views import Imported, ImportedSet
    from tapefs.taf.volume import Archive, TafVolume

_VOLUME = click.argument("root", metavar="VOLUME", type=click.Path(path_type=Path))
_POLL_S = 0.5
_SETS = click.argument("sets", metavar="[SET]...", nargs=-1)


@click.group("taf", no_args_is_help=False, short_help="Read archives that TAF has written.")
def taf_command() -> None:
    """Read archives that TAF has written to a mounted LTFS volume, or to a copy of one."""


@taf_command.command("list")
@_VOLUME
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def list_command(root: Path, as_json: bool) -> None:
    """List the sets on VOLUME and their archives.

    They come in the order of the tape.
    """
    from tapefs.taf.volume import open_volume

    volume = open_volume(root)
    if as_json:
        print_json(_volume_json(volume))
        return
    if volume.facts.is_ltfs:
        names = [volume.facts.barcode or volume.facts.serial, volume.facts.name, volume.facts.pool]
        click.echo(f"LTFS volume {volume.facts.uuid} {' '.join(each for each in names if each)}", err=True)
    rows = [
        [_text(each.set_id), _text(each.name), size(each.size_bytes), short_time(each.mtime_ns), _place(each)]
        for each in volume.archives
    ]
    print_table(["SET", "ARCHIVE", "SIZE", "WRITTEN", "AT"], rows)


@taf_command.command("settings")
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def settings_command(path: Path) -> None:
    """Show what a .env of TAF's means here.

    As lines for tapefs.toml. `env = "FILE"` in `[taf]` has it read at every start instead. Secrets are not shown; what
    means nothing here is named.
    """
    from tapefs.taf.env import understand

    try:
        found = understand(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    click.echo(found.shown().rstrip("\n"))
    if found.warning():
        click.echo(f"taf settings: {found.warning()}", err=True)


@taf_command.command("verify")
@_VOLUME
@_SETS
def verify_command(root: Path, sets: tuple[str, ...]) -> None:
    """Read archives to their end: are they whole?

    Those of all sets, or of the sets named.     gzip, zstd and 7z have checksums of what is in them; a plain .tar
    has those of its headers only.
    """
    from tapefs.taf.reading import check_archives
    from tapefs.taf.volume import open_volume

    volume = open_volume(root)
    archives = volume.of_sets(sets)
    with reporting("verify") as reporter:
        report = check_archives(volume, archives, progress_to(reporter), lambda _: None)
    tell_report(report, "verify", f"in {len(archives):,} archives")


@taf_command.command("extract")
@_VOLUME
@_SETS
@click.option("--to", "target", metavar="DIR", required=True, type=click.Path(path_type=Path), help="Where to.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there already; they are left alone otherwise.")
@click.option("--log", metavar="FILE", type=click.Path(path_type=Path), help="A line for all that was not restored.")
def extract_command(root: Path, sets: tuple[str, ...], target: Path, overwrite: bool, log: Path | None) -> None:
    """Restore all sets, or those named.

    Each goes beneath DIR/SET; the tape is read once, from front to end. Nothing lands outside of DIR, whatever
    names and links are in the archives.
    """
    from tapefs.taf.reading import extract_archives
    from tapefs.taf.volume import open_volume

    volume = open_volume(root)
    archives = volume.of_sets(sets)
    with reporting("extract") as reporter, noting(log) as note:
        report = extract_archives(
            volume, archives, target, overwrite=overwrite, progress=progress_to(reporter), note=note
        )
    tell_report(report, "extract", f"from {len(archives):,} archives")


@taf_command.command("import")
@_VOLUME
@_SETS
@click.option("--catalog", "url", metavar="URL", help="TAF's own: sqlite:PATH, or postgresql://USER@HOST/DATABASE.")
@click.option("--label", metavar="NAME", help="What a copy of a volume is called that says no name itself.")
@click.option("--again", is_flag=True, help="Read archives once more that could not be read to their end.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def import_command(
    place: Place, root: Path, sets: tuple[str, ...], url: str | None, label: str | None, again: bool, as_json: bool
) -> None:
    """Take the sets on VOLUME into the catalog, or those named.

    Every archive is read once, in the order of the tape, and nothing is written to it. The sets can then be mounted,
    searched and restored as others are. What was interrupted goes on, and what is there is not read again.

    TAF's catalog gives names, types and times; what the archives have otherwise is told. Where a sidecar is running it
    does the work, if the volume is mounted where it has a drive. The exit code is 1 if an archive could not be read to
    its end.
    """
    from tapefs.logs import configure_logs

    home = place.home()
    configure_logs()
    try:
        found = _import_here(home, root, sets, label, url, again=again)
    except HomeInUse as error:
        found = _import_there(home, root, sets, label, url, error, again=again)
    if as_json:
        print_json(msgspec.to_builtins(found))
    else:
        _tell_imported(found)
    if found.broken:
        raise SetDamaged(f"{counted(found.broken, 'set')} could not be read to the end; see above")


def _import_here(
    home: Home, root: Path, sets: tuple[str, ...], label: str | None, url: str | None, *, again: bool
) -> Imported:
    """Import in this process. Raises HomeInUse while a sidecar has the state folder."""
    from catalog.lmdb_ledger import LmdbLedger
    from sidecar.ownership import owned
    from sidecar.recovery import recover
    from tapefs.taf.importing import import_volume

    with owned(home, temporary=False), LmdbLedger.open(home.ledger) as ledger, reporting("taf import") as reporter:
        recover(home, ledger, time.time_ns())

        def tell(what: str, done: int, of: int) -> None:
            reporter.update(done, of or None, what)

        return import_volume(home, ledger, root, sets, label=label, url=url, again=again, tell=tell)


def _import_there(
    home: Home, root: Path, sets: tuple[str, ...], label: str | None, url: str | None, error: HomeInUse, *, again: bool
) -> Imported:
    """Have the sidecar import it, if the volume is in one of its drives. Raises HomeInUse if not."""
    from tapefs.client.api import Client
    from tapefs.client.tapes import TapeClient
    from tapefs.taf.identity import identify
    from tapefs.taf.volume import open_volume

    library = home.library_config
    is_in_drive = library.driver == "ltfs" and os.path.realpath(root) in map(os.path.realpath, library.drives)
    if not is_in_drive:
        raise HomeInUse(f"{error}; a sidecar can import only what is mounted where it has a drive") from error
    volume = open_volume(root)
    volume.of_sets(sets)
    client = TapeClient(Client(home.socket))
    view = client.import_taf(identify(volume, label).label, sets, url or "", again=again)
    try:
        while view.is_open:
            time.sleep(_POLL_S)
            view = client.task(view.number)
    except KeyboardInterrupt:
        client.cancel(view.number)
        raise Cancelled("it stops; what was read is noted, and the same command goes on behind it") from None
    if view.imported is None:
        raise TapefsError(view.error or f"the import was {view.state}")
    return view.imported


def _tell_imported(found: Imported) -> None:
    print_table(("SET", "JOB", "TAF'S", "BEGUN", "FILES", "SIZE", ""), [_imported_row(each) for each in found.sets])
    for each in found.sets:
        for sentence in (*each.problems, *each.remarks, *each.differences):
            click.echo(f"  {printable(each.taf_set)}: {printable(sentence)}")
    for taf_set in found.absent:
        click.echo(f"  {printable(taf_set)}: TAF's catalog has it on {found.tape}, but it is not there")
    new = sum(not each.known and each.set_id is not None for each in found.sets)
    click.echo(f"taf import: tape {found.tape}, {counted(len(found.sets), 'set')}, {new} of them new", err=True)


def _imported_row(each: ImportedSet) -> tuple[str | int, ...]:
    taf_set = printable(each.taf_set)
    if each.number is None:
        return "-", "-", taf_set, "-", "-", "-", "nothing of it can be read"
    fate = "known, expired" if each.expired else "known" if each.known else "taken in"
    return (
        each.number,
        printable(each.name or ""),
        taf_set,
        short_time(each.started_at_ns),
        each.files,
        size(each.bytes),
        f"{fate}, partial" if each.partial else fate,
    )


def _volume_json(volume: TafVolume) -> dict[str, object]:
    facts = volume.facts
    return {
        "ltfs": {
            "barcode": facts.barcode,
            "creator": facts.creator,
            "index_generation": facts.index_generation,
            "locked": facts.locked,
            "name": facts.name,
            "pool": facts.pool,
            "serial": facts.serial,
            "uuid": facts.uuid,
        }
        if facts.is_ltfs
        else None,
        "archives": [_archive_json(each) for each in volume.archives],
    }


def _archive_json(archive: Archive) -> dict[str, object]:
    place = archive.place
    return {
        **named("set_id", archive.set_id),
        **named("name", archive.name),
        "mtime_ns": archive.mtime_ns,
        "partition": place.partition if place else None,
        "size_bytes": archive.size_bytes,
        "start_block": place.start_block if place else None,
    }


def _place(archive: Archive) -> str:
    return f"{archive.place.partition}:{archive.place.start_block}" if archive.place else "-"


def _text(name: bytes) -> str:
    return os.fsdecode(name)
