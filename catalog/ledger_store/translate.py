"""LMDB's errors in the catalog's words. Pure functions apart from asking the filesystem for its free space."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from catalog.errors import CatalogError, LedgerDamaged, StorageFailed, WrongVersion

#: A failed write with less free space than this is put down to a full disk: LMDB turns a short write into EIO.
_FULL_BYTES = 1 << 20

#: The environment is of no use after these: close it, let nobody write.
FATAL = (lmdb.PanicError, lmdb.CorruptedError, lmdb.PageNotFoundError)

_WRITE_ERRNOS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT})


def free_bytes(path: Path) -> int:
    """Return what this process may still write to the filesystem that holds `path`."""
    stat = os.statvfs(path)
    return (stat.f_bfree if os.geteuid() == 0 else stat.f_bavail) * stat.f_frsize


def translate(error: lmdb.Error, path: Path) -> CatalogError:
    """Return the catalog's error for one of LMDB's; `path` is the ledger's folder."""
    if isinstance(error, lmdb.PanicError):
        return StorageFailed(
            f"the ledger {path} could not finish a commit and was closed; check the disk, then restart: {error}",
            retryable=False,
        )
    if isinstance(error, lmdb.VersionMismatchError):
        return WrongVersion(f"the ledger {path} was written by another version of LMDB than {lmdb.version()}: {error}")
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError)):
        return LedgerDamaged(f"the ledger's file is damaged: {error}", str(path))
    if isinstance(error, lmdb.ReadersFullError):
        return StorageFailed(f"too many processes read the ledger {path} at once; try again", retryable=True)
    return _storage_failure(error, path)


def _storage_failure(error: lmdb.Error, path: Path) -> StorageFailed:
    code: int = getattr(error, "code", 0)  # Errors that are made in Python have none.
    if code in (errno.ENOSPC, errno.EDQUOT) or (code in _WRITE_ERRNOS and free_bytes(path) < _FULL_BYTES):
        return StorageFailed(f"the disk that holds the ledger {path} is full; make room", retryable=True)
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageFailed(f"no permission for the ledger {path}: {os.strerror(code)}", retryable=False)
    retryable = code in (errno.EAGAIN, errno.EINTR, errno.ENOMEM)
    return StorageFailed(f"the ledger {path} failed: {error}", retryable=retryable)


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Let no LMDB error leave the block."""
    try:
        yield
    except lmdb.Error as error:
        raise translate(error, path) from error
