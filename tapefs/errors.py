"""The product's errors.

    TapefsError
    ├── UsageError          the request makes no sense (exit 2, HTTP 422)
    ├── HomeError           the state folder is missing, of another version, or damaged
    │   └── HomeInUse       another sidecar owns it
    ├── NoSuchThing         no set, job, tape or path of that name
    ├── NotNow              refused in the present state (a job that runs already, a tape that is busy)
    ├── SourceError         a backup source is missing or unreadable
    ├── TapeError           what is on a tape is not what should be there
    │   ├── NotBlank        data of somebody else, or of ours, where a blank tape was expected
    │   ├── WrongTape       another tape than the one asked for
    │   ├── BadStructure    a structure on tape is torn, damaged or of an unknown version
    │   │   └── ContentDamaged  content was read, and is not what was written
    │   ├── LedgerMismatch  tape and ledger disagree about where the data ends
    │   └── SetDamaged      a set was read back, and something of it is not as it was written
    ├── NotVerified         a set is complete, but could not be read back
    ├── NoTape              no tape with room is left
    ├── KeyMissing          what is on tape is encrypted, and its key is locked or not here
    ├── KeyUnfit            a tape is not written to because of the key it has, or lacks
    ├── WrongPassphrase     a passphrase does not open a key
    ├── CodecFailed         what compresses has failed, a program for instance
    ├── Unreachable         the sidecar does not answer
    ├── TooManyRequests     the sidecar has had enough of us for a while
    ├── RecallFailed        the bytes cannot be fetched from tape now
    │   ├── RecallTimedOut  they did not come before the reader's deadline; the recall goes on
    │   ├── RecallDenied    the reader may not have them fetched: a rule, an operator, or recalls are switched off
    │   ├── RecallOverLimit its user has had as much fetched in this hour as he may
    │   ├── RecallLocked    what is on tape is encrypted, and its key is locked or not here
    │   ├── RecallOffline   they lie on a tape that is not here, or cannot be loaded now
    │   ├── RecallDamaged   they are not what was written, on no tape that is here
    │   └── RecallDeferred  they are being fetched; a rule says that the reader does not wait
    ├── NoRoom              the staging area has no room for what is asked for
    ├── StagingDamaged      staged bytes were not what came from tape
    ├── CatalogInDoubt      ledger, indexes and what else the state folder holds do not agree
    ├── DeviceProblems      drives or changers cannot be used as they are
    └── Cancelled           an operator stopped it

Errors of `catalog` and `drivers` pass through as they are. Each adapter has one table that maps these classes: errno in
`tapefs.mount.errnos`, HTTP status in `sidecar.http.statuses`, exit code in `tapefs.cli.exits`.
"""

from __future__ import annotations


class TapefsError(Exception):
    """Base of the product's errors; the message is one sentence for the operator, with what to do."""


class UsageError(TapefsError):
    """The request makes no sense."""


class HomeError(TapefsError):
    """The state folder is missing, damaged or of another version."""


class HomeInUse(HomeError):
    """Another sidecar owns the state folder."""


class NoSuchThing(TapefsError):
    """There is no set, job, tape or path of that name."""


class NotNow(TapefsError):
    """Refused in the present state."""


class SourceError(TapefsError):
    """A backup source is missing or unreadable."""


class FilesUnread(TapefsError):
    """A backup is done and on tape, but without the content of files that could not be read."""


class TapeError(TapefsError):
    """What is on a tape is not what should be there."""


class NotBlank(TapeError):
    """There is data where a blank tape was expected."""


class WrongTape(TapeError):
    """Another tape than the one asked for is in the drive."""


class BadStructure(TapeError):
    """A structure on tape is torn, damaged or of an unknown version."""


class ContentDamaged(BadStructure):
    """Content was read, and is not what was written: not merely unreadable now."""


class LedgerMismatch(TapeError):
    """Tape and ledger disagree about where the data ends."""


class SetDamaged(TapeError):
    """A set was read back, and something of it is not as it was written."""


class NotVerified(TapefsError):
    """A set is complete, but could not be read back."""


class NoTape(TapefsError):
    """No tape with room is left."""


class KeyMissing(TapefsError):
    """What is on tape is encrypted, and the key is not at hand: it is locked, or not here at all."""

    def __init__(self, message: str, fingerprint: str = "") -> None:
        super().__init__(message)
        #: Of the key; empty when nothing tells it.
        self.fingerprint = fingerprint


class KeyUnfit(TapefsError):
    """A tape cannot be written to because of the key it has, or lacks; it is passed over as it is."""


class WrongPassphrase(TapefsError):
    """A passphrase does not open what it should."""


class CodecFailed(TapefsError):
    """A frame could not be compressed."""


class Unreachable(TapefsError):
    """The sidecar does not answer."""


class TooManyRequests(TapefsError):
    """The sidecar takes no more of this caller for a while; it is worth trying again after `retry_after_s`."""

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class NoRoom(TapefsError):
    """The staging area has no room for what is asked for."""


class StagingDamaged(TapefsError):
    """Staged bytes are not what came from tape, or were not until they were dropped."""


class CatalogInDoubt(TapefsError):
    """Ledger, indexes and what else the state folder holds do not agree, or cannot be read."""


class DeviceProblems(TapefsError):
    """Drives or changers were found that cannot be used as they are."""


class RecallFailed(TapefsError):
    """The bytes cannot be fetched from tape now."""


class RecallTimedOut(RecallFailed):
    """They did not come before the reader's deadline; the recall goes on."""


class RecallDenied(RecallFailed):
    """The reader may not have them fetched: a rule, an operator, or recalls are switched off."""


class RecallOverLimit(RecallFailed):
    """Its user has had as much fetched in this hour as he may."""


class RecallLocked(RecallFailed):
    """What is on tape is encrypted, and its key is locked or not here."""


class RecallOffline(RecallFailed):
    """What is on tape lies on one that is not here, or that cannot be loaded now."""


class RecallDamaged(RecallFailed):
    """What is on tape is not what was written there, on no tape that is here."""


class RecallDeferred(RecallFailed):
    """They are being fetched; a rule says that the reader does not wait."""


class Cancelled(TapefsError):
    """An operator stopped it."""
