"""What the kernel lets the mount do at a time: set where root may, else said in the log. Blocking."""

from __future__ import annotations

import gc
import os
import re
import resource
import subprocess
from pathlib import Path

import structlog

CONNECTIONS = Path("/sys/fs/fuse/connections")
BDI = Path("/sys/class/bdi")

#: The kernel begins with 12 page reads at a time: 14 mapped cold files stopped every hot read for 14 s. With 1,000 at
#: a time 40 waiting page faults left hot reads at 1 ms.
MAX_BACKGROUND = 1024
#: 128 KiB give 0.5 to 0.8 GB/s of a staged file, 4 MiB 1.3.
READ_AHEAD_KIB = 4096
#: Older kernels, unless somebody has mended them, leave what was in memory before behind the end of a file whose bytes
#: they are given, to be seen in a mapping (CVE-2024-44947).
TAKES_BYTES = (6, 11)
#: Staging files, indexes and pins take descriptors, and every open file of the mount's users may.
OPEN_FILES = 65_536

log = structlog.get_logger("tapefs.mount")


def raise_open_files(wanted: int = OPEN_FILES) -> None:
    """Allow this process as many open files as it may have, up to `wanted`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def calm_collector() -> None:
    """Have the garbage collector pass over what lives as long as the mount, and come less often: 4 % of a walk."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def takes_bytes(release: str) -> bool:
    """Tell whether a kernel of this release (`uname -r`) may be given the bytes of files that nobody asked for yet."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    return numbers is not None and (int(numbers[1]), int(numbers[2])) >= TAKES_BYTES


def tune(minor: int) -> None:
    """Set the limits of the FUSE connection; not before the kernel was greeted, which sets them to its defaults."""
    _mount_control()
    connection = CONNECTIONS / str(minor)
    _set(connection / "max_background", MAX_BACKGROUND, "waiting page faults of cold files may slow hot reads down")
    _set(connection / "congestion_threshold", MAX_BACKGROUND * 3 // 4, "read-ahead may pause while many wait")
    _set(BDI / f"0:{minor}" / "read_ahead_kb", READ_AHEAD_KIB, "large files are read at about half the speed")


def _mount_control() -> None:
    """Mount fusectl where systemd has not."""
    if os.geteuid() != 0 or not CONNECTIONS.is_dir() or any(CONNECTIONS.iterdir()):
        return
    command = ["mount", "-t", "fusectl", "fusectl", str(CONNECTIONS)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        log.warning("cannot mount fusectl", reason=done.stderr.decode(errors="replace").strip())


def _set(path: Path, value: int, otherwise: str) -> None:
    try:
        if int(path.read_text()) < value:
            path.write_text(str(value))
    except OSError as error:
        log.warning("a limit of the kernel stays low", file=str(path), reason=error.strerror, effect=otherwise)
