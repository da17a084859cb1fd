"""What this host sees of tape devices: kernel modules, nodes, permissions, limits. Blocking; opens nothing to write."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from drivers.st.discovery import Found, System
from tapefs.doctor.findings import Finding, Grade

_MIB = 1024 * 1024
#: Program -> Debian package: what people look at devices with.
_PROGRAMS = {"mt": "mt-st", "mtx": "mtx", "sg_inq": "sg3-utils", "lsscsi": "lsscsi"}


@dataclass(frozen=True, slots=True)
class Host:
    """Where the kernel shows things; tests have their own."""

    system: System = field(default_factory=System)
    proc: Path = Path("/proc")
    which: Callable[[str], str | None] = shutil.which
    may: Callable[[Path], bool] = lambda node: os.access(node, os.R_OK | os.W_OK)


def look_at_host(host: Host, block_bytes: int) -> Iterator[Finding]:
    """Yield what there is to say; tapes are written in blocks of `block_bytes`."""
    tapes, changers = host.system.tapes(), host.system.changers()
    if not tapes and not changers:
        yield _of_host(
            Grade.NOTE, "the kernel knows no tape drive and no changer",
            fix="for a SCSI, SAS or Fibre Channel drive: is it switched on, and does lspci show the adapter?",
            shows="lsscsi -g",
        )  # fmt: skip
        return
    for found in tapes:
        yield from _device(host, found, "tape drive", "st", block_bytes)
    for found in changers:
        yield from _device(host, found, "changer", "ch", 0)
    yield from _buffers(host)
    yield from _programs(host)


def _of_host(grade: Grade, says: str, *, fix: str = "", shows: str = "") -> Finding:
    return Finding(grade=grade, about="host", says=says, fix=fix, shows=shows)


def _device(host: Host, found: Found, kind: str, module: str, block_bytes: int) -> Iterator[Finding]:
    about = str(found.node or found.sg or found.address)

    def finding(grade: Grade, says: str, *, fix: str = "", shows: str = "") -> Finding:
        return Finding(grade=grade, about=about, says=says, fix=fix, shows=shows)

    yield finding(
        Grade.GOOD, f"{kind} {found.identity}, firmware {found.revision}, at {found.address}", shows="lsscsi -g"
    )
    if found.node is None and kind == "tape drive":
        yield finding(Grade.PROBLEM, "has no tape node", fix=f"load the driver: modprobe {module}", shows="lsscsi -g")
    if found.sg is None:
        yield finding(
            Grade.PROBLEM if kind == "changer" else Grade.WARNING, "has no sg node",
            fix="load the driver: modprobe sg", shows="lsscsi -g",
        )  # fmt: skip
    for node in filter(None, (found.node, found.sg)):
        if not host.may(node):
            yield finding(
                Grade.PROBLEM, f"{node} may not be opened by this user", fix="adduser USER tape, and log in again",
                shows=f"ls -l {node}",
            )  # fmt: skip
    if found.node is not None and not found.stable_names and kind == "tape drive":
        yield finding(
            Grade.NOTE, "has no name below /dev/tape: nodes change their numbers",
            fix=f"name it in tapefs.toml by its serial number{' ' + found.serial if found.serial else ''}",
            shows="ls -l /dev/tape/by-id",
        )  # fmt: skip
    if block_bytes:
        yield from _transfer(host, found, about, block_bytes)


def _transfer(host: Host, found: Found, about: str, block_bytes: int) -> Iterator[Finding]:
    """The adapter takes so many pieces of a page in one transfer."""
    adapter = f"host{found.address.partition(':')[0]}"
    pieces = _number(host.system.sys / f"class/scsi_host/{adapter}/sg_tablesize")
    if pieces is not None and pieces * os.sysconf("SC_PAGESIZE") < block_bytes:
        yield Finding(
            grade=Grade.WARNING, about=about,
            says=f"the adapter {adapter} takes {pieces} pieces of memory in one transfer: blocks of {block_bytes:,} "
            "bytes go through only where memory is in larger pieces",
            fix="raise the adapter's limit (for mpt3sas: max_sgl_entries), or use a smaller block_size for new tapes",
            shows=f"cat /sys/class/scsi_host/{adapter}/sg_tablesize",
        )  # fmt: skip


def _buffers(host: Host) -> Iterator[Finding]:
    path = host.proc / "scsi/sg/def_reserved_size"
    reserved = _number(path)
    if reserved is not None and reserved < _MIB:
        yield _of_host(
            Grade.NOTE,
            f"sg keeps {reserved:,} bytes for each device that is opened; tapefs asks for 1 MiB, which may not be had "
            "when memory is in small pieces",
            fix="echo 'options sg def_reserved_size=1048576' > /etc/modprobe.d/sg.conf", shows=f"cat {path}",
        )  # fmt: skip


def _programs(host: Host) -> Iterator[Finding]:
    missing = {program: package for program, package in _PROGRAMS.items() if host.which(program) is None}
    if missing:
        yield _of_host(
            Grade.NOTE, f"not installed: {', '.join(missing)}, with which you can see for yourself what is said here",
            fix=f"apt-get install {' '.join(missing.values())}",
        )  # fmt: skip


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
