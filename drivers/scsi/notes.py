"""What this host keeps of a drive, by serial number: who of its processes uses it, its counters, its reservation key.

Blocking. The lock goes with the process, however that ends. Without it two processes of one host could both use a
drive: for the drive they are the same host.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed, DriveInUse
from drivers.interface import Counters

_CLOSED = -1


class _Record(msgspec.Struct, kw_only=True):
    #: Key of persistent reservations, the same for all processes of this installation.
    key: int
    counters: Counters = msgspec.field(default_factory=Counters)
    #: The drive was given an encryption key that was not taken away since.
    has_encryption_key: bool = False


class Notes:
    """The notes of one drive, held by this process."""

    def __init__(self, folder: Path, serial: str, name: str) -> None:
        """Take the drive. Raises DriveInUse when another process has it, DeviceFailed when the notes cannot be used."""
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", serial).strip(".") or "no-serial"
        self._path = folder / f"{stem}.json"
        try:
            folder.mkdir(0o700, parents=True, exist_ok=True)
            self._lock = os.open(folder / f"{stem}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise DeviceFailed(f"cannot keep notes of {name} in {folder}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._record = self._read()
        except BlockingIOError:
            self.close()
            raise DriveInUse(f"{name} is in use by another process of this host") from None
        except BaseException:
            self.close()
            raise

    def _read(self) -> _Record:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_Record)
        except FileNotFoundError:
            # 0 would mean that nobody is registered.
            record = _Record(key=secrets.randbits(63) | 1)
            self._write(record)
            return record
        except (OSError, msgspec.MsgspecError) as error:
            raise DeviceFailed(f"{self._path} is damaged: remove it, then the drive's counters begin anew") from error

    def _write(self, record: _Record) -> None:
        draft = self._path.with_suffix(".new")
        try:
            draft.write_bytes(msgspec.json.encode(record))
            draft.replace(self._path)
        except OSError as error:
            raise DeviceFailed(f"cannot write {self._path}: {error.strerror}") from error

    @property
    def key(self) -> int:
        """Return the key of persistent reservations."""
        return self._record.key

    @property
    def counters(self) -> Counters:
        """Return the counters that were kept last."""
        return self._record.counters

    def keep(self, counters: Counters) -> None:
        """Write the counters down; not synced, a power cut may lose the last ones."""
        self._change(counters=counters)

    @property
    def has_encryption_key(self) -> bool:
        """Tell whether this host left an encryption key in the drive, in this process or one that died."""
        return self._record.has_encryption_key

    def keep_encryption_key(self, has_key: bool) -> None:
        """Write down that the drive is about to get a key, or has lost it. The key itself is never written."""
        self._change(has_encryption_key=has_key)

    def _change(self, **fields: object) -> None:
        self._record = msgspec.structs.replace(self._record, **fields)
        self._write(self._record)

    def close(self) -> None:
        """Let go of the drive. Harmless twice."""
        if self._lock != _CLOSED:
            os.close(self._lock)
            self._lock = _CLOSED
