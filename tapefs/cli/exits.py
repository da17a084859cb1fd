"""The only table from errors to exit codes, and the line on stderr that goes with them."""

from __future__ import annotations

import click

from catalog.errors import CatalogError, IndexDamaged, LedgerDamaged, NoIndex, NoLedger, OtherIndexVersion
from drivers.errors import DriveError
from tapefs.errors import FilesUnread, TapefsError, UsageError

DONE = 0
FAILED = 1
USAGE = 2
#: A backup is done, but without the content of files that could not be read.
UNREAD = 3

#: The first class that fits counts; what fits none is a bug and keeps its traceback.
TABLE: tuple[tuple[type[BaseException], int], ...] = (
    (UsageError, USAGE),
    (click.UsageError, USAGE),
    (UnicodeEncodeError, USAGE),
    (FilesUnread, UNREAD),
    (TapefsError, FAILED),
    (CatalogError, FAILED),
    (DriveError, FAILED),
    (click.ClickException, FAILED),
    (click.Abort, FAILED),
    (KeyboardInterrupt, FAILED),
    (OSError, FAILED),
)

_FROM_COPIES = (
    "`tapefs catalog restore` brings it back from a copy, `tapefs rebuild` from the tapes alone: see docs/rebuild.md"
)
_FROM_TRAILERS = "`tapefs check --repair` makes it anew"
#: What to do about errors of the catalog, which knows no commands.
WAYS_OUT: tuple[tuple[type[CatalogError], str], ...] = (
    (NoLedger, _FROM_COPIES),
    (LedgerDamaged, _FROM_COPIES),
    (NoIndex, _FROM_TRAILERS),
    (IndexDamaged, _FROM_TRAILERS),
    (OtherIndexVersion, _FROM_TRAILERS),
)


def exit_code(error: BaseException) -> int | None:
    """Return the exit code of an expected error, None for any other."""
    if isinstance(error, UnicodeEncodeError) and not _is_of_bytes(error):
        return None
    return next((code for kind, code in TABLE if isinstance(error, kind)), None)


def report(error: BaseException) -> int:
    """Say on stderr, in one line, what is wrong and what to do; return the exit code.

    Raises an unexpected error again.
    """
    code = exit_code(error)
    if code is None:
        raise error
    click.echo(f"tapefs: {' '.join(_sentence(error).split())}", err=True)
    return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        return _usage(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, UnicodeEncodeError):
        return f"{_around(error)} is not UTF-8: only paths of files may be any bytes"
    if isinstance(error, OSError) and error.strerror:
        place = f"{_text(error.filename)}: " if error.filename is not None else ""
        return f"{place}{error.strerror}"
    way_out = next((f"; {words}" for kind, words in WAYS_OUT if isinstance(error, kind)), "")
    return (str(error) or type(error).__name__) + way_out


def _is_of_bytes(error: UnicodeEncodeError) -> bool:
    """Was a word of the command line, whose bytes are not UTF-8, to go into a request or the catalog?"""
    return error.encoding == "utf-8" and error.reason == "surrogates not allowed"


def _around(error: UnicodeEncodeError) -> str:
    from tapefs.cli.output import printable

    return printable(error.object[max(0, error.start - 20) : error.end + 20])


def _usage(error: click.UsageError) -> str:
    command = error.ctx.command_path if error.ctx is not None else "tapefs"
    return f"{error.format_message().rstrip('.')}; see `{command} --help`"


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
