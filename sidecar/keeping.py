"""Keeps the parts of the sidecar going that work in the background: one that fails unexpectedly is begun again.

One trio run. Each of them takes what is to be done from the ledger, or from memory that its end leaves whole, as after
a start of the sidecar. So a bug, or one damaged record, stops that part for a moment, and nothing else. It is told: in
the log with a traceback (an error there becomes a notice), and by /health as long as it was lately.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import structlog
import trio

from catalog.errors import CatalogError
from drivers.errors import DriveError
from tapefs.errors import TapefsError

#: Pause before a part is begun again: doubled each time, back to the first when it has lived long enough.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
#: A failure is shown for so long, and a part that has lived for so long is well.
SHOWN_S = 600.0

#: Their sentences say enough; of others the traceback does.
_SPEAKING = (CatalogError, DriveError, TapefsError)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    sentence: str
    at_s: float


class Keeping:
    """All such parts."""

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def troubles(self) -> dict[str, str]:
        """Return by name what parts have failed lately, and why."""
        late = trio.current_time() - SHOWN_S
        return {name: each.sentence for name, each in self._failures.items() if each.at_s > late}

    async def keep(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part until it ends by itself; begin it again when it fails."""
        pause_s = FIRST_PAUSE_S
        while True:
            began_s, has_failed = trio.current_time(), False
            try:
                await run()
            # Nobody knows what it may be; the cancel of the whole passes through.
            except* Exception as group:  # noqa: BLE001
                has_failed, sentence = True, sentence_of(group)
                unknown = group.split(_SPEAKING)[1]
                tell = partial(log.error, exc_info=unknown) if unknown is not None else log.error
                tell("a part of the sidecar has failed and is begun again", part=name, error=sentence)
                self._failures[name] = _Failure(sentence, trio.current_time())
            if not has_failed:
                return
            if trio.current_time() - began_s > SHOWN_S:
                pause_s = FIRST_PAUSE_S
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def sentence_of(error: BaseException) -> str:
    """Return what the first error in a group says, with its class: nobody expected it."""
    first = error
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return f"{type(first).__name__}: {first}" if str(first) else type(first).__name__
