"""Carries calls out at once, over a Unix socket or TCP. Blocking; for any thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tapefs.client.address import Address
from tapefs.client.calling import Ask, Blocking, Fetch, Head, Pause, Step, Steps
from tapefs.client.transport import Transport, WentAway, lines
from tapefs.errors import TapefsError, TooManyRequests

T = TypeVar("T")

#: So long in all a call comes again when the sidecar has had enough of us.
PATIENCE_S = 120.0
#: A request that is safe to repeat is sent once more, after so long, when the connection broke under it.
AGAIN_S = 0.2


class Caller(Blocking):
    """Carries out what is asked."""

    def __init__(self, where: Path | Address, timeout_s: float = 60.0) -> None:
        self.address = where if isinstance(where, Address) else Address(socket=where)
        self._transport = Transport(self.address, timeout_s)

    def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Carry out a call, return its answer. Raises Unreachable, and what the sidecar refuses with."""
        if isinstance(what, Ask):
            return what.answer(self._request(what))
        return _driven(what, self._do)

    def close(self) -> None:
        """Close what connections there are; the next call opens one again."""
        self._transport.close()

    @contextmanager
    def lines(self, target: str, silence_s: float = 60.0, **headers: str) -> Iterator[Iterator[bytes]]:
        """Have the lines of an answer, as they come, inside the block."""
        with lines(self.address, target, silence_s, {key.replace("_", "-"): headers[key] for key in headers}) as found:
            yield found

    def _do(self, step: Step) -> object:
        if isinstance(step, Ask):
            return step.answer(self._request(step))
        if isinstance(step, Fetch):
            return self._transport.fetch(step.target, step.headers, step.taker)
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return step.do()

    def _request(self, ask: Ask[Any]) -> Head:
        deadline_s = time.monotonic() + PATIENCE_S
        repeats = 1 if ask.is_safe else 0
        while True:
            try:
                return self._transport.exchange(ask.method, ask.target, ask.body)
            except WentAway:
                if not repeats:
                    raise
                repeats -= 1
                time.sleep(AGAIN_S)
            except TooManyRequests as error:
                if time.monotonic() + error.retry_after_s > deadline_s:
                    raise
                time.sleep(error.retry_after_s)


def _driven(steps: Steps[T], do: Any) -> T:
    """Carry out steps until they end; what one raises is raised at its place."""
    try:
        step = next(steps)
        while True:
            try:
                answer = do(step)
            except (TapefsError, OSError) as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        answer_of_all: T = end.value
        return answer_of_all
    finally:
        steps.close()
