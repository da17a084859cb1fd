"""Tape data encryption by SECURITY PROTOCOL IN and OUT: pages decoded and made. Blocking where a device is asked.

Layouts are those of SSC-4: Data Encryption Capabilities (0010h), Data Encryption Status (0020h), Next Block Encryption
Status (0021h), and Set Data Encryption (0010h), which is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from drivers.errors import BadAnswer, NotSupported
from drivers.interface import NextBlock
from drivers.scsi import cdb as commands
from drivers.scsi.device import Device
from drivers.scsi.fields import Fields
from drivers.scsi.outcomes import Doing

#: Protocol and pages, as in the commands.
TAPE_DATA_ENCRYPTION = 0x20
SET_DATA_ENCRYPTION = 0x0010
DATA_ENCRYPTION_CAPABILITIES = 0x0010
DATA_ENCRYPTION_STATUS = 0x0020
NEXT_BLOCK_STATUS = 0x0021
#: Security algorithm code of AES-256-GCM with a tag of 128 bits.
AES_256_GCM = 0x00010014
#: Kinds of key-associated data: not authenticated, authenticated.
UNAUTHENTICATED_KAD, AUTHENTICATED_KAD = 0x00, 0x01
_KAD_IS_ASCII = 2
_CAPABILITIES_HEAD_BYTES, _STATUS_HEAD_BYTES, _NEXT_BLOCK_HEAD_BYTES = 20, 24, 16
_ALGORITHM_BYTES = 24
_ROOM_BYTES = 0x2000


class EncryptionMode(Enum):
    """What becomes of a block on its way."""

    OFF = "off"
    #: Written as it comes, being encrypted already; handed out as it is on tape.
    RAW = "raw"
    ON = "on"
    #: Reading only: what is encrypted is decrypted, all else handed out as it is.
    MIXED = "mixed"


_MODES = (EncryptionMode.OFF, EncryptionMode.RAW, EncryptionMode.ON, EncryptionMode.MIXED)


class Scope(IntEnum):
    """For whom a key is set."""

    #: Whoever sends this goes by what others set for all.
    PUBLIC = 0
    LOCAL = 1
    #: All initiators, so that other programs of this host use it, too.
    ALL = 2


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """The page Data Encryption Status."""

    encrypts: EncryptionMode
    decrypts: EncryptionMode
    #: Counts changes of the key.
    key_instance: int
    #: Of the algorithm that is in use.
    algorithm_index: int = 0
    #: The key's name, where the drive repeats it.
    key_name: str = ""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm of the page Data Encryption Capabilities."""

    index: int
    code: int
    key_bytes: int
    #: By the drive's own means, and under the host's control.
    can_encrypt: bool
    can_decrypt: bool
    #: The most key-associated data that it keeps with each block, and whether it wants exactly so many.
    most_name_bytes: int
    is_name_fixed: bool


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The page Data Encryption Capabilities."""

    #: False when something else than the host sets the keys: the library, or the drive's panel.
    is_configurable: bool
    algorithms: tuple[Algorithm, ...]

    @property
    def aes(self) -> Algorithm | None:
        """Return AES-256-GCM, if the drive both encrypts and decrypts with it."""
        fits = (each for each in self.algorithms if each.code == AES_256_GCM and each.key_bytes == 32)
        return next((each for each in fits if each.can_encrypt and each.can_decrypt), None)


@dataclass(frozen=True, slots=True)
class KeySetting:
    """The page Set Data Encryption, as it is sent. The key is not shown by repr()."""

    encrypts: EncryptionMode
    decrypts: EncryptionMode
    algorithm_index: int = 0
    key: bytes = b""
    #: Key-associated data, not authenticated: the name of the key.
    name: bytes = b""
    scope: Scope = Scope.ALL
    #: The key stays as it is for this initiator, or its next command fails.
    lock: bool = False
    #: CEEM 1: blocks that other initiators encrypted themselves are not looked for.
    checks_external_mode: int = 1
    #: RDMC 0: whether blocks may be read raw is as the algorithm has it.
    raw_decryption_control: int = 0
    #: SDK: one of several keys for reading.
    is_supplemental: bool = False
    #: CKOD, CKORP, CKORL: the key goes with the tape; when the reservation is preempted; when it is lost.
    clear_on_demount: bool = True
    clear_on_preempt: bool = False
    clear_on_loss: bool = False

    def __repr__(self) -> str:
        return f"KeySetting(encrypts={self.encrypts}, decrypts={self.decrypts}, name={self.name!r})"

    def encode(self) -> bytes:
        """Return the page."""
        flags = (
            self.checks_external_mode << 6
            | self.raw_decryption_control << 4
            | self.is_supplemental << 3
            | self.clear_on_demount << 2
            | self.clear_on_preempt << 1
            | self.clear_on_loss
        )
        body = bytes([self.scope << 5 | self.lock, flags, _MODES.index(self.encrypts), _MODES.index(self.decrypts)])
        body += bytes([self.algorithm_index, 0, _KAD_IS_ASCII if self.name else 0]) + bytes(7)
        body += commands.field(len(self.key), 2) + self.key
        if self.name:
            body += bytes([UNAUTHENTICATED_KAD, 0]) + commands.field(len(self.name), 2) + self.name
        return commands.field(SET_DATA_ENCRYPTION, 2) + commands.field(len(body), 2) + body


#: No key any more. Without CKOD, which drives refuse when no tape is loaded.
NO_KEY = KeySetting(EncryptionMode.OFF, EncryptionMode.OFF, clear_on_demount=False)


def set_data_encryption(device: Device, setting: KeySetting) -> None:
    """Send a setting. Raises as `Device.run`."""
    page = setting.encode()
    device.run(
        commands.security_protocol_out(TAPE_DATA_ENCRYPTION, SET_DATA_ENCRYPTION, len(page)), Doing.ASK, data_out=page
    )


def read_encryption_status(device: Device) -> EncryptionStatus:
    """Ask what the drive does. Raises NotSupported when it cannot encrypt, BadAnswer."""
    return parse_encryption_status(_read(device, DATA_ENCRYPTION_STATUS))


def read_capabilities(device: Device) -> Capabilities | None:
    """Ask what the drive can; None when it does not know the question. Raises BadAnswer."""
    try:
        return parse_capabilities(_read(device, DATA_ENCRYPTION_CAPABILITIES))
    except NotSupported:
        return None


def read_next_block(device: Device) -> NextBlock:
    """Ask what lies before the head. Raises NotSupported, BadAnswer."""
    return parse_next_block(_read(device, NEXT_BLOCK_STATUS))


def _read(device: Device, page: int) -> bytes:
    return device.read(commands.security_protocol_in(TAPE_DATA_ENCRYPTION, page, _ROOM_BYTES), _ROOM_BYTES)


# -- pages -----------------------------------------------------------------------------------------------------------


def parse_encryption_status(data: bytes) -> EncryptionStatus:
    """Decode the page. Raises BadAnswer."""
    fields = _page(data, DATA_ENCRYPTION_STATUS, "the encryption status")
    return EncryptionStatus(
        _mode(fields.number(5)),
        _mode(fields.number(6)),
        fields.number(8, 4),
        fields.number(7),
        _name(fields, _STATUS_HEAD_BYTES),
    )


def parse_capabilities(data: bytes) -> Capabilities:
    """Decode the page; algorithms that do not end in it are left out. Raises BadAnswer."""
    fields = _page(data, DATA_ENCRYPTION_CAPABILITIES, "the encryption capabilities")
    found = []
    at = _CAPABILITIES_HEAD_BYTES
    while at + _ALGORITHM_BYTES <= len(fields):
        size_bytes = 4 + fields.number(at + 2, 2)
        if size_bytes >= _ALGORITHM_BYTES and at + size_bytes <= len(fields):
            found.append(_algorithm(fields.part(at, size_bytes)))
        at += size_bytes
    # CFG_P: 0 not told, 1 the host may, 2 not at the moment.
    return Capabilities(fields.bits(4, 1, 0) != 2, tuple(found))


def _algorithm(fields: Fields) -> Algorithm:
    # DECRYPT_C and ENCRYPT_C: 0 cannot, 1 by software, 2 by hardware, 3 can, but others control it.
    return Algorithm(
        index=fields.number(0),
        code=fields.number(20, 4),
        key_bytes=fields.number(10, 2),
        can_decrypt=fields.bits(4, 3, 2) in (1, 2),
        can_encrypt=fields.bits(4, 1, 0) in (1, 2),
        most_name_bytes=fields.number(6, 2),
        is_name_fixed=fields.bit(5, 1),
    )


#: Encryption status of the page: not told, not yet known, no block, plain, unknown algorithm, key here, key not here.
_NEXT_BLOCKS = (
    NextBlock.UNKNOWN,
    NextBlock.UNKNOWN,
    NextBlock.NO_BLOCK,
    NextBlock.PLAIN,
    NextBlock.LOCKED,
    NextBlock.DECRYPTABLE,
    NextBlock.LOCKED,
)


def parse_next_block(data: bytes) -> NextBlock:
    """Decode the page. Raises BadAnswer."""
    fields = _page(data, NEXT_BLOCK_STATUS, "the next block's encryption status")
    code = fields.bits(12, 3, 0)
    return _NEXT_BLOCKS[code] if code < len(_NEXT_BLOCKS) else NextBlock.UNKNOWN


def _page(data: bytes, page: int, name: str) -> Fields:
    fields = Fields(data, name)
    if fields.number(0, 2) != page:
        raise BadAnswer(f"{name} came as page {fields.number(0, 2):04x}h")
    return fields.upto(4 + fields.number(2, 2))


def _name(fields: Fields, at: int) -> str:
    """Return the first key-associated data that are not authenticated; "" when there are none."""
    while at + 4 <= len(fields):
        size_bytes = fields.number(at + 2, 2)
        if fields.number(at) == UNAUTHENTICATED_KAD and at + 4 + size_bytes <= len(fields):
            return fields.text(at + 4, size_bytes)
        at += 4 + size_bytes
    return ""


def _mode(code: int) -> EncryptionMode:
    if code >= len(_MODES):
        raise BadAnswer(f"the encryption status tells the mode {code}, which there is not")
    return _MODES[code]
