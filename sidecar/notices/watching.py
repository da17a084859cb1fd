"""Watches what only a running sidecar sees, and tells what begins and ends: drives, prompts, room, keys, tapes.

One trio run. What has begun is kept in the ledger as a condition, so that a restart does not tell it again. Conditions
that cannot be judged at the moment (a drive that is starting) stay as they are.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
import trio

from catalog.errors import CatalogError
from catalog.ledger import Ledger
from catalog.notice_records import Facts, NewNotice
from catalog.pool_records import RetentionKind
from catalog.records import Volume, VolumeState
from drivers.human.desk import Prompt
from drivers.registry import drive_name
from sidecar.drives.cleanings import Cleanings
from sidecar.drives.drive import DriveTask
from sidecar.notices.events import Events
from sidecar.tapes.library import Library
from sidecar.verifications.queue import Verifications, VerifyRun
from tapefs.errors import NoSuchThing, TapefsError
from tapefs.home import Home
from tapefs.keys.store import KeyStore
from tapefs.log_ring import RING
from tapefs.retention.calendar import end_of_month
from tapefs.retention.pools import SCRATCH, Pools

#: What can change at any moment is looked at so often; what needs the ledger or the disk less often.
LOOK_S, SLOW_S = 1.0, 60.0
#: Errors in the log are told so often at most: one that repeats itself would bury all else.
ERRORS_S = 600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """Something that is so now."""

    #: Its name; the same as long as it is the same.
    name: str
    kind: str
    subject: str
    text: str
    facts: Facts = field(default_factory=dict)


class Watching:
    """Looks, and tells."""

    def __init__(
        self,
        home: Home,
        ledger: Ledger,
        library: Library,
        drives: Sequence[DriveTask],
        verifications: Verifications,
        cleanings: Cleanings,
        events: Events,
    ) -> None:
        self._home = home
        self._ledger = ledger
        self._library = library
        self._drives = drives
        self._verifications = verifications
        self._cleanings = cleanings
        self._events = events
        self._runs: dict[int, str] = {}
        self._errors_told, self._errors_at_s = 0, float("-inf")

    async def run(self) -> None:
        """Look for ever."""
        slow_at = trio.current_time()
        while True:
            try:
                await self._look_quickly()
                if trio.current_time() >= slow_at:
                    await self.look_slowly()
                    slow_at = trio.current_time() + SLOW_S
            except (CatalogError, TapefsError, OSError) as error:
                log.error("what is to be told cannot be found out", error=str(error))
                await trio.sleep(SLOW_S)
            await trio.sleep(LOOK_S)

    async def _look_quickly(self) -> None:
        await self._tell_verifications()
        known = {condition.name for condition in await trio.to_thread.run_sync(self._ledger.conditions)}
        human = self._library.human
        prompts = [] if human is None else human.desk.open()
        states = [_wanted(prompt, self._library.whence(prompt.put_in)) for prompt in prompts]
        states += [_dirty(drive, self._cleanings.sentence(drive)) for drive in self._cleanings.asking()]
        new = [self._begun(state) for state in states if state.name not in known]
        ended = [
            name for name in known if name.partition(" ")[0] in QUICK_KINDS and name not in {s.name for s in states}
        ]
        for drive in self._drives:
            new += self._of_drive(drive, known)
        if new or ended:
            await self._events.post(new, ended=ended)

    def _of_drive(self, drive: DriveTask, known: set[str]) -> Iterable[NewNotice]:
        name, health = f"drive.failed {drive.name}", drive.health
        facts: Facts = {"drive": drive.name, "tape": drive.tape, "set_aside": health.is_set_aside}
        if health.reason and name not in known:
            text = f"{drive.name} has failed: {health.sentence()}"
            yield self._events.new("drive.failed", drive.name, text, facts | {"reason": health.reason}, raises=name)
        elif health.is_up and not health.reason and name in known:
            yield self._events.new("drive.back", drive.name, f"{drive.name} works again.", facts, ends=name)

    def _begun(self, state: State) -> NewNotice:
        return self._events.new(state.kind, state.subject, state.text, state.facts, raises=state.name)

    async def _tell_verifications(self) -> None:
        """What was told of runs is kept in memory."""
        for run in self._verifications.runs():
            before, now = self._runs.get(run.number), run.state
            if before == now:
                continue
            self._runs[run.number] = now
            if before is None and run.is_restored and (run.past is not None or run.is_open):
                continue  # That was told before the restart.
            if now in ("running", "completed", "failed"):
                await self._events.post([self._of_run(run)])

    def _of_run(self, run: VerifyRun) -> NewNotice:
        kind = {"running": "verify.started", "completed": "verify.succeeded", "failed": "verify.failed"}[run.state]
        outcome = run.outcome
        facts: Facts = {"run": run.number, "copies": outcome.copies}
        facts |= {"good": outcome.good, "damaged": outcome.damaged, "unread": outcome.unread}
        if run.state == "running":
            text = f"Reading back {outcome.copies} copies has begun."
        else:
            text = (
                f"{outcome.copies} copies were read back: {facts['good']} good, {facts['damaged']} damaged, "
                f"{facts['unread']} could not be read."
            )
        return self._events.new(kind, str(run.number), text, facts)

    # -- what needs the ledger or the disk ---------------------------------------------------------------------------

    async def look_slowly(self) -> None:
        """Look at room, keys, and tapes whose time is over."""
        known, states = await trio.to_thread.run_sync(self._slow_states)
        await self._tell_errors()
        now = {state.name: state for state in states}
        new = [self._begun(state) for name, state in now.items() if name not in known]
        over = [name for name in known if name.partition(" ")[0] in SLOW_KINDS and name not in now]
        for name in over:
            if name.startswith("capacity.low "):
                subject = name.partition(" ")[2]
                new.append(self._events.new("capacity.enough", subject, f"There is room again: {subject}.", ends=name))
        if new or over:
            await self._events.post(new, ended=[name for name in over if not name.startswith("capacity.low ")])

    async def _tell_errors(self) -> None:
        """Tell that there are errors in the log, with the newest, but not of what notices themselves have logged."""
        errors = [line for line in RING.newest_first() if line.level in ("ERROR", "CRITICAL")]
        new = [line for line in errors if line.number > self._errors_told and "notices" not in line.logger]
        now_s = trio.current_time()
        if not new or now_s < self._errors_at_s + ERRORS_S:
            return
        self._errors_told, self._errors_at_s = new[0].number, now_s
        facts: Facts = {"errors": len(new), "logger": new[0].logger, "exception": new[0].exception}
        more = f" ({len(new) - 1} more before it)" if len(new) > 1 else ""
        text = f"{new[0].text}: {new[0].facts.get('error') or new[0].exception or 'see the log'}{more}"
        await self._events.post([self._events.new("system.error", new[0].logger, text, facts)])

    def _slow_states(self) -> tuple[set[str], list[State]]:
        """Blocking."""
        known = {condition.name for condition in self._ledger.conditions()}
        volumes, pools = self._ledger.volumes(), Pools.of(self._home, self._ledger)
        percent = self._home.settings.notices.capacity_percent
        states = [
            *pool_states(pools, volumes, percent),
            *disk_states(self._home.path, percent),
            *expiry_states(pools, volumes, time.time_ns()),
            *key_states(self._home),
        ]
        return known, states


#: Kinds of conditions that are looked at quickly and end without a word.
QUICK_KINDS = frozenset({"tape.wanted", "cleaning.wanted"})
#: Kinds of conditions that are looked at slowly.
SLOW_KINDS = frozenset({"capacity.low", "tape.expired", "key.locked"})


def _wanted(prompt: Prompt, whence: str) -> State:
    drive, text = drive_name(prompt.drive), prompt.text + whence
    facts: Facts = {"drive": drive, "put_in": prompt.put_in, "take_out": prompt.take_out, "prompt": prompt.number}
    return State(f"tape.wanted {drive} {text}", "tape.wanted", prompt.put_in or drive, f"{drive}: {text}", facts)


def _dirty(drive: str, sentence: str) -> State:
    return State(f"cleaning.wanted {drive}", "cleaning.wanted", drive, sentence, {"drive": drive})


def pool_states(pools: Pools, volumes: Sequence[Volume], percent: int) -> Iterable[State]:
    """Return the pools whose tapes, with those that they may take from scratch, have little room. Pure."""
    blank_scratch = sum(_room(volume) for volume in volumes if volume.pool == SCRATCH)
    for pool in pools:
        own = [volume for volume in volumes if volume.pool == pool.name]
        if not own or pool.name == SCRATCH:
            continue
        total = sum(volume.capacity_bytes for volume in own)
        free = sum(_room(volume) for volume in own) + (blank_scratch if pool.use_scratch else 0)
        if free * 100 < total * percent:
            facts: Facts = {"pool": pool.name, "free_bytes": free, "capacity_bytes": total}
            text = f"Pool {pool.name} has room for {free:,} bytes left, of {total:,} on its tapes: add blank tapes."
            yield State(f"capacity.low pool {pool.name}", "capacity.low", f"pool {pool.name}", text, facts)


def _room(volume: Volume) -> int:
    """Return how much may still be written to a tape."""
    if volume.location or volume.state not in (VolumeState.BLANK, VolumeState.APPENDABLE):
        return 0
    return max(volume.capacity_bytes - volume.used_bytes, 0)


def disk_states(
    folder: Path, percent: int, usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage
) -> Iterable[State]:
    """Return whether the disk of the state folder is nearly full. Blocking."""
    total, _, free = usage(folder)
    if free * 100 < total * percent:
        facts: Facts = {"free_bytes": free, "capacity_bytes": total}
        text = f"The disk of the state folder has {free:,} bytes left, of {total:,}."
        yield State("capacity.low disk", "capacity.low", "disk", text, facts)


def expiry_states(pools: Pools, volumes: Sequence[Volume], now_ns: int) -> Iterable[State]:
    """Return the tapes whose time is over by the rule of their pool, if that is TAF's. Pure, but for the time zone."""
    for volume in volumes:
        pool = pools.find(volume.pool)
        if pool is None or pool.retention.kind is not RetentionKind.TAPE_MONTHS or not volume.labelled_at_ns:
            continue
        if end_of_month(volume.labelled_at_ns, pool.retention.count) <= now_ns and volume.used_bytes:
            text = f"Tape {volume.label} has expired: its {pool.retention.count} months are over."
            facts: Facts = {"tape": volume.label, "pool": pool.name}
            yield State(f"tape.expired {volume.volume_id}", "tape.expired", volume.label, text, facts)


def key_states(home: Home) -> Iterable[State]:
    """Return the keys that new tapes are to be encrypted with and that are locked. Blocking."""
    settings = home.settings.encryption
    wanted = {settings.key, *settings.pools.values()} - {""}
    for name in sorted(wanted):
        try:
            key = KeyStore(home.keys).find(name)
        except NoSuchThing:
            continue  # Whoever wants to write with it is told so.
        if not home.keyring.has(key.fingerprint):
            text = f"Key {name} is locked: what is encrypted with it cannot be read; `tapefs key unlock {name}`."
            yield State(f"key.locked {key.fingerprint}", "key.locked", name, text, {"key": name})
