"""Debian's tgt as a private iSCSI target with an SSC tape and an SMC changer: what nobody here wrote, for tests.

tgt serves anybody on all interfaces when the port that it is asked for is taken. So it is asked for any free port, and
must show that it listens on the loopback only before it gets a target.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from drivers.errors import DeviceFailed
from drivers.iscsi.libiscsi import libiscsi
from tests.ports import free_port

TARGET = "iqn.2026-11.test:tgt"
START_S = 60.0
#: Addresses of the changer's elements.
FIRST_DRIVE, FIRST_SLOT = 256, 1000
#: The socket's path has room for 107 bytes.
SHORT_PATH = 90


def need_tgt() -> None:
    """Skip the test where tgt or libiscsi is missing, and say what to install."""
    need_libiscsi()
    if shutil.which("tgtd", path=_path()) is None:
        pytest.skip("tgt is missing: apt-get install tgt")


def need_libiscsi() -> None:
    """Skip the test where libiscsi is missing, and say what to install."""
    try:
        libiscsi()
    except DeviceFailed as error:
        pytest.skip(str(error))


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


@dataclass
class Tgt:
    """A target that runs until `stop`; LUN 0 is tgt's own controller."""

    folder: Path
    _daemon: subprocess.Popen[bytes] | None = field(default=None, init=False)
    port: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        assert len(str(self.folder)) < SHORT_PATH, "too long a path for tgt's socket"
        self.start()

    # -- the process ---------------------------------------------------------------------------------------------------

    def start(self, port: int = 0) -> None:
        """Start it, without any target yet."""
        self._environment = {**os.environ, "PATH": _path(), "TGT_IPC_SOCKET": str(self.folder / "ipc")}
        with (self.folder / "log").open("ab") as log:
            self._daemon = subprocess.Popen(
                ["tgtd", "-f", "-C", "1", "--iscsi", f"portal=127.0.0.1:{port or free_port()}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )
        try:
            self.port = self._wait_for_port()
        except BaseException:
            self.kill()
            raise

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + START_S
        while True:
            assert self._daemon is not None
            assert self._daemon.poll() is None, (self.folder / "log").read_text()
            shown = self._run("tgtadm", "-C", "1", "--lld", "iscsi", "--op", "show", "--mode", "portal", check=False)
            portals = re.findall(r"Portal: (\S+):(\d+),", shown.stdout)
            if portals:
                assert [host for host, _ in portals] == ["127.0.0.1"], f"tgt listens beyond the loopback: {portals}"
                return int(portals[0][1])
            assert time.monotonic() < deadline, f"tgt does not start: {shown.stderr}"
            time.sleep(0.005)

    def kill(self) -> None:
        """End it as a power cut does."""
        assert self._daemon is not None
        self._daemon.kill()
        self._daemon.wait()

    def pause(self) -> None:
        """Have it stand still, with its connections open."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End a pause."""
        assert self._daemon is not None
        self._daemon.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it; SIGTERM it does not know."""
        self.kill()

    # -- what it serves ------------------------------------------------------------------------------------------------

    def add_target(self) -> None:
        """Make the target; everybody on this machine may log in."""
        self.admin("target", "new", "-T", TARGET)
        self.admin("target", "bind", "-I", "ALL")

    def require(self, user: str, secret: str, *, outgoing: tuple[str, str] | None = None) -> None:
        """Let in only who knows the secret; with `outgoing`, prove who we are as well."""
        self._account("new", "--user", user, "--password", secret)
        self._account("bind", "--tid", "1", "--user", user)
        if outgoing is not None:
            self._account("new", "--user", outgoing[0], "--password", outgoing[1])
            self._account("bind", "--tid", "1", "--user", outgoing[0], "--outgoing")

    def make_tape(self, barcode: str, size_mib: int = 16) -> Path:
        """Make a blank cartridge as a file."""
        path = self.folder / barcode
        self._run(
            "tgtimg", "--op", "new", "--device-type", "tape", "--barcode", barcode,
            "--size", str(size_mib), "--type", "data", "--file", str(path),
        )  # fmt: skip
        return path

    def add_drive(self, lun: int, tape: Path, serial: str = "") -> None:
        """Serve a tape drive that has `tape` in it."""
        self.admin("logicalunit", "new", "--lun", str(lun), "-b", str(tape), "--device-type", "tape")
        if serial:
            self.update(lun, f"scsi_sn={serial}")

    def add_changer(self, lun: int, drives: int, barcodes: list[str | None]) -> None:
        """Serve a changer with the drives at LUN 1 and following, and a slot for each of `barcodes`, None for empty.

        The drives become empty; `make_tape` has made the cartridges. There is one place more for a drive: what tgt
        tells of elements is 8 bytes too short, and the last drive's serial number is cut.
        """
        store = self.folder / "smc"
        store.write_bytes(bytes(1024))
        self.admin("logicalunit", "new", "--lun", str(lun), "-b", str(store), "--device-type", "changer")
        self.update(lun, f"media_home={self.folder}")
        self.update(lun, f"element_type=4,start_address={FIRST_DRIVE},quantity={drives + 1}")
        for number in range(drives):
            self.update(1 + number, "online=0")
            self.update(lun, f"element_type=4,address={FIRST_DRIVE + number},tid=1,lun={1 + number}")
        self.update(lun, "element_type=1,start_address=1,quantity=1")
        self.update(lun, f"element_type=2,start_address={FIRST_SLOT},quantity={len(barcodes)}")
        for number, barcode in enumerate(barcodes):
            if barcode is not None:
                self.update(lun, f"element_type=2,address={FIRST_SLOT + number},barcode={barcode},sides=1")

    def update(self, lun: int, parameters: str) -> None:
        """Change a unit's parameters."""
        self.admin("logicalunit", "update", "--lun", str(lun), "--params", parameters)

    def admin(self, mode: str, operation: str, *arguments: str) -> None:
        """Have tgtadm do something with target 1."""
        self._run(
            "tgtadm", "-C", "1", "--lld", "iscsi", "--mode", mode, "--op", operation, "--tid", "1", *arguments
        )  # fmt: skip

    def shown(self) -> str:
        """Return what tgtadm says of the target and who is logged in."""
        return self._run("tgtadm", "-C", "1", "--lld", "iscsi", "--mode", "target", "--op", "show").stdout

    def url(self, lun: int, login: str = "") -> str:
        """Return the address of a unit."""
        return f"iscsi://{login}127.0.0.1:{self.port}/{TARGET}/{lun}"

    def _account(self, operation: str, *arguments: str) -> None:
        self._run("tgtadm", "-C", "1", "--lld", "iscsi", "--mode", "account", "--op", operation, *arguments)

    def _run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self._environment, capture_output=True, text=True, check=check, timeout=60)
