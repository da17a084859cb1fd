"""How many requests a caller over TCP may make, in a minute and at one time. One trio run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from sidecar.callers import Caller
from sidecar.statuses import TooMany
from tapefs.access.settings import HttpSettings

#: Wrong tokens from one address in a minute: a program with an old token, not one that guesses.
WRONG = RateLimitItemPerMinute(60)


class Limits:
    """Counts the requests of each caller, and of each address that has not said who it is."""

    def __init__(self, settings: HttpSettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._known = (RateLimitItemPerMinute(settings.requests_per_minute), settings.requests_at_once)
        self._unknown = (RateLimitItemPerMinute(settings.unknown_per_minute), settings.unknown_at_once)
        self._now: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """Count a request while it is served. Raises TooMany."""
        is_known = caller.role is not None or bool(caller.scopes)
        per_minute, at_once = self._known if is_known else self._unknown
        key = caller.name if is_known else f"from {caller.address}"
        if self._now[key] >= at_once:
            raise TooMany(f"{key} has {at_once} requests open already", 1)
        if not self._limiter.hit(per_minute, key):
            raise TooMany(f"{key} has made more than {per_minute.amount} requests in a minute", 5)
        self._now[key] += 1
        try:
            yield
        finally:
            self._now[key] -= 1
            if not self._now[key]:
                del self._now[key]

    def check_wrong(self, address: str) -> None:
        """Raise TooMany when an address has sent too many wrong tokens to be listened to."""
        if not self._limiter.test(WRONG, "wrong", address):
            raise TooMany("too many wrong tokens from this address: wait a minute", 60)

    def wrong(self, address: str) -> None:
        """A wrong token came from an address."""
        self._limiter.hit(WRONG, "wrong", address)
