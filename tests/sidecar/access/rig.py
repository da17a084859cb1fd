"""A sidecar with settings about access."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tapefs.home import Home, open_home
from tests.sidecar.rig import Rig, make_home, running


def home_with(folder: Path, settings: str, http: str = "", tape_bytes: int = 4 * 1024**2) -> Home:
    """A new state folder with more lines behind its settings, and `http` in the section of that name."""
    home = make_home(folder, tape_bytes=tape_bytes)
    path = home.path / "tapefs.toml"
    text = re.sub(r"(?m)^\[http\]\n", f"[http]\n{http}\n", path.read_text()) if http else path.read_text()
    assert not http or http in text
    path.write_text(f"{text}\n{settings}\n")
    return open_home(home.path)


@contextmanager
def serving(folder: Path, settings: str, http: str = "") -> Iterator[Rig]:
    with running(home_with(folder, settings, http), listen=True) as rig:
        yield rig


def raw_request(rig: Rig, request: bytes, seconds: float = 20.0) -> bytes:
    """Send bytes over TCP, and return all that comes back until the other end closes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", rig.port), timeout=seconds) as peer:
        peer.sendall(request)
        while piece := peer.recv(65536):
            answer += piece
    return answer
