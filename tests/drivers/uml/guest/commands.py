"""In the guest: `tapefs`, for a shell, without the second or two that an interpreter and its imports take there.

commands.py FIFO: reads requests from there, and runs each in a fork of this process, which has imported all they need.
A request is a line: the process id of a shell, and a file. That file has what is to be run: the folder, the TAPEFS_* of
the environment as NAME=VALUE, "--", and the arguments, each ended by NUL. Streams are the shell's own. The exit code
goes into FILE.ended, a FIFO of this request alone. See `forked` in product.sh.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import json
import operator
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path

from tapefs import cli

USED = ("init", "backup", "restore", "job", "jobs", "sets", "tapes", "evict", "verify", "catalog", "key")
#: What they import when they need it.
LATER = ("catalog.lmdb_ledger", "tapefs.client.presence", "tapefs.vfs.archive", "tapefs.vfs.roster", "_strptime")
#: The same on all processors; Python knows no name for it.
PIDFD_GETFD = 438


def main(fifo: Path) -> None:
    for name in (*(cli.COMMANDS[command] for command in USED), *LATER):
        import_module(name)
    # A page that a fork writes to is dear: nothing of what is here is looked at for garbage.
    gc.freeze()
    gc.disable()
    # Both ends, so that it never ends.
    with os.fdopen(os.open(fifo, os.O_RDWR)) as requests:
        for line in requests:
            if os.fork() == 0:
                shell, request = line.split()
                _serve(int(shell), Path(request))


def _serve(shell: int, request: Path) -> None:
    status = 70
    try:
        status = _run(shell, request.read_bytes().split(b"\0")[:-1])
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        Path(f"{request}.ended").write_text(f"{status}\n")
        os._exit(status)


def _run(shell: int, request: list[bytes]) -> int:
    for stream in range(3):
        _take(shell, stream)
    begin = request.index(b"--")
    os.chdir(request[0])
    for name in [each for each in os.environ if each.startswith("TAPEFS_")]:
        del os.environ[name]
    os.environb.update(each.split(b"=", 1) for each in request[1:begin])
    program, *arguments = map(os.fsdecode, request[begin + 1 :])
    return cli.run(arguments) if program == "tapefs" else _field(*arguments)


def _take(shell: int, stream: int) -> None:
    """Have a shell's stream as our own."""
    pidfd = os.pidfd_open(shell)
    taken = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, stream, 0)
    if taken < 0:
        raise OSError(ctypes.get_errno(), f"cannot take stream {stream} of process {shell}")
    os.dup2(taken, stream)
    os.close(taken)
    os.close(pidfd)


def _field(name: str) -> int:
    """Print it for each object of a JSON list on standard input; a.b is b in a."""
    for each in json.load(sys.stdin):
        print(functools.reduce(operator.getitem, name.split("."), each))
    return 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
