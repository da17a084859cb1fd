"""The mount as a child of the sidecar: started, watched, started again when it dies, ended with the sidecar.

A sidecar that is killed leaves its mount behind, where readers go on waiting; the next one for the same folder takes it
over. One trio run; the process is started from its thread, as a mover is.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import structlog
import trio

from sidecar.drives.movers import wait_exit
from tapefs.errors import NotNow
from tapefs.home import Home
from tapefs.mount.mount_point import is_archive_at

#: How long the first start may take.
UP_S = 60.0
#: How long it may take to unmount when asked to; readers that wait for tape are let go at once.
END_S = 10.0
#: Pause before it is started again, doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0

log = structlog.get_logger(__name__)


class Survivor:
    """The mount of a sidecar that was killed: what is needed of it here is as of a child."""

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError when it is gone by now."""
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return 0 when it has ended: its real code is for its parent."""
        return 0 if select.select([self._descriptor], [], [], 0)[0] else None

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal; one that has ended gets none."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


Process = subprocess.Popen[bytes] | Survivor


class MountChild:
    """A process that serves the mount at a folder."""

    def __init__(self, home: Home, folder: Path) -> None:
        self._home = home
        self._folder = folder.absolute()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Keep the mount up until cancelled; started when it is up for the first time.

        Raises NotNow when it does not.
        """
        process: Process = await trio.to_thread.run_sync(self._find_survivor) or self._start()
        try:
            await self._wait_up(process)
            task_status.started()
            pause_s = FIRST_PAUSE_S
            while True:
                await wait_exit(process)
                log.error("the mount ended, starting it again", folder=str(self._folder), code=process.poll())
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                process = self._start()
        finally:
            await _end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._arguments(), stdin=subprocess.DEVNULL, process_group=0)

    def _arguments(self) -> list[str]:
        return [sys.executable, "-m", "tapefs", "--home", str(self._home.path), "mount", str(self._folder)]

    def _find_survivor(self) -> Survivor | None:
        """Return the process that serves an archive at the folder, if it is ours. Raises NotNow if it is not."""
        if not is_archive_at(self._folder):
            return None
        command_line = b"".join(os.fsencode(part) + b"\0" for part in self._arguments())
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                process = Path("/proc", name)
                if (process / "cmdline").read_bytes() == command_line and process.stat().st_uid == os.geteuid():
                    log.info("the mount of a sidecar before is taken over", folder=str(self._folder), pid=int(name))
                    return Survivor(int(name))
        raise NotNow(
            f"an archive is mounted at {self._folder} already: unmount it with `umount {self._folder}`, "
            "or leave out --mount"
        )

    async def _wait_up(self, process: Process) -> None:
        with trio.move_on_after(UP_S):
            while process.poll() is None:
                # Asking a mount that has died hangs or fails; it is asked in a thread and given up with the deadline.
                if await trio.to_thread.run_sync(is_archive_at, self._folder, abandon_on_cancel=True):
                    return
                await trio.sleep(0.05)
        raise NotNow(f"the mount at {self._folder} did not come up: see what `tapefs mount {self._folder}` says")


async def _end(process: Process) -> None:
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(END_S):
            await wait_exit(process)
        if process.poll() is None:
            log.warning("the mount does not end, killing it", pid=process.pid)
            process.kill()
            with trio.move_on_after(1):
                await wait_exit(process)
