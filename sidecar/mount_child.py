"""The mount as a child of the sidecar: started, watched, started again when it dies, ended with the sidecar.

One trio run; the process is started from its thread, as a mover is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import structlog
import trio

from sidecar.movers import wait_exit
from tapefs.errors import NotNow
from tapefs.home import Home

#: How long the first start may take.
UP_S = 60.0
#: How long it may take to unmount when asked to; readers that wait for tape are let go at once.
END_S = 10.0
#: Pause before it is started again, doubled each time.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0

log = structlog.get_logger(__name__)


class MountChild:
    """A process that serves the mount at a folder."""

    def __init__(self, home: Home, folder: Path) -> None:
        self._home = home
        self._folder = folder.absolute()

    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Keep the mount up until cancelled; started when it is up for the first time.

        Raises NotNow when it does not.
        """
        process = self._start()
        try:
            await self._wait_up(process)
            task_status.started()
            pause_s = FIRST_PAUSE_S
            while True:
                await wait_exit(process)
                log.error("the mount ended, starting it again", folder=str(self._folder), code=process.wait())
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                process = self._start()
        finally:
            await _end(process)

    def _start(self) -> subprocess.Popen[bytes]:
        arguments = [sys.executable, "-m", "tapefs", "--home", str(self._home.path), "mount", str(self._folder)]
        return subprocess.Popen(arguments, stdin=subprocess.DEVNULL, process_group=0)

    async def _wait_up(self, process: subprocess.Popen[bytes]) -> None:
        with trio.move_on_after(UP_S):
            while process.poll() is None:
                # Asking a mount that has died hangs or fails; it is asked in a thread and given up with the deadline.
                if await trio.to_thread.run_sync(os.path.ismount, self._folder, abandon_on_cancel=True):
                    return
                await trio.sleep(0.05)
        raise NotNow(f"the mount at {self._folder} did not come up: see what `tapefs mount {self._folder}` says")


async def _end(process: subprocess.Popen[bytes]) -> None:
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
