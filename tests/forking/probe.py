"""A program that tells what it finds around itself, as JSON; its first argument says how it ends."""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any


def status() -> dict[str, str]:
    lines = (line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    wanted = ("Name", "Uid", "Gid", "Groups", "SigBlk", "SigIgn", "SigCgt", "NoNewPrivs", "Threads")
    return {name: value.strip() for name, value in lines if name in wanted}


def facts() -> dict[str, Any]:
    opened = {}
    for name in os.listdir("/proc/self/fd"):
        if os.path.exists(f"/proc/self/fd/{name}"):  # The listing's own is closed by now.
            opened[name] = [os.readlink(f"/proc/self/fd/{name}"), os.get_inheritable(int(name))]
    umask = os.umask(0)
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv[1:],
        "cmdline": os.fsdecode(Path("/proc/self/cmdline").read_bytes()).rstrip("\0").split("\0"),
        "exe": os.readlink("/proc/self/exe"),
        "path": sys.path,
        "flags": repr(sys.flags),
        "warnings": sys.warnoptions,
        "name": __name__,
        "cwd": os.getcwd(),
        "umask": umask,
        "environment": dict(os.environ),
        "zone": time.tzname,
        "descriptors": opened,
        "encodings": [stream.encoding for stream in (sys.stdin, sys.stdout, sys.stderr)],
        "status": status(),
        "handlers": repr([signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)]),
        "group": [os.getpgrp(), os.getsid(0)],
        "limits": [resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "threads": threading.active_count(),
        "main": threading.current_thread() is threading.main_thread(),
        "collects": gc.isenabled(),
    }


def main() -> None:
    # What differs from run to run stands apart.
    print(json.dumps({"facts": facts(), "own": [os.getpid(), random.random(), time.process_time()]}), flush=True)
    how = sys.argv[1]
    if how == "message":
        sys.exit("no such thing")
    if how == "code":
        sys.exit(7)
    if how == "error":
        raise ZeroDivisionError("by hand")
    if how == "wait":
        signal.pause()
    if how == "thread":
        threading.Thread(target=lambda: (time.sleep(0.2), print("behind the end"))).start()


if __name__ == "__main__":
    main()
