"""The trio run of the sidecar: puts the parts together, runs them, ends them.

The end (SIGTERM, SIGINT, SIGHUP, or idle): no new connections, streams end, movers are asked to cancel and their
sockets closed, what is left of connections is cut.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import trio
from starlette.types import ASGIApp

from catalog.ledger import Ledger
from drivers.registry import cartridge_bytes, drive_name, open_changer
from sidecar.access.access import Access
from sidecar.access.gate import TcpGate
from sidecar.access.tls import Tls
from sidecar.bell import Bell
from sidecar.drives.alongside import Alongside
from sidecar.drives.cleanings import Cleanings
from sidecar.drives.drive import DriveTask
from sidecar.drives.giving_way import GivingWay
from sidecar.drives.health import Fleet
from sidecar.drives.movers import MoverCommand
from sidecar.drives.shared import Shared
from sidecar.http.accounting import Accounting, HttpFigures
from sidecar.http.app import make_app
from sidecar.http.callers import Role
from sidecar.http.gates import BodyLimits, PeerGate
from sidecar.http.listeners import Connections, HttpServer, Listener
from sidecar.jobs.checking import Checks
from sidecar.jobs.hooks import JobHooks
from sidecar.jobs.queue import Jobs
from sidecar.jobs.streams import Streams
from sidecar.keeping import Keeping
from sidecar.lag import Lag
from sidecar.live.hub import Live
from sidecar.live.looking import Looking
from sidecar.mount_child import MountChild
from sidecar.notices.desk import Notices
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.evictor import Evictor, limit_bytes
from sidecar.recalls.pins import Pins
from sidecar.recalls.recalling import Recalls
from sidecar.recalls.unlocking import Unlocking
from sidecar.recalls.walks import Walks
from sidecar.records import Records
from sidecar.restores.restoring import Restorations
from sidecar.schedules.scheduling import Scheduler
from sidecar.service import Service
from sidecar.tapes.library import Library
from sidecar.tapes.tasks import TapeTasks
from sidecar.upkeep.tasks import Upkeep
from sidecar.verifications.queue import Verifications
from sidecar.view.files import Files
from sidecar.wlcg.bulk import BulkStaging
from tapefs.audit import AuditLog
from tapefs.home import Home
from tapefs.keys.opening import opened_by_files

#: A sidecar that ends by itself does so after this long without work and connections.
IDLE_S = 1.0
#: … but gives whoever started it this long to connect.
FIRST_CONNECTION_S = 10.0
#: What is read on behind readers takes so much of the room for staging.
READ_ON_SHARE = 8
#: How long the start waits for the drives; one that is slower comes later.
DRIVES_S = 15.0

#: Thresholds of the garbage collector: requests leave few cycles behind.
_GARBAGE = (10_000, 20, 50)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run."""

    mount: Path | None
    until_idle: bool
    command: MoverCommand
    #: Descriptors that movers keep open.
    inherit: Sequence[int]
    #: Called when everything answers.
    on_ready: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Tcp:
    """The TCP listener."""

    bound: socket.socket
    host: str
    token: str
    #: None: what goes over it can be read on the way.
    tls: Tls | None


@dataclass(frozen=True, slots=True)
class Unix:
    """The Unix socket."""

    bound: socket.socket
    owner_uid: int
    #: The group that is admitted beside root and the owner.
    gid: int | None


async def run_sidecar(home: Home, ledger: Ledger, options: Options, unix: Unix, tcp: Tcp | None) -> None:
    """Serve until the end. Raises what keeps the sidecar from starting: DriveError, NotNow."""
    http = HttpServer()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        service = await _assemble(home, ledger, options)
        app = make_app(service)

        def outermost(inner: ASGIApp) -> ASGIApp:
            return Accounting(BodyLimits(inner), service.audit, service.figures)

        peers = PeerGate(app, unix.owner_uid, Role[home.settings.http.socket_role.upper()])
        listeners = [Listener(unix.bound, outermost(peers), unix.owner_uid, unix.gid)]
        if tcp is not None:
            gate = TcpGate(app, service.access, tcp.token, tcp.host)
            listeners.append(Listener(tcp.bound, outermost(gate), tls=tcp.tls))
            for warning in service.access.warnings():
                log.warning(warning)
            log.info("listening", address=tcp.bound.getsockname())
        try:
            async with trio.open_nursery() as servers:
                servers.start_soon(http.serve, listeners)
                await _work(service, options, http, signals)
        finally:
            service.files.close()
            await service.library.close()
    log.info("sidecar ended")


async def _work(service: Service, options: Options, http: HttpServer, signals: AsyncIterator[int]) -> None:
    """Run all tasks until the end has come; then have HTTP end, too."""
    end = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_wait_signal, signals, end)
        for drive in service.drives:
            nursery.start_soon(drive.run)
        for name, run in _parts(service, options).items():
            if options.until_idle:  # Who waits for this sidecar is better told at once, by its end.
                nursery.start_soon(run)
            else:
                nursery.start_soon(service.keeping.keep, name, run)
        nursery.start_soon(_get_ready, service, options, http.connections, nursery, end)
        await end.wait()
        await service.streams.end()
        await service.notices.say_farewell()
        await service.live.catch_up()
        service.live.end()
        service.arrivals.end()
        http.end()
        nursery.cancel_scope.cancel()


def _parts(service: Service, options: Options) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return what works in the background and can be begun again at any time, by the names that people are told."""
    parts: dict[str, Callable[[], Awaitable[None]]] = {
        "jobs": service.jobs.run,
        "hooks of jobs": service.job_hooks.run,
        "streams": service.streams.run,
        "verifications behind jobs": service.checks.run,
        "pins": service.pins.run,
        "logins": service.access.registry.run,
        "evictions": service.evictor.run,
        "deadlines of recalls": service.recalls.run_deadlines,
        "bulk staging": service.bulk.run,
        "history of recalls": service.recalls.desk.run,
        "notices": service.notices.run,
        "events": service.live.run,
        "progress": _looking(service).run,
        "reads over HTTP": service.files.run_waits,
        "reading ahead over HTTP": service.files.run_walks,
        "what was staged before": partial(_bring_back, service, options),
        "restores": partial(service.restorations.run, goes_on=not options.until_idle),
        "upkeep": service.upkeep.run,
        "figures": service.lag.run,
    }
    if not options.until_idle:
        parts["records of the ledger"] = service.records.run
        parts["schedules"] = partial(service.scheduler.run, service)
    return parts


def _looking(service: Service) -> Looking:
    return Looking(
        service.live,
        service.ledger,
        service.library,
        service.jobs,
        service.recalls,
        service.drives,
        service.verifications,
        service.tape_tasks,
        service.restorations,
    )


async def _get_ready(
    service: Service, options: Options, connections: Connections, nursery: trio.Nursery, end: trio.Event
) -> None:
    """Say that everything answers, when it does. Raises NotNow when the mount does not come up."""
    with trio.move_on_after(DRIVES_S):
        for drive in service.drives:
            await drive.tried.wait()
    if options.mount is not None:
        await nursery.start(MountChild(service.home, options.mount).run)
    gc.freeze()  # What is there now stays; looking through it again and again takes tens of milliseconds each time.
    gc.set_threshold(*_GARBAGE)
    await service.notices.say_ready()
    log.info("ready", home=str(service.home.path), pid=os.getpid())
    options.on_ready()
    if options.until_idle:
        await _wait_idle(service, connections)
        log.info("nothing left to do")
        end.set()


async def _bring_back(service: Service, options: Options) -> None:
    """Have the staging area as it was: what the machine's last run has left, and pinned frames that are missing.

    Done twice it changes nothing more.
    """
    await service.evictor.revive()
    if not options.until_idle:
        # A sidecar that a command has started for itself moves no tape for others.
        service.recalls.order(service.pins.ranges(service.pins.all()))


async def _wait_signal(signals: AsyncIterator[int], end: trio.Event) -> None:
    async for number in signals:
        log.info("ending", signal=signal.Signals(number).name)
        end.set()
        return


async def _wait_idle(service: Service, connections: Connections) -> None:
    """Wait until there has been neither work nor a connection for a while. Looks ten times a second."""
    quiet_s = 0.0
    while not service.is_idle() or quiet_s < (IDLE_S if connections.had_any else FIRST_CONNECTION_S):
        await trio.sleep(0.1)
        quiet_s = connections.quiet_s()


async def _assemble(home: Home, ledger: Ledger, options: Options) -> Service:
    """Make the parts and look into the library. Raises DriveError when the changer does not work."""
    changer = await trio.to_thread.run_sync(open_changer, home.library_config)
    bell, arrivals = Bell(), Arrivals()
    library = Library(home, ledger, changer, partial(cartridge_bytes, home.library_config))
    await library.refresh()
    jobs = Jobs(home, ledger, bell)
    streams = Streams(home, jobs)
    limit = await trio.to_thread.run_sync(limit_bytes, home)
    recalls = Recalls(home, ledger, library, arrivals, bell, Walks(limit))
    verifications, tape_tasks = Verifications(ledger, bell), TapeTasks(ledger, bell)
    cleanings = Cleanings(ledger, library, bell, home.settings.library.cleaning)
    names = [drive_name(number) for number in range(home.settings.library.drive_count)]
    await trio.to_thread.run_sync(tape_tasks.resume)
    await trio.to_thread.run_sync(verifications.resume)
    await trio.to_thread.run_sync(cleanings.resume, names)
    home.keyring.replace(await trio.to_thread.run_sync(opened_by_files, home))
    unlocking = Unlocking(home)
    fleet = Fleet(names)
    services: list[Service] = []

    async def drive_failed(reason: str) -> None:
        await services[0].drive_failed(reason)

    pins = await trio.to_thread.run_sync(Pins, ledger, limit * home.settings.staging.pinned_percent // 100)
    evictor = Evictor(home, recalls, pins, limit)
    access = await trio.to_thread.run_sync(Access, home, ledger, jobs.now_ns)
    shared = Shared(
        home=home,
        ledger=ledger,
        library=library,
        jobs=jobs,
        recalls=recalls,
        giving_way=GivingWay(recalls.queue, home.settings.recall.backup_yields_after_s),
        alongside=Alongside(),
        streams=streams,
        cleanings=cleanings,
        verifications=verifications,
        fleet=fleet,
        tape_tasks=tape_tasks,
        unlocking=unlocking,
        bell=bell,
        mover_command=options.command,
        inherit=options.inherit,
        on_failure=drive_failed,
        make_room=evictor.make_room,
        read_on_bytes=limit // READ_ON_SHARE,
    )
    drives = [DriveTask(number, drive_name(number), shared) for number in range(home.settings.library.drive_count)]
    notices = await trio.to_thread.run_sync(
        partial(Notices, home, ledger, library, drives, verifications, cleanings, bell, is_short=options.until_idle)
    )
    files = Files(home, ledger, recalls, arrivals)
    bulk = await trio.to_thread.run_sync(BulkStaging, ledger, files, recalls, pins, evictor, arrivals)
    restorations = await trio.to_thread.run_sync(Restorations, home, ledger, jobs.now_ns)
    upkeep = Upkeep(home, ledger, notices.events, jobs.now_ns)
    await trio.to_thread.run_sync(upkeep.resume)
    services.append(
        Service(
            home=home,
            ledger=ledger,
            library=library,
            jobs=jobs,
            streams=streams,
            checks=Checks(ledger, jobs, verifications),
            recalls=recalls,
            verifications=verifications,
            tape_tasks=tape_tasks,
            cleanings=cleanings,
            arrivals=arrivals,
            evictor=evictor,
            pins=pins,
            drives=drives,
            fleet=fleet,
            unlocking=unlocking,
            files=files,
            access=access,
            notices=notices,
            live=Live(notices.events),
            bulk=bulk,
            restorations=restorations,
            upkeep=upkeep,
            scheduler=Scheduler(home, ledger),
            job_hooks=JobHooks(home, ledger, jobs),
            audit=AuditLog(home.audit),
            figures=HttpFigures(),
            lag=Lag(drives),
            keeping=Keeping(),
            records=Records(ledger),
            ends_by_itself=options.until_idle,
        )
    )
    for drive in drives:
        library.in_drive(drive.number)
    return services[0]
