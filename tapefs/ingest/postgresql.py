"""Dumps of PostgreSQL databases straight to tape, without a file in between. Blocking.

Each database is a stream of `pg_dump -Fc`, roles and tablespaces of the cluster one of `pg_dumpall --globals-only`.
The end of a stream is told to the sidecar only when the program has ended with 0: a dump that broke off is no set.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields
from tapefs.client.programs import output_of
from tapefs.client.streaming import StreamStored, send_stream
from tapefs.errors import SourceError, TapefsError, Unreachable, UsageError
from tapefs.ingest.manners import DONE, FAILED, Parser, locked, run, sidecar, tell

NAME = "ingest_postgresql"
GLOBALS = "globals"


def main(arguments: list[str], document: str | None) -> int:
    """Run the script; return its exit code."""
    parser = Parser(NAME, document)
    parser.add_argument("--dsn", default="", help="of the cluster, for libpq [PGHOST, PGUSER and so on, ~/.pgpass]")
    parser.add_argument("--database", action="append", default=[], metavar="NAME", help="only these; may be repeated")
    parser.add_argument("--name", default="postgresql", help="in the archive, before the database's [postgresql]")
    parser.add_argument("--bin", type=Path, metavar="DIR", help="where pg_dump and pg_dumpall are [on PATH]")
    parser.add_argument("--pool", help="tapes of which pool are written")
    parser.add_argument("--keep-days", type=int, metavar="N", help="the sets may expire after so many days")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="[/run/lock/tapefs-NAME.lock, or below TMPDIR]")
    chosen = parser.parse_args(arguments)
    return run(NAME, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", chosen.name):
        raise UsageError("--name: letters, digits, dots, dashes")
    with locked(chosen.lock or _usual_lock(chosen.name)), sidecar(chosen.home, chosen.url) as client:
        names = chosen.database or databases(chosen.dsn)
        roles = [_program(chosen, "pg_dumpall"), "--globals-only", f"--dbname={_with_database(chosen.dsn, 'postgres')}"]
        codes = [_one(client, chosen, GLOBALS, "sql", roles)]
        for name in names:
            dump = [_program(chosen, "pg_dump"), "-Fc", f"--dbname={_with_database(chosen.dsn, name)}"]
            codes.append(_one(client, chosen, name, "dump", dump))
    return max(codes)


def databases(dsn: str) -> list[str]:
    """Return the databases that somebody may connect to, but for the templates. Raises SourceError."""
    import psycopg

    try:
        with psycopg.connect(_with_database(dsn, "postgres"), connect_timeout=20) as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
            ).fetchall()
    except psycopg.Error as error:
        raise SourceError(f"the databases cannot be listed: {' '.join(str(error).split())}") from error
    return [str(name) for (name,) in rows]


def _with_database(dsn: str, name: str) -> str:
    """Return a DSN with another database in it, whatever characters that has."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import make_conninfo

    try:
        return make_conninfo(dsn, dbname=name)
    except ProgrammingError as error:
        raise UsageError(f"--dsn: {' '.join(str(error).split())}") from error


def _one(client: Client, chosen: argparse.Namespace, database: str, ending: str, command: list[str]) -> int:
    """Store one dump, tell what became of it; others go on whatever that is."""
    # Database names may hold anything but NUL; slashes and the like are escaped as in URLs.
    plain = quote(database, safe=" ")
    name = f"{chosen.name}-{'' if ending == 'dump' else 'cluster-'}{plain}"
    try:
        stored = _store(client, chosen, name, f"{name}.{ending}", command)
    except Unreachable:
        raise
    except (TapefsError, OSError) as error:
        print(f"{NAME}: {database}: {error}", file=sys.stderr)
        tell(script=NAME, database=database, name=name, ok=False, error=str(error))
        return FAILED
    tell(script=NAME, database=database, name=name, ok=True, job=stored.job, set=stored.set_id, bytes=stored.bytes)
    return DONE


def _store(client: Client, chosen: argparse.Namespace, job: str, file: str, command: list[str]) -> StreamStored:
    rules: dict[str, object] = {} if chosen.pool is None else {"pool": chosen.pool}
    rules |= {} if chosen.keep_days is None else {"retention_days": chosen.keep_days}
    number = client.stream_job(JobFields(name=job, stream=file, **rules))  # type: ignore[arg-type]
    return send_stream(client.address, file, number, _told(client, file, output_of(command, Path(command[0]).name)))


def _told(client: Client, file: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; tell the sidecar why there are no more, before the connection breaks."""
    try:
        yield from pieces
    except SourceError as error:
        with suppress(TapefsError):  # It has ended by itself, or the sidecar is gone.
            client.break_stream(file, str(error))
        raise


def _program(chosen: argparse.Namespace, name: str) -> str:
    return name if chosen.bin is None else str(chosen.bin / name)


def _usual_lock(name: str) -> Path:
    folder = Path("/run/lock")
    return (folder if os.access(folder, os.W_OK) else Path(os.environ.get("TMPDIR", "/tmp"))) / f"tapefs-{name}.lock"  # noqa: S108
