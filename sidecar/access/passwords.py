"""Passwords: Argon2 in a thread, and how often one may be tried.

One trio run. A hash takes 64 MiB and some 100 ms, so one is computed at a time, and few wait for their turn: logins can
exhaust neither memory nor processors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import trio
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from limits import RateLimitItem, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from catalog.access_records import User
from sidecar.access.addresses import counted_as
from sidecar.http.statuses import TooMany
from tapefs.errors import UsageError

T = TypeVar("T")

SHORTEST, LONGEST = 10, 1000
#: Logins that may wait for their turn.
MOST_WAITING = 20
#: Tries in a minute: of one name from one address, from one address, of one name from anywhere. The last is far higher,
#: lest somebody who tries keeps the owner of the name out.
PAIR, ADDRESS, NAME = RateLimitItemPerMinute(6), RateLimitItemPerMinute(30), RateLimitItemPerMinute(60)


def check_password(password: str) -> str:
    """Return a new password. Raises UsageError."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise UsageError(f"a password has {SHORTEST} to {LONGEST} characters")
    try:
        password.encode()
    except UnicodeEncodeError:
        raise UsageError("a password is text that UTF-8 can hold") from None
    return password


class Throttle:
    """Counts tries of passwords."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def try_(self, name: str, address: str) -> None:
        """Count a try. Raises TooMany."""
        for limit, keys in self._counted(name, counted_as(address)):
            if not self._limiter.hit(limit, *keys):
                raise TooMany("too many tries of passwords: wait a minute", 60)

    def succeeded(self, name: str, address: str) -> None:
        """The right password was given: what was tried before does not count any more for this name from there."""
        self._limiter.clear(PAIR, "pair", name, counted_as(address))

    def _counted(self, name: str, address: str) -> tuple[tuple[RateLimitItem, tuple[str, ...]], ...]:
        return (
            (PAIR, ("pair", name, address)),
            (ADDRESS, ("address", address)),
            (NAME, ("name", name)),
        )


class Passwords:
    """Hashes and compares."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = trio.CapacityLimiter(1)
        self._waiting = 0
        self.throttle = Throttle()

    async def hash(self, password: str) -> str:
        """Return what is kept of a password. Raises UsageError."""
        return await self._in_turn(partial(self._hasher.hash, check_password(password)))

    async def is_right(self, user: User | None, password: str, address: str) -> bool:
        """Is it the user's? Takes as long for a name that there is not. Raises TooMany."""
        kept = user.password_hash if user is not None else ""
        is_right = await self._in_turn(partial(self._compare, kept, password[: LONGEST + 1]))
        if is_right and user is not None:
            self.throttle.succeeded(user.name, address)
        return is_right

    def _compare(self, kept: str, password: str) -> bool:
        data = password.encode("utf-8", "surrogatepass")
        if not kept:
            self._hasher.hash(data)  # As much work as a comparison, so that the time does not tell names.
            return False
        try:
            return self._hasher.verify(kept, data)
        except (VerificationError, InvalidHashError):
            return False

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING:
            raise TooMany("too many logins at one time: try again", 5)
        self._waiting += 1
        try:
            return await trio.to_thread.run_sync(work, limiter=self._turn)
        finally:
            self._waiting -= 1
