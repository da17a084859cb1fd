"""PostgreSQL straight to tape, without a file in between: dumps of databases, or the whole cluster. Blocking.

Each database is a stream of `pg_dump -Fc`, roles and tablespaces of the cluster one of `pg_dumpall --globals-only`;
with --base the cluster is one of `pg_basebackup`, a tar with all the WAL that its start needs. The end of a stream is
told to the sidecar only when the program has ended with 0: a dump that broke off is no set.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import quote

from tapefs.client.api import Client
from tapefs.client.job_fields import JobFields
from tapefs.client.programs import output_of
from tapefs.client.streaming import StreamStored, send_stream
from tapefs.errors import SourceError, TapefsError, Unreachable, UsageError
from tapefs.ingest.manners import DONE, FAILED, Parser, locked, run, sidecar, tell, usual_lock

NAME = "ingest_postgresql"
GLOBALS, BASE = "globals", "base"


def main(arguments: list[str], document: str | None) -> int:
    """Run the script; return its exit code."""
    parser = Parser(NAME, document)
    parser.add_argument("--dsn", default="", help="of the cluster, for libpq [PGHOST, PGUSER and so on, ~/.pgpass]")
    parser.add_argument("--base", action="store_true", help="the whole cluster by pg_basebackup, instead of dumps")
    parser.add_argument("--checkpoint", choices=("fast", "spread"), default="fast", help="how --base begins [fast]")
    parser.add_argument("--no-slot", action="store_true", help="--base without a replication slot that keeps the WAL")
    parser.add_argument("--database", action="append", default=[], metavar="NAME", help="only these; may be repeated")
    parser.add_argument("--name", default="postgresql", help="in the archive, before the database's [postgresql]")
    parser.add_argument("--bin", type=Path, metavar="DIR", help="where pg_dump and so on are [on PATH]")
    parser.add_argument("--pool", help="tapes of which pool are written")
    parser.add_argument("--keep-days", type=int, metavar="N", help="the sets may expire after so many days")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="[tapefs-NAME.lock in /run/lock, or TMPDIR]")
    chosen = parser.parse_args(arguments)
    return run(NAME, lambda: _run(chosen))


def _run(chosen: argparse.Namespace) -> int:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", chosen.name):
        raise UsageError("--name: letters, digits, dots, dashes")
    if chosen.base and chosen.database:
        raise UsageError("--base has all databases of the cluster: leave --database away")
    lock = chosen.lock or usual_lock(f"{chosen.name}-{BASE}" if chosen.base else chosen.name)
    with locked(lock), sidecar(chosen.home, chosen.url, chosen.token_file) as client:
        return _base(client, chosen) if chosen.base else _dumps(client, chosen)


def _dumps(client: Client, chosen: argparse.Namespace) -> int:
    names = chosen.database or databases(chosen.dsn)
    roles = _command(chosen, "pg_dumpall", "postgres", "--globals-only")
    codes = [_one(client, chosen, GLOBALS, "sql", roles)]
    codes += [_one(client, chosen, name, "dump", _command(chosen, "pg_dump", name, "-Fc")) for name in names]
    return max(codes)


def _base(client: Client, chosen: argparse.Namespace) -> int:
    """Store the cluster as one tar.

    `fetch` is the only way to have the WAL in a tar on standard output: it comes behind everything else, and the slot
    has the server keep it so long. SHA-256 goes into the manifest instead of CRC-32C, for pg_verifybackup.
    """
    options = ["--pgdata=-", "--format=tar", "--wal-method=fetch", f"--checkpoint={chosen.checkpoint}"]
    options += ["--manifest-checksums=SHA256", "--no-estimate-size"]
    with nullcontext() if chosen.no_slot else wal_kept(chosen.dsn):
        return _one(client, chosen, BASE, "tar", _command(chosen, "pg_basebackup", "postgres", *options))


@contextmanager
def wal_kept(dsn: str) -> Iterator[None]:
    """Have the server throw no WAL away from now on, until the block ends or this process does.

    A replication connection, as pg_basebackup's own: it needs no further right. Raises SourceError.
    """
    import psycopg

    address = _with_database(dsn, "postgres", replication="true")
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(closing(psycopg.connect(address, autocommit=True, connect_timeout=20)))
            connection.execute(f"CREATE_REPLICATION_SLOT tapefs_{os.getpid()} TEMPORARY PHYSICAL RESERVE_WAL")
        except psycopg.Error as error:
            said = " ".join(str(error).split())
            raise SourceError(f"no replication slot that keeps the WAL meanwhile (--no-slot): {said}") from error
        yield


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


def _with_database(dsn: str, name: str, *without: str, **more: str) -> str:
    """Return a DSN with another database in it, whatever characters that has. Raises UsageError."""
    from psycopg.conninfo import make_conninfo

    parts = {key: value for key, value in _parts(dsn).items() if key not in without}
    return make_conninfo(**{**parts, "dbname": name, **more})


def _parts(dsn: str) -> dict[str, str]:
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        return {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}
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
    output = _output(command, _secrets(chosen.dsn))
    return send_stream(client.address, file, number, _told(client, file, output))


def _output(command: list[str], secrets: Mapping[str, str]) -> Iterator[bytes]:
    """Yield what the program writes. What it says besides is passed on, and its last line goes into the error."""
    with TemporaryFile() as words:
        try:
            yield from output_of(command, Path(command[0]).name, secrets, words)
        except SourceError as error:
            raise SourceError(": ".join([str(error), *_lines(words)[-1:]])) from error
        finally:
            sys.stderr.writelines(f"{line}\n" for line in _lines(words))


def _lines(words: IO[bytes]) -> list[str]:
    words.seek(0)
    return words.read().decode(errors="backslashreplace").splitlines()


def _told(client: Client, file: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; tell the sidecar why there are no more, before the connection breaks."""
    try:
        yield from pieces
    except SourceError as error:
        with suppress(TapefsError):  # It has ended by itself, or the sidecar is gone.
            client.break_stream(file, str(error))
        raise


def _command(chosen: argparse.Namespace, program: str, database: str, *options: str) -> list[str]:
    """Return a command that never asks for a password, and has none on its line. Raises UsageError."""
    path = program if chosen.bin is None else str(chosen.bin / program)
    return [path, *options, "--no-password", f"--dbname={_with_database(chosen.dsn, database, 'password')}"]


def _secrets(dsn: str) -> dict[str, str]:
    """Return the password of a DSN as libpq takes it from the environment."""
    password = _parts(dsn).get("password")
    return {} if password is None else {"PGPASSWORD": password}
