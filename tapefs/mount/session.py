"""The mount's process: puts its parts together, mounts, serves until a signal or an unmount, and cleans up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import structlog
import trio

from catalog.lmdb_ledger import LmdbLedger
from tapefs.errors import HomeError
from tapefs.home import Home
from tapefs.keys.told import Unlocked
from tapefs.mount import mount_point, operations, tuning
from tapefs.mount.content import Contents
from tapefs.mount.describe import Description
from tapefs.mount.recalls import Recalls
from tapefs.mount.sidecar_link import SidecarLink
from tapefs.mount.stages import Stages
from tapefs.mount.wakefulness import Wakefulness
from tapefs.mount.walks import Walks
from tapefs.vfs.archive import Archive
from tapefs.vfs.residency import Residency
from tapefs.vfs.totals import Totals
from tapefs.vfs.tree import Owner, Tree

#: Requests of the kernel served at a time; a read that waits for tape takes one.
MAX_TASKS = 5000
#: Never taken by waiting reads, so that everything else goes on.
RESERVED_TASKS = 64

_OPTIONS = frozenset({"ro", "nosuid", "nodev", "default_permissions", "fsname=tapefs", "subtype=tapefs"})

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

log = structlog.get_logger("tapefs.mount")


def run_mount(
    home: Home, directory: Path, *, allow_other: bool = False, ready: Callable[[], None] | None = None
) -> None:
    """Mount the archive at `directory` and serve it until SIGTERM, SIGINT or an unmount; then leave nothing behind.

    Logs to stderr unless structlog was set up before. Runs trio in the calling thread, the main one because of signals.
    `ready` is called once the mount answers. Raises UsageError, HomeError, CatalogError.
    """
    if not structlog.is_configured():
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    path = mount_point.prepare(directory)
    tuning.raise_open_files()
    with ExitStack() as stack:
        stack.enter_context(_signals_held())
        ledger = stack.enter_context(closing(LmdbLedger.open(home.ledger, readonly=True)))
        archive = stack.enter_context(closing(Archive(home, ledger)))
        stages = stack.enter_context(closing(Stages(home.staging)))
        wakefulness = stack.enter_context(closing(Wakefulness()))
        mount = _Mount(home, ledger, archive, stages, wakefulness)
        tuning.calm_collector()
        with mount.at(path, allow_other=allow_other):
            trio.run(mount.serve, path, ready)


class _Mount:
    """One mount, from its parts."""

    def __init__(
        self, home: Home, ledger: LmdbLedger, archive: Archive, stages: Stages, wakefulness: Wakefulness
    ) -> None:
        self._wakefulness = wakefulness
        self._link = SidecarLink(home.socket)
        self._recalls = Recalls(self._link, MAX_TASKS - RESERVED_TASKS, home.settings.recall.user_waiting_reads)
        self._walks = Walks(archive, self._link)
        has_key = Unlocked(home.unlocked).has
        residency = Residency(ledger, stages.look, self._recalls.is_awaited, lambda: self._recalls.can_recall, has_key)
        status = os.stat(home.path)
        self._operations = operations.MountOperations(
            Tree(archive, ledger, Owner(status.st_uid, status.st_gid)),
            Contents(archive, stages, self._recalls, self._walks, home.settings.recall.deadline_s),
            Description(residency),
            Totals(archive),
        )

    @contextmanager
    def at(self, path: Path, *, allow_other: bool) -> Iterator[None]:
        """Mount at `path`, and unmount behind it whatever happens."""
        options = set(_OPTIONS | {"allow_other"} if allow_other else _OPTIONS)
        try:
            operations.attach(self._operations, str(path), options, self._wakefulness)
        except RuntimeError as error:
            raise HomeError(f"cannot mount at {path}: {error}; see what FUSE said above") from error
        try:
            mount_point.verify(path)
            yield
        finally:
            operations.detach(unmount=True)
            self._operations.close()
            log.info("unmounted", directory=str(path))

    async def serve(self, path: Path, ready: Callable[[], None] | None) -> None:
        """Serve requests and talk to the sidecar until a signal or an unmount."""
        async with self._link, trio.open_nursery() as nursery:
            await nursery.start(self._stop_at_signal)
            nursery.start_soon(self._recalls.run)
            nursery.start_soon(self._walks.run)
            nursery.start_soon(self._announce, path, ready)
            await operations.serve_requests(MAX_TASKS)
            nursery.cancel_scope.cancel()

    async def _announce(self, path: Path, ready: Callable[[], None] | None) -> None:
        # In a thread, because it is we who answer; the answer shows that the kernel has been greeted.
        await trio.to_thread.run_sync(os.statvfs, path, abandon_on_cancel=True)
        found = mount_point.verify(path)
        await trio.to_thread.run_sync(tuning.tune, found.minor)
        log.info("mounted", directory=str(path))
        if ready is not None:
            ready()

    async def _stop_at_signal(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*_SIGNALS) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            task_status.started()
            async for number in signals:
                log.info("ending", signal=signal.Signals(number).name)
                # Waiting reads are answered first: the session ends when no request is at hand.
                self._recalls.close()
                operations.stop()


@contextmanager
def _signals_held() -> Iterator[None]:
    """Hold signals back until there is somebody to heed them: one between mounting and serving would leave a stale
    mount.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
