"""Letting people in who give name and password. One trio run."""

from __future__ import annotations

import structlog

from catalog.access_records import Credential, CredentialKind, User
from sidecar.access.access import Access
from sidecar.http.callers import Caller
from sidecar.http.statuses import Unauthorised

#: Longer names are none of ours, and would only fill memory.
_LONGEST_NAME = 64

log = structlog.get_logger(__name__)


async def let_in(
    access: Access, name: str, password: str, caller: Caller, kind: CredentialKind
) -> tuple[User, Credential, str]:
    """Return the user with a new session or login and its secret. Raises Unauthorised, TooMany."""
    user = await prove(access, name, password, caller.address)
    credential, secret = await access.registry.let_in(
        user, kind, access.sessions.longest_hours * 3600.0, access.sessions.idle_minutes * 60.0
    )
    return user, credential, secret


async def prove(access: Access, name: str, password: str, address: str) -> User:
    """Return the user who has that name and password. Raises Unauthorised, TooMany."""
    known = access.registry.user_named(name[:_LONGEST_NAME])
    access.passwords.throttle.try_(name[:_LONGEST_NAME], address)
    if not await access.passwords.is_right(known, password, address):
        log.info("login refused", address=address)
        raise Unauthorised("name or password is wrong")
    # Hashing takes a while: the user may have been changed or deleted meanwhile.
    user = access.registry.user_named(name)
    if user is None or known is None or user.password_hash != known.password_hash:
        raise Unauthorised("name or password is wrong")
    return user
