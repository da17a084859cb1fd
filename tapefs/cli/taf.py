"""`tapefs taf`: what TAF has written to LTFS volumes. Only `import` needs a state folder, which no sidecar may use."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapefs.cli.output import counted, named, print_json, print_table, printable, short_time, size
from tapefs.cli.place import Place
from tapefs.cli.progress import reporting
from tapefs.cli.restore import noting, progress_to, tell_report
from tapefs.errors import SetDamaged

if TYPE_CHECKING:
    from tapefs.taf.entering import Entered
    from tapefs.taf.volume import Archive, TafVolume

_VOLUME = click.argument("root", metavar="VOLUME", type=click.Path(path_type=Path))
#: Sentences of one kind that are printed of a set.
_TOLD = 20
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

    TAF's catalog gives names, types and times; what the archives have otherwise is told. No sidecar can use the state
    folder meanwhile. The exit code is 1 if an archive could not be read to its end.
    """
    from catalog.lmdb_ledger import LmdbLedger
    from sidecar.ownership import owned
    from sidecar.recovery import recover
    from tapefs.logs import configure_logs
    from tapefs.taf.catalog import read_catalog
    from tapefs.taf.entering import Entering
    from tapefs.taf.identity import identify
    from tapefs.taf.volume import open_volume

    home = place.home()
    configure_logs()
    volume = open_volume(root)
    archives = volume.of_sets(sets)
    identity = identify(volume, label)
    told = read_catalog(url) if url else None
    with (
        owned(home, temporary=False),
        LmdbLedger.open(home.ledger) as ledger,
        reporting("taf import") as reporter,
    ):
        recover(home, ledger, time.time_ns())
        home.indexes.mkdir(mode=0o700, exist_ok=True)
        entering = Entering(home, ledger, volume, identity, again=again, now_ns=time.time_ns())
        entered = entering.run(archives, told, lambda what, done, of: reporter.update(done, of or None, what))
    absent = [] if told is None else told.absent(identity.label, {each.taf_id for each in entered})
    if as_json:
        print_json({"tape": identity.label, "sets": [_entered_json(each) for each in entered], "absent": absent})
    else:
        _tell_entered(entered, absent, identity.label)
    broken = sum(bool(each.problems) or each.is_partial for each in entered)
    if broken:
        raise SetDamaged(f"{counted(broken, 'set')} could not be read to the end; see above")


def _tell_entered(entered: Sequence[Entered], absent: Sequence[str], label: str) -> None:
    print_table(
        ("SET", "JOB", "TAF'S", "BEGUN", "FILES", "SIZE", ""),
        [_entered_row(each) for each in entered],
    )
    for each in entered:
        for sentence in _sentences(each):
            click.echo(f"  {printable(_text(each.taf_id))}: {printable(sentence)}")
    for taf_id in absent:
        click.echo(f"  {printable(taf_id)}: TAF's catalog has it on {label}, but it is not there")
    new = sum(not each.is_known and each.backup_set is not None for each in entered)
    click.echo(f"taf import: tape {label}, {counted(len(entered), 'set')}, {new} of them new", err=True)


def _entered_row(entered: Entered) -> tuple[str | int, ...]:
    chosen, taf_id = entered.backup_set, printable(_text(entered.taf_id))
    if chosen is None:
        return "-", "-", taf_id, "-", "-", "-", "nothing of it can be read"
    begun = short_time(chosen.started_at_ns)
    return chosen.number, printable(chosen.name), taf_id, begun, chosen.files, size(chosen.bytes), _fate(entered)


def _fate(entered: Entered) -> str:
    if entered.is_expired:
        return "known, expired"
    return ("known" if entered.is_known else "taken in") + (", partial" if entered.is_partial else "")


def _sentences(entered: Entered) -> list[str]:
    planted = entered.planted
    told = [f"{_text(path)}: {problem}" for path, problem in entered.problems]
    told += [f"{_text(path)} is not shown: {reason}" for path, reason in planted.refused[:_TOLD]]
    if planted.refused_count > _TOLD:
        told.append(f"and {planted.refused_count - _TOLD:,} more are not shown")
    told += [
        f"{_text(path)} is there twice; another is shown as {_text(name)}" for path, name in planted.renamed[:_TOLD]
    ]
    if planted.renamed_count > _TOLD:
        told.append(f"and {planted.renamed_count - _TOLD:,} more have another name")
    return told + list(entered.differences)


def _entered_json(entered: Entered) -> dict[str, object]:
    chosen, planted = entered.backup_set, entered.planted
    return {
        **named("taf_set", entered.taf_id),
        "set_id": None if chosen is None else chosen.set_id,
        "number": None if chosen is None else chosen.number,
        "name": None if chosen is None else chosen.name,
        "files": 0 if chosen is None else chosen.files,
        "bytes": 0 if chosen is None else chosen.bytes,
        "known": entered.is_known,
        "expired": entered.is_expired,
        "partial": None if chosen is None else chosen.partial or None,
        "problems": [{**named("archive", path), "problem": problem} for path, problem in entered.problems],
        "refused": planted.refused_count,
        "renamed": planted.renamed_count,
        "differences": list(entered.differences),
    }


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
