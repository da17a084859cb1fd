"""The process of a mover: one drive, one socket to the sidecar."""

from __future__ import annotations

import argparse
import ctypes
import gc
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from drivers.errors import DriveError
from drivers.registry import open_drive
from tapefs.home import open_home
from tapefs.logs import configure_logs
from tapefs.mover.messages import Ends
from tapefs.mover.mover import Mover
from tapefs.mover.post import Post, SidecarGone

_PR_SET_PDEATHSIG = 1
#: Records that live as long as a frame, without cycles, are most of what is made: looking through them as often as
#: Python does by itself took a fifth of the time that an index is built in.
_GARBAGE = (50_000, 20, 20)
#: A thread that waits for the interpreter is given it after this time, not after 5 ms: of those that compress each is
#: done with a frame after 15 ms, and needs it some times for each.
_SWITCH_S = 0.0005

#: From this size on a block of memory is the system's own and goes back to it when it is freed. By itself the C library
#: raises the size to that of the frames' outputs, which then leave holes between them: 399 MiB after 2.65 GB, not 254.
_M_MMAP_THRESHOLD = -3
_OWN_BLOCK_BYTES = 1 << 20


def main() -> int:
    """Serve one drive until the sidecar closes the socket; 1 when the drive cannot be opened."""
    parser = argparse.ArgumentParser(prog="tapefs.mover")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--drive", required=True, help="name, for instance drive0")
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    arguments = parser.parse_args()
    _die_with_the_sidecar()
    configure_logs()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    sys.setswitchinterval(_SWITCH_S)
    _keep_large_blocks_apart()
    home = open_home(arguments.home)
    with socket.socket(fileno=arguments.fd) as connection, closing(LmdbLedger.open(home.ledger)) as ledger:
        post = Post(connection, home.keyring)
        try:
            with closing(open_drive(home.library_config, arguments.number)) as drive:
                Mover(home, ledger, drive, arguments.drive, post).run()
        except DriveError as error:
            _tell_the_end(post, arguments.drive, error)
            return 1
    return 0


def _tell_the_end(post: Post, drive: str, error: DriveError) -> None:
    """The sidecar tells people why the drive does not work; a mover alone has nobody but its log."""
    try:
        post.send(Ends(reason=str(error)))
    except SidecarGone:
        print(f"tapefs mover {drive}: {error}", file=sys.stderr)


def _die_with_the_sidecar() -> None:
    """A sidecar that was killed takes its movers along: no second one may find the drive held by a ghost.

    Signals of the terminal are the sidecar's affair: it ends its movers by closing their sockets.
    """
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _keep_large_blocks_apart() -> None:
    """Bound the memory of outputs that wait for the drive; a C library other than glibc goes its own way."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _OWN_BLOCK_BYTES)
