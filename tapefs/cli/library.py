"""`tapefs tapes` and `tapefs drives`."""

from __future__ import annotations

import time

import click
import msgspec

from catalog.ledger import Ledger
from catalog.records import BackupSet, Volume
from drivers.registry import drive_name
from tapefs.cli.output import Json, iso_time, print_json, print_table, printable, short_time, size
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.condition.cleaning import LastCleaning, last_cleanings
from tapefs.condition.known import blame_now, condition_now, drives_now
from tapefs.condition.tapes import Condition
from tapefs.errors import HomeError
from tapefs.home import Home


@click.command("tapes")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def tapes_command(place: Place, as_json: bool) -> None:
    """List the tapes and what lies on them."""
    if not place.is_here:
        from tapefs.cli.elsewhere import list_tapes

        with sidecar_of(place) as client:
            list_tapes(client, as_json)
        return
    with ledger_of(place) as ledger:
        volumes = ledger.volumes()
        sets = _sets_by_label(ledger.backup_sets())
        conditions = _conditions(ledger, volumes)
    if as_json:
        print_json(
            [
                {**_tape_json(volume, sets.get(volume.label, [])), "health_score": conditions[volume.label].score}
                for volume in volumes
            ]
        )
        return
    is_bad = any(each.reasons for each in conditions.values())
    is_away = any(volume.location for volume in volumes)
    print_table(
        (
            "TAPE",
            "POOL",
            "STATE",
            "LTO",
            "USED",
            "CAPACITY",
            "SETS",
            "WRITTEN",
            *(("HEALTH",) if is_bad else ()),
            *(("LIES IN",) if is_away else ()),
        ),
        [
            (
                volume.label,
                volume.pool,
                volume.state.value,
                str(volume.generation),
                size(volume.used_bytes),
                size(volume.capacity_bytes),
                len(sets.get(volume.label, [])),
                short_time(volume.written_at_ns),
                *((str(conditions[volume.label].score),) if is_bad else ()),
                *((volume.location or "library",) if is_away else ()),
            )
            for volume in volumes
        ],
    )
    for volume in volumes:
        if volume.reason:
            click.echo(f"{volume.label}: {volume.reason}")
        elif warning := conditions[volume.label].warning:
            click.echo(f"{volume.label}: {printable(conditions[volume.label].reasons[0].sentence)}; {warning}")


def _conditions(ledger: Ledger, volumes: list[Volume]) -> dict[str, Condition]:
    """Return how each tape is, by label."""
    now_ns = time.time_ns()
    whose = blame_now(ledger, now_ns)
    return {volume.label: condition_now(ledger, volume, now_ns, whose) for volume in volumes}


def _sets_by_label(sets: list[BackupSet]) -> dict[str, list[str]]:
    """Return the ids of the sets on each tape, oldest first; failed ones, too: they take its room."""
    result: dict[str, list[str]] = {}
    for each in sets:
        for label in each.tapes:
            result.setdefault(label, []).append(each.set_id)
    return result


def _tape_json(volume: Volume, sets: list[str]) -> Json:
    return {
        "label": volume.label,
        "uuid": volume.volume_id,
        "pool": volume.pool,
        "location": volume.location or None,
        "state": volume.state.value,
        "capacity_bytes": volume.capacity_bytes,
        "used_bytes": volume.used_bytes,
        "sets": sets,
        "reason": volume.reason or None,
        "generation": volume.generation,
        "block_size": volume.block_size,
        "installation": volume.installation_id,
        "end_file": volume.end_file,
        "end_block": volume.end_block,
        "written_at": iso_time(volume.written_at_ns),
    }


class DriveSeconds(msgspec.Struct, frozen=True):
    """Time spent by kind, by the motion model or by the clock."""

    load: float = 0.0
    locate: float = 0.0
    read: float = 0.0
    write: float = 0.0
    rewind: float = 0.0
    backhitch: float = 0.0


class DriveCounters(msgspec.Struct, frozen=True):
    """What a drive has done since the library was made."""

    loads: int = 0
    locates: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    #: Times the tape stopped and backed up, and those of them for want of data.
    backhitches: int = 0
    underruns: int = 0
    seconds: DriveSeconds = DriveSeconds()


class DriveReport(msgspec.Struct, frozen=True):
    """What a mover left about its drive in `drives/<name>.json`."""

    name: str
    state: str = "empty"
    tape: str | None = None
    counters: DriveCounters = DriveCounters()
    #: Does it compress what is written? None: it was never opened.
    compresses: bool | None = None
    #: Why it failed; empty while it works.
    reason: str = ""
    #: A sentence about something that takes long, "" for none.
    note: str = ""
    #: It asks to be cleaned.
    wants_cleaning: bool = False


@click.command("drives")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--retry", metavar="DRIVE", help="Have this one, which has failed, tried again at once.")
@click.pass_obj
def drives_command(place: Place, as_json: bool, retry: str | None) -> None:
    """List the drives with their counters, and why one has failed."""
    if retry is not None:
        with sidecar_of(place) as client:
            client.retry_drive(retry)
        return
    if not place.is_here:
        from tapefs.cli.elsewhere import list_drives

        with sidecar_of(place) as client:
            list_drives(client, as_json)
        return
    home = place.home()
    with ledger_of(place) as ledger:
        labels = {volume.code: volume.label for volume in ledger.volumes()}
    drives = [_report(home, name) for name in map(drive_name, range(home.settings.library.drive_count))]
    drives = [msgspec.structs.replace(drive, tape=labels.get(drive.tape or "", drive.tape)) for drive in drives]
    if as_json:
        with ledger_of(place) as ledger:
            cleaned = last_cleanings(ledger)
        print_json([_drive_json(drive, cleaned.get(drive.name)) for drive in drives])
        return
    print_table(
        ("DRIVE", "STATE", "TAPE", "LOADS", "LOCATES", "READ", "WRITTEN", "BUSY"),
        [
            (
                drive.name,
                drive.state,
                drive.tape or "-",
                drive.counters.loads,
                drive.counters.locates,
                size(drive.counters.bytes_read),
                size(drive.counters.bytes_written),
                f"{sum(msgspec.structs.astuple(drive.counters.seconds)):,.0f} s",
            )
            for drive in drives
        ],
    )
    for drive in drives:
        if drive.reason:
            click.echo(f"{drive.name} failed: {printable(drive.reason)}")
        if drive.note:
            click.echo(f"{drive.name}: {printable(drive.note)}")
    with ledger_of(place) as ledger:
        known = drives_now(ledger, time.time_ns())
        cleanings = last_cleanings(ledger)
    for drive in drives:
        wish = drive.wants_cleaning and not any("to be cleaned" in said for said in known.get(drive.name, []))
        asked = [f"it asks to be cleaned: `tapefs tape clean {drive.name}`"] if wish else []
        for sentence in [*asked, *known.get(drive.name, [])]:
            click.echo(f"{drive.name}: {printable(sentence)}")
        if drive.name in cleanings:
            last = cleanings[drive.name]
            click.echo(f"{drive.name}: {last.sentence(short_time(last.cleaning.loaded_at_ns))}")


def _drive_json(drive: DriveReport, last: LastCleaning | None) -> Json:
    when = None if last is None else iso_time(last.cleaning.loaded_at_ns)
    return {
        **msgspec.to_builtins(drive),
        "cleaned_at": when,
        "cleaned_with": None if last is None else last.cleaning.code,
    }


def _report(home: Home, name: str) -> DriveReport:
    path = home.drives / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=DriveReport)
    except FileNotFoundError:
        return DriveReport(name)  # It was never opened.
    except msgspec.MsgspecError as error:
        raise HomeError(f"{path} is damaged, remove it: {error}") from error
