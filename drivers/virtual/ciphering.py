"""The key in a virtual drive, and what it does to blocks. Blocking; belongs to its drive."""

from __future__ import annotations

from drivers.errors import NotEncrypted, ReadFailed, Undecryptable, WrongKey
from drivers.interface import DriveKey, Encryption, NextBlock
from drivers.virtual.cartridge import Cartridge
from drivers.virtual.sealing import PLAIN, Cipher, is_of, seal, unseal


class DriveCipher:
    """What key the drive has. A reset takes it, an unload as its cipher says."""

    def __init__(self) -> None:
        self.cipher: Cipher | None = None
        #: What this process set as the drive's driver; the drive gets it again after a reset.
        self._own: Cipher | None = None

    def set_own(self, key: DriveKey | None, *, writes: bool) -> None:
        """Do as a driver is told."""
        self._own = self.cipher = Cipher(key.secret, key.name.encode("ascii"), encrypts=writes) if key else None

    def was_reset(self) -> None:
        """The drive has lost the key."""
        self.cipher = None

    def was_rewound(self) -> None:
        """The tape is found again after a reset: so is the key of who is its driver."""
        if self._own is not None:
            self.cipher = self._own

    def unloaded(self) -> None:
        """The tape has gone."""
        self._own = None
        if self.cipher is not None and self.cipher.leaves_with_tape:
            self.cipher = None

    def look(self) -> Encryption:
        """Say what becomes of blocks."""
        cipher = self.cipher
        if cipher is None:
            return Encryption(encrypts=False, decrypts=False)
        return Encryption(cipher.encrypts, cipher.decrypts, cipher.name.decode("ascii", "replace"))

    def next_block(self, tape: Cartridge) -> NextBlock:
        """Say what lies before the head."""
        if not tape.next_size():
            return NextBlock.NO_BLOCK
        record = tape.record_of_next()
        if record == PLAIN:
            return NextBlock.PLAIN
        cipher = self.cipher
        return NextBlock.DECRYPTABLE if cipher and cipher.decrypts and is_of(cipher, record) else NextBlock.LOCKED

    # -- blocks --------------------------------------------------------------------------------------------------

    def read(self, tape: Cartridge, block: memoryview) -> None:
        """Fill `block` and move on. Raises ReadFailed, Undecryptable; the head then stays."""
        number = tape.head_block
        record = tape.record_of_next()
        cipher = self._cipher_for(record, tape.barcode, number)
        tape.read_into(block)
        if cipher is not None and not unseal(cipher, record, block):
            tape.seek(number)
            raise ReadFailed(f"block {number} of {tape.barcode} was changed after it was encrypted", number)

    def _cipher_for(self, record: bytes, barcode: str, number: int) -> Cipher | None:
        cipher = self.cipher if self.cipher and self.cipher.decrypts else None
        if record == PLAIN:
            if cipher is not None and not cipher.is_mixed:
                raise NotEncrypted(
                    f"block {number} of {barcode} is not encrypted, and the drive is to read no such block"
                )
            return None
        if cipher is None:
            raise Undecryptable(f"block {number} of {barcode} is encrypted by the drive: it needs its key")
        if not is_of(cipher, record):
            raise WrongKey(f"block {number} of {barcode} is encrypted with another key than the drive has")
        return cipher

    def write(self, tape: Cartridge, block: bytes | memoryview) -> None:
        """Write one block at the head. Raises WriteFailed."""
        if self.cipher is not None and self.cipher.encrypts:
            tape.append(*seal(self.cipher, block))
        else:
            tape.append(block)
