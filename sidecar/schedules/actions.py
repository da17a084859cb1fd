"""What a run of a schedule does, beside backups: read back, expire, clean, check, copy the catalog, reclaim, restore.

One trio run. What reads much, or touches content, is a command of our own in a process of its own. Everything here may
be begun again when the sidecar was killed meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import trio

from catalog.notice_records import Facts
from catalog.records import SetState, VolumeState
from catalog.schedule_records import (
    Action,
    BackUp,
    CheckHealth,
    CheckRetention,
    Clean,
    CopyCatalog,
    Expire,
    Reclaim,
    Restore,
    RunState,
    Verify,
)
from catalog.task_records import TaskState
from sidecar.drives.cleanings import CleaningTask
from sidecar.schedules.programs import Ended, last_line, run_own
from sidecar.tapes.task_log import OWN_KEEPER
from sidecar.tapes.tasks import TapeTask
from sidecar.upkeep.checking import check_catalog
from sidecar.upkeep.copying import copy_catalog
from sidecar.verifications.bases import with_bases
from tapefs.check.process import Found
from tapefs.errors import NoSuchThing, NoTape, NotNow
from tapefs.mover.messages import Reclaim as ReclaimTape
from tapefs.reclaim.candidates import Living, almost_empty
from tapefs.retention.expire import expire, verdicts_of
from tapefs.retention.policy import Wish
from tapefs.retention.pools import Pools
from tapefs.schedule.zones import NS_PER_S

if TYPE_CHECKING:
    from sidecar.service import Service

#: What goes on elsewhere is looked at so often; the look takes microseconds.
POLL_S = 0.5
#: Problems that are told one by one.
_TOLD = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an action has ended."""

    state: RunState
    #: Why it failed, for people.
    error: str = ""
    #: What was done, for people.
    result: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What an action has at hand."""

    service: Service
    now_ns: int
    #: Set when it is to stop.
    given_up: trio.Event


async def perform(action: Action, scene: Scene) -> Outcome:
    """Do it. Raises what the parts raise when it cannot be done: TapefsError, CatalogError, OSError."""
    if isinstance(action, Verify):
        return await _verify(action, scene)
    if isinstance(action, Expire):
        return await _expire(action, scene)
    if isinstance(action, CheckRetention):
        return await _check_retention(scene)
    if isinstance(action, Clean):
        return await _clean(action, scene)
    if isinstance(action, CheckHealth):
        return await _check_health(scene)
    if isinstance(action, CopyCatalog):
        return await _copy_catalog(action, scene)
    if isinstance(action, Reclaim):
        return await _reclaim(action, scene)
    if isinstance(action, Restore):
        return await _restore(action, scene)
    raise AssertionError(
        f"{type(action).__name__} is no action of this module: {BackUp.__name__} goes through the queue"
    )


async def until(is_done: Callable[[], bool], given_up: trio.Event, give_up: Callable[[], Awaitable[None]]) -> None:
    """Wait until something is done; when it is to be given up, say so once, and go on waiting."""
    was_told = False
    while not is_done():
        if given_up.is_set():
            if not was_told:
                was_told = True
                await give_up()
            await trio.sleep(POLL_S)
        else:
            with trio.move_on_after(POLL_S):
                await given_up.wait()


def told(problems: Sequence[str]) -> str:
    """Return some problems in one sentence."""
    more = f"; and {len(problems) - _TOLD} more" if len(problems) > _TOLD else ""
    return "; ".join(problems[:_TOLD]) + more


# -- tapes -----------------------------------------------------------------------------------------------------------


async def _verify(action: Verify, scene: Scene) -> Outcome:
    verifications = scene.service.verifications
    since_ns = scene.now_ns - action.unless_days * 86_400 * NS_PER_S if action.unless_days else None
    everything = not (action.sets or action.tapes)
    sets = await trio.to_thread.run_sync(with_bases, scene.service.ledger, action.sets)
    run = await verifications.start(
        sets,
        action.tapes,
        everything=everything,
        since_ns=since_ns,
        sample=action.sample,
        keeper=OWN_KEEPER,
    )

    async def give_up() -> None:
        if run.is_open:
            verifications.cancel(run.number)

    await until(lambda: not run.is_open, scene.given_up, give_up)
    good = sum(task.state.value == "good" for task in run.tasks)
    result = f"{good} of {len(run.tasks)} copies of segments are as they were written"
    if run.state == "cancelled":
        return Outcome(RunState.CANCELLED, "it was cancelled", result)
    bad = [
        f"{task.tape}: {told(task.problems) or task.state.value}" for task in run.tasks if task.state.value != "good"
    ]
    return Outcome(RunState.FAILED, told(bad), result) if bad else Outcome(RunState.COMPLETED, "", result)


async def _clean(action: Clean, scene: Scene) -> Outcome:
    cleanings, drives = scene.service.cleanings, scene.service.drives
    unknown = set(action.drives) - {drive.name for drive in drives}
    if unknown:
        raise NoSuchThing(f"there is no drive {', '.join(sorted(unknown))}: see `tapefs drives`")
    wanted = action.drives or tuple(drive.name for drive in drives if cleanings.is_wanted(drive.name))
    tasks: list[CleaningTask] = []
    problems: list[str] = []
    for drive in wanted:
        try:
            tasks.append(cleanings.add(drive, keeper=OWN_KEEPER))
        except (NotNow, NoTape) as error:
            problems.append(f"{drive}: {error}")

    async def give_up() -> None:
        for task in tasks:
            if task.state is TaskState.WAITING:
                cleanings.cancel(task.number)

    await until(lambda: not any(task.is_open for task in tasks), scene.given_up, give_up)
    problems += [f"{task.drive}: {task.error}" for task in tasks if task.state is TaskState.FAILED]
    cleaned = [task.drive for task in tasks if task.state is TaskState.DONE]
    result = f"cleaned: {', '.join(cleaned)}" if cleaned else "no drive asks to be cleaned" if not wanted else "none"
    return _ended(problems, any(task.state is TaskState.CANCELLED for task in tasks), result)


async def _reclaim(action: Reclaim, scene: Scene) -> Outcome:
    service = scene.service
    await service.library.refresh()
    chosen = await trio.to_thread.run_sync(_almost_empty, service, action)
    tasks: list[TapeTask] = []
    problems: list[str] = []
    for living in chosen:
        volume = living.volume
        if service.library.place_of(volume.code) is None:
            problems.append(f"tape {volume.label}: {service.library.missing(volume)}")
            continue
        try:
            reclaim = ReclaimTape(id=0, volume_id=volume.volume_id)
            tasks.append(service.tape_tasks.add(volume, reclaim, OWN_KEEPER))
        except NotNow as error:
            problems.append(str(error))

    async def give_up() -> None:
        for task in tasks:
            if task.is_open:
                await service.tape_tasks.cancel(task.number)

    await until(lambda: not any(task.is_open for task in tasks), scene.given_up, give_up)
    problems += [f"tape {task.tape}: {task.error}" for task in tasks if task.state is TaskState.FAILED]
    done = [task.tape for task in tasks if task.state is TaskState.DONE]
    result = f"reclaimed: {', '.join(done)}" if done else f"no tape of pool {action.pool} was reclaimed"
    return _ended(problems, any(task.state is TaskState.CANCELLED for task in tasks), result)


def _almost_empty(service: Service, action: Reclaim) -> list[Living]:
    pool = Pools.of(service.home, service.ledger).get(action.pool)
    return almost_empty(service.ledger, service.ledger.volumes(), pool.name, action.below_percent)


def _ended(problems: Sequence[str], is_cancelled: bool, result: str) -> Outcome:
    if is_cancelled:
        return Outcome(RunState.CANCELLED, "it was cancelled", result)
    return Outcome(RunState.FAILED, told(problems), result) if problems else Outcome(RunState.COMPLETED, "", result)


# -- retention -------------------------------------------------------------------------------------------------------


async def _expire(action: Expire, scene: Scene) -> Outcome:
    service = scene.service
    work = partial(expire, service.home, service.ledger, scene.now_ns, Wish(failed=action.failed))
    outcome = await trio.to_thread.run_sync(work)
    gone = f"{len(outcome.expired)} of {len(outcome.verdicts)} sets have gone"
    return Outcome(RunState.COMPLETED, "", f"{gone}, {outcome.freed_bytes:,} bytes freed in the state folder")


async def _check_retention(scene: Scene) -> Outcome:
    verdicts = await trio.to_thread.run_sync(verdicts_of, scene.service.ledger, scene.now_ns)
    going = [verdict.backup_set.name for verdict in verdicts if verdict.goes]
    names = f": {told(going)}" if going else ""
    return Outcome(RunState.COMPLETED, "", f"{len(going)} of {len(verdicts)} sets may go{names}")


# -- commands of our own ---------------------------------------------------------------------------------------------


async def _check_health(scene: Scene) -> Outcome:
    service = scene.service
    problems = [drive.health.sentence() for drive in service.drives if drive.health.is_hopeless]
    problems += [service.cleanings.sentence(drive) for drive in service.cleanings.asking()]
    volumes = await trio.to_thread.run_sync(service.ledger.volumes)
    suspect = [volume.label for volume in volumes if volume.state is VolumeState.SUSPECT]
    problems += [f"tape {label} is suspect" for label in suspect]
    found: list[Found] = []
    why = await check_catalog(
        service.home, (), scene.given_up, lambda told: found.append(told.found) if told.found else None
    )
    if why:
        problems.append(f"`tapefs check`: {why}")
    problems += [f"{each.check}: {each.subject}: {each.problem}" for each in found]
    if scene.given_up.is_set():
        return Outcome(RunState.CANCELLED, "it was cancelled")
    if problems:
        return Outcome(RunState.FAILED, told(problems), f"{len(problems)} findings")
    return Outcome(
        RunState.COMPLETED, "", f"{len(service.drives)} drives, {len(volumes)} tapes and the catalog: all right"
    )


async def _copy_catalog(action: CopyCatalog, scene: Scene) -> Outcome:
    where, ended = await copy_catalog(scene.service.home, action, scene.now_ns, scene.given_up)
    outcome = _of_command(ended)
    if outcome.state is not RunState.COMPLETED:
        return outcome
    say = scene.service.notices.events.say
    await say("catalog.copied", where, f"the catalog was copied to {where} by schedule", {"to": where})
    return outcome


async def _restore(action: Restore, scene: Scene) -> Outcome:
    sets = await trio.to_thread.run_sync(scene.service.ledger.backup_sets)
    wanted = [each for each in sets if (action.set_id == each.set_id if action.set_id else action.name == each.name)]
    found = [each for each in wanted if each.state is SetState.COMPLETE]
    facts: Facts = {"name": action.name, "target": action.target, "set_id": action.set_id or None}
    say = scene.service.notices.events.say
    if not found:
        why = f"there is no complete set {action.set_id or f'of the name {action.name}'} to restore"
        await say("restore.failed", action.name, f"{action.name} was not restored to {action.target}: {why}", facts)
        raise NoSuchThing(why)
    newest = max(found, key=lambda each: each.number)
    facts, what = facts | {"set_id": newest.set_id}, f"set {newest.number} ({newest.name})"
    await say("restore.started", action.name, f"restoring {what} to {action.target} by schedule", facts)
    options = ["--to", action.target] + (["--overwrite"] if action.overwrite else [])
    outcome = _of_command(
        await run_own(scene.service.home, ["restore", *options, "--", newest.set_id, *action.paths], scene.given_up)
    )
    if outcome.state is RunState.COMPLETED:
        await say("restore.succeeded", action.name, f"{what} was restored to {action.target}", facts)
    else:
        text = f"{what} was not restored to {action.target}: {outcome.error}"
        await say("restore.failed", action.name, text, facts | {"error": outcome.error})
    return outcome


def _of_command(ended: Ended) -> Outcome:
    if not ended.error:
        return Outcome(RunState.COMPLETED, "", last_line(ended))
    if ended.error == "it was given up":
        return Outcome(RunState.CANCELLED, "it was cancelled")
    return Outcome(RunState.FAILED, last_line(ended) or ended.error, "")
