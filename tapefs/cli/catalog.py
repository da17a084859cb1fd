"""`tapefs catalog backup|list|show|restore`."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import click
from msgspec import to_builtins

from tapefs.cli.output import iso_time, print_json, print_table, short_moment, short_time, size
from tapefs.cli.place import Place, ledger_of, sidecar_of
from tapefs.cli.progress import reporting
from tapefs.errors import HomeError, NotNow, SourceError, TapefsError, UsageError
from tapefs.home import Home, open_home
from tapefs.safekeeping.contents import COPY_JOB
from tapefs.sizes import counted

_FILE = click.Path(path_type=Path)


@click.group("catalog", no_args_is_help=False, short_help="Copy the catalog to a file or to tape, and bring it back.")
def catalog_command() -> None:
    """Copy the catalog to a file or to tape, and bring it back.

    The catalog is the ledger with the indexes, trailers, reports, settings and keys beside it. Without any copy
    `tapefs rebuild` makes it from the tapes.
    """


@catalog_command.command("backup")
@click.argument("file", type=_FILE, required=False)
@click.option("--to-tape", is_flag=True, help=f"Back the copy up to tape, as job {COPY_JOB}.")
@click.option("--folder", metavar="DIR", help="Have the sidecar copy it to a folder of its machine, by its whole path.")
@click.option(
    "--keep",
    type=click.IntRange(0, 36_525),
    metavar="N",
    help="With --folder: so many copies stay there.  [default: all]",
)
@click.option(
    "--retention-days",
    type=click.IntRange(0, 100_000),
    default=90,
    show_default=True,
    help="With --to-tape: keep it so long; 0 for ever. The newest stays in any case.",
)
@click.pass_obj
def backup_command(
    place: Place, file: Path | None, to_tape: bool, folder: str | None, keep: int | None, retention_days: int
) -> None:
    """Copy the catalog to FILE (a .tar.zst), or to tape. Backups, recalls and mounts may be at work meanwhile.

    Keep it apart from this machine: its keys are in it, each still locked by its passphrase.
    """
    if (file is not None) + to_tape + (folder is not None) != 1:
        raise click.UsageError("name a FILE, or give --to-tape or --folder, one of the three")
    if keep is not None and folder is None:
        raise click.UsageError("--keep is for --folder; --retention-days is for --to-tape")
    if folder is not None or not place.is_here:
        _have_copied(place, file, folder, keep or 0, retention_days)
        return
    home = place.home()
    if file is not None:
        if file.is_dir():
            raise UsageError(f"{file} is a folder: name the file, for instance {file}/catalog.tar.zst")
        _copy(place, home, file)
    else:
        _copy_to_tape(place, home, retention_days)


def _have_copied(place: Place, file: Path | None, folder: str | None, keep: int, retention_days: int) -> None:
    """Have the sidecar make the copy, and print where it is."""
    from tapefs.cli.upkeeping import waited

    if file is not None:
        raise UsageError(
            f"a copy holds the keys, and does not leave the machine of {place.address}: give --to-tape, "
            "or --folder with a folder there"
        )
    if folder is not None and not folder.startswith("/"):
        raise UsageError(f"--folder takes a whole path of the sidecar's machine, such as /srv/copies, not {folder}")
    with sidecar_of(place) as client:
        ordered = client.upkeep.copy_catalog(folder or "", retention_days if folder is None else keep)
        copy = waited(client, ordered, "catalog").copy
        where = copy.where if copy is not None else None
        if folder is None:
            where = next((each.set_id for each in client.upkeep.copies() if each.set_id is not None), None)
    if where is None:
        raise TapefsError("the sidecar does not say where the copy is: see `tapefs catalog list`")
    click.echo(where)


@catalog_command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(place: Place, as_json: bool) -> None:
    """List the copies that are known of, newest first.

    These are sets of the job tapefs-catalog, and files in folders that schedules and commands have named.
    """
    with sidecar_of(place) as client:
        found = client.upkeep.copies()
    if as_json:
        print_json([to_builtins(each) for each in found])
        return
    if not found:
        click.echo("No copies are known: make one with `tapefs catalog backup --to-tape`.")
        return
    rows = [
        (short_moment(each.made_at), size(each.bytes), each.path or f"set {each.set_id} on {' '.join(each.tapes)}")
        for each in found
    ]
    print_table(("MADE", "SIZE", "WHERE"), rows)


def _copy(place: Place, home: Home, file: Path) -> None:
    from tapefs.safekeeping.pack import back_up_catalog

    with ledger_of(place) as ledger, reporting("catalog") as reporter:
        manifest = back_up_catalog(home, ledger, file, time.time_ns(), lambda what: reporter.update(0, None, what))
    for set_id in manifest.without_index:
        click.echo(f"catalog: set {set_id} has no index: see `tapefs check`", err=True)
    click.echo(f"catalog: {counted(manifest.sets, 'set')}, {size(file.stat().st_size)} in {file}", err=True)


def _copy_to_tape(place: Place, home: Home, retention_days: int) -> None:
    from tapefs.cli.backup import finished, submitting, with_sources
    from tapefs.client.job_fields import JobFields

    home.copies.mkdir(mode=0o700, exist_ok=True)
    with _alone(home.copies):
        for old in home.copies.iterdir():  # Of a run that was killed.
            old.unlink()
        file = home.copies / time.strftime("catalog-%Y%m%dT%H%M%SZ.tar.zst", time.gmtime())
        _copy(place, home, file)
        try:
            # It is compressed already.
            fields = JobFields(type="full", codec="tar", retention_days=retention_days, verify=True)
            with submitting(place) as client:
                view = client.submit(with_sources(place, fields, COPY_JOB, [bytes(home.copies)]), reuse=True)
                set_id = finished(client, view)
                count = client.job(view.number).trouble_count
        finally:
            file.unlink()
    if count:
        raise SourceError("the copy did not go to tape as it was: see the lines above")
    click.echo(set_id)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have the folder to ourselves: another command would remove the copy that a job reads. Raises NotNow."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise NotNow("a copy of the catalog is on its way to tape already: wait for it") from None
    finally:
        os.close(descriptor)


@catalog_command.command("show")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(file: Path, as_json: bool) -> None:
    """Check a copy, and say what it holds.

    It is read to its end, and every file in it compared with its checksum.
    """
    from tapefs.safekeeping.unpack import read_manifest

    manifest = read_manifest(file)
    total = sum(item.bytes for item in manifest.items)
    if as_json:
        print_json(
            {
                "installation": manifest.installation,
                "created_at": iso_time(manifest.created_ns),
                "software": manifest.software,
                "sets": manifest.sets,
                "without_index": list(manifest.without_index),
                "files": [{"name": item.name, "bytes": item.bytes, "sha256": item.sha256} for item in manifest.items],
            }
        )
        return
    click.echo(f"made          {short_time(manifest.created_ns)} by {manifest.software}")
    click.echo(f"installation  {manifest.installation}")
    click.echo(f"holds         {counted(manifest.sets, 'set')}: {counted(len(manifest.items), 'file')}, {size(total)}")


@catalog_command.command("restore")
@click.argument("file", type=_FILE)
@click.pass_obj
def restore_command(place: Place, file: Path) -> None:
    """Bring the catalog back from a copy.

    It goes into the state folder that --home names, or a new one. What was there moves to a folder replaced-TIME
    beside it; settings and keys that are there stay. No sidecar can use the state folder meanwhile. What was
    written to tape after the copy was made: `tapefs import TAPE`.
    """
    from tapefs.safekeeping.unpack import bring_catalog_back

    with _ownership(place.path), reporting("catalog") as reporter:
        manifest = bring_catalog_back(place.path, file, time.time_ns(), lambda what: reporter.update(0, None, what))
    click.echo(f"catalog: {counted(manifest.sets, 'set')} as of {short_time(manifest.created_ns)}", err=True)
    home = open_home(place.path)
    if home.settings.library.driver == "virtual" and not any(home.library.iterdir()):
        click.echo(f"catalog: the virtual library is no part of it: put its folder back at {home.library}", err=True)
    click.echo("catalog: tapes that were written since then know more: `tapefs import TAPE` takes that in", err=True)


def _ownership(path: Path) -> AbstractContextManager[object]:
    from sidecar.ownership import owned

    try:
        return owned(open_home(path), temporary=False)
    except HomeError:
        return nullcontext()  # A new one, or one in which a restore was interrupted.
