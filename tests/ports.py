"""A port for a server that has to be told one: nobody else's until the process of the tests ends.

Not one of those that the kernel gives out, which somebody may get between asking and listening. And whoever takes one
here holds an abstract socket of its name meanwhile, so that tests beside these, in other processes too, take others.
"""

from __future__ import annotations

import random
import socket
from collections import deque

#: Below what Linux gives out by itself (net.ipv4.ip_local_port_range begins at 32,768).
FIRST, LAST = 12_000, 32_000
#: So many are held: longer than any test needs its own, and few enough for the limit of open files.
HELD = 64

_held: deque[socket.socket] = deque()
# Not the chance of `random`, which Hypothesis sets to the same in every process.
_chance = random.SystemRandom()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which nobody listens."""
    for _ in range(1000):
        port = _chance.randint(FIRST, LAST)
        claim = socket.socket(socket.AF_UNIX)
        try:
            claim.bind(f"\0tapefs-tests-port-{port}")
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _held.append(claim)
        if len(_held) > HELD:
            _held.popleft().close()
        return port
    raise AssertionError(f"no port between {FIRST} and {LAST} is free")
