"""How many requests a caller over TCP may make, in a minute and at one time. One trio run.

Each request is counted, so that is done here: the library's storage starts a thread for each and cost a fifth of a
request's time. What is counted seldom is left to it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from sidecar.access.addresses import counted_as
from sidecar.http.callers import Caller
from sidecar.http.statuses import TooMany
from tapefs.settings.access import HttpSettings

#: Wrong tokens from one address in a minute: a program with an old token, not one that guesses.
WRONG = RateLimitItemPerMinute(60)


MINUTE_S = 60.0


@dataclass(slots=True)
class Minutes:
    """Counts by key what came within the last minute, about: so much of the minute before as is not over yet."""

    _at: int = 0
    _before: Counter[str] = field(default_factory=Counter)
    _now: Counter[str] = field(default_factory=Counter)

    def hit(self, key: str, most: int, now_s: float) -> bool:
        """Count one, unless there were `most`; False then."""
        at, spent_s = divmod(now_s, MINUTE_S)
        if at != self._at:
            self._before = self._now if at == self._at + 1 else Counter()
            self._at, self._now = int(at), Counter()
        if self._before[key] * (1 - spent_s / MINUTE_S) + self._now[key] >= most:
            return False
        self._now[key] += 1
        return True


class Limits:
    """Counts the requests of each caller, and of each address that has not said who it is."""

    def __init__(self, settings: HttpSettings) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._minutes = Minutes()
        self._known = (settings.requests_per_minute, settings.requests_at_once)
        self._unknown = (settings.unknown_per_minute, settings.unknown_at_once)
        self._now: Counter[str] = Counter()

    @contextmanager
    def counted(self, caller: Caller) -> Iterator[None]:
        """Count a request while it is served. Raises TooMany."""
        is_known = caller.role is not None or bool(caller.scopes)
        per_minute, at_once = self._known if is_known else self._unknown
        key = caller.name if is_known else f"from {counted_as(caller.address)}"
        if self._now[key] >= at_once:
            raise TooMany(f"{key} has {at_once} requests open already", 1)
        if not self._minutes.hit(key, per_minute, time.monotonic()):
            raise TooMany(f"{key} has made more than {per_minute} requests in a minute", 5)
        self._now[key] += 1
        try:
            yield
        finally:
            self._now[key] -= 1
            if not self._now[key]:
                del self._now[key]

    def check_wrong(self, address: str) -> None:
        """Raise TooMany when an address has sent too many wrong tokens to be listened to."""
        if not self._limiter.test(WRONG, "wrong", counted_as(address)):
            raise TooMany("too many wrong tokens from this address: wait a minute", 60)

    def wrong(self, address: str) -> None:
        """A wrong token came from an address."""
        self._limiter.hit(WRONG, "wrong", counted_as(address))
