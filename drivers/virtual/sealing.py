"""Encryption by the virtual drive: AES-256-GCM block by block. Blocking; belongs to its cartridge.

An encrypted block lies in its payload file as long as it was, so that places stay what they are. What opens it is in a
file beside, `00003.sealed`: a record of 64 bytes per block of the tape file, zeros for a block that is not encrypted.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drivers.virtual.durable import sync_file, sync_folder, write_fully
from drivers.virtual.state import file_name

#: Kind (0 plain, 1 AES-256-GCM), length of the name, name, nonce, tag, two bytes that tell keys apart.
_RECORD = struct.Struct(">BB32s12s16s2s")
RECORD_BYTES = _RECORD.size
PLAIN: Final = bytes(RECORD_BYTES)
SUFFIX = ".sealed"
_AES_256_GCM = 1
_NONCE_BYTES, _TAG_BYTES = 12, 16


@dataclass(frozen=True, slots=True)
class Cipher:
    """A key in the drive, and what it does."""

    key: bytes = field(repr=False)
    #: Stored in clear with each block.
    name: bytes = b""
    encrypts: bool = True
    #: Also reads what is not encrypted.
    is_mixed: bool = True
    #: False: blocks are only written, and read as if there were no key.
    decrypts: bool = True
    #: The key goes when the tape is unloaded.
    leaves_with_tape: bool = True

    @property
    def mark(self) -> bytes:
        """Two bytes that tell this key from most others."""
        return hashlib.sha256(b"tapefs virtual drive\0" + self.key).digest()[:2]


def seal(cipher: Cipher, block: bytes | memoryview) -> tuple[bytes, bytes]:
    """Return what goes to the payload file, and the record."""
    nonce = os.urandom(_NONCE_BYTES)
    sealed = AESGCM(cipher.key).encrypt(nonce, bytes(block), cipher.name)
    record = _RECORD.pack(_AES_256_GCM, len(cipher.name), cipher.name, nonce, sealed[-_TAG_BYTES:], cipher.mark)
    return sealed[:-_TAG_BYTES], record


def is_of(cipher: Cipher, record: bytes) -> bool:
    """Tell whether a block was sealed with that key, as far as the record tells."""
    return bytes(_RECORD.unpack(record)[5]) == cipher.mark


def unseal(cipher: Cipher, record: bytes, block: memoryview) -> bool:
    """Decrypt in place; False when the block or its record was changed, or the key is another one."""
    _, length, name, nonce, tag, _ = _RECORD.unpack(record)
    try:
        block[:] = AESGCM(cipher.key).decrypt(nonce, bytes(block) + tag, name[:length])
    except InvalidTag:
        return False
    return True


class SealFiles:
    """The records of a cartridge, by number of the tape file. Raises OSError as the system does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = {int(each.name.removesuffix(SUFFIX)) for each in folder.glob(f"*{SUFFIX}")}
        self._is_folder_synced = True

    def path(self, number: int) -> Path:
        """Return the path of the records of file `number`."""
        return self._folder / f"{file_name(number)}{SUFFIX}"

    def read(self, number: int, block: int) -> bytes:
        """Return the record of a block; PLAIN when it has none."""
        if number not in self._numbers:
            return PLAIN
        with self.path(number).open("rb") as file:
            record = os.pread(file.fileno(), RECORD_BYTES, block * RECORD_BYTES)
        return record.ljust(RECORD_BYTES, b"\0")

    def write(self, number: int, block: int, record: bytes) -> None:
        """Write the record of a block, over what an earlier life of the tape left there."""
        if number not in self._numbers:
            if record == PLAIN:
                return
            self._is_folder_synced = False
        descriptor = os.open(self.path(number), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            write_fully(descriptor, record, block * RECORD_BYTES)
        finally:
            os.close(descriptor)
        self._numbers.add(number)

    def sync(self, numbers: Iterable[int]) -> None:
        """Return when the records of these files, and the names, would survive a power cut."""
        for number in self._numbers.intersection(numbers):
            sync_file(self.path(number))
        if not self._is_folder_synced:
            sync_folder(self._folder)
        self._is_folder_synced = True

    def cut(self, number: int, blocks: int) -> None:
        """Keep only the records of the first `blocks` blocks of file `number`, and none of files behind it."""
        for each in [each for each in self._numbers if each > number or (each == number and not blocks)]:
            self.path(each).unlink(missing_ok=True)
            self._numbers.discard(each)
        if number in self._numbers and self.path(number).stat().st_size > blocks * RECORD_BYTES:
            os.truncate(self.path(number), blocks * RECORD_BYTES)
