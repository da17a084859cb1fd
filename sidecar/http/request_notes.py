"""What is noted of a request while it is served, in its ASGI scope; trio only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from starlette.types import Scope

#: Key of the notes in the scope.
NOTES = "tapefs.notes"


@dataclass(slots=True)
class Notes:
    """Of one request."""

    #: Its id.
    request: str
    began_s: float
    status: int = 0
    #: The path as the route has it; empty before it was found.
    template: str = ""
    body: bytearray = field(default_factory=bytearray)
    old: object = None
    new: object = None
    #: It goes on for as long as its client likes: how long that was is no duration of a request.
    is_endless: bool = False
    #: To be awaited before a call that destroys something begins, once its caller was admitted; None for others.
    begin: Callable[[Scope], Awaitable[None]] | None = None


def notes_in(scope: Scope) -> Notes | None:
    """Return the notes; None where nobody keeps any."""
    notes = scope.get(NOTES)
    return notes if isinstance(notes, Notes) else None


def note_values(request: HTTPConnection, *, old: object = None, new: object = None) -> None:
    """Have the audit log say what something was and is; secrets in it are replaced."""
    notes = notes_in(request.scope)
    if notes is not None:
        notes.old, notes.new = old, new if new is not None else notes.new


def note_endless(scope: Scope) -> None:
    """Leave a request out of the figures of durations."""
    notes = notes_in(scope)
    if notes is not None:
        notes.is_endless = True
