"""Who calls, and what he may do. Pure, but for the look-up of a user's name.

The gates in front of the application put a Caller into the scope of each request; calls say which role they need.
"""

from __future__ import annotations

import pwd
from dataclasses import dataclass
from enum import IntEnum

from starlette.requests import HTTPConnection
from starlette.types import Scope

#: Where a request's caller stands in its ASGI scope.
CALLER = "tapefs.caller"


class Role(IntEnum):
    """What somebody may do; each may all that is below it."""

    #: See jobs, sets, names of files, tapes.
    VIEWER = 1
    #: Have jobs run, bytes fetched, tapes moved.
    OPERATOR = 2
    #: Change policy, keys and users; have tapes written over and sets expire.
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Caller:
    """Who has sent a request."""

    #: For logs and for people.
    name: str
    #: None: only what his scopes say.
    role: Role | None
    #: The user of this system that he stands for; None: nobody in particular.
    uid: int | None = None
    #: As in WLCG tokens: `storage.stage:/some/path`.
    scopes: frozenset[str] = frozenset()
    #: Where he calls from; empty for the Unix socket.
    address: str = ""
    #: What no other token or user has, whatever it is called; empty: the name is as good.
    identity: str = ""

    def may(self, needs: Role | None, scopes: tuple[str, ...] = ()) -> bool:
        """May he make a call that needs this role, or one of these scopes (their names, without a path)?"""
        if needs is None or (self.role is not None and self.role >= needs):
            return True
        return any(scope.partition(":")[0] in scopes for scope in self.scopes)


#: Who has not said who he is: he may make the calls that need no role.
NOBODY = Caller("nobody", None)


def caller_of(request: HTTPConnection) -> Caller:
    """Return who has sent a request."""
    return caller_in(request.scope)


def caller_in(scope: Scope) -> Caller:
    """Return who has sent the request of a scope; nobody, if no gate has let him in."""
    caller = scope.get(CALLER, NOBODY)
    if not isinstance(caller, Caller):
        raise TypeError(f"{CALLER} holds a {type(caller).__name__}")
    return caller


def local_caller(uid: int) -> Caller:
    """Return the caller behind the Unix socket: root or the owner of the state folder, who may do all."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid {uid}"
    return Caller(name, Role.ADMIN, uid)
