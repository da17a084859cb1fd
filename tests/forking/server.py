"""The process that programs under test are forked from: it has imported what they need, and nothing else has happened.

`python -m tests.forking.server FD PAD MODULE…` imports the modules and serves requests on the socket FD, one after the
other, in one thread; it ends when the other end is closed, and kills what still runs then. PAD is a long word without
meaning: a forked program writes its own command line over that of the server.

A forked program leaves `_serve` and runs as the last thing of the process. Of an error that it raises the interpreter
makes traceback and exit code, as for a started one; else it ends by `_end`.
"""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import json
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from catalog import crash
from tapefs.starting import import_without_rich, imports

#: A request has at most so many bytes and descriptors.
REQUEST_BYTES, DESCRIPTORS = 256 * 1024, 64
#: Fields of /proc/self/stat, counted behind the name: where the command line begins and ends.
ARG_START, ARG_END = 45, 46


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """Serve until the end (None), or, in a forked process, return what it is to be."""
    running: set[int] = set()
    while True:
        data, descriptors, _, _ = socket.recv_fds(connection, REQUEST_BYTES, DESCRIPTORS)
        if not data:
            break
        request = json.loads(data)
        if "reap" in request:
            pid, status = os.waitpid(request["reap"], 0)
            running.remove(pid)
            connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())
            continue
        _nothing_but_modules(connection, descriptors)
        pid = os.fork()
        if pid == 0:
            _give(dict(zip(request["descriptors"], descriptors, strict=True)))
            return request
        running.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(json.dumps(pid).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    return None


def _nothing_but_modules(connection: socket.socket, come: Sequence[int]) -> None:
    """See that a fork takes along nothing but modules: no thread, and no open file but those named."""
    threads = os.listdir("/proc/self/task")
    opened = {int(name) for name in os.listdir("/proc/self/fd")}
    # The listing itself has one that is closed by now.
    unknown = [each for each in opened - {0, 1, 2, connection.fileno(), *come} if _is_open(each)]
    if len(threads) != 1 or threading.active_count() != 1 or unknown:
        raise AssertionError(f"an import has left {len(threads)} threads and the descriptors {unknown}")


def _is_open(descriptor: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def _give(descriptors: dict[int, int]) -> None:
    """Have exactly these descriptors; number -> where it is now."""
    # First above all that a program may want to have, so that none is where another is to be.
    above = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 8192) - 2 * DESCRIPTORS
    high = {number: fcntl.fcntl(now, fcntl.F_DUPFD_CLOEXEC, above) for number, now in descriptors.items()}
    os.closerange(0, above)
    for number, now in high.items():
        os.dup2(now, number)  # Inheritable, as what a started process is given.
    os.closerange(above, above + 2 * DESCRIPTORS)


def _become(request: dict[str, Any]) -> None:
    """Be as a process is that was started with this command line."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    crash.arm()
    how, what, *arguments = request["command"]
    sys.orig_argv[:] = [sys.executable, how, what, *arguments]
    sys.argv[:] = [how, *arguments]
    if how == "-c":
        sys.path[0] = ""
    _write_command_line(b"".join(os.fsencode(each) + b"\0" for each in sys.orig_argv))


def _write_command_line(line: bytes) -> None:
    """Write over the memory that /proc shows as our command line; NULs follow."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[ARG_START]), int(fields[ARG_END])
    room = end - start
    if len(line) > room:
        raise AssertionError(f"the command line has {len(line)} bytes, and the place of the server's only {room}")
    ctypes.memmove(start, line.ljust(room, b"\0"), room)


def _end(code: object) -> None:
    """End as the interpreter does, but let objects be: to free them all copies all pages shared with the server.

    That would take 50 ms of the processor, of 56. An error that is not caught does not come here.
    """
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # The interpreter says that, too.
    os._exit((code or 0) & 0xFF)


def _import(modules: Sequence[str]) -> None:
    with imports():
        import_without_rich("structlog", "httpx")
        for name in modules:
            import_module(name)


if __name__ == "__main__":
    # A Ctrl-C is for the tests, which then close our socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _import(sys.argv[3:])
    # What is there already is garbage of none of them: no looking through it, and its pages stay shared.
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as connection:
        program = _serve(connection)
        if program is not None:
            connection.detach()  # Closed by `_give`.
    if program is not None:
        _become(program)
        how, what = program["command"][:2]
        code: object = None
        try:
            if how == "-m":
                runpy.run_module(what, run_name="__main__", alter_sys=True)
            else:
                ours, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
                exec(compile(what, "<string>", "exec"), vars(sys.modules["__main__"]))
        except SystemExit as error:
            code = error.code
        _end(code)
