"""One thread for one device: every call to the changer is made in it, in order.

Started and used within one trio run. A call that has begun is never abandoned: a cancel does not stop a robot.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

#: Pause between two tries to interrupt a call.
INTERRUPT_S = 0.1


class _Call(Generic[T]):
    """A function on its way through the thread, and what came of it."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._done = trio.Event()
        self._result: list[T] = []
        self._error: BaseException | None = None
        self._token = trio.lowlevel.current_trio_token()

    def execute(self) -> None:
        """Run in the device thread and wake the caller."""
        try:
            self._result.append(self._function())
        except Exception as error:  # noqa: BLE001 - it is raised again in the caller
            self._error = error
        self._token.run_sync_soon(self._done.set)

    async def wait_result(self, interrupt: Callable[[], None] | None) -> T:
        try:
            with trio.CancelScope(shield=interrupt is None):
                await self._done.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                while interrupt is not None and not self._done.is_set():
                    interrupt()  # Again and again: the call may not have begun yet.
                    with trio.move_on_after(INTERRUPT_S):
                        await self._done.wait()
            raise
        if self._error is not None:
            raise self._error
        return self._result[0]


class DeviceThread:
    """Runs functions one after the other in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)
        self._thread.start()

    def _loop(self) -> None:
        while (execute := self._calls.get()) is not None:
            execute()

    async def run(self, function: Callable[[], T], interrupt: Callable[[], None] | None = None) -> T:
        """Run `function` in the thread and give its result or its error.

        Not cancelled once begun, unless `interrupt` makes it end soon: it is called when the caller is cancelled, and
        the end is waited for.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        call = _Call(function)
        self._calls.put(call.execute)
        return await call.wait_result(interrupt)

    def close(self) -> None:
        """Let the thread end after its last call; being a daemon, a hanging one does not keep the process."""
        self._calls.put(None)
