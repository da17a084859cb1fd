"""Making a copy of the catalog while sidecar, movers and mounts are at work. Blocking, one thread.

The ledger is copied by LMDB in one transaction. Indexes and trailers never change once they have their names, and go
only when their set expires: if one goes before it was copied, everything is copied again with the newer ledger.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import zstandard

from catalog.crash import crash_point
from catalog.ledger import Ledger
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import BackupSet, SetState
from tapefs import __version__
from tapefs.durable import sync_folder
from tapefs.errors import NotNow
from tapefs.home import Home
from tapefs.safekeeping.contents import FORMAT, LEDGER, MANIFEST, Item, Manifest, is_name

_LEVEL = 3
_PIECE_BYTES = 1 << 20
#: Sets that expire while a copy is made are few; more often than this it is not begun again.
_ATTEMPTS = 5

_before_rename = crash_point("safekeeping.rename.before")
_after_rename = crash_point("safekeeping.rename.after")

Progress = Callable[[str], None]


class _Gone(Exception):
    """A set has expired while it was being copied."""


def back_up_catalog(
    home: Home, ledger: Ledger, target: Path, now_ns: int, progress: Progress = lambda _: None
) -> Manifest:
    """Write a copy to `target`, replacing what has that name; it gets its name when it is whole and on disk.

    Raises CatalogError, OSError, and NotNow when sets expire all the time.
    """
    draft = target.with_name(f".{target.name}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            manifest = _until_consistent(home, ledger, file, now_ns, progress)
            file.flush()
            os.fsync(file.fileno())
        _before_rename()
        draft.rename(target)
        _after_rename()
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)
    return manifest


def _until_consistent(home: Home, ledger: Ledger, file: IO[bytes], now_ns: int, progress: Progress) -> Manifest:
    for _ in range(_ATTEMPTS):
        file.seek(0)
        file.truncate()
        try:
            return _write(home, ledger, file, now_ns, progress)
        except _Gone:
            continue
    raise NotNow("sets expire while the catalog is copied: try again when `tapefs expire` is through")


def _write(home: Home, ledger: Ledger, file: IO[bytes], now_ns: int, progress: Progress) -> Manifest:
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True, threads=-1)
    with (
        _copied_ledger(home) as folder,
        compressor.stream_writer(file, closefd=False) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        packer = _Packer(archive, progress)
        packer.add(LEDGER, folder / "data.mdb")
        with LmdbLedger.open(folder, readonly=True) as copied:
            packer.add_sets(home, copied, ledger)
            installation_id = copied.installation().installation_id
        for path in _odds_and_ends(home, packer.living):
            packer.add(str(path.relative_to(home.path)), path)
        manifest = Manifest(
            format=FORMAT,
            software=f"tapefs {__version__}",
            installation=installation_id,
            created_ns=now_ns,
            sets=packer.sets,
            without_index=tuple(packer.without_index),
            items=tuple(packer.items),
        )
        packer.add_bytes(MANIFEST, msgspec.json.format(msgspec.json.encode(manifest)))
    return manifest


@contextmanager
def _copied_ledger(home: Home) -> Iterator[Path]:
    """Yield a folder with a copy of the ledger, as one transaction sees it. Raises NotNow for two at a time."""
    folder = home.path / ".catalog-copy"
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotNow("the catalog is being copied right now: wait for that") from None
        for left in folder.iterdir():  # Of a copy that was killed.
            left.unlink()
        with LmdbLedger.open(home.ledger, readonly=True) as ledger:
            ledger.copy_to(folder)
        yield folder
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)


def _odds_and_ends(home: Home, living: Container[str]) -> Iterator[Path]:
    """Yield settings, keys, and the reports of sets and segments that are there; other names are somebody else's."""
    reports = (path for path in sorted(home.reports.glob("*")) if path.name.partition(".")[0] in living)
    for path in (home.path / "tapefs.toml", home.recall_mode, *sorted(home.keys.glob("*")), *reports):
        if path.is_file() and not path.is_symlink() and is_name(str(path.relative_to(home.path))):
            yield path


class _Packer:
    """Adds files to the archive and remembers their sums."""

    def __init__(self, archive: tarfile.TarFile, progress: Progress) -> None:
        self._archive = archive
        self._progress = progress
        self.items: list[Item] = []
        self.sets = 0
        self.without_index: list[str] = []
        #: Ids of the sets that are not over, and of their segments.
        self.living: set[str] = set()

    def add_sets(self, home: Home, copied: Ledger, living: Ledger) -> None:
        """Add what the state folder has of every set that is not over; raise _Gone if one has gone meanwhile."""
        for backup_set in sorted(copied.backup_sets(), key=lambda each: each.number):
            if backup_set.state is SetState.EXPIRED:
                continue
            self._progress(f"set {backup_set.set_id[:8]} ({backup_set.name})")
            self.living.add(backup_set.set_id)
            if backup_set.state is SetState.COMPLETE:
                self.sets += 1
                if not self.add_if_there(f"index/{backup_set.set_id}.lmdb", home.index(backup_set.set_id)):
                    _check_stays(living, backup_set)
                    self.without_index.append(backup_set.set_id)
                self.add_if_there(f"index/{backup_set.set_id}.names", home.names(backup_set.set_id))
            for segment in copied.segments(backup_set.set_id):
                self.living.add(segment.segment_id)
                self.add_if_there(f"trailers/{segment.segment_id}.zst", home.trailer(segment.segment_id))
            _check_stays(living, backup_set)

    def add_if_there(self, name: str, path: Path) -> bool:
        """Add a file; return False if there is none."""
        try:
            self.add(name, path)
        except FileNotFoundError:
            return False
        return True

    def add(self, name: str, path: Path) -> None:
        """Add a file as it is now: whoever changes it makes a new one and renames that."""
        with path.open("rb") as file:
            self._add(name, os.fstat(file.fileno()).st_size, file)

    def add_bytes(self, name: str, content: bytes) -> None:
        """Add a file with this content."""
        self._add(name, len(content), io.BytesIO(content))

    def _add(self, name: str, count: int, file: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = count, 0o600
        reader = _Summing(file)
        self._archive.addfile(member, reader)
        self.items.append(Item(name, count, reader.sha256.hexdigest()))


class _Summing:
    """Reads a file and sums what was read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, count: int = -1, /) -> bytes:
        """Read up to so many bytes."""
        piece = self._file.read(count)
        self.sha256.update(piece)
        return piece


def _check_stays(living: Ledger, backup_set: BackupSet) -> None:
    if living.backup_set(backup_set.set_id).state is SetState.EXPIRED:
        raise _Gone
