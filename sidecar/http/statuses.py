"""The only table from errors to HTTP statuses, and the body that goes with them. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catalog.errors import CatalogError, Conflict, NotFound, StorageFailed
from drivers.errors import ChangerError, DriveError
from tapefs.errors import (
    Cancelled,
    HomeError,
    NoRoom,
    NoSuchThing,
    NoTape,
    NotNow,
    RecallFailed,
    RecallTimedOut,
    SourceError,
    TapeError,
    TapefsError,
    Unreachable,
    UsageError,
)

#: Where a request's ASGI scope says how its sender may say who he is, if it is not by a bearer token.
CHALLENGE = "tapefs.challenge"


class RequestRefused(TapefsError):
    """Base of what is wrong with a request as HTTP, whatever it asks for."""


class Unauthorised(RequestRefused):
    """No token, or a wrong one."""


class Forbidden(RequestRefused):
    """Whoever asks is known, and may not."""


class WrongHost(RequestRefused):
    """The Host header names somebody else."""


class BadRequest(RequestRefused):
    """It could be taken for two things, or makes no sense and is told so in the way of interfaces without 422."""


class TooMany(RequestRefused):
    """More than its sender may; `retry_after_s` says when it is worth trying again."""

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BodyTooLarge(RequestRefused):
    """The body is longer than anything that makes sense here."""


class BodyTooSlow(RequestRefused):
    """The body did not come in time."""


class BrokenOff(RequestRefused):
    """It could not be done to its end, for no fault of its sender: it is worth asking again later."""


class NotAudited(RequestRefused):
    """What destroys something is not done while the audit log cannot be written."""


#: The first class that fits counts; what fits none is a bug: 500, and a traceback in the log.
TABLE: tuple[tuple[type[Exception], int], ...] = (
    (NotAudited, 503),
    (Unauthorised, 401),
    (Forbidden, 403),
    (WrongHost, 400),
    (BadRequest, 400),
    (TooMany, 429),
    (BodyTooLarge, 413),
    (BodyTooSlow, 408),
    (BrokenOff, 503),
    (UsageError, 422),
    (SourceError, 422),
    (NoSuchThing, 404),
    (NotFound, 404),
    (NoRoom, 507),
    (NotNow, 409),
    (Cancelled, 409),
    (Conflict, 409),
    (NoTape, 409),
    (RecallTimedOut, 504),
    (RecallFailed, 503),
    (Unreachable, 503),
    (StorageFailed, 503),
    (TapeError, 500),
    (HomeError, 500),
    (ChangerError, 409),
    (DriveError, 500),
    (CatalogError, 500),
    (TapefsError, 500),
    (OSError, 500),
)


def status_of(error: Exception) -> int:
    """Return the HTTP status of an error."""
    return next((status for kind, status in TABLE if isinstance(error, kind)), 500)


def sentence_of(error: Exception) -> str:
    """Return what the client is told."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) or type(error).__name__


def challenge_of(error: Exception, scope: Mapping[str, Any]) -> dict[str, str]:
    """Return the headers that tell what to do: how to say who one is, or when to come again."""
    if isinstance(error, TooMany):
        return {"Retry-After": str(error.retry_after_s)}
    return {"WWW-Authenticate": scope.get(CHALLENGE, "Bearer")} if isinstance(error, Unauthorised) else {}
