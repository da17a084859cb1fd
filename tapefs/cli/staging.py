"""`tapefs stage`, `pins`, `unpin` and `evict`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import click

from catalog.ids import SegmentId
from catalog.records import PinnedFrames
from tapefs.cli.output import iso_time, print_json, print_table, short_time, size
from tapefs.cli.place import Place, catalog_of, ledger_of, sidecar_of, split_target
from tapefs.cli.progress import reporting
from tapefs.cli.values import Age
from tapefs.client.api import Arrival, FrameSpan
from tapefs.errors import NoSuchThing, RecallFailed
from tapefs.sizes import counted

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
    from tapefs.client.presence import connected

    if reason and pin_s is None:
        raise click.UsageError("--reason is for --pin")
    if pin_s == 0:
        raise click.UsageError("--pin 0 would keep nothing: leave it out")
    home = place.home()
    spans = _spans(place, targets)
    if not spans:
        click.echo("stage: there is no content to fetch", err=True)
        return
    wanted = Wanted(home.staging, spans)
    wanted.look()
    there = wanted.total - wanted.missing
    with connected(home) as presence, reporting("stage") as reporter:
        presence.listen(wanted.arrived)
        if pin_s is not None:
            pin = presence.client.pin(spans, pin_s, reason or " ".join(targets))
            until = f"{pin.expires_at:%Y-%m-%d %H:%M:%SZ}"
            click.echo(f"stage: pin {pin.id} keeps {size(pin.bytes)} until {until}", err=True)
        elif wanted.missing:
            presence.client.stage(spans, awaited=True)
        ask_s = time.monotonic() + ASK_S
        while wanted.missing:
            reporter.update(wanted.total - wanted.missing, wanted.total, f"{counted(wanted.missing, 'frame')} to come")
            wanted.wait(POLL_S)
            wanted.look()
            if time.monotonic() > ask_s:
                presence.client.status()
                ask_s = time.monotonic() + ASK_S
    before = f"; {there:,} already there" if there else ""
    click.echo(f"stage: {counted(wanted.total, 'frame')} staged, {size(_bytes_of(place, spans))}{before}", err=True)


def _bytes_of(place: Place, spans: Iterable[FrameSpan]) -> int:
    """Return about how much content these frames hold."""
    from tapefs.staging.pinned import FrameLengths

    with ledger_of(place) as ledger:
        return FrameLengths(ledger).of(PinnedFrames(span.segment, ((span.first, span.last),)) for span in spans)


def _spans(place: Place, targets: Iterable[str]) -> list[FrameSpan]:
    from tapefs.cli.spans import FrameRuns, add_set, add_tree

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

    def __init__(self, folder: Path, spans: Iterable[FrameSpan]) -> None:
        self._folder = folder
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
        """Look into the maps of the staging area, which tell the truth. Raises RecallFailed."""
        from tapefs.staging.stage import SegmentStage

        with self._news:
            if self._failure:
                raise RecallFailed(self._failure)
            for segment_id, frames in self._missing.items():
                stage = SegmentStage.open(self._folder, segment_id) if frames else None
                if stage is not None:
                    frames.difference_update([frame for frame in frames if stage.has(range(frame, frame + 1))])
                    stage.close()

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
