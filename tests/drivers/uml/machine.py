"""A Linux of its own for tests: User-Mode Linux with the kernel's st, sg and ch drivers, booted in about three seconds.

The guest sees the host's root read-only below an overlay in memory, this project at its own path (read-only), and one
folder that both can write. It is root in there, and has a loopback network that is not the host's. Nothing of the host
but that folder changes, and no rights are needed but to trace own processes.

A guest may have a disk, a file of the host with an ext4 on it: it has what its memory lacks (attributes of users), and
outlives a power cut with what was synced.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.drivers.uml import guest

PROJECT = Path(__file__).resolve().parents[3]
KERNEL = "linux.uml"
MODULES = Path("/usr/lib/uml/modules")
#: The guest's shell before it has its root: static, and brings mount, insmod and poweroff.
BUSYBOX = Path("/bin/busybox")
#: Makes the guest's disk.
MKFS = "mke2fs"

_INIT = r"""#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LC_ALL=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 PROJECT={project} SHARE={share}
bb={busybox} new=/mnt/root
$bb mount -t proc proc /proc
$bb mount -t tmpfs memory /mnt
mkdir -p $new /mnt/changes /mnt/work
$bb insmod {modules}/kernel/fs/overlayfs/overlay.ko
mount -t overlay -o lowerdir=/,upperdir=/mnt/changes,workdir=/mnt/work overlay $new
mount -t proc proc $new/proc
mount -t sysfs sysfs $new/sys
mount -t devtmpfs devices $new/dev
ln -s /proc/self/fd $new/dev/fd
mkdir -p $new/dev/pts $new/dev/shm $new{modules_seen}
mount -t devpts pts $new/dev/pts
for folder in dev/shm tmp run; do mount -t tmpfs memory $new/$folder; done
mkdir -p $new{project} $new{share}
mount --bind {project} $new{project}
mount --bind {modules} $new{modules_seen}
mount -t hostfs -o {share} none $new{share}
$bb ip link set lo up
chroot $new /bin/bash -c 'cd "$PROJECT"; bash "$SHARE"/job </dev/null >"$SHARE"/output 2>&1; echo $? >"$SHARE"/status'
$bb poweroff -f
"""


#: What takes a guest a minute or two takes ten where others use the machine.
LONG_S = 1800.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job in the guest ended."""

    #: Its exit status; None when the machine stopped before the job did.
    status: int | None
    #: What it printed, both streams.
    output: str
    #: Boot, job and halt.
    seconds: float


def why_not(*programs: str) -> str:
    """Return why no machine can be booted here, or a job's `programs` are missing; "" when all is well."""
    for program in (KERNEL, *programs):
        if _which(program) is None:
            return f"{program} is not installed: scripts/setup installs it on Debian"
    if not BUSYBOX.exists():
        return f"{BUSYBOX} is not installed: scripts/setup installs busybox-static on Debian"
    if not _modules():
        return f"there are no kernel modules in {MODULES}"
    return "" if _may_trace() else "this container forbids ptrace, which User-Mode Linux needs"


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _modules() -> Path | None:
    """Return the folder of the kernel's modules."""
    return next(iter(sorted(MODULES.iterdir())), None) if MODULES.is_dir() else None


def _may_trace() -> bool:
    child = os.fork()
    if child == 0:
        # 0 is PTRACE_TRACEME, the same on all processors.
        os._exit(0 if ctypes.CDLL(None).ptrace(0, 0, 0, 0) == 0 else 1)
    return os.waitpid(child, 0)[1] == 0


class Machine:
    """One boot with one job in it. Use as a context: leaving it ends the guest, as a power cut does."""

    def __init__(self, job: str, share: Path, *, memory_mib: int = 512, disk: Path | None = None) -> None:
        """Start `job`, a bash script with the functions of `guest.SHELL`, which may write to `share`.

        A `disk` of `make_disk` is the block device /dev/ubda in there; `use_disk` mounts it.
        """
        modules = _modules()
        if modules is None:
            raise RuntimeError(why_not())
        self._share = share.resolve()
        self._share.mkdir(exist_ok=True)
        self._began = time.monotonic()
        self._write("job", f"{guest.SHELL}\n{job}")
        init = self._write("init", _INIT.format(
            project=PROJECT, share=self._share, busybox=BUSYBOX, modules=modules,
            modules_seen=f"/lib/modules/{modules.name}",
        ))  # fmt: skip
        init.chmod(0o755)
        command = [
            str(_which(KERNEL)), f"mem={memory_mib}M", "root=none", "rootfstype=hostfs", "rootflags=/", "ro",
            f"init={init}", "con=null", "con0=null,fd:1", "quiet", "loglevel=3", f"uml_dir={self._share}/",
        ]  # fmt: skip
        command += [f"ubd0={disk}"] if disk is not None else []
        with (self._share / "console").open("wb") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                # Its memory is a file there; a folder on a disk would be slow.
                env={**os.environ, "TMPDIR": "/dev/shm"},
                # A group of its own: the guest's processes are processes of the host too.
                start_new_session=True,
            )

    def _write(self, name: str, text: str) -> Path:
        path = self._share / name
        path.write_text(text)
        return path

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_power()

    def cut_power(self) -> None:
        """End the guest at once; what it wrote to the share stays. Harmless when it has ended."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def wait(self, timeout_s: float) -> Ended:
        """Wait for the job's end and the guest's; after `timeout_s` it is killed and the status is None."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.cut_power()
        status = self._share / "status"
        output = self._share / "output"
        return Ended(
            int(status.read_text()) if status.exists() else None,
            output.read_text(errors="replace") if output.exists() else (self._share / "console").read_text(),
            time.monotonic() - self._began,
        )


def run(job: str, share: Path, *, timeout_s: float = LONG_S, memory_mib: int = 512, disk: Path | None = None) -> Ended:
    """Boot, run `job`, halt."""
    with Machine(job, share, memory_mib=memory_mib, disk=disk) as machine:
        return machine.wait(timeout_s)


def make_disk(path: Path, size_mib: int = 1024) -> Path:
    """Make an empty disk for a guest; its file has holes where nothing was written."""
    with path.open("wb") as file:
        file.truncate(size_mib * 1024 * 1024)
    subprocess.run([str(_which(MKFS)), "-q", "-F", "-t", "ext4", str(path)], check=True)
    return path
