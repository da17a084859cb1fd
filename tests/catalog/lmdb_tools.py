"""Looking into, and spoiling, the file of an LMDB ledger that nobody has open; and work for child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from catalog.ledger_store.environment import MAP_SIZE_BYTES, open_lmdb
from catalog.ledger_store.tables import DATABASES

Dump = dict[str, list[tuple[bytes, bytes]]]
ROOT = Path(__file__).parents[2]


@contextmanager
def raw(folder: Path) -> Iterator[lmdb.Environment]:
    with open_lmdb(folder, readonly=False, map_size_bytes=MAP_SIZE_BYTES) as environment:
        yield environment


def dump(folder: Path) -> Dump:
    """Return every stored byte."""
    with raw(folder) as environment:
        databases = {name: environment.open_db(name.encode(), create=False) for name in DATABASES}
        with environment.begin() as transaction:
            return {name: list(transaction.cursor(db=db)) for name, db in databases.items()}


def store(folder: Path, name: str, key: bytes, value: bytes | None) -> None:
    """Put raw bytes, or delete them."""
    with raw(folder) as environment:
        database = environment.open_db(name.encode(), create=False)
        with environment.begin(write=True) as transaction:
            if value is None:
                transaction.delete(key, db=database)
            else:
                transaction.put(key, value, db=database)


def spawn(code: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    """Start Python on `code` with `sys.argv[1:]` as given; its output is a pipe."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(code: str, *arguments: object, **variables: str) -> tuple[int, str]:
    """Run Python on `code` to its end; return its exit code and what it printed."""
    child = spawn(code, *arguments, **variables)
    output, _ = child.communicate(timeout=60)
    return child.returncode, output
