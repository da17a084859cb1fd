"""`tapefs backup --stdin`: what a program writes goes to the sidecar as it comes, and from there to tape.

The end of the input is told to the sidecar only when all went well; before that, whatever breaks the connection makes
the backup fail.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import click

from catalog.ids import JobNumber
from tapefs.cli.output import printable, size
from tapefs.cli.progress import Reporter, reporting
from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields
from tapefs.client.programs import output_of, pieces_of
from tapefs.client.streaming import send_stream
from tapefs.errors import Cancelled, SourceError, TapefsError

#: So long a job may take to end that was told to.
_END_S = 10.0
_POLL_S = 0.05


def check_stream_options(sources: Sequence[bytes], *, is_command: bool, no_wait: bool) -> None:
    """Raise click.UsageError for what makes no sense with --stdin."""
    if is_command and not sources:
        raise click.UsageError("--command: name the program behind --, for instance: --command -- pg_dump shop")
    if sources and not is_command:
        raise click.UsageError("--stdin stores standard input; a program to run goes behind `--command --`")
    if no_wait:
        raise click.UsageError("--no-wait: a stream is sent while this command runs")


def store_stream(client: Client, fields: JobFields, command: list[bytes] | None) -> str:
    """Send standard input, or what the command writes, and wait for its set; return that. Raises TapefsError."""
    if command is None and sys.stdin.isatty():
        raise click.UsageError("standard input is a terminal: pipe something into this command")
    name = str(fields.stream)
    job = client.stream_job(fields)
    began_s, count = time.monotonic(), _Count()
    try:
        with reporting("backup") as reporter:
            pieces = _of_stdin() if command is None else output_of(command, printable(os.fsdecode(command[0])))
            stored = send_stream(
                client.address, name, job, _telling(client, job, name, _counted(pieces, count, reporter))
            )
    except KeyboardInterrupt:
        _break(client, job, name, "it was interrupted")
        raise Cancelled(f"interrupted after {size(count.bytes)}; nothing of it is shown") from None
    click.echo(f"backup: {size(stored.bytes)} on tape, {time.monotonic() - began_s:.1f} s", err=True)
    return stored.set_id


def _telling(client: Client, job: JobNumber, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; tell the sidecar why there are no more, before the connection breaks."""
    try:
        yield from pieces
    except SourceError as error:
        _break(client, job, name, str(error))
        raise


def _break(client: Client, job: JobNumber, name: str, reason: str) -> None:
    """Have the stream fail, and wait a while until its job has ended: then it can be sent anew."""
    with suppress(TapefsError):  # It has ended by itself, or the sidecar is gone.
        client.break_stream(name, reason)
        deadline_s = time.monotonic() + _END_S
        while not client.job(job).is_finished and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)


@dataclass(slots=True)
class _Count:
    bytes: int = 0


def _counted(pieces: Iterator[bytes], count: _Count, reporter: Reporter) -> Iterator[bytes]:
    for piece in pieces:
        count.bytes += len(piece)
        reporter.update(count.bytes, None, f"{size(count.bytes)} sent")
        yield piece
    reporter.update(count.bytes, None, f"{size(count.bytes)} sent, on its way to tape")


def _of_stdin() -> Iterator[bytes]:
    return pieces_of(sys.stdin.fileno(), "standard input")
