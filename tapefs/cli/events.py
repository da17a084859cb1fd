"""`tapefs events`: what has happened, and what happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tapefs.cli.output import printable
from tapefs.cli.place import Place, sidecar_of
from tapefs.home import Home

if TYPE_CHECKING:
    from catalog.notice_records import Notice
    from tapefs.client.address import Address
    from tapefs.client.events import EventView, ProgressView
    from tapefs.client.notices import NoticeView

#: Notices of one answer.
_PAGE = 1000


@click.command("events", short_help="What has happened, and what happens now.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens, until Ctrl-C.")
@click.option("--kind", "kinds", multiple=True, metavar="PATTERN", help="Only these, as backup.* or tape.wanted.")
@click.option("--progress", is_flag=True, help="With --follow: also how far jobs, recalls and others are.")
@click.option(
    "-n", "--last", type=click.IntRange(0, 10_000), default=20, show_default=True, help="Begin with so many that were."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an event a line.")
@click.pass_obj
def events_command(
    place: Place, follow: bool, kinds: tuple[str, ...], progress: bool, last: int, as_json: bool
) -> None:
    """Tell what has happened, oldest first, and with --follow what happens.

    The newest 10,000 are kept. A follower that loses the sidecar waits for the next and misses nothing.
    """
    number = _print_last(place, kinds, last, as_json)
    if follow:
        for event in _without_end(place.address or place.home().socket, number, kinds):
            _print(event, progress or bool(kinds), as_json)


def _print_last(place: Place, kinds: tuple[str, ...], count: int, as_json: bool) -> int:
    """Print the newest notices; return the number of the newest of all."""
    newest, kept = _kept_there(place) if place.address is not None else _kept_here(place.home(), kinds, count)
    found = [each for each in kept if not kinds or any(fnmatchcase(each.kind, kind) for kind in kinds)]
    for notice in found[max(len(found) - count, 0) :]:
        _print(notice, True, as_json)
    return newest


def _kept_there(place: Place) -> tuple[int, list[NoticeView]]:
    """Return the number of the newest notice, and what a sidecar elsewhere has kept."""
    found: list[NoticeView] = []
    with sidecar_of(place) as client:
        while page := client.notices.since(found[-1].number if found else 0, _PAGE):
            found += page
    return found[-1].number if found else 0, found


def _kept_here(home: Home, kinds: tuple[str, ...], count: int) -> tuple[int, list[NoticeView]]:
    from catalog.lmdb_ledger import LmdbLedger
    from catalog.notice_records import KEPT_NOTICES

    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        newest = ledger.newest_notice()
        kept = ledger.notices_since(newest - (KEPT_NOTICES if kinds else count), KEPT_NOTICES)
    return newest, [_view(each) for each in kept]


def _view(notice: Notice) -> NoticeView:
    from tapefs.client.notices import NoticeView
    from tapefs.notice_kinds import KINDS

    return NoticeView(
        number=notice.number,
        at=datetime.fromtimestamp(notice.at_ns / 1e9).astimezone(),
        kind=notice.kind,
        gravity=KINDS[notice.kind].gravity.name.lower() if notice.kind in KINDS else "news",
        subject=notice.subject,
        text=notice.text,
        facts=notice.facts,
    )


def _print(event: EventView, has_progress: bool, as_json: bool) -> None:
    from tapefs.client.events import GapView, ProgressView

    if isinstance(event, ProgressView) and not has_progress:
        return
    if as_json:
        click.echo(msgspec.json.encode(event).decode())
    elif isinstance(event, GapView):
        click.echo(f"(numbers {event.first} to {event.last} are not kept any more)", err=True)
    elif isinstance(event, ProgressView):
        click.echo(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind:<18}  {event.subject}: {_how_far(event)}")
    else:
        click.echo(printable(f"{event.at:%Y-%m-%d %H:%M:%S}  {event.kind:<18}  {event.text or event.subject}"))


def _how_far(event: ProgressView) -> str:
    """Return what people want to know of it."""
    facts = event.facts
    words = [str(facts[name]) for name in ("name", "kind", "state", "stage", "text", "path") if facts.get(name)]
    words += [f"tape {facts['tape']}"] if facts.get("tape") else []
    amounts = {name: int(value) for name in _AMOUNTS if isinstance(value := facts.get(name), int | float) and value}
    words += [form % format(amounts[name], ",") for name, form in _AMOUNTS.items() if name in amounts]
    words += [str(facts[name]) for name in ("failure", "error") if facts.get(name)]
    return printable(", ".join(words)) + (" (over)" if event.is_over else "")


#: What is told in numbers, and how.
_AMOUNTS = {
    "files": "%s files",
    "bytes": "%s bytes",
    "bytes_per_s": "%s bytes/s",
    "percent": "%s %%",
    "eta_s": "%s s left",
}


def _without_end(where: Path | Address, number: int, kinds: tuple[str, ...]) -> Iterator[EventView]:
    """Yield events of this sidecar and of the next; each notice once."""
    from tapefs.client.events import GapView, follow
    from tapefs.client.notices import NoticeView
    from tapefs.errors import Unreachable

    is_told = False
    while True:
        try:
            for event in follow(where, since=number, kinds=kinds):
                is_told = False
                if isinstance(event, NoticeView):
                    number = event.number
                elif isinstance(event, GapView):  # Numbers that are behind the newest are of a ledger that has gone.
                    number = event.last if event.first > number else 0
                yield event
        except Unreachable as error:
            if not is_told:
                click.echo(f"({error}; waiting for it)", err=True)
                is_told = True
        time.sleep(1.0)
