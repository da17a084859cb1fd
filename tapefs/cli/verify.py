"""`tapefs verify`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple

import click

from catalog.errors import NotFound
from catalog.ids import SegmentId, SetId, VolumeId
from tapefs.cli.output import Json, named, print_json, print_table, printable, short_moment, size
from tapefs.cli.place import Catalog, Place, catalog_of, sidecar_of
from tapefs.cli.progress import reporting
from tapefs.cli.values import Since
from tapefs.client.api import Client, VerifyFinding, VerifyView
from tapefs.errors import Cancelled, NoSuchThing, NotNow, SetDamaged, Unreachable
from tapefs.sizes import counted
from tapefs.tape.names import tape_called

POLL_S = 0.2
#: How long a cancelled one may take to come to an end.
CANCEL_S = 120.0
#: Lost files that are told one by one for each copy; `--json` has all.
TOLD_FILES = 20
_DAY_S = 24 * 3600.0


@click.command("verify", short_help="Read tapes back and compare them with what was written.")
@click.argument("targets", metavar="[SET|TAPE]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every complete set on every tape.")
@click.option(
    "--since",
    "since_s",
    type=Since(),
    metavar="WHEN",
    help="Pass over what was read back since WHEN: an age such as 12h or 30d, or a time.  [default: 1d]",
)
@click.option("--again", is_flag=True, help="Read everything, whenever it was read back before.")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    default=None,
    metavar="N",
    help="Of each tape only N segments, those read back the longest ago.",
)
@click.option("--list", "is_list", is_flag=True, help="Show those that run and the newest others instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the findings, with the path of every lost file.")
@click.pass_obj
def verify_command(
    place: Place,
    targets: tuple[str, ...],
    everything: bool,
    since_s: float | None,
    again: bool,
    sample: int | None,
    is_list: bool,
    as_json: bool,
) -> None:
    """Read segments back from tape and compare them with what was written.

    A SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME; what it builds on is read back with
    it, because files of it lie there. A TAPE is a label. When it is interrupted, the same command goes on. The exit
    code is 1 when anything is damaged, or could not be read.
    """
    if is_list:
        if targets or everything or again or since_s is not None or sample is not None:
            raise click.UsageError("--list goes with nothing but --json")
        _list(place, as_json)
        return
    if bool(targets) == everything:
        raise click.UsageError("name sets or tapes, or give --all")
    if again and since_s is not None:
        raise click.UsageError("--since and --again contradict each other")
    sets, tapes = _resolve(place, targets)
    since = None if again else datetime.fromtimestamp(time.time() - _DAY_S if since_s is None else since_s, UTC)
    _tell(place, _read_back(place, Wanted(sets, tapes, everything, since, sample or 0)), as_json=as_json)


def _list(place: Place, as_json: bool) -> None:
    """Print the verifications that the sidecar knows, oldest first."""
    import msgspec

    with sidecar_of(place) as client:
        found = client.verifications()
    if as_json:
        print_json([msgspec.to_builtins(each) for each in found])
        return
    if not found:
        click.echo("Nothing was read back yet: `tapefs verify --all` reads back everything.")
        return
    headers = ("NUMBER", "STATE", "STARTED", "FINISHED", "COPIES", "GOOD", "DAMAGED", "UNREAD", "READ", "REMARKS")
    print_table(headers, [_row(each) for each in found])


def _row(view: VerifyView) -> tuple[str | int, ...]:
    remarks = view.error or (f"reads tape {view.tape}" if view.state == "running" and view.tape else "")
    if not remarks and view.findings:
        remarks = "damaged or unread: " + " ".join(sorted({each.tape for each in view.findings}))
    times = short_moment(view.started_at), short_moment(view.finished_at)
    counts = view.copies, view.good, view.damaged, view.unread
    return (str(view.number), view.state, *times, *counts, size(view.done_bytes), remarks)


class Wanted(NamedTuple):
    """What is to be read back."""

    sets: list[SetId]
    tapes: list[str]
    everything: bool
    since: datetime | None
    #: Segments of each tape; 0: all.
    sample: int = 0


def read_back_all(place: Place, sample: int) -> None:
    """Read back every tape, or of each tape `sample` segments; tell what was found. Raises SetDamaged and others."""
    _tell(place, _read_back(place, Wanted([], [], True, None, sample)), as_json=False)


def _read_back(place: Place, wanted: Wanted) -> VerifyView:
    with sidecar_of(place) as client:
        view = client.verify(
            wanted.sets, wanted.tapes, everything=wanted.everything, since=wanted.since, sample=wanted.sample
        )
        try:
            return _wait(client, view)
        except KeyboardInterrupt:
            return _cancel(client, view)


def _resolve(place: Place, targets: tuple[str, ...]) -> tuple[list[SetId], list[str]]:
    """Return the sets that are named, and labels of tapes; these go before sets."""
    if place.is_here:
        with catalog_of(place) as catalog:
            return _resolve_here(catalog, targets)
    from tapefs.cli.elsewhere import set_called

    sets: list[SetId] = []
    tapes: list[str] = []
    with sidecar_of(place) as client:
        for target in targets:
            try:
                tapes.append(client.tapes.show(target).label)
            except NoSuchThing:
                sets.append(set_called(client, target).set_id)
        return sets, tapes


def _resolve_here(catalog: Catalog, targets: tuple[str, ...]) -> tuple[list[SetId], list[str]]:
    sets: list[SetId] = []
    tapes: list[str] = []
    for target in targets:
        try:
            tapes.append(tape_called(catalog.ledger, target).label)
        except NotFound:
            sets.append(catalog.archive.find_set(target).set_id)
    return sets, tapes


def _wait(client: Client, view: VerifyView) -> VerifyView:
    with reporting("verify") as reporter:
        while view.state == "running":
            time.sleep(POLL_S)
            view = _ask(client, view.number)
            words = f"{size(view.done_bytes)} of {size(view.bytes)} {view.tape}"
            reporter.update(view.done_bytes, view.bytes, words)
    return view


def _ask(client: Client, number: int) -> VerifyView:
    try:
        return client.verification(number)
    except Unreachable as error:
        raise Unreachable(
            f"{error}\nverification {number} is kept: it goes on with what was not read when the sidecar runs again"
        ) from error


def _cancel(client: Client, view: VerifyView) -> VerifyView:
    click.echo("verify: cancelling", err=True)
    try:
        client.cancel_verification(view.number)
    except NotNow:
        return client.verification(view.number)
    deadline_s = time.monotonic() + CANCEL_S
    while (view := client.verification(view.number)).state == "running" and time.monotonic() < deadline_s:
        time.sleep(POLL_S)
    return view


def _tell(place: Place, view: VerifyView, *, as_json: bool) -> None:
    """Print what was found. Raises Cancelled, SetDamaged."""
    if as_json:
        print_json(_json(place, view))
    else:
        for finding in view.findings:
            _tell_finding(place, finding)
        click.echo(_summary(view), err=True)
    if view.state == "cancelled":
        raise Cancelled("cancelled; the same command goes on where it ended")
    if view.state != "completed":
        raise SetDamaged(f"{view.damaged} copies of segments are damaged, {view.unread} could not be read")


def _summary(view: VerifyView) -> str:
    words = f"verify: {view.good} of {view.copies} copies of segments are good, {size(view.bytes)}"
    return f"{words}; {view.passed_over} were read back lately and not again" if view.passed_over else words


def _tell_finding(place: Place, finding: VerifyFinding) -> None:
    where = f"tape {finding.tape}, segment {finding.segment_id} of set {finding.set_id}"
    problems, lost = _lost(place, finding)
    click.echo(f"{where}: {finding.state}: {'; '.join(printable(problem) for problem in problems)}")
    for path in lost[:TOLD_FILES]:
        click.echo(f"  lost: {printable(path.decode('utf-8', 'surrogateescape'))}")
    if len(lost) > TOLD_FILES:
        click.echo(f"  {len(lost):,} files in all: `tapefs verify --json` names them")


def _json(place: Place, view: VerifyView) -> Json:
    findings = []
    for finding in view.findings:
        problems, lost = _lost(place, finding)
        findings.append(
            {
                "segment_id": finding.segment_id,
                "set_id": finding.set_id,
                "tape": finding.tape,
                "state": finding.state,
                "problems": problems,
                "lost": [named("path", path) for path in lost],
            }
        )
    return {
        "state": view.state,
        "copies": view.copies,
        "good": view.good,
        "damaged": view.damaged,
        "unread": view.unread,
        "passed_over": view.passed_over,
        "bytes": view.bytes,
        "findings": findings,
    }


def _lost(place: Place, finding: VerifyFinding) -> tuple[list[str], list[bytes]]:
    """Return what is wrong, and the files that are lost, by the damage file; that is not told elsewhere."""
    from tapefs.verify.damage import read_damage

    if finding.state != "damaged":
        return finding.problems, []
    if not place.is_here:
        return [*finding.problems, f"{counted(finding.files, 'file')} lost"], []
    home = place.home()
    read = read_damage(home.damage(SegmentId(finding.segment_id), VolumeId(finding.volume_id)))
    if read is None:
        return finding.problems, []
    return read[0].problems, list(read[1])
