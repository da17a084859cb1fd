"""Which tape a running backup gets: what it wants, what the ledger knows, and what lies where. One trio run.

The choice itself is a pure function, `tapefs.retention.allocation`. Reading the ledger takes 45 ms for 10,000 sets and
is done in place, because nobody else may take the tape between the choice and `Library.hold`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import structlog
import trio

from catalog.ids import JobNumber, VolumeId
from catalog.ledger import Ledger
from catalog.records import Volume, VolumeState
from drivers.lto import Use
from sidecar.tapes.library import Library
from tapefs.condition.blame import Blame
from tapefs.condition.known import blame_now, condition_now
from tapefs.errors import NoTape
from tapefs.home import Home
from tapefs.keys.policy import TapeKeys
from tapefs.retention import allocation
from tapefs.retention.allocation import Answer, Candidate, Choice, Source, Want
from tapefs.retention.candidates import candidates_of
from tapefs.retention.pools import SCRATCH, Pools

log = structlog.get_logger(__name__)


def want_of(
    home: Home, ledger: Ledger, number: JobNumber, pool: str, exclude: Collection[VolumeId], now_ns: int
) -> Want:
    """Return what a running job wants. Raises NotFound, NoSuchThing."""
    job = ledger.job(number)
    found = Pools.of(home, ledger).get(pool)
    return Want(pool=found, now_ns=now_ns, job_id=job.job_id, set_id=job.set_id, exclude=exclude)


def weigh(
    home: Home,
    ledger: Ledger,
    library: Library,
    want: Want,
    drive: int | None,
    given_up: Collection[VolumeId] = frozenset(),
) -> Choice:
    """Say of every tape of the pool whether a drive could have it now; without a drive, whether any could.

    Those of `given_up` count as if the drives that they are in had given them up.
    """
    pools = Pools.of(home, ledger)
    keys = TapeKeys(home)
    known = candidates_of(ledger, pools, want.now_ns, want.zone)
    bad = _bad_tapes(ledger, [each.volume for each in known], want.now_ns)
    placed = [
        replace(_placed(library, each, drive, keys, given_up), bad=bad.get(each.volume.code, "")) for each in known
    ]
    return allocation.choose(want, placed)


def choose(home: Home, ledger: Ledger, library: Library, want: Want, drive: int) -> Answer:
    """Return the tape to write next, with where it comes from. Raises NoTape, with what to do.

    Of what need not be overwritten, a tape in which a drive has failed since it was written to is the last choice.
    """
    choice = weigh(home, ledger, library, _without_noted(ledger, want), drive)
    if choice.taken is None or choice.taken.source is Source.REUSED:
        choice = weigh(home, ledger, library, want, drive)
    if choice.taken is None:
        raise NoTape(_nothing_left(ledger, library, want, choice))
    return choice.taken


def begun_elsewhere(
    home: Home, ledger: Ledger, library: Library, want: Want, drive: int, unread: Callable[[VolumeId], bool]
) -> VolumeId | None:
    """Return the begun tape that this drive would go on with, were it not in another one that has nothing to do.

    `unread` tells that nobody reads a tape.
    """
    idle = [each for each in library.idle_tapes(drive) if unread(each)]
    taken = weigh(home, ledger, library, _without_noted(ledger, want), drive, idle).taken if idle else None
    if taken is None or taken.source is not Source.BEGUN or taken.volume.volume_id not in idle:
        return None
    return taken.volume.volume_id


def _without_noted(ledger: Ledger, want: Want) -> Want:
    """Leave out tapes in which a drive has failed."""
    noted = {volume.volume_id for volume in ledger.volumes() if volume.reason}
    return replace(want, exclude={*want.exclude, *noted})


def idle_elsewhere(home: Home, ledger: Ledger, library: Library, want: Want) -> VolumeId | None:
    """Return the tape that would do if it were not in a drive whose task does not work with it."""
    taken = weigh(home, ledger, library, want, None).taken
    if taken is None or library.is_held(taken.volume.volume_id):
        return None
    return taken.volume.volume_id


async def take_over(ledger: Ledger, taken: Answer, want: Want) -> None:
    """Have a tape of the scratch pool belong to the pool it was taken for. Raises catalog errors."""
    volume = taken.volume
    log.info("tape chosen", tape=volume.label, pool=want.pool.name, reason=taken.reason)
    if taken.source is Source.SCRATCH:
        await trio.to_thread.run_sync(ledger.assign_volume, volume.volume_id, want.pool.name, want.now_ns)


def _bad_tapes(ledger: Ledger, volumes: Sequence[Volume], now_ns: int) -> dict[str, str]:
    """Return why tapes are too bad to be written to. Most have nothing against them, and are not looked at closely."""
    lives = {life.code: life for life in ledger.lives()}
    watched = [each for each in volumes if each.code in lives and each.state is not VolumeState.SUSPECT]
    whose = blame_now(ledger, now_ns) if watched else Blame()
    found = {}
    for volume in watched:
        condition = condition_now(ledger, volume, now_ns, whose)
        if not condition.may_be_written:
            found[volume.code] = f"its condition is {condition.score} of 100: {condition.reasons[0].sentence}"
    return found


def _placed(
    library: Library, each: Candidate, drive: int | None, keys: TapeKeys, given_up: Collection[VolumeId]
) -> Candidate:
    volume_id = each.volume.volume_id
    is_here = library.is_here(volume_id)
    is_held = drive is not None and is_here and volume_id not in given_up and not library.is_free_for(volume_id, drive)
    unfit = keys.obstacle(each.volume) if each.volume.state is VolumeState.APPENDABLE else ""
    misfit = library.misfit(each.volume, drive, Use.WRITING)
    return replace(each, is_in_library=is_here, is_held=is_held, unfit=unfit, misfit=misfit)


def _nothing_left(ledger: Ledger, library: Library, want: Want, choice: Choice) -> str:
    name = want.pool.name
    away = [answer.volume for answer in choice.answers if _would_do(answer.volume, library)]
    hint = ""
    if away:
        where = f" and lies in {away[0].location}" if away[0].location else ""
        hint = f", for instance {away[0].label}, which has room{where}"
    elif blank := _blank_elsewhere(ledger, name):
        hint = f", or give it one of pool {blank.pool}: `tapefs pool assign {name} {blank.label}`"
    why = f"; `tapefs pool show {name}` says why no other" if choice.answers else ""
    return f"no tape with room is left in pool {name}: put a blank tape into the library{hint}{why}"


def _would_do(volume: Volume, library: Library) -> bool:
    """Is only its place against a tape?"""
    has_room = volume.state is VolumeState.APPENDABLE and volume.used_bytes < volume.capacity_bytes
    is_away = bool(volume.location) or not library.is_here(volume.volume_id)
    return is_away and (has_room or volume.state is VolumeState.BLANK)


def _blank_elsewhere(ledger: Ledger, name: str) -> Volume | None:
    blank = (each for each in ledger.volumes() if each.state is VolumeState.BLANK and each.pool not in (name, SCRATCH))
    return next(blank, None)
