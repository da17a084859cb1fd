"""TLS for TCP, by files of certificate and key. Blocks for small files.

A certificate that was renewed is noticed: the files are looked at again when a connection comes in, once a minute at
most. One that cannot be read then leaves the old one in use, with a warning.
"""

from __future__ import annotations

import os
import ssl
import stat
import time
from pathlib import Path

import structlog

from tapefs.errors import HomeError

LOOK_S = 60.0

log = structlog.get_logger(__name__)


class Tls:
    """The context of new connections."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read both files. Raises HomeError, also when others may read the key."""
        self._certificate, self._key = certificate, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._seen = self._load()
        self._looked_s = time.monotonic()

    def renew(self) -> None:
        """Take the files as they are now, if they have changed."""
        if time.monotonic() - self._looked_s < LOOK_S:
            return
        self._looked_s = time.monotonic()
        try:
            if self._stamp() != self._seen:
                self._seen = self._load()
                log.info("certificate renewed", file=str(self._certificate))
        except HomeError as error:
            log.warning("the certificate that was read before stays in use", reason=str(error))

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key))

    def _load(self) -> tuple[tuple[int, int], ...]:
        seen = self._stamp()
        check_key(self._key)
        try:
            # In a context of its own first: a pair that does not fit must not spoil the one in use.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._certificate, self._key, _no_password)
            self.context.load_cert_chain(self._certificate, self._key, _no_password)
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
            raise HomeError(f"{self._certificate} and {self._key} are no certificate and its key: {reason}") from error
        return seen


def check_key(path: Path) -> None:
    """Raise HomeError when others than its owner may read a key, or it belongs to somebody else than us or root."""
    try:
        status = path.stat()
    except OSError as error:
        raise HomeError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise HomeError(f"{path} is a key and others may read it: chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise HomeError(f"{path} is a key and belongs to uid {status.st_uid}: it must be ours or root's")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise HomeError(f"cannot read {path}: {error.strerror}") from error
    return status.st_mtime_ns, status.st_ino


def _no_password() -> str:
    """OpenSSL would ask on the terminal."""
    raise OSError("the key has a passphrase: it cannot be used by a service")
