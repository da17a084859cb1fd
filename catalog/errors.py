"""The catalog's errors.

    CatalogError
    ├── NotFound            no record of that id
    │   ├── NoLedger        the ledger itself is not there
    │   └── NoIndex         that of a set is not there
    ├── Conflict            the operation does not fit the record's state (already done, other owner)
    │   └── StaleClaim      somebody else has claimed the volume since
    ├── Damaged             a checksum or a structure is wrong; `where` names the record
    │   ├── LedgerDamaged   the ledger's file as a whole
    │   └── IndexDamaged    the index of a set as a whole
    ├── WrongVersion        written by another version of the format
    │   └── OtherIndexVersion   the index of a set is; its trailers have what makes one of this version
    └── StorageFailed       the disk or LMDB failed; `retryable` tells whether a retry can help

Messages are written for the operator; data is in attributes.
"""

from __future__ import annotations


class CatalogError(Exception):
    """Base of everything the catalog raises."""

    #: Can the same call succeed later without anybody repairing anything?
    retryable = False


class NotFound(CatalogError):
    """There is no such record."""


class NoLedger(NotFound):
    """There is no ledger in the folder."""


class NoIndex(NotFound):
    """A set has no index; its trailers and its tapes have what makes one."""


class Conflict(CatalogError):
    """The record is in a state that does not allow the operation."""


class StaleClaim(Conflict):
    """The caller's claim on a volume is older than the newest one: it must stop writing at once."""


class Damaged(CatalogError):
    """A stored record or block does not match its checksum or its structure."""

    def __init__(self, message: str, where: str) -> None:
        super().__init__(f"{message} ({where})")
        #: Which record or block, for the operator.
        self.where = where


class LedgerDamaged(Damaged):
    """The ledger's file cannot be read at all."""


class IndexDamaged(Damaged):
    """The index of a set cannot be read at all."""


class WrongVersion(CatalogError):
    """The data was written by a version of the format that this program does not know."""


class OtherIndexVersion(WrongVersion):
    """The index of a set has a layout of another version; its trailers have what makes one of this version."""


class StorageFailed(CatalogError):
    """The storage below failed, for instance because the disk is full."""

    def __init__(self, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.retryable = retryable
