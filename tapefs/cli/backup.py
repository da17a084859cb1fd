"""`tapefs backup`: hands the job to the sidecar and waits for its set."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from msgspec import structs

from catalog.ids import JobNumber
from catalog.records import JobState
from tapefs.cli.job_options import check_level_of, job_options
from tapefs.cli.output import printable, size
from tapefs.cli.place import Place, sidecar_of
from tapefs.cli.progress import reporting
from tapefs.cli.streaming import check_stream_options, store_stream
from tapefs.cli.values import JobName, name_from_path
from tapefs.client.api import Client, JobView
from tapefs.client.job_fields import JobFields, encoded
from tapefs.errors import Cancelled, FilesUnread, NotNow, SourceError, TapefsError, UsageError
from tapefs.sizes import counted

POLL_S = 0.2
#: In the beginning more often: an incremental run may be over in half a second.
FIRST_POLL_S = 0.02
#: How long a cancelled job may take to come to a good place.
CANCEL_S = 120.0
#: Troubles that are told one by one; the rest is counted.
TROUBLES = 20
#: What somebody may do whose job waits for its next try.
_HOW_LEFT = "Ctrl-C cancels it; without this command it stays queued, and `tapefs serve` goes on with it."


@click.command("backup", short_help="Back up files and directories to tape.")
@click.argument("sources", metavar="SOURCE...", nargs=-1, type=click.Path(path_type=bytes))
@click.option("--name", type=JobName(), help="Name in the archive; else the last component of the first source.")
@click.option("--stdin", "stream", metavar="FILE", help="Store standard input as one file of this name.")
@click.option(
    "--command", "is_command", is_flag=True, help="With --stdin: store what the command behind -- writes instead."
)
@click.option("--job", metavar="NAME", type=JobName(), help="With --stdin: name in the archive; else that of the file.")
@job_options
@click.option("--no-wait", is_flag=True, help="Print the job's number instead, and let `tapefs serve` do it.")
@click.pass_obj
def backup_command(
    place: Place,
    sources: tuple[bytes, ...],
    name: str | None,
    stream: str | None,
    is_command: bool,
    job: str | None,
    fields: JobFields,
    no_wait: bool,
) -> None:
    """Back up files and directories to tape; the id of the new set is printed last.

    Sources that were backed up under the same name before belong to the same job, so that an incremental backup finds
    what it builds on.

    With --stdin FILE what comes from standard input is stored, of any length. Its end alone does not tell that all
    went well with whoever wrote it: tapefs backup --stdin FILE --command -- pg_dump shop runs that program itself, and
    makes no set when it fails.
    """
    check_level_of(fields)
    if stream is not None:
        check_stream_options(sources, is_command=is_command, no_wait=no_wait)
    elif not sources or is_command or job is not None:
        raise click.UsageError("--job and --command belong to --stdin" if sources else "name at least one source")
    if stream is not None:
        fields = structs.replace(fields, stream=stream, name=job or name or stream)
        with submitting(place) as client:
            click.echo(store_stream(client, fields, [*sources] if is_command else None))
        return
    fields = with_sources(place, fields, name, sources)
    with submitting(place) as client:
        wait_unless(client, client.submit(fields, reuse=True), no_wait)


def with_sources(place: Place, fields: JobFields, name: str | None, sources: Sequence[bytes]) -> JobFields:
    """Return the fields of a new job. Raises SourceError for a source that is not there, UsageError."""
    paths = [absolute(place, source) for source in sources]
    return structs.replace(fields, name=name or name_from_path(paths[0]), sources=[encoded(path) for path in paths])


@contextmanager
def submitting(place: Place) -> Iterator[Client]:
    """Have a sidecar for a job that is about to be submitted and waited for; SIGTERM does what Ctrl-C does."""
    with sidecar_of(place) as client, _terminate_as_interrupt():
        yield client


def wait_unless(client: Client, view: JobView, no_wait: bool) -> None:
    """Print the number of a job that is queued, or wait for it and print its set. Raises FilesUnread, then."""
    if no_wait:
        click.echo(view.number)
        return
    set_id = finished(client, view)
    click.echo(set_id)
    unread = client.set(set_id).unread_files
    if unread:
        raise FilesUnread(
            f"set {set_id[:8]} is on tape without {counted(unread, 'file')} that could not be read: "
            f"`tapefs report {set_id[:8]} --all` has the names"
        )


def absolute(place: Place, source: bytes) -> bytes:
    """Return the source as an absolute path. Raises SourceError when it is not there.

    A sidecar elsewhere reads its own files, not ours: it has to be named in full. Raises UsageError.
    """
    if place.address is not None:
        if not os.path.isabs(source) or b".." in source.split(b"/"):
            raise UsageError(
                f"{printable(os.fsdecode(source))}: {place.address} backs up files of its own machine: name them by "
                "their whole paths; what is on this one goes there as a stream (--stdin)"
            )
        return os.path.normpath(source)
    try:
        os.lstat(source)
    except PermissionError:
        pass  # The sidecar may be allowed what we are not.
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SourceError(f"{printable(os.fsdecode(source))}: {reason}; nothing was backed up") from error
    # `a/../b` is not `b` when `a` is a symbolic link.
    return os.path.realpath(source) if b".." in source.split(b"/") else os.path.abspath(source)


def finished(client: Client, view: JobView) -> str:
    """Wait for the job; return its set. Raises TapefsError when it failed, Cancelled when it was cancelled."""
    started_s = time.monotonic()
    try:
        view = _wait(client, view)
    except KeyboardInterrupt:
        view = _cancel(client, view.number)
    _tell_troubles(view)
    if view.state is JobState.CANCELLED:
        raise Cancelled(_cancelled_words(view))
    if view.state is not JobState.COMPLETED or view.set_id is None:
        error = view.error or f"job {view.number} ended as {view.state.value} without a reason"
        raise TapefsError(error if "`tapefs job " in error else f"{error}; {_next_step(view)}")
    if view.set_type not in (None, view.run_type):
        click.echo(
            f"backup: made a {view.set_type} set: there is none that an {view.run_type} one can build on", err=True
        )
    click.echo(f"backup: {_words(view)}, {time.monotonic() - started_s:.1f} s", err=True)
    if view.set_type == "archive" and not view.keep_sources:
        stays = "; what stays is told above" if view.trouble_count else ""
        click.echo(f"backup: what is on tape was removed from the sources{stays}", err=True)
    return view.set_id


def _next_step(view: JobView) -> str:
    """Say what to do when the cause of a failure is gone."""
    if view.set_id is None:
        return f"`tapefs job run {view.number}` tries it again"
    return f"`tapefs job resume {view.number}` goes on with it"


def _cancelled_words(view: JobView) -> str:
    """Say it once, and what is known besides."""
    error = view.error or ""
    nothing = f"nothing of it is shown; {_next_step(view)}"
    for said in ("it was cancelled", "cancelled"):
        if error.startswith(said):
            return f"job {view.number} was cancelled{error.removeprefix(said) or '; ' + nothing}"
    return f"job {view.number} was cancelled: {error or nothing}"


def _wait(client: Client, view: JobView) -> JobView:
    with reporting("backup") as reporter:
        pause_s, tried_again_at = FIRST_POLL_S, None
        while not view.is_finished:
            time.sleep(pause_s)
            pause_s = min(1.2 * pause_s, POLL_S)
            view = client.job(view.number)
            if view.not_before is not None and view.not_before != tried_again_at and view.waits_for:
                tried_again_at = view.not_before
                reporter.say(f"backup: job {view.number} waits {view.waits_for}. {_HOW_LEFT}")
            if view.waits_for:
                reporter.update(0, None, f"waits {view.waits_for}")
            elif view.progress is None:
                reporter.update(0, None, _words(view))
            else:
                path = f", at {view.progress.path}" if view.progress.path else ""
                reporter.update(view.progress.bytes, None, _words(view) + path)
    return view


def _words(view: JobView) -> str:
    progress = view.progress
    if progress is None:
        return "done" if view.is_finished else view.state.value
    if progress.stage == "verify":
        return f"{size(progress.verified_bytes)} of {size(progress.stored_bytes)} read back from {progress.tape}"
    if view.is_finished and view.set_type in ("incremental", "differential"):
        new = size(progress.stored_bytes)
        return f"{counted(progress.files, 'file')}, {size(progress.bytes)}; new on tape {progress.tape}: {new}"
    read = f"{counted(progress.files, 'file')}, {size(progress.bytes)} read"
    words = f"{read}, {size(progress.stored_bytes)} on tape"
    return f"{words} {progress.tape}" if progress.tape else words


def _cancel(client: Client, number: JobNumber) -> JobView:
    """Cancel the job and wait until it has ended; it may just have succeeded."""
    click.echo(f"backup: cancelling job {number}", err=True)
    try:
        client.cancel(number)
    except NotNow:
        return client.job(number)
    return wait_ended(client, number)


def wait_ended(client: Client, number: JobNumber) -> JobView:
    """Wait until a job that was cancelled has ended. Raises Cancelled when that takes too long."""
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
