"""The Unix socket for a group of this system, beside root and the owner of the state folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.sidecar.access.rig import home_with
from tests.sidecar.rig import running

PROGRAM = """
import os, socket, sys
os.setgroups([int(sys.argv[2])] if sys.argv[2] else []); os.setgid(65534); os.setuid(int(sys.argv[1]))
for line in (b"GET /api/v1/session", b"POST /api/v1/jobs/9/run", b"GET /api/v1/tokens"):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[3])
    peer.sendall(line + b" HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
    print(peer.recv(1000).split()[1].decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
def test_a_group_is_let_in_with_its_role() -> None:
    """By a supplementary group; who is not in it gets nothing, even if the file's mode let him connect."""
    folder = Path(tempfile.mkdtemp(prefix="tapefs-"))
    try:
        folder.chmod(0o755)
        home = home_with(folder / "home", "", 'socket_group = "tape"')
        home.path.chmod(0o711)
        gid = home.socket.parent.stat().st_gid
        with running(home):
            status = home.socket.stat()
            assert status.st_mode & 0o777 == 0o660
            assert status.st_gid != gid
            assert _statuses(1234, str(status.st_gid), home.socket) == ["200", "404", "403"]
            home.socket.chmod(0o666)
            assert _statuses(1234, "", home.socket) == ["403"] * 3
            assert _statuses(0, "", home.socket) == ["200", "404", "200"]
    finally:
        shutil.rmtree(folder)


def _statuses(uid: int, gid: str, path: Path) -> list[str]:
    program = [sys.executable, "-c", PROGRAM, str(uid), gid, str(path)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()
