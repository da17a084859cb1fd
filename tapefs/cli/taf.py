"""`tapefs taf`: what TAF has written to LTFS volumes. Needs no state folder and no sidecar."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tapefs.cli.output import named, print_json, print_table, short_time, size
from tapefs.cli.progress import reporting
from tapefs.cli.restore import noting, progress_to, tell_report

if TYPE_CHECKING:
    from tapefs.taf.volume import Archive, TafVolume

_VOLUME = click.argument("root", metavar="VOLUME", type=click.Path(path_type=Path))
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
