"""`tapefs stage`, `pins`, `unpin` and `evict`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import click

from catalog.ids import FrameNo, SegmentId
from catalog.records import PinnedFrames
from tapefs.cli.output import iso_time, print_json, print_table, short_time, size
from tapefs.cli.place import Place, catalog_of, ledger_of, sidecar_of, split_target
from tapefs.cli.progress import reporting
from tapefs.cli.values import Age
from tapefs.client.api import Arrival, Client, FrameSpan, decode
from tapefs.errors import NoSuchThing, RecallFailed, Unreachable
from tapefs.sizes import counted
from tapefs.staging.stage import runs

if TYPE_CHECKING:
    from tapefs.staging.area import StagingArea

POLL_S = 0.5
#: A sidecar that went away is noticed after this.
ASK_S = 5.0


@click.command("stage", short_help="Fetch sets, or trees of them, from tape to the disk.")
@click.argument("targets", metavar="SET[:PATH]...", nargs=-1, required=True)
@click.option("--pin", "pin_s", type=Age(), metavar="AGE", help="Keep them staged so long, for instance 12h, 7d or 2w.")
@click.option("--reason", default="", metavar="TEXT", help="Why they are pinned; `tapefs pins` shows it.")
@click.pass_obj
def stage_command(place: Place, targets: tuple[str, ...], pin_s: int | None, reason: str) -> None:
    """Fetch sets, or trees of them, from tape, so that reading them waits for nothing."""
    if reason and pin_s is None:
        raise click.UsageError("--reason is for --pin")
    if pin_s == 0:
        raise click.UsageError("--pin 0 would keep nothing: leave it out")
    pin = None if pin_s is None else (pin_s, reason or " ".join(targets))
    if place.is_here:
        _stage_here(place, targets, pin)
    else:
        _stage_there(place, targets, pin)


def _stage_here(place: Place, targets: tuple[str, ...], pin: tuple[int, str] | None) -> None:
    from tapefs.client.presence import connected
    from tapefs.staging.area import StagingArea

    home = place.home()
    area = StagingArea(home.staging)
    spans = _spans(place, targets)
    wanted = Wanted(spans, lambda missing: [each for span in missing for each in _missing(area, span)])
    if not spans:
        click.echo("stage: there is no content to fetch", err=True)
        return
    with connected(home) as presence:
        presence.listen(wanted.arrived)
        _stage(presence.client, wanted, spans, _bytes_of(place, spans), pin)


def _missing(area: StagingArea, span: FrameSpan) -> Iterator[FrameSpan]:
    for run in area.missing_runs(span.segment, range(span.first, span.last + 1)):
        yield FrameSpan(segment=span.segment, first=FrameNo(run.start), last=FrameNo(run.stop - 1))


def _stage_there(place: Place, targets: tuple[str, ...], pin: tuple[int, str] | None) -> None:
    from tapefs.cli.elsewhere import set_called

    with sidecar_of(place) as client:
        named = [split_target(target) for target in targets]
        found = client.frames([(set_called(client, name).set_id, path) for name, path in named])
        if not found.frames:
            click.echo("stage: there is no content to fetch", err=True)
            return
        wanted = Wanted(found.segments, client.missing)
        with _listening(client, wanted):
            _stage(client, wanted, found.segments, found.bytes, pin)


@contextmanager
def _listening(client: Client, wanted: Wanted) -> Iterator[None]:
    """Have what arrives at a sidecar elsewhere told to `wanted`. When it goes away the next call says so."""
    from tapefs.client.presence import SILENCE_S
    from tapefs.client.transport import LineStream

    stream = LineStream(client.address, "/api/v1/arrivals", SILENCE_S)
    lines = iter(stream)

    def listen() -> None:
        with suppress(Unreachable):
            for line in lines:
                if b'"segment"' in line:
                    wanted.arrived(decode(line, Arrival))

    thread = threading.Thread(target=listen, name="arrivals", daemon=True)
    with closing(stream):
        next(lines, b"")  # The greeting: from now on nothing is missed.
        thread.start()
        try:
            yield
        finally:
            stream.end()
            thread.join()


def _stage(
    client: Client, wanted: Wanted, spans: list[FrameSpan], count_bytes: int, pin: tuple[int, str] | None
) -> None:
    """Have frames staged, and wait for them."""
    wanted.look()
    there = wanted.total - wanted.missing
    with reporting("stage") as reporter:
        if pin is not None:
            made = client.pin(spans, *pin)
            until = f"{made.expires_at:%Y-%m-%d %H:%M:%SZ}"
            click.echo(f"stage: pin {made.id} keeps {size(made.bytes)} until {until}", err=True)
        elif wanted.missing:
            client.stage(spans, awaited=True)
        ask_s = time.monotonic() + ASK_S
        while wanted.missing:
            reporter.update(wanted.total - wanted.missing, wanted.total, f"{counted(wanted.missing, 'frame')} to come")
            wanted.wait(POLL_S)
            wanted.look()
            if time.monotonic() > ask_s:
                client.status()
                ask_s = time.monotonic() + ASK_S
    before = f"; {there:,} already there" if there else ""
    click.echo(f"stage: {counted(wanted.total, 'frame')} staged, {size(count_bytes)}{before}", err=True)


def _bytes_of(place: Place, spans: Iterable[FrameSpan]) -> int:
    """Return about how much content these frames hold."""
    from tapefs.staging.pinned import FrameLengths

    with ledger_of(place) as ledger:
        return FrameLengths(ledger).of(PinnedFrames(span.segment, ((span.first, span.last),)) for span in spans)


def _spans(place: Place, targets: Iterable[str]) -> list[FrameSpan]:
    from tapefs.staging.trees import FrameRuns, add_set, add_tree

    runs = FrameRuns()
    with catalog_of(place) as catalog:
        for target in targets:
            name, path = split_target(target)
            reader = catalog.archive.index(catalog.archive.find_set(name).set_id)
            if path.strip(b"/") or reader.bases:
                add_tree(runs, catalog.archive, reader, catalog.archive.resolve(reader, path))
            else:
                add_set(runs, catalog.archive, reader)
    return runs.spans()


class Wanted:
    """The frames that have not been staged since we asked.

    One that came and was evicted again counts as come: what is wanted may be more than the staging area holds.
    """

    def __init__(self, spans: Iterable[FrameSpan], find: Callable[[list[FrameSpan]], list[FrameSpan]]) -> None:
        """`find` tells which frames are not staged now: what it asks tells the truth."""
        self._find = find
        self._missing: dict[SegmentId, set[int]] = {}
        for span in spans:
            self._missing.setdefault(span.segment, set()).update(range(span.first, span.last + 1))
        #: How many were asked for.
        self.total = self.missing
        self._failure: str = ""
        self._news = threading.Condition()

    @property
    def missing(self) -> int:
        """How many frames are still to come."""
        return sum(len(frames) for frames in self._missing.values())

    def arrived(self, arrival: Arrival) -> None:
        """Note what the sidecar tells; called in another thread."""
        with self._news:
            frames = self._missing.get(arrival.segment, set())
            told = frames.intersection(range(arrival.first, arrival.last + 1))
            if told and arrival.error:
                self._failure = arrival.message or arrival.error
            frames.difference_update(told)
            self._news.notify()

    def look(self) -> None:
        """Ask what is staged by now. Raises RecallFailed, and what the asking raises."""
        with self._news:
            if self._failure:
                raise RecallFailed(self._failure)
            wanted = [
                FrameSpan(segment=segment_id, first=FrameNo(run.start), last=FrameNo(run.stop - 1))
                for segment_id, frames in self._missing.items()
                for run in runs(sorted(frames))
            ]
        still: dict[SegmentId, set[int]] = {}
        for span in self._find(wanted) if wanted else ():
            still.setdefault(span.segment, set()).update(range(span.first, span.last + 1))
        with self._news:
            for segment_id, frames in self._missing.items():
                frames.intersection_update(still.get(segment_id, ()))

    def wait(self, timeout_s: float) -> None:
        """Wait for news from the sidecar, at most so long."""
        with self._news:
            self._news.wait(timeout_s)


@click.command("pins", short_help="List what is pinned in the staging area.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def pins_command(place: Place, as_json: bool) -> None:
    """List what is pinned in the staging area, by whom, and until when."""
    from tapefs.staging.area import StagingArea
    from tapefs.staging.pinned import FrameLengths

    area = StagingArea(place.home().staging)
    with ledger_of(place) as ledger:
        lengths = FrameLengths(ledger)
        now_ns = time.time_ns()
        rows = [
            (pin, lengths.of(pin.frames), area.missing({frames.segment_id: frames.runs for frames in pin.frames}))
            for pin in ledger.pins()
            if pin.expires_at_ns > now_ns
        ]
    if as_json:
        print_json(
            [
                {
                    "id": pin.pin_id,
                    "owner": pin.owner,
                    "reason": pin.reason,
                    "created_at": iso_time(pin.created_at_ns),
                    "expires_at": iso_time(pin.expires_at_ns),
                    "bytes": count,
                    "missing_frames": missing,
                }
                for pin, count, missing in rows
            ]
        )
        return
    if not rows:
        click.echo("No pins: `tapefs stage SET --pin 7d` makes one.")
        return
    print_table(
        ["PIN", "OWNER", "SIZE", "TO COME", "UNTIL", "REASON"],
        [
            [
                pin.pin_id[:8],
                pin.owner,
                size(count),
                counted(missing, "frame") if missing else "-",
                short_time(pin.expires_at_ns),
                pin.reason,
            ]
            for pin, count, missing in rows
        ],
    )


@click.command("unpin")
@click.argument("pins", metavar="[PIN]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All pins.")
@click.pass_obj
def unpin_command(place: Place, pins: tuple[str, ...], everything: bool) -> None:
    """End pins, named by their ids or the beginnings of them. What they kept stays until the room is needed."""
    from tapefs.client.presence import connected

    if bool(pins) == everything:
        raise click.UsageError("name pins, or give --all")
    with ledger_of(place) as ledger:
        known = [str(pin.pin_id) for pin in ledger.pins() if pin.expires_at_ns > time.time_ns()]
    wanted = known if everything else [_one_of(known, each) for each in pins]
    with connected(place.home()) as presence:
        for pin_id in dict.fromkeys(wanted):
            presence.client.unpin(pin_id)
    click.echo(f"unpin: {counted(len(set(wanted)), 'pin')} ended", err=True)


def _one_of(known: list[str], text: str) -> str:
    found = [pin_id for pin_id in known if text and pin_id.startswith(text)]
    if len(found) != 1:
        raise NoSuchThing(f"{text!r} is {'the beginning of several pins' if found else 'no pin'}: see `tapefs pins`")
    return found[0]


@click.command("evict", short_help="Drop what is staged; what is open or pinned stays.")
@click.argument("sets", metavar="[SET]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Everything that is staged.")
@click.pass_obj
def evict_command(place: Place, sets: tuple[str, ...], everything: bool) -> None:
    """Drop what is staged, so that it has to be fetched from tape again. What is open or pinned stays."""
    if bool(sets) == everything:
        raise click.UsageError("name sets, or give --all")
    wanted = None if everything else (_segments_here if place.is_here else _segments_there)(place, sets)
    with sidecar_of(place) as client:
        freed = client.evict(wanted)
    click.echo(f"evict: {_evicted(freed.freed_bytes, freed.left_bytes)}", err=True)


def _segments_here(place: Place, sets: Iterable[str]) -> list[SegmentId]:
    with catalog_of(place) as catalog:
        return [
            segment.segment_id
            for name in sets
            for segment in catalog.ledger.segments(catalog.archive.find_set(name).set_id)
        ]


def _segments_there(place: Place, sets: Iterable[str]) -> list[SegmentId]:
    from tapefs.cli.elsewhere import set_called

    with sidecar_of(place) as client:
        return [
            SegmentId(part.segment_id) for name in sets for part in client.set_parts(set_called(client, name).set_id)
        ]


def _evicted(freed_bytes: int, left_bytes: int) -> str:
    if not freed_bytes and not left_bytes:
        return "nothing was staged"
    freed = f"{size(freed_bytes)} freed" if freed_bytes else "nothing freed"
    return f"{freed}; {size(left_bytes)} stay, which are open or pinned (`tapefs pins`)" if left_bytes else freed
