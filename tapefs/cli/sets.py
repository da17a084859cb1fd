"""`tapefs sets` and `tapefs show`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from catalog.records import AS_POOL, BackupSet, CopyState, Segment, SegmentCopy, SetState
from tapefs.cli.output import (
    Json,
    contents,
    iso_time,
    level_text,
    paths,
    print_json,
    print_table,
    printable,
    short_ids,
    short_time,
    size,
)
from tapefs.cli.place import Catalog, Place, catalog_of, ledger_of, sidecar_of
from tapefs.cli.standstill import tell_standstill
from tapefs.sizes import counted

if TYPE_CHECKING:
    from catalog.ledger import Ledger

#: A sealed set is on tape but not shown yet: for those who script, it still runs.
STATES = {SetState.SEALED: SetState.RUNNING}
#: Somebody works on these, if somebody is there.
GOING = (SetState.RUNNING, SetState.SEALED)


@click.command("sets")
@click.option("--all", "with_expired", is_flag=True, help="Also sets that have expired.")
@click.option("--long", "is_long", is_flag=True, help="Also on how many tapes each is, how long it is kept, its base.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def sets_command(place: Place, with_expired: bool, is_long: bool, as_json: bool) -> None:
    """List the backup sets, oldest first."""
    look = _sets_here if place.is_here else _sets_there
    every, more = look(place, with_expired, is_long)
    sets = [each for each in every if with_expired or each.state is not SetState.EXPIRED]
    # Elsewhere a sidecar has just answered.
    running = [f"set {each.set_id[:8]} ({each.name})" for each in every if each.state in GOING and place.is_here]
    if as_json:
        print_json([set_json(each) for each in sets])
        if running:
            tell_standstill(place.home(), running, err=True)
        return
    if not sets:
        click.echo("No sets yet: make one with `tapefs backup DIR`.")
        return
    short = short_ids(each.set_id for each in every)
    headers = ("SET", "NAME", "TYPE", "STATE", "STARTED", "FILES", "SIZE", "ON TAPE")
    print_table(
        (*headers, *(("COPIES", "KEPT", "BUILDS ON") if is_long else ()), "TAPES"),
        [
            (
                short[each.set_id],
                each.name,
                each.type,
                _state(each),
                short_time(each.started_at_ns),
                each.files,
                size(each.bytes),
                size(each.stored_bytes),
                *further,
                " ".join(each.tapes),
            )
            for each, further in zip(sets, more, strict=True)
        ],
    )
    if running:
        tell_standstill(place.home(), running)


def _sets_here(place: Place, with_expired: bool, is_long: bool) -> tuple[list[BackupSet], list[tuple[str, ...]]]:
    """Return all sets, and what --long tells of those that are listed."""
    with ledger_of(place) as ledger:
        every = ledger.backup_sets()
        sets = [each for each in every if with_expired or each.state is not SetState.EXPIRED]
        return every, [_long_row(each, _good_copies(ledger, each)) if is_long else () for each in sets]


def _sets_there(place: Place, with_expired: bool, is_long: bool) -> tuple[list[BackupSet], list[tuple[str, ...]]]:
    """Return the same of a sidecar elsewhere."""
    with sidecar_of(place) as client:
        found = client.sets() + (client.sets(SetState.EXPIRED) if with_expired else [])
        every = sorted((each.record() for each in found), key=lambda each: each.number)
        more = [_long_row(each, client.set(each.set_id).good_copies) if is_long else () for each in every]
    return every, more


def _good_copies(ledger: Ledger, each: BackupSet) -> int:
    copies = [
        sum(copy.state is CopyState.GOOD for copy in ledger.copies(segment.segment_id))
        for segment in ledger.segments(each.set_id)
    ]
    return min(copies, default=0)


def _long_row(each: BackupSet, copies: int) -> tuple[str, ...]:
    """Return on how many tapes the set is whole, how long it is kept, and what it builds on."""
    kept = f"{each.retention_days} d" if each.retention_days and each.type != "archive" else "for ever"
    if each.retention_days == AS_POOL:
        kept = "by pool"
    return str(copies), kept, each.parent_id[:8] if each.parent_id is not None else "-"


def _state(backup_set: BackupSet) -> str:
    state = STATES.get(backup_set.state, backup_set.state).value
    return f"{state}, partial" if backup_set.partial else state


def set_json(each: BackupSet) -> Json:
    """Return what `sets --json` tells of a set."""
    return {
        "set_id": each.set_id,
        "name": each.name,
        "type": each.type,
        "state": STATES.get(each.state, each.state).value,
        "started_at": iso_time(each.started_at_ns),
        "finished_at": iso_time(each.finished_at_ns),
        "files": each.files,
        "bytes": each.bytes,
        "stored_bytes": each.stored_bytes,
        "segments": each.segments,
        "tapes": list(each.tapes),
        "number": each.number,
        "job": each.job_number,
        "parent": each.parent_id,
        "codec": each.codec,
        "level": each.level,
        **paths("sources", each.sources),
        "directories": each.directories,
        "troubled_files": each.troubled_files,
        "unread_files": each.unread_files,
        "retention_days": "pool" if each.retention_days == AS_POOL else each.retention_days,
        "pool": each.pool or None,
        "copy_pools": list(each.copy_pools),
        "error": each.error or None,
        "partial": each.partial or None,
        "foreign_name": each.foreign_name or None,
    }


@click.command("show")
@click.argument("wanted", metavar="SET")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show_command(place: Place, wanted: str, as_json: bool) -> None:
    """Show a set and where it lies on tape.

    SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME as in the mount.
    """
    if not place.is_here:
        _show_there(place, wanted, as_json)
        return
    with catalog_of(place) as catalog:
        chosen = catalog.any_set(wanted)
        segments = _placed_segments(catalog, chosen)
        running = [f"set {chosen.set_id[:8]}"] if chosen.state in GOING else []
        folder = f"jobs/{chosen.name}/{catalog.archive.time_name(chosen)}"
    if as_json:
        print_json({**set_json(chosen), "folder": folder, "segment_list": [_segment_json(each) for each in segments]})
        tell_standstill(catalog.home, running, err=True)
        return
    for title, value in _facts(chosen, folder):
        click.echo(f"{title:<12}{printable(value)}")
    if segments:
        click.echo()
        _print_segments(segments)
    tell_standstill(catalog.home, running)


def _show_there(place: Place, wanted: str, as_json: bool) -> None:
    from tapefs.cli.elsewhere import print_parts, set_called

    with sidecar_of(place) as client:
        found = client.set(set_called(client, wanted).set_id)
        if as_json:
            print_json(client.call("GET", f"/api/v1/sets/{found.set_id}", None, dict[str, object]))
            return
    for title, value in _facts(found.record(), f"sets/{found.set_id}"):
        click.echo(f"{title:<12}{printable(value)}")
    if found.parts:
        click.echo()
        print_parts(found)


def _facts(chosen: BackupSet, folder: str) -> list[tuple[str, str]]:
    sources = " ".join(source.decode("utf-8", "surrogateescape") for source in chosen.sources)
    facts = [
        ("set", chosen.set_id),
        ("name", chosen.name),
        ("state", _state(chosen)),
        ("type", f"{chosen.type}, {chosen.codec} level {level_text(chosen.level)}"),
        ("sources", sources or "not told"),
        ("started", short_time(chosen.started_at_ns)),
        ("finished", short_time(chosen.finished_at_ns)),
        ("content", contents(chosen.files, chosen.directories, chosen.bytes)),
        (
            "on tape",
            f"{size(chosen.stored_bytes)} in {counted(chosen.segments, 'segment')}: {' '.join(chosen.tapes) or 'none'}",
        ),
        ("kept", _kept(chosen)),
    ]
    if chosen.foreign_name:
        facts.insert(2, ("of TAF", chosen.foreign_name))
    if chosen.partial:
        facts.append(("partial", chosen.partial))
    if chosen.pool:
        copies = f", copies in {' and '.join(chosen.copy_pools)}" if chosen.copy_pools else ""
        facts.append(("pool", chosen.pool + copies))
    facts.append(("in a mount", folder))
    if chosen.troubled_files:
        facts.append(("troubled", f"{chosen.troubled_files:,} files changed while they were read, or were unreadable"))
    if chosen.error:
        facts.append(("error", chosen.error))
    return facts


def _kept(chosen: BackupSet) -> str:
    if chosen.retention_days == AS_POOL:
        return "as its pool says"
    return f"{chosen.retention_days} days" if chosen.retention_days else "for ever"


@dataclass(frozen=True, slots=True)
class _Placed:
    """A segment and where it lies."""

    segment: Segment
    #: Label of the tape, and the place there.
    copies: list[tuple[str, SegmentCopy]]


def _placed_segments(catalog: Catalog, chosen: BackupSet) -> list[_Placed]:
    """Return the set's segments, the copies of each in the order in which tapes were written."""
    ledger = catalog.ledger
    labels = {volume.volume_id: volume.label for volume in ledger.volumes()}
    order = {label: place for place, label in enumerate(chosen.tapes)}
    placed = []
    for segment in ledger.segments(chosen.set_id):
        copies = [(labels.get(copy.volume_id, copy.volume_id), copy) for copy in ledger.copies(segment.segment_id)]
        placed.append(_Placed(segment, sorted(copies, key=lambda copy: order.get(copy[0], len(order)))))
    return placed


def _segment_json(placed: _Placed) -> Json:
    segment = placed.segment
    return {
        "segment_id": segment.segment_id,
        "number": segment.number,
        "members": segment.members,
        "frames": segment.frames,
        "plain_bytes": segment.plain_bytes,
        "stored_bytes": segment.stored_bytes,
        "payload_sha256": segment.payload_sha256.hex(),
        "copies": [
            {
                "tape": label,
                "header_file": copy.header_file,
                "header_block": copy.header_block,
                "payload_block": copy.payload_block,
                "trailer_block": copy.trailer_block,
                "block_size": copy.block_size,
                "state": copy.state.value,
                "verified_at": iso_time(copy.verified_at_ns),
            }
            for label, copy in placed.copies
        ],
    }


def _place(label: str, copy: SegmentCopy) -> str:
    place = f"{label}:{copy.header_file + 1}"
    return place if copy.state is CopyState.GOOD else f"{place} ({copy.state.value})"


def _print_segments(segments: list[_Placed]) -> None:
    print_table(
        ("SEGMENT", "MEMBERS", "ON TAPE", "TAPE:FILE OF THE PAYLOAD"),
        [
            (
                placed.segment.segment_id,
                placed.segment.members,
                size(placed.segment.stored_bytes),
                # The payload is the file behind the header.
                " ".join(_place(label, copy) for label, copy in placed.copies),
            )
            for placed in segments
        ],
    )
