"""`tapefs backup`: hands the job to the sidecar and waits for its set."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

from catalog.ids import JobNumber
from catalog.records import JobState
from tapefs.cli.output import printable, size
from tapefs.cli.place import Place
from tapefs.cli.progress import reporting
from tapefs.cli.values import JobName, name_from_path
from tapefs.client.api import Client, JobView, NewJob
from tapefs.errors import Cancelled, NotNow, SourceError, TapefsError

POLL_S = 0.2
#: How long a cancelled job may take to come to a good place.
CANCEL_S = 120.0
#: Troubles that are told one by one; the rest is counted.
TROUBLES = 20


@click.command("backup")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=click.Path(path_type=bytes))
@click.option("--name", type=JobName(), help="Name in the archive; else the last component of the first source.")
@click.option("--type", "kind", type=click.Choice(["full"]), default="full", show_default=True)
@click.option("--codec", type=click.Choice(["zstd"]), default="zstd", show_default=True)
@click.option("--level", type=click.IntRange(1, 19), default=3, show_default=True, help="Of compression.")
@click.option("--exclude", "excludes", metavar="GLOB", multiple=True, help="Leave out what matches; may be repeated.")
@click.option("--no-wait", is_flag=True, help="Print the job's number instead, and let `tapefs serve` do it.")
@click.pass_obj
def backup_command(
    place: Place,
    sources: tuple[bytes, ...],
    name: str | None,
    kind: str,
    codec: str,
    level: int,
    excludes: tuple[str, ...],
    no_wait: bool,
) -> None:
    """Back up files and directories to tape; the id of the new set is printed last."""
    from tapefs.client.presence import connected

    home = place.home()
    absolute = tuple(_absolute(source) for source in sources)
    job = NewJob(
        name=name or name_from_path(absolute[0]),
        sources=absolute,
        type=kind,
        codec=codec,
        level=level,
        excludes=excludes,
    )
    with connected(home) as presence, _terminate_as_interrupt():
        view = presence.client.submit(job)
        if no_wait:
            click.echo(view.number)
            return
        click.echo(_finish(presence.client, view))


def _absolute(source: bytes) -> bytes:
    """Return the source as an absolute path. Raises SourceError when it is not there."""
    try:
        os.lstat(source)
    except PermissionError:
        pass  # The sidecar may be allowed what we are not.
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"{printable(os.fsdecode(source))}: {reason}; nothing was backed up") from error
    # `a/../b` is not `b` when `a` is a symbolic link.
    return os.path.realpath(source) if b".." in source.split(b"/") else os.path.abspath(source)


def _finish(client: Client, view: JobView) -> str:
    """Wait for the job; return its set. Raises TapefsError when it failed, Cancelled when it was cancelled."""
    started_s = time.monotonic()
    try:
        view = _wait(client, view)
    except KeyboardInterrupt:
        view = _cancel(client, view.number)
    _tell_troubles(view)
    if view.state is JobState.CANCELLED:
        raise Cancelled(f"job {view.number} was cancelled; nothing of it is shown")
    if view.state is not JobState.COMPLETED or view.set_id is None:
        raise TapefsError(view.error or f"job {view.number} ended as {view.state.value} without a reason")
    click.echo(f"backup: {_words(view)}, {time.monotonic() - started_s:.1f} s", err=True)
    return view.set_id


def _wait(client: Client, view: JobView) -> JobView:
    with reporting("backup") as reporter:
        while not view.is_finished:
            time.sleep(POLL_S)
            view = client.job(view.number)
            if view.progress is not None:
                reporter.update(view.progress.bytes, None, f"{_words(view)} {view.progress.path}")
    return view


def _words(view: JobView) -> str:
    progress = view.progress
    if progress is None:
        return "done" if view.is_finished else view.state.value
    words = f"{progress.files:,} files, {size(progress.bytes)} read, {size(progress.stored_bytes)} on tape"
    return f"{words} {progress.tape}" if progress.tape else words


def _cancel(client: Client, number: JobNumber) -> JobView:
    """Cancel the job and wait until it has ended; it may just have succeeded."""
    click.echo(f"backup: cancelling job {number}", err=True)
    try:
        client.cancel(number)
    except NotNow:
        return client.job(number)
    deadline_s = time.monotonic() + CANCEL_S
    while not (view := client.job(number)).is_finished:
        if time.monotonic() > deadline_s:
            raise Cancelled(f"job {number} is cancelled but has not ended yet: see `tapefs jobs`")
        time.sleep(POLL_S)
    return view


def _tell_troubles(view: JobView) -> None:
    for trouble in view.troubles[:TROUBLES]:
        click.echo(f"backup: {printable(trouble.path)}: {printable(trouble.reason)}", err=True)
    if view.trouble_count > min(TROUBLES, len(view.troubles)):
        click.echo(f"backup: {view.trouble_count:,} files in all were troubled", err=True)


@contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
