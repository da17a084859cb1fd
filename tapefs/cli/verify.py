"""`tapefs verify`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import NamedTuple

import click

from catalog.errors import NotFound
from catalog.ids import SegmentId, SetId, VolumeId
from tapefs.cli.output import Json, counted, named, print_json, printable, size
from tapefs.cli.place import Catalog, Place, catalog_of
from tapefs.cli.progress import reporting
from tapefs.cli.values import Since
from tapefs.client.api import Client, VerifyFinding, VerifyView
from tapefs.errors import Cancelled, NotNow, SetDamaged, Unreachable
from tapefs.home import Home
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
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the findings, with the path of every lost file.")
@click.pass_obj
def verify_command(
    place: Place,
    targets: tuple[str, ...],
    everything: bool,
    since_s: float | None,
    again: bool,
    sample: int | None,
    as_json: bool,
) -> None:
    """Read segments back from tape and compare them with what was written.

    A SET is an id or its beginning, a job's NAME for its newest set, or NAME/TIME; what it builds on is read back with
    it, because files of it lie there. A TAPE is a label. When it is interrupted, the same command goes on. The exit
    code is 1 when anything is damaged, or could not be read.
    """
    if bool(targets) == everything:
        raise click.UsageError("name sets or tapes, or give --all")
    if again and since_s is not None:
        raise click.UsageError("--since and --again contradict each other")
    with catalog_of(place) as catalog:
        sets, tapes = _resolve(catalog, targets)
        home, bases = catalog.home, _bases(catalog, sets)
    if bases:
        whose = "it builds" if len(sets) == 1 else "they build"
        click.echo(f"verify: with {counted(len(bases), 'set')} on which {whose}", err=True)
    since = None if again else datetime.fromtimestamp(time.time() - _DAY_S if since_s is None else since_s, UTC)
    _tell(home, _read_back(home, Wanted(sets + bases, tapes, everything, since, sample or 0)), as_json=as_json)


class Wanted(NamedTuple):
    """What is to be read back."""

    sets: list[SetId]
    tapes: list[str]
    everything: bool
    since: datetime | None
    #: Segments of each tape; 0: all.
    sample: int = 0


def read_back_all(home: Home, sample: int) -> None:
    """Read back every tape, or of each tape `sample` segments; tell what was found. Raises SetDamaged and others."""
    _tell(home, _read_back(home, Wanted([], [], True, None, sample)), as_json=False)


def _read_back(home: Home, wanted: Wanted) -> VerifyView:
    from tapefs.client.presence import connected

    with connected(home) as presence:
        view = presence.client.verify(
            wanted.sets, wanted.tapes, everything=wanted.everything, since=wanted.since, sample=wanted.sample
        )
        try:
            return _wait(presence.client, view)
        except KeyboardInterrupt:
            return _cancel(presence.client, view)


def _resolve(catalog: Catalog, targets: tuple[str, ...]) -> tuple[list[SetId], list[str]]:
    """Return the ids of sets and the labels of tapes; a tape's label goes before a set of that name."""
    sets: list[SetId] = []
    tapes: list[str] = []
    for target in targets:
        try:
            tapes.append(tape_called(catalog.ledger, target).label)
        except NotFound:
            sets.append(catalog.archive.find_set(target).set_id)
    return sets, tapes


def _bases(catalog: Catalog, sets: list[SetId]) -> list[SetId]:
    """Return what these sets build on, directly or not, and is not among them: files of theirs lie there."""
    bases: list[SetId] = []
    for set_id in sets:
        below = catalog.ledger.backup_set(set_id).parent_id
        while below is not None and below not in sets and below not in bases:
            bases.append(below)
            below = catalog.ledger.backup_set(below).parent_id
    return bases


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


def _tell(home: Home, view: VerifyView, *, as_json: bool) -> None:
    """Print what was found. Raises Cancelled, SetDamaged."""
    if as_json:
        print_json(_json(home, view))
    else:
        for finding in view.findings:
            _tell_finding(home, finding)
        click.echo(_summary(view), err=True)
    if view.state == "cancelled":
        raise Cancelled("cancelled; the same command goes on where it ended")
    if view.state != "completed":
        raise SetDamaged(f"{view.damaged} copies of segments are damaged, {view.unread} could not be read")


def _summary(view: VerifyView) -> str:
    words = f"verify: {view.good} of {view.copies} copies of segments are good, {size(view.bytes)}"
    return f"{words}; {view.passed_over} were read back lately and not again" if view.passed_over else words


def _tell_finding(home: Home, finding: VerifyFinding) -> None:
    where = f"tape {finding.tape}, segment {finding.segment_id} of set {finding.set_id}"
    problems, lost = _lost(home, finding)
    click.echo(f"{where}: {finding.state}: {'; '.join(printable(problem) for problem in problems)}")
    for path in lost[:TOLD_FILES]:
        click.echo(f"  lost: {printable(path.decode('utf-8', 'surrogateescape'))}")
    if len(lost) > TOLD_FILES:
        click.echo(f"  {len(lost):,} files in all: `tapefs verify --json` names them")


def _json(home: Home, view: VerifyView) -> Json:
    findings = []
    for finding in view.findings:
        problems, lost = _lost(home, finding)
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


def _lost(home: Home, finding: VerifyFinding) -> tuple[list[str], list[bytes]]:
    """Return what is wrong, and the files that are lost, by the damage file."""
    from tapefs.verify.damage import read_damage

    if finding.state != "damaged":
        return finding.problems, []
    read = read_damage(home.damage(SegmentId(finding.segment_id), VolumeId(finding.volume_id)))
    if read is None:
        return finding.problems, []
    return read[0].problems, list(read[1])
