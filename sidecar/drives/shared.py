"""What the tasks of all drives use together. One trio run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from catalog.ledger import Ledger
from sidecar.bell import Bell
from sidecar.drives.alongside import Alongside
from sidecar.drives.cleanings import Cleanings
from sidecar.drives.giving_way import GivingWay
from sidecar.drives.health import Fleet
from sidecar.drives.movers import MoverCommand
from sidecar.jobs.queue import Jobs
from sidecar.jobs.streams import Streams
from sidecar.recalls.recalling import Recalls
from sidecar.recalls.unlocking import Unlocking
from sidecar.tapes.library import Library
from sidecar.tapes.tasks import TapeTasks
from sidecar.verifications.queue import Verifications
from tapefs.home import Home


@dataclass(frozen=True, slots=True)
class Shared:
    """The queues, the library, and what a mover needs."""

    home: Home
    ledger: Ledger
    library: Library
    jobs: Jobs
    recalls: Recalls
    giving_way: GivingWay
    alongside: Alongside
    streams: Streams
    cleanings: Cleanings
    verifications: Verifications
    fleet: Fleet
    tape_tasks: TapeTasks
    unlocking: Unlocking
    bell: Bell
    mover_command: MoverCommand
    #: Descriptors that movers keep open: the lock on the state folder.
    inherit: Sequence[int]
    #: Called when a mover has died; the argument is the sentence for the operator.
    on_failure: Callable[[str], Awaitable[None]]
    #: Called when the disk of the staging area is full; returns how many bytes were dropped there.
    make_room: Callable[[], Awaitable[int]]
    #: So far may a mover read on behind what is wanted, in bytes of plain stream.
    read_on_bytes: int
