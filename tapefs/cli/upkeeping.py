"""Checks and copies of the catalog that a sidecar makes: commands order one, and wait for its end."""

from __future__ import annotations

from contextlib import suppress

import click

from tapefs.cli.progress import reporting
from tapefs.client.api import Client
from tapefs.client.upkeep import UpkeepView
from tapefs.errors import Cancelled, NotNow, TapefsError


def waited(client: Client, view: UpkeepView, what: str) -> UpkeepView:
    """Wait until it is done; Ctrl-C gives it up. Raises Cancelled, TapefsError with the reason when it has failed."""
    try:
        with reporting(what) as reporter:
            view = client.upkeep.wait(view.number, lambda task: reporter.update(0, None, _words(task)))
    except KeyboardInterrupt:
        click.echo(f"{what}: cancelling", err=True)
        with suppress(NotNow):  # It has just ended.
            client.upkeep.cancel(view.number)
        view = client.upkeep.wait(view.number)
    if view.state == "cancelled":
        raise Cancelled("cancelled; the same command begins again")
    if view.state != "done":
        raise TapefsError(view.error or f"it ended as {view.state}: give the same command again")
    return view


def _words(task: UpkeepView) -> str:
    return "waits for another one that runs" if task.state == "waiting" else task.progress or "begins"
