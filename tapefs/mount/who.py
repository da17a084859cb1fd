"""Who waits in a read, from what /proc shows: for the rules on recalls, and for people who look at the list of them.

Everything here is plain functions on /proc; nothing touches the mount: `/proc/PID/fd` is asked with readlink only,
which the kernel answers without asking us. Any thread; some 100 µs. What may not be seen, or is gone, is left empty.
"""

from __future__ import annotations

import os
from typing import NamedTuple

#: The newest open files of a process that are looked through for the one that is read.
_MOST_FILES = 64


class Seen(NamedTuple):
    """What is known of a reader."""

    #: The process, to which the thread belongs that opened the file; 0 if it is not visible.
    pid: int = 0
    #: Supplementary groups.
    gids: tuple[int, ...] = ()
    #: Names of the program: its file, its process, its thread; without doubles.
    commands: tuple[str, ...] = ()
    #: The path by which the process knows the file; empty if it has it no longer open.
    path: str = ""


def look_at(thread_id: int, inode: int) -> Seen:
    """Return who the thread is that opened the file with that inode number; 0 is one that cannot be seen."""
    status = _read(f"/proc/{thread_id}/status") if thread_id else None
    if status is None:
        return Seen()
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    pid = int(fields["Tgid"])
    names = [_program(pid), (_read(f"/proc/{pid}/comm") or "").rstrip("\n"), fields["Name"].strip()]
    return Seen(
        pid,
        tuple(int(gid) for gid in fields["Groups"].split()),
        tuple(dict.fromkeys(name for name in names if name)),
        _path_of(pid, inode),
    )


def _program(pid: int) -> str:
    """Return the name of the file that the process runs."""
    try:
        path = os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
    return shown(os.fsencode(path).removesuffix(b" (deleted)").rpartition(b"/")[2])


def _path_of(pid: int, inode: int) -> str:
    folder = f"/proc/{pid}"
    try:
        numbers = sorted((int(name) for name in os.listdir(f"{folder}/fdinfo")), reverse=True)
        for number in numbers[:_MOST_FILES]:
            if f"\nino:\t{inode}\n" in (_read(f"{folder}/fdinfo/{number}") or ""):
                return shown(os.fsencode(os.readlink(f"{folder}/fd/{number}")))
    except OSError:
        return ""
    return ""


def shown(path: bytes) -> str:
    """Return a path as text; what is not UTF-8 as escapes."""
    return path.decode("utf-8", "backslashreplace")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="backslashreplace") as file:
            return file.read()
    except OSError:
        return None
