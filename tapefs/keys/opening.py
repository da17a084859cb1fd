"""Passphrases in files, and the keys they open when a sidecar starts. Blocking: a second for each key."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import structlog

from tapefs.errors import HomeError, WrongPassphrase
from tapefs.home import Home
from tapefs.keys.identity import Identity
from tapefs.keys.store import KeyStore

#: Names a file with a passphrase, for a sidecar that a command starts for itself.
VARIABLE = "TAPEFS_PASSPHRASE_FILE"
#: Where systemd puts credentials, and the one that we take.
_CREDENTIALS, _CREDENTIAL = "CREDENTIALS_DIRECTORY", "tapefs-passphrase"
_LARGEST_PASSPHRASE_BYTES = 4096

log = structlog.get_logger(__name__)


def read_passphrase(path: Path) -> bytes:
    """Return what a file says, without the newline at its end. Raises HomeError when others may read it, OSError."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise HomeError(f"{path} has a passphrase and others may read it: chmod 600 {path}")
        return file.read(_LARGEST_PASSPHRASE_BYTES).removesuffix(b"\n").removesuffix(b"\r")


def opened_by_files(home: Home) -> list[Identity]:
    """Return the keys that the passphrases in files open. Raises HomeError when a file that is named cannot be read."""
    passphrases = list(_passphrases(home))
    store = KeyStore(home.keys)
    found = []
    for key in store.all_keys() if passphrases else []:
        if not store.can_read(key):
            continue
        for passphrase in passphrases:
            try:
                found.append(store.identity(key, passphrase))
                log.info("key unlocked", key=key.title, fingerprint=key.fingerprint)
                break
            except WrongPassphrase:
                continue
        else:
            log.info("no passphrase in a file opens this key", key=key.title, fingerprint=key.fingerprint)
    return found


def _passphrases(home: Home) -> Iterator[bytes]:
    for path in _files(home):
        try:
            yield read_passphrase(path)
        except OSError as error:
            raise HomeError(f"cannot read the passphrase in {path}: {error.strerror}") from error


def _files(home: Home) -> Iterator[Path]:
    if home.settings.encryption.passphrase_file:
        yield home.path / home.settings.encryption.passphrase_file
    if VARIABLE in os.environ:
        yield Path(os.environ[VARIABLE])
    credential = Path(os.environ.get(_CREDENTIALS, "/nowhere")) / _CREDENTIAL
    if credential.exists():
        yield credential
