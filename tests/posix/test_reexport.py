"""The mount served on to other machines: by an NFS server and by Samba, both in user space, read by foreign clients.

Skipped where they are not installed (Debian: nfs-ganesha-vfs and libnfs-utils, samba and smbclient): they would
start as services when installed, so `scripts/setup` leaves them out.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tapefs.staging.area import StagingArea
from tests.mount.fake_sidecar import FakeSidecar
from tests.mount.mount_process import mounted
from tests.ports import free_port
from tests.vfs.shelf import Shelf

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may open by handle, and be another user"),
]

_START_S = 60.0
_GANESHA = """
NFS_CORE_PARAM {{ NFS_Port = {port}; NFS_Protocols = 4; Bind_addr = 127.0.0.1; Enable_UDP = false;
                  Enable_NLM = false; Enable_RQUOTA = false; }}
NFSv4 {{ Graceless = true; RecoveryRoot = "{folder}/recovery"; Only_Numeric_Owners = true; }}
EXPORT {{
    Export_Id = 77; Path = "{mount}"; Pseudo = "/tapefs"; Access_Type = RO; Squash = None; SecType = sys; Protocols = 4;
    Filesystem_Id = 192.168; FSAL {{ Name = VFS; }}
}}
"""
_SAMBA = """
[global]
    smb ports = {port}
    bind interfaces only = yes
    interfaces = lo
    map to guest = Bad User
    server role = standalone server
    disable netbios = yes
    disable spoolss = yes
    load printers = no
    private dir = {folder}
    lock directory = {folder}
    state directory = {folder}
    cache directory = {folder}
    pid directory = {folder}
    ncalrpc dir = {folder}/rpc
    log file = {folder}/log
[tapefs]
    path = {mount}
    guest ok = yes
    force user = root
    read only = yes
"""


class Archive:
    """A mount, the source of the set in it, and where the set is in the mount."""

    def __init__(self, mount: Path, source: Path, evict: Callable[[], None]) -> None:
        self.mount = mount
        self.source = source
        self.evict = evict
        self.root = mount / "jobs/docs" / os.readlink(mount / "jobs/docs/latest") / source.relative_to("/")

    @property
    def within(self) -> str:
        return str(self.root.relative_to(self.mount))


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    source = tmp_path / "source"
    (source / "deep/er").mkdir(parents=True)
    chance = random.Random(1)
    for number in range(400):
        (source / f"deep/{number:03}").write_bytes(chance.randbytes(number * 11))
    (source / "large").write_bytes(chance.randbytes(3_000_000))
    (source / "deep/er/last").write_text("last")
    (source / "link").symlink_to("deep/007")
    (source / "closed").write_text("closed")
    (source / "closed").chmod(0o600)
    with closing(Shelf(tmp_path / "home")) as shelf:
        shelf.add_set(source)
        sidecar = FakeSidecar(shelf).start()
        try:
            with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
                area = StagingArea(shelf.home.staging)
                yield Archive(mount.path, source, lambda: area.evict_all() and None)
        finally:
            sidecar.stop()


@contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[None]:
    """Run a server until the end of the block; it is ready when its port answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline_s = time.monotonic() + _START_S
        while not _answers(port):
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}"
            assert time.monotonic() < deadline_s, f"{command[0]} does not listen"
            time.sleep(0.1)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def output(*command: str, cwd: Path | None = None) -> bytes:
    done = subprocess.run(command, capture_output=True, timeout=120, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(
    not all(map(shutil.which, ("ganesha.nfsd", "nfs-ls", "nfs-cat"))), reason="nfs-ganesha or libnfs is not installed"
)
def test_by_nfs(archive: Archive, tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "ganesha"
    (folder / "recovery").mkdir(parents=True)
    (folder / "conf").write_text(_GANESHA.format(port=port, folder=folder, mount=archive.mount))
    command = ["ganesha.nfsd", "-F", "-f", folder / "conf", "-L", folder / "log", "-p", folder / "pid"]
    url, options = f"nfs://127.0.0.1/tapefs/{archive.within}", f"?version=4&nfsport={port}"
    with serving(list(map(str, command)), port):
        listed = {}
        for line in output("nfs-ls", "-R", f"{url}{options}").decode().splitlines():
            mode, _, _, _, size, name = line.split(maxsplit=5)
            listed[name] = (mode, int(size))
        assert listed == {
            str(path.relative_to(archive.source)): (_mode(path), path.lstat().st_size)
            for path in archive.source.rglob("*")
        }
        archive.evict()
        for name in ("large", "deep/000", "deep/399", "deep/er/last", "closed"):
            assert output("nfs-cat", f"{url}/{name}{options}") == (archive.source / name).read_bytes(), name


def _mode(path: Path) -> str:
    return stat.filemode(path.lstat().st_mode)


@pytest.mark.skipif(not all(map(shutil.which, ("smbd", "smbclient"))), reason="samba or smbclient is not installed")
def test_by_samba(archive: Archive, tmp_path: Path) -> None:
    port = free_port()
    folder = tmp_path / "samba"
    folder.mkdir(mode=0o700)
    (folder / "conf").write_text(_SAMBA.format(port=port, folder=folder, mount=archive.mount))
    target = tmp_path / "target"
    target.mkdir()
    archive.evict()
    with serving(["smbd", "--foreground", "--no-process-group", f"--configfile={folder / 'conf'}"], port):
        client = ["smbclient", "-N", "-p", str(port), "-s", str(folder / "conf"), "//127.0.0.1/tapefs"]
        commands = f'cd "{archive.within}"; lcd "{target}"; recurse; prompt; mget *'
        output(*client, "-c", commands)
        refused = subprocess.run([*client, "-c", f'cd "{archive.within}"; mkdir new'], capture_output=True)
    for path in archive.source.rglob("*"):
        copy = target / path.relative_to(archive.source)
        if path.is_dir():
            assert copy.is_dir()
        else:
            # Samba follows links that stay in the share.
            assert copy.read_bytes() == path.read_bytes(), path
    assert b"NT_STATUS" in refused.stdout + refused.stderr
