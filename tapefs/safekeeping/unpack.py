"""Bringing a copy of the catalog back: read it wholly into a folder of its own, check it, then put it in place.

Blocking. The caller owns the state folder, so that no sidecar is at work in it; mounts may be, and go on with what they
have open. Nothing of what was there is deleted: it moves to `replaced-TIME/`. The ledger comes last, so that a state
folder in which this was interrupted has none, and the same command does it once more.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import msgspec
import structlog
import zstandard

from catalog.crash import crash_point
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import JobState, SetState
from catalog.task_records import TaskFamily, TaskState
from tapefs.check.ledger import ledger_problems
from tapefs.durable import sync_folder
from tapefs.errors import CatalogInDoubt, HomeError
from tapefs.keys.store import KeyStore
from tapefs.safekeeping.contents import FORMAT, LEDGER, MANIFEST, Item, Manifest, is_name

_PIECE_BYTES = 1 << 20
_MANIFEST_BYTES = 1 << 30
#: What gives way to the copy's, in this order; the ledger last.
_PLACES = ("index", "trailers", "reports", "keys", "recall.json", "tapefs.toml", "ledger")
#: These stay as they are if they are there.
_STAY = frozenset({"tapefs.toml", "recall.json", "keys"})
_DRAFT = ".restoring"

_before_place = crash_point("safekeeping.place.before")
_after_old = crash_point("safekeeping.old.after")
_after_place = crash_point("safekeeping.place.after")

Progress = Callable[[str], None]

_WAS_OPEN = (
    "it was queued or ran when this copy of the catalog was made, and may be over since: first `tapefs import` the "
    "tapes that were written to after that, then `tapefs job resume`, or `tapefs job run`, if its set is not there"
)

_WAS_WAITING = "it waited or ran when this copy of the catalog was made, and may be over since: ask again if it is not"

log = structlog.get_logger(__name__)


def read_manifest(source: Path) -> Manifest:
    """Read a copy to its end and return what it says of itself. Raises CatalogInDoubt when it is not whole, OSError."""
    return _Reader(source, None, lambda _: None).read()


def bring_catalog_back(path: Path, source: Path, now_ns: int, progress: Progress = lambda _: None) -> Manifest:
    """Put the copy in `source` in place of the catalog in the state folder `path`, which need not exist.

    Settings and keys that are there stay. Raises CatalogInDoubt when the copy is not whole, HomeError, OSError; then
    nothing has changed.
    """
    _check_place(path)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path / _DRAFT
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    try:
        manifest = _Reader(source, draft, progress).read()
        problems = ledger_problems(draft / "ledger")
        if problems:
            raise CatalogInDoubt(f"{source}: the ledger in it is damaged: {problems[0]}")
        _forget_intents(draft / "ledger")
        _end_jobs(draft / "ledger", now_ns)
        _end_tasks(draft / "ledger", now_ns)
        _merge_keys(path, draft)
        _put_in_place(path, draft, now_ns)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _complete(path)
    return manifest


def _check_place(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise HomeError(f"{path} is no folder: choose another place with --home")
    if path.is_dir() and any(path.iterdir()) and not ((path / "tapefs.toml").exists() or (path / _DRAFT).exists()):
        raise HomeError(f"{path} is neither empty nor a state folder: choose another place with --home")


def _forget_intents(path: Path) -> None:
    """What was about to be written when the copy was made may be whole by now: nobody may overwrite it."""
    with LmdbLedger.open(path) as ledger:
        for volume in ledger.volumes():
            for intent in ledger.intents(volume.volume_id):
                ledger.drop_intent(intent.structure_id, volume.volume_id)


def _end_jobs(path: Path, now_ns: int) -> None:
    """What ran or was about to run when the copy was made may be over since: nothing begins by itself."""
    with LmdbLedger.open(path) as ledger:
        for job in ledger.jobs_in([JobState.QUEUED, JobState.RUNNING]):
            ledger.finish_job(job.number, JobState.FAILED, _WAS_OPEN, now_ns)
        for backup_set in ledger.backup_sets():
            if backup_set.state is SetState.RUNNING:
                ledger.fail_set(backup_set.set_id, _WAS_OPEN, now_ns)
        for recovery in [each for each in ledger.recoveries() if not each.state.is_over]:
            ledger.put_recovery(recovery.failed(_WAS_WAITING, now_ns))


def _end_tasks(path: Path, now_ns: int) -> None:
    """What was asked for when the copy was made may have been done since, or be the last that anybody wants now."""
    with LmdbLedger.open(path) as ledger:
        for task in itertools.chain.from_iterable(map(ledger.tasks, TaskFamily)):
            if task.is_open:
                why = "it was open when this copy of the catalog was made: ask again if it is still wanted"
                ended = msgspec.structs.replace(
                    task, state=TaskState.INTERRUPTED, error_kind="restored", error=why, finished_at_ns=now_ns
                )
                ledger.change_task(task, ended, now_ns)


def _merge_keys(path: Path, draft: Path) -> None:
    """Add keys that are only in the copy to those that are there: one more key does no harm, one less loses tapes."""
    if not (path / "keys").is_dir() or not (draft / "keys").is_dir():
        return
    for key in KeyStore(path / "keys").take_from(KeyStore(draft / "keys")):
        log.info("a key of the copy is back", key=key.title, fingerprint=key.fingerprint)


def _put_in_place(path: Path, draft: Path, now_ns: int) -> None:
    replaced = path / datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("replaced-%Y%m%dT%H%M%SZ")
    # The old ledger goes first and the new one comes last: in between there is no catalog, rather than half of two.
    for name in reversed(_PLACES):
        if name in _STAY or not (path / name).exists():
            continue
        _before_place()
        replaced.mkdir(mode=0o700, exist_ok=True)
        (path / name).rename(replaced / name)
        sync_folder(replaced)
        sync_folder(path)
        _after_old()
    for name in _PLACES:
        if (draft / name).exists() and not (path / name).exists():
            (draft / name).rename(path / name)
            sync_folder(path)
            _after_place()


def _complete(path: Path) -> None:
    """Make what a state folder has besides, where it is missing."""
    for name in ("index", "trailers", "staging", "drives", "library"):
        (path / name).mkdir(mode=0o700, exist_ok=True)
    token = path / "token"
    if not token.exists():
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
    sync_folder(path)


class _Reader:
    """Reads a copy to its end, and into a folder if there is one."""

    def __init__(self, source: Path, folder: Path | None, progress: Progress) -> None:
        self._source = source
        self._folder = folder
        self._progress = progress
        self._items: list[Item] = []
        self._names: set[str] = set()

    def read(self) -> Manifest:
        """Return the manifest, everything having been compared with it."""
        manifest: Manifest | None = None
        with self._source.open("rb") as file:
            try:
                with (
                    zstandard.ZstdDecompressor().stream_reader(file) as plain,
                    tarfile.open(fileobj=plain, mode="r|") as archive,
                ):
                    for member in archive:
                        if manifest is not None:
                            raise self._bad(f"there is something behind {MANIFEST}")
                        manifest = self._take(archive, member)
                    while plain.read(_PIECE_BYTES):
                        pass  # To its end, where the checksum is.
            except (tarfile.TarError, zstandard.ZstdError, EOFError) as error:
                raise self._bad(str(error)) from error
        if manifest is None:
            raise self._bad(f"it is cut short, or no copy of a catalog: {MANIFEST} is missing")
        return manifest

    def _take(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Manifest | None:
        if not member.isreg() or not is_name(member.name) or member.name in self._names:
            raise self._bad(f"{member.name!r} has no place in it")
        content = archive.extractfile(member)
        if content is None:
            raise self._bad(f"{member.name!r} has no content")
        if member.name == MANIFEST:
            # As much memory as is asked for is taken, whatever there is to read.
            return self._checked(content.read(min(member.size, _MANIFEST_BYTES)))
        self._names.add(member.name)
        self._progress(member.name)
        sha256 = hashlib.sha256()
        with self._target(member.name) as target:
            while piece := content.read(_PIECE_BYTES):
                sha256.update(piece)
                target.write(piece)
            target.flush()
            if self._folder is not None:
                os.fsync(target.fileno())
        self._items.append(Item(member.name, member.size, sha256.hexdigest()))
        return None

    def _target(self, name: str) -> BinaryIO:
        if self._folder is None:
            return open(os.devnull, "wb")
        path = self._folder / name
        if path.parent != self._folder:
            path.parent.mkdir(mode=0o700, exist_ok=True)
        return os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb"
        )

    def _checked(self, content: bytes) -> Manifest:
        try:
            manifest = msgspec.json.decode(content, type=Manifest)
        except msgspec.DecodeError as error:
            raise self._bad(f"{MANIFEST}: {error}") from error
        if manifest.format != FORMAT:
            raise self._bad(f"it has format {manifest.format}, this program knows {FORMAT}")
        if list(manifest.items) != self._items:
            wrong = {item.name for item in set(manifest.items) ^ set(self._items)}
            raise self._bad(f"it is damaged: {', '.join(sorted(wrong)[:3]) or 'its order'} is not as {MANIFEST} says")
        if not any(item.name == LEDGER for item in manifest.items):
            raise self._bad("there is no ledger in it")
        return manifest

    def _bad(self, why: str) -> CatalogInDoubt:
        return CatalogInDoubt(f"{self._source}: {why}; nothing was changed")
