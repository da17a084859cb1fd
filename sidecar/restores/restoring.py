"""Restores on this host that somebody asks for over HTTP. One trio run; each has a process of its own, which writes.

Every restore is in the ledger before it is answered. One that waits when the sidecar ends is done after its next start.
One that was running is begun again only if it may replace files: else nobody could tell those that it has written
from those that were there, so it has failed, and says so.
"""

from __future__ import annotations

import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from functools import partial

import msgspec
import structlog
import trio

from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.recovery_records import Recovery, RecoveryState
from sidecar.schedules.programs import JsonLines, own_environment, run_program, why_it_ended
from tapefs.errors import NoSuchThing, NotNow
from tapefs.home import Home
from tapefs.restore.process import Order, Told

#: So many run at a time; they wait for the same drives.
AT_ONCE = 4
#: Those that have ended are kept, the newest.
KEPT = 1000
#: One that runs for so long is given up.
LONGEST_S = 14 * 86_400.0
#: A restore whose sidecar was killed so often has failed.
MOST_ATTEMPTS = 3

replace = msgspec.structs.replace
log = structlog.get_logger(__name__)


class Restorations:
    """All restores. `run` must run meanwhile."""

    def __init__(self, home: Home, ledger: Ledger, now_ns: Callable[[], int]) -> None:
        """Read what there is. Blocking."""
        self._home = home
        self._ledger = ledger
        self._now_ns = now_ns
        self._known = OrderedDict((each.recovery_id, each) for each in ledger.recoveries())
        self._given_up: dict[str, trio.Event] = {}
        self._wanted: set[str] = set()
        self._changed = trio.Event()
        self._writing = trio.Lock()

    # -- for HTTP ----------------------------------------------------------------------------------------------------

    async def add(
        self, set_id: SetId, paths: tuple[bytes, ...], target: bytes, by: str, *, special: bool, bound: bool, over: bool
    ) -> Recovery:
        """Record a restore; it begins when its turn comes."""
        now_ns = self._now_ns()
        async with self._writing:
            recovery = Recovery(
                recovery_id=self._new_id(now_ns),
                set_id=set_id,
                paths=paths,
                target=target,
                created_by=by,
                created_at_ns=now_ns,
                special=special,
                is_bound=bound,
                overwrites=over,
            )
            await self._write(recovery)
            await self._forget_oldest()
        self._want(recovery.recovery_id)
        return recovery

    def _new_id(self, now_ns: int) -> str:
        stem = f"recovery_{datetime.fromtimestamp(now_ns / 1e9):%Y%m%d_%H%M%S}"
        name, count = stem, 1
        while name in self._known:
            count += 1
            name = f"{stem}_{count}"
        return name

    def find(self, recovery_id: str) -> Recovery:
        """Return one, as far as it is now. Raises NoSuchThing."""
        try:
            return self._known[recovery_id]
        except KeyError:
            raise NoSuchThing(f"there is no restore {recovery_id}") from None

    def all(self) -> list[Recovery]:
        """Return those that are kept, oldest first, as far as they are now."""
        return list(self._known.values())

    async def cancel(self, recovery_id: str) -> None:
        """Give one up; what it has written stays. Raises NoSuchThing, NotNow when it has ended."""
        async with self._writing:
            recovery = self.find(recovery_id)
            if recovery.state.is_over:
                raise NotNow(f"restore {recovery_id} is {recovery.state.value}")
            if recovery.state is RecoveryState.PENDING:
                await self._write(self._cancelled(recovery_id))
            if recovery_id in self._given_up:
                self._given_up[recovery_id].set()

    def is_idle(self) -> bool:
        """Is nothing wanted, and does nothing run?"""
        return not self._wanted and not self._given_up

    # -- at work -----------------------------------------------------------------------------------------------------

    async def run(self, *, goes_on: bool) -> None:
        """Restore until cancelled; with `goes_on` also what an earlier sidecar has left undone."""
        if goes_on:
            await self._take_up()
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._changed
                for recovery_id in sorted(self._wanted, key=list(self._known).index):
                    if self._known[recovery_id].state is RecoveryState.PENDING:
                        self._given_up[recovery_id] = trio.Event()
                        nursery.start_soon(self._restore, recovery_id, limiter)
                self._wanted.clear()
                await changed.wait()

    async def _take_up(self) -> None:
        async with self._writing:
            for recovery in [each for each in self._known.values() if not each.state.is_over]:
                if recovery.state is RecoveryState.RUNNING and not self._may_begin_again(recovery):
                    why = "the sidecar was ended while it ran: ask again, with overwrite, for what is not there"
                    await self._write(self._ended(recovery, RecoveryState.FAILED, why))
                    continue
                await self._write(replace(recovery, state=RecoveryState.PENDING))
                self._want(recovery.recovery_id)

    def _may_begin_again(self, recovery: Recovery) -> bool:
        return recovery.overwrites and recovery.attempts < MOST_ATTEMPTS

    async def _restore(self, recovery_id: str, limiter: trio.CapacityLimiter) -> None:
        given_up = self._given_up[recovery_id]
        try:
            async with limiter:
                if not await self._begin(recovery_id):
                    return
                outcome = await self._run_process(recovery_id, given_up)
            async with self._writing:
                await self._write(outcome)
            log.info("restore ended", restore=recovery_id, state=outcome.state.value, error=outcome.error)
        finally:
            self._given_up.pop(recovery_id, None)

    async def _begin(self, recovery_id: str) -> bool:
        """Note that it runs; return whether it is still wanted."""
        async with self._writing:
            recovery = self._known[recovery_id]
            if recovery.state is not RecoveryState.PENDING:
                return False
            began_ns, attempts = recovery.started_at_ns or self._now_ns(), recovery.attempts + 1
            await self._write(replace(recovery, state=RecoveryState.RUNNING, attempts=attempts, started_at_ns=began_ns))
            return True

    async def _run_process(self, recovery_id: str, given_up: trio.Event) -> Recovery:
        recovery = self._known[recovery_id]
        order = Order(
            home=os.fsencode(self._home.path),
            set_id=recovery.set_id,
            paths=recovery.paths,
            target=recovery.target,
            special=recovery.special,
            overwrite=recovery.overwrites,
            roots=self._home.settings.access.restore_targets if recovery.is_bound else None,
        )
        lines = JsonLines(Told, partial(self._told, recovery_id))
        argv = [sys.executable, "-m", "tapefs.restore.process"]
        ended = await run_program(
            argv, own_environment(), LONGEST_S, given_up, given=msgspec.json.encode(order), listen=lines.take
        )
        last = lines.last
        if given_up.is_set() and (last is None or not last.is_over):
            return self._cancelled(recovery_id)
        if last is None or not last.is_over:
            return self._ended(self._known[recovery_id], RecoveryState.FAILED, why_it_ended(ended))
        state = RecoveryState.FAILED if last.error else RecoveryState.COMPLETED
        return self._ended(self._known[recovery_id], state, last.error)

    def _told(self, recovery_id: str, told: Told) -> None:
        """Note how far it is; in memory, for the ledger has no use for that. The end tells what the plan was, too."""
        known = self._known[recovery_id]
        if told.is_over and not told.files_total and not told.not_restored.failed:
            return
        self._known[recovery_id] = replace(
            known,
            files=told.files,
            files_total=max(told.files_total, known.files_total),
            bytes=told.bytes,
            bytes_total=max(told.bytes_total, known.bytes_total),
            not_restored=told.not_restored,
        )

    def _cancelled(self, recovery_id: str) -> Recovery:
        return self._ended(self._known[recovery_id], RecoveryState.CANCELLED, "it was cancelled")

    def _ended(self, recovery: Recovery, state: RecoveryState, error: str) -> Recovery:
        return replace(recovery, state=state, error=error, finished_at_ns=self._now_ns())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _want(self, recovery_id: str) -> None:
        self._wanted.add(recovery_id)
        self._changed.set()
        self._changed = trio.Event()

    async def _write(self, recovery: Recovery) -> None:
        await trio.to_thread.run_sync(self._ledger.put_recovery, recovery)
        self._known[recovery.recovery_id] = recovery

    async def _forget_oldest(self) -> None:
        ended = [each.recovery_id for each in self._known.values() if each.state.is_over]
        for recovery_id in ended[:-KEPT]:
            await trio.to_thread.run_sync(self._ledger.drop_recovery, recovery_id)
            del self._known[recovery_id]
