"""TAF's /api/system/database/…: its database, as far as it means anything here.

The catalog of tapefs is LMDB and needs no setting. What is set here is where TAF's own catalog is, for those who import
it: kept in HOME/taf-database.json (mode 0600), its password never shown. A test really connects.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec
import trio
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import CatalogError
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call
from sidecar.http.request_notes import note_values
from sidecar.http.requests import Invalid, body_of
from sidecar.service import Service
from sidecar.taf.notification import MASK, Said
from tapefs.durable import replace_file
from tapefs.errors import HomeError, TapefsError

#: A server that does not answer within this is not there.
CONNECT_S = 5
TEST_S = 10.0
_PORTS = {"opengauss": 5432, "postgresql": 5432, "redis": 6379}
_tests = trio.CapacityLimiter(2)


class DatabaseConfig(msgspec.Struct, frozen=True):
    """Where a database is, as TAF's calls have it."""

    db_type: Literal["sqlite", "opengauss", "postgresql", "redis"]
    db_host: Annotated[str, Meta(max_length=253)] | None = None
    db_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    db_user: Annotated[str, Meta(max_length=200)] | None = None
    db_password: Annotated[str, Meta(max_length=500)] | None = None
    db_database: Annotated[str, Meta(max_length=200)] | None = None
    db_path: Annotated[str, Meta(max_length=4000)] | None = None
    db_index: Annotated[int, Meta(ge=0, le=1_000_000)] | None = 0
    config_file_path: Annotated[str, Meta(max_length=4000)] | None = None
    pool_size: Annotated[int, Meta(ge=1, le=10_000)] = 10
    max_overflow: Annotated[int, Meta(ge=0, le=10_000)] = 20


class DatabaseShown(msgspec.Struct, frozen=True, kw_only=True):
    """Where a database is, as it is shown: what its kind does not have is left out."""

    #: Also `lmdb`: nothing was set, and this is the catalog of tapefs itself.
    db_type: str
    pool_size: int
    max_overflow: int
    query_dop: int = 1
    db_path: str | UnsetType | None = UNSET
    db_host: str | UnsetType | None = UNSET
    db_port: int | UnsetType = UNSET
    db_user: str | UnsetType | None = UNSET
    db_database: str | UnsetType | None = UNSET
    #: Never the password: asterisks, or null where there is none.
    db_password: str | UnsetType | None = UNSET


class DatabaseStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Does the catalog of tapefs answer?"""

    #: `connected`, or why not.
    status: str
    db_type: str = "lmdb"
    pool_size: int = 1
    max_overflow: int = 0
    query_dop: int = 1
    db_path: str


class TestAnswer(msgspec.Struct, frozen=True):
    """What became of a test."""

    success: bool
    message: str
    db_type: str


class DatabaseCalls:
    """TAF's."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base, admin, body = "/api/system/database", Role.ADMIN, DatabaseConfig
        return [
            Call(f"{base}/config", self.config, needs=admin, answer=DatabaseShown),
            Call(f"{base}/config", self.set_config, methods=["PUT"], needs=admin, body=body, answer=Said),
            Call(f"{base}/test", self.test, methods=["POST"], needs=admin, body=body, answer=TestAnswer),
            Call(f"{base}/status", self.status, needs=Role.VIEWER, answer=DatabaseStatus),
            Call(f"{base}/redis/config-file", self.redis, needs=admin, answer=Said),
        ]

    async def config(self, request: Request) -> Response:
        """Show where TAF's catalog is; where the one of tapefs is, if nothing was set."""
        stored = await trio.to_thread.run_sync(read_config, self._path)
        return json_answer(self._own() if stored is None else shown(stored))

    async def set_config(self, request: Request) -> Response:
        """Note where TAF's catalog is, for its import."""
        body = await body_of(request, DatabaseConfig)
        check(body)
        before = await trio.to_thread.run_sync(read_config, self._path)
        body = unmasked(body, before)
        note_values(request, old=None if before is None else msgspec.to_builtins(shown(before)))
        await trio.to_thread.run_sync(write_config, self._path, body)
        return json_answer(Said(True, "Noted for the import of TAF's catalog; the catalog of tapefs needs no setting."))

    async def test(self, request: Request) -> Response:
        """Connect to a database, and say what became of that."""
        body = await body_of(request, DatabaseConfig)
        check(body)
        body = unmasked(body, await trio.to_thread.run_sync(read_config, self._path))
        try:
            with trio.fail_after(TEST_S):
                said = await trio.to_thread.run_sync(connect, body, abandon_on_cancel=True, limiter=_tests)
        except trio.TooSlowError:
            return json_answer(TestAnswer(False, f"Not connected: no answer within {TEST_S:.0f} s", body.db_type))
        except NotConnected as error:
            return json_answer(TestAnswer(False, f"Not connected: {error}", body.db_type))
        return json_answer(TestAnswer(True, said, body.db_type))

    async def status(self, request: Request) -> Response:
        """Say whether the catalog answers."""
        try:
            await trio.to_thread.run_sync(self._service.ledger.installation)
            state = "connected"
        except CatalogError as error:
            state = f"failed: {error}"
        return json_answer(DatabaseStatus(status=state, db_path=self._ledger_path()))

    async def redis(self, request: Request) -> Response:
        """Say that no Redis is used."""
        return json_answer(Said(False, "tapefs uses no Redis: there is no such file."))

    @property
    def _path(self) -> Path:
        return self._service.home.path / "taf-database.json"

    def _own(self) -> DatabaseShown:
        return DatabaseShown(db_type="lmdb", pool_size=1, max_overflow=0, db_path=self._ledger_path())

    def _ledger_path(self) -> str:
        return os.fsencode(self._service.home.ledger).decode("utf-8", "backslashreplace")


class NotConnected(TapefsError):
    """A database could not be connected to."""


def check(config: DatabaseConfig) -> None:
    """Raise Invalid for what names no database."""
    if config.db_type == "sqlite":
        if not config.db_path or not config.db_path.startswith("/") or "\0" in config.db_path:
            raise Invalid("value_error", ["body", "db_path"], "must be an absolute path", config.db_path)
        return
    host = config.db_host or ""
    if not host or any(letter in host for letter in "/,@ \0\r\n\\"):
        raise Invalid("value_error", ["body", "db_host"], "must be one host name or address", config.db_host)
    try:
        host.encode("idna")  # What looks the name up fails with this error otherwise, which is none of the network's.
    except UnicodeError:
        raise Invalid("value_error", ["body", "db_host"], "must be one host name or address", host) from None


def unmasked(config: DatabaseConfig, stored: DatabaseConfig | None) -> DatabaseConfig:
    """Return the setting with the password that MASK means: the stored one, which goes nowhere else. Raises Invalid."""
    if config.db_password != MASK:
        return config
    kept = stored.db_password if stored is not None else None
    if kept and stored is not None and _place(config) != _place(stored):
        message = "is that of another server or user: send the password of this one"
        raise Invalid("value_error", ["body", "db_password"], message)
    return msgspec.structs.replace(config, db_password=kept)


def _place(config: DatabaseConfig) -> tuple[object, ...]:
    """Return to whom its password is told."""
    return config.db_type, config.db_host, config.db_port or _PORTS.get(config.db_type), config.db_user


def connect(config: DatabaseConfig) -> str:
    """Connect, ask something, and return what to say. Blocking. Raises NotConnected."""
    if config.db_type == "sqlite":
        return _sqlite(Path(config.db_path or ""))
    if config.db_type == "redis":
        return trio.run(_redis, config)
    return _postgresql(config)


def _sqlite(path: Path) -> str:
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=CONNECT_S)
        try:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise NotConnected(str(error)) from error
    return f"Connected: a SQLite database with {tables} tables."


def _postgresql(config: DatabaseConfig) -> str:
    """openGauss speaks PostgreSQL's protocol."""
    import psycopg  # Takes long to load, and hardly anybody asks.

    try:
        with psycopg.connect(
            host=config.db_host,
            port=config.db_port or _PORTS[config.db_type],
            user=config.db_user or None,
            password=config.db_password or "",
            dbname=config.db_database or "postgres",
            connect_timeout=CONNECT_S,
            passfile=os.devnull,
            application_name="tapefs",
            autocommit=True,
        ) as connection:
            row = connection.execute("SELECT version()").fetchone()
    except psycopg.Error as error:
        raise NotConnected(" ".join(str(error).split())[:300]) from error
    return f"Connected: {str(row[0])[:100] if row else 'it says nothing of itself'}"


async def _redis(config: DatabaseConfig) -> str:
    words = [b"PING"]
    try:
        with trio.fail_after(CONNECT_S):
            async with await trio.open_tcp_stream(config.db_host or "", config.db_port or 6379) as stream:
                if config.db_password:
                    await stream.send_all(_command(b"AUTH", config.db_password.encode()))
                    _expect(await stream.receive_some(1024), b"+OK")
                await stream.send_all(_command(*words))
                _expect(await stream.receive_some(1024), b"+PONG")
    except (OSError, trio.TooSlowError, trio.BrokenResourceError) as error:
        raise NotConnected(f"the connection failed: {str(error) or 'no answer'}") from error
    return "Connected: a Redis server."


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def _expect(said: bytes, wanted: bytes) -> None:
    if not said.startswith(wanted):
        raise NotConnected("it refuses us, or is no Redis server")


def shown(config: DatabaseConfig) -> DatabaseShown:
    """Return a setting as it is shown: the password is MASK, if there is one."""
    view = DatabaseShown(db_type=config.db_type, pool_size=config.pool_size, max_overflow=config.max_overflow)
    if config.db_type == "sqlite":
        return msgspec.structs.replace(view, db_path=config.db_path)
    return msgspec.structs.replace(
        view,
        db_host=config.db_host,
        db_port=config.db_port or _PORTS[config.db_type],
        db_user=config.db_user,
        db_database=config.db_database,
        db_password=MASK if config.db_password else None,
    )


def read_config(path: Path) -> DatabaseConfig | None:
    """Return what was set; None: nothing. Blocking. Raises HomeError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=DatabaseConfig)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise HomeError(f"cannot read {path}: {error}; move it away and set it again") from error


def write_config(path: Path, config: DatabaseConfig) -> None:
    """Replace what was set; on disk when it returns. Blocking. Raises HomeError."""
    try:
        replace_file(path, msgspec.json.encode(config))
    except OSError as error:
        raise HomeError(f"cannot write {path}: {error.strerror}") from error
