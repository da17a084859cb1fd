"""SECURITY PROTOCOL IN, tape data encryption: whether the drive encrypts. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from drivers.errors import BadAnswer
from drivers.scsi.fields import Fields

#: Protocol and page, as in the command.
TAPE_DATA_ENCRYPTION = 0x20
DATA_ENCRYPTION_STATUS = 0x0020
ENCRYPTION_ROOM_BYTES = 0x2000


class EncryptionMode(Enum):
    """What becomes of a block on its way."""

    OFF = "off"
    #: Written as it comes, being encrypted already; handed out as it is on tape.
    RAW = "raw"
    ON = "on"
    #: Reading only: what is encrypted is decrypted, all else handed out as it is.
    MIXED = "mixed"


_MODES = (EncryptionMode.OFF, EncryptionMode.RAW, EncryptionMode.ON, EncryptionMode.MIXED)


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """The page Data Encryption Status."""

    encrypts: EncryptionMode
    decrypts: EncryptionMode
    #: Counts changes of the key.
    key_instance: int


def parse_encryption_status(data: bytes) -> EncryptionStatus:
    """Decode the page. Raises BadAnswer."""
    fields = Fields(data, "the encryption status")
    if fields.number(0, 2) != DATA_ENCRYPTION_STATUS:
        raise BadAnswer(f"the encryption status came as page {fields.number(0, 2):04x}h")
    fields = fields.upto(4 + fields.number(2, 2))
    return EncryptionStatus(_mode(fields.number(5)), _mode(fields.number(6)), fields.number(8, 4))


def _mode(code: int) -> EncryptionMode:
    if code >= len(_MODES):
        raise BadAnswer(f"the encryption status tells the mode {code}, which there is not")
    return _MODES[code]
