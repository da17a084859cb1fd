"""Progress of long work on stderr: a bar on a terminal, plain lines elsewhere. One thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from tapefs.cli.output import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Plain lines come at most this often, and those that say nothing new.
LINE_S = 1.0
SAME_S = 60.0
#: Terminals of fewer columns have a short bar.
WIDE = 100


class Reporter(Protocol):
    """Where progress goes."""

    def update(self, done: int, total: int | None, text: str) -> None:
        """Say how far the work is: `done` of `total` bytes (None: not known), and in words."""
        ...

    def say(self, text: str) -> None:
        """Say something that stays to be read."""
        ...


class _Lines:
    def __init__(self, title: str) -> None:
        self._title = title
        self._began_s = time.monotonic()
        self._next_s = self._began_s + LINE_S
        self._said, self._said_s = "", -SAME_S

    def update(self, done: int, total: int | None, text: str) -> None:
        now_s = time.monotonic()
        if now_s < self._next_s or (text == self._said and now_s < self._said_s + SAME_S):
            return
        self._said, self._said_s = text, now_s
        self._next_s = now_s + LINE_S
        share = f"{100 * done // total} %, " if total else ""
        click.echo(f"{self._title}: {now_s - self._began_s:.0f} s, {share}{printable(text)}", err=True)

    def say(self, text: str) -> None:
        click.echo(printable(text), err=True)


class _Bar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, done: int, total: int | None, text: str) -> None:
        self._progress.update(self._task, completed=done, total=total, text=printable(text))

    def say(self, text: str) -> None:
        # Above the bar, which is drawn anew.
        self._progress.console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def reporting(title: str) -> Iterator[Reporter]:
    """Yield where to report; the bar disappears at the end."""
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    # Imported here: it takes longer than a listing command may run.
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    console = Console(stderr=True)
    # What is said gives way on a narrow terminal, not who says it.
    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24 if console.width >= WIDE else 6),
        TimeElapsedColumn(),
        TextColumn("{task.fields[text]}", markup=False, table_column=rest),
    )
    with Progress(*columns, console=console, transient=True, refresh_per_second=5, expand=True) as progress:
        yield _Bar(progress, progress.add_task(title, total=None, text=""))
