"""Drives behind iSCSI that encrypt, as a person uses them: two pools, keys and tapes; no key, and a wrong one."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.config import IscsiConfig, LibraryConfig
from drivers.errors import Undecryptable
from drivers.interface import BlockNo, DriveKey, ElementKind
from drivers.iscsi.driver import open_drive
from drivers.registry import open_changer
from drivers.scsi.drive import ScsiDrive
from tapefs.format.structures import read_header
from tapefs.home import open_home
from tests.backup.trees import random_files, snapshot
from tests.drivers.tgt import need_libiscsi
from tests.test_encryption_end_to_end import make_key, passphrase
from tests.test_end_to_end import Installation, wait_until
from tests.test_iscsi_end_to_end import DRIVES, Library

__all__ = ["passphrase"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]

LABELS = {"default": "TP0001L9", "vault": "TP0003L9"}


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    need_libiscsi()
    library = Library(tmp_path)
    yield library
    library.kill()


@pytest.fixture
def installation(tmp_path: Path, library: Library) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", *library.options)
    yield made
    made.close()


def settings(installation: Installation, by: str) -> None:
    toml = installation.home / "tapefs.toml"
    text = toml.read_text().split("\n[encryption]\n")[0]
    toml.write_text(f'{text}\n[encryption]\nby = "{by}"\nkey = "one"\npools = {{ vault = "two" }}\n')


def unlock(installation: Installation, passphrase: Path) -> None:
    for name in ("one", "two"):
        installation.run("key", "unlock", name, "--passphrase-file", passphrase)


def test_two_pools_with_keys_of_their_own(
    installation: Installation, library: Library, passphrase: Path, tmp_path: Path
) -> None:
    tree = random_files(tmp_path / "tree", 8, 500_000)
    for name in ("one", "two"):
        make_key(installation, "create", name, "--passphrase-file", passphrase)
    settings(installation, "drive")
    sidecar = installation.serve()
    installation.run("pool", "create", "vault")
    installation.run("pool", "assign", "vault", "TP0003L9", "TP0004L9")
    # Locked: nothing is written, and what to do is said.
    told = installation.run("backup", tree, "--name", "letters", ok=False)
    assert "tapefs key unlock one.1" in told
    assert not any(tape["used_bytes"] for tape in installation.listing("tapes"))
    unlock(installation, passphrase)
    set_id = installation.backup(tree, "--name", "secrets", "--copy-pool", "vault")
    used = {str(tape["label"]) for tape in installation.listing("tapes") if tape["used_bytes"]}
    assert used == set(LABELS.values())
    installation.run("evict", "--all")
    # Readers of the mount are told at once, and no tape is moved; unlocked, all is there.
    for name in ("one", "two"):
        installation.run("key", "lock", name)
    shown = installation.mount_point / "jobs" / "secrets" / "latest" / str(tree)[1:]
    path = shown / min(each.name for each in tree.iterdir())
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        path.read_bytes()
    assert caught.value.errno == errno.ENOKEY
    assert os.getxattr(path, "user.tapefs.state") == b"locked"
    unlock(installation, passphrase)
    assert os.getxattr(path, "user.tapefs.state") == b"nearline"
    assert path.read_bytes() == (tree / path.name).read_bytes()
    # The policy is flipped: what has a label keeps its way.
    sidecar.terminate()
    sidecar.wait(timeout=60)
    settings(installation, "payload")
    installation.serve()
    unlock(installation, passphrase)
    (tree / "new").write_bytes(os.urandom(300_000))
    second = installation.backup(tree, "--name", "secrets", "--type", "incremental")
    installation.run("evict", "--all")
    installation.run("restore", second, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)
    installation.run("verify", set_id)
    keys = {
        pool: installation.run("key", "export", "--drive", label, "--passphrase-file", passphrase)
        for pool, label in LABELS.items()
    }
    installation.close()
    _read_by_hand(installation, library, keys, tmp_path)


def _read_by_hand(installation: Installation, library: Library, keys: dict[str, str], tmp_path: Path) -> None:
    """With no key, the other tape's, and the right one; by a driver that knows nothing of tapefs."""
    urls = tuple(f"{library.unit}/{1 + number}" for number in range(DRIVES))
    config = LibraryConfig(driver="iscsi", folder=tmp_path / "notes", drives=urls, iscsi=IscsiConfig(patience_s=3))
    for pool, label in LABELS.items():
        drive = open_drive(config, 0)
        try:
            _load(installation, config, drive, label)
            header, place = _first_header(drive)
            assert header["encryption"] == "drive"
            others = [_drive_key(text) for other, text in keys.items() if other != pool]
            for key in (None, *others):
                drive.set_key(key, writes=False)
                drive.locate(place)
                with pytest.raises(Undecryptable):
                    drive.read_into(memoryview(bytearray(1 << 20)))
            drive.set_key(_drive_key(keys[pool]), writes=False)
            drive.locate(place)
            names = _listed(drive)
            assert len(names) > 8
        finally:
            drive.unload()
            drive.close()


def _drive_key(text: str) -> DriveKey:
    """Read a key file of stenc."""
    secret, name = text.splitlines()
    return DriveKey(bytes.fromhex(secret), name)


def _load(installation: Installation, config: LibraryConfig, drive: ScsiDrive, label: str) -> None:
    """Have the tape in drive 0, and the other drive empty."""
    drive.unload()
    other = open_drive(config, 1)
    other.unload()
    other.close()
    changer = open_changer(open_home(installation.home).library_config)
    try:
        for number in [e.number for e in changer.inventory() if e.kind is ElementKind.DRIVE and e.full]:
            free = next(e.number for e in changer.inventory() if e.kind is ElementKind.SLOT and not e.full)
            changer.unload(number, free)
        slots = [e.number for e in changer.inventory() if e.kind is ElementKind.SLOT and e.barcode == label]
        changer.load(slots[0], 0)
    finally:
        changer.close()
    drive.load()


def _first_header(drive: ScsiDrive) -> tuple[dict[str, object], BlockNo]:
    """Return what the first HEADER says, and where its PAYLOAD begins: all that is plain is read without a key."""
    drive.rewind()
    drive.space_filemarks(2)
    room = memoryview(bytearray(1 << 20))
    block = bytes(room[: drive.read_into(room)])
    assert read_header(block).encryption == "drive"
    drive.space_filemarks(1)
    return json.loads(block.splitlines()[-2]), drive.position().block


def _listed(drive: ScsiDrive) -> list[str]:
    room, payload = memoryview(bytearray(1 << 20)), b""
    while length := drive.read_into(room):
        payload += room[:length]
    plain = subprocess.run(["zstd", "-dc"], input=payload, capture_output=True, check=True).stdout
    return subprocess.run(["tar", "-tf", "-"], input=plain, capture_output=True, check=True).stdout.decode().split()


def test_the_header_says_how_to_make_the_key(tmp_path: Path, passphrase: Path) -> None:
    """By `openssl`, from the key's page alone: what it makes is what `tapefs key export --drive` prints."""
    installation = Installation(tmp_path)
    try:
        installation.run("init", "--tapes", "2", "--tape-size", "64MiB")
        make_key(installation, "create", "one", "--passphrase-file", passphrase)
        settings(installation, "drive")
        installation.run(
            "backup", random_files(tmp_path / "tree", 2, 1000), env={"TAPEFS_PASSPHRASE_FILE": str(passphrase)}
        )
        wait_until(lambda: not installation.processes("serve"), "the end of the sidecar")
        key = installation.run("key", "export", "--drive", "TP0001L9", "--passphrase-file", passphrase)
        header = (installation.home / "library" / "cartridges" / "TP0001L9" / "00002").read_text()
        volume = json.loads(header.splitlines()[-2])["volume"]
        again = installation.run("key", "export", "one", "--drive", volume, "--passphrase-file", passphrase)
        assert again == key
        secret = installation.run("key", "export", "one", "--passphrase-file", passphrase).split()[-1]
        command = re.search(r"  openssl kdf .*?; echo >> drive.key\n", header, re.DOTALL)
        assert command is not None
        env = {**os.environ, "S": _hex_of(secret), "V": volume}
        subprocess.run(["sh", "-ec", command[0]], cwd=tmp_path, env=env, check=True)
        assert (tmp_path / "drive.key").read_text().lower() == key.splitlines()[0] + "\n"
        assert "not encrypted by the drive" in installation.run("key", "export", "--drive", "TP0002L9", ok=False)
    finally:
        installation.close()


def _hex_of(secret: str) -> str:
    """As the format's page tells it."""
    letters = secret.removeprefix("AGE-SECRET-KEY-1")[:-6]
    number = 0
    for letter in letters:
        number = number << 5 | "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".index(letter)
    return f"{number >> 4:064x}"
