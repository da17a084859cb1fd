"""Making a ledger, and checking that one can be read by this program."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from catalog.errors import Conflict, Damaged, StorageFailed, WrongVersion
from catalog.ids import InstallationId, new_uuid
from catalog.ledger_store import damaged_segments
from catalog.ledger_store.environment import MAP_SIZE_BYTES, open_lmdb, operation
from catalog.ledger_store.tables import (
    DATABASES,
    INSTALLATION,
    INSTALLATION_KEY,
    LAYOUT,
    LAYOUT_KEY,
    LAYOUT_VERSION,
    Layout,
)
from catalog.ledger_store.transaction import Reader, Writer
from catalog.ledger_store.translate import translated
from catalog.records import Installation

_CREATE = operation("create")


def create(path: Path, now_ns: int) -> None:
    """Make an empty ledger in the folder `path`, which must not exist or be empty; its parent must exist.

    It is made beside its place and renamed, so that a crash leaves no half ledger (but perhaps a folder
    `.<name>.<random>` beside it, which may be deleted). Raises Conflict, StorageFailed.
    """
    path = path.absolute()
    if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
        raise Conflict(f"{path} exists already: a new ledger needs a new or empty folder")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise StorageFailed(f"cannot make the ledger {path}: {error.strerror}", retryable=False) from error
    try:
        _fill(draft, now_ns)
        _put_in_place(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _fill(draft: Path, now_ns: int) -> None:
    with translated(draft), open_lmdb(draft, readonly=False, map_size_bytes=MAP_SIZE_BYTES) as environment:
        with environment.begin(write=True) as transaction:
            databases = {name: environment.open_db(name.encode(), txn=transaction) for name in DATABASES}
            writer = Writer(transaction, databases)
            version = ".".join(str(part) for part in environment.lib_version())
            writer.insert(LAYOUT, LAYOUT_KEY, Layout(version=LAYOUT_VERSION, lmdb=version))
            installation = Installation(installation_id=InstallationId(new_uuid()), created_at_ns=now_ns)
            writer.insert(INSTALLATION, INSTALLATION_KEY, installation)
            damaged_segments.state_built(writer)


def _put_in_place(draft: Path, path: Path) -> None:
    try:
        _sync_folder(draft)
        _CREATE.before()
        draft.rename(path)
        _CREATE.after()
        _sync_folder(path.parent)
    except OSError as error:
        raise StorageFailed(f"cannot make the ledger {path}: {error.strerror}", retryable=False) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(tx: Reader, path: Path) -> None:
    """Raise WrongVersion when another layout was used, Damaged when there is none."""
    layout = tx.find(LAYOUT, LAYOUT_KEY)
    if layout is None:
        raise Damaged("the ledger does not state its layout", str(path))
    if layout.version != LAYOUT_VERSION:
        raise WrongVersion(
            f"the ledger {path} has layout {layout.version}, this tapefs knows layout {LAYOUT_VERSION}: "
            "use the tapefs that wrote it"
        )


def installation(tx: Reader) -> Installation:
    """Return the ledger's identity."""
    return tx.follow(INSTALLATION, INSTALLATION_KEY, "the ledger")
