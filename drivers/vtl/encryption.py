"""Tape data encryption as a drive serves it: SECURITY PROTOCOL IN and OUT. Belongs to its server, under its lock.

AES-256-GCM, keys in the clear in the command, as LTO drives take them from a host. Each initiator goes by a key of its
own or by that which one has set for all. What the device does not do it refuses: locks, raw reading, external
encryption, supplemental keys, and keys that go with a reservation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.interface import NextBlock
from drivers.scsi.encryption import (
    AES_256_GCM,
    DATA_ENCRYPTION_CAPABILITIES,
    DATA_ENCRYPTION_STATUS,
    NEXT_BLOCK_STATUS,
    SET_DATA_ENCRYPTION,
    TAPE_DATA_ENCRYPTION,
    UNAUTHENTICATED_KAD,
    Scope,
)
from drivers.virtual.faults import BreakableDrive
from drivers.virtual.sealing import Cipher
from drivers.vtl.commands import Access, Command, Done, Nexus, Operation, operation
from drivers.vtl.sense import (
    ENCRYPTION_CHANGED,
    INVALID_FIELD_IN_CDB,
    PARAMETER_LIST_LENGTH,
    refuse,
    refuse_parameter,
)

_PROTOCOLS, _IN_PAGES, _OUT_PAGES, _KEY_FORMATS = 0x0000, 0x0000, 0x0001, 0x0011
_ALGORITHM = 1
_KEY_BYTES, _MOST_NAME_BYTES = 32, 32
_OFF, _ENCRYPT, _DECRYPT, _MIXED = 0, 2, 2, 3
_HEAD_BYTES = 20
_CKOD, _SDK_CKORP_CKORL = 0x04, 0x0B
_NEXT = {NextBlock.NO_BLOCK: 2, NextBlock.PLAIN: 3, NextBlock.DECRYPTABLE: 5, NextBlock.LOCKED: 6}


@dataclass(frozen=True, slots=True)
class _Set:
    """What an initiator has set."""

    #: None: neither encrypts nor decrypts.
    cipher: Cipher | None
    by: Nexus
    instance: int


class TapeEncryption:
    """The keys of one drive, by initiator."""

    def __init__(self, drive: BreakableDrive, tell: Callable[[Nexus, int], None]) -> None:
        """`tell` establishes a unit attention."""
        self._drive = drive
        self._tell = tell
        self._local: dict[Nexus, _Set] = {}
        self._for_all: _Set | None = None
        self._instance = 0
        #: Initiators that care: they have used the protocol.
        self._known: set[Nexus] = set()

    def operations(self) -> Sequence[Operation]:
        """Return the commands."""
        return [
            operation("SECURITY PROTOCOL IN", "A2 FF FF FF 00 00 FF FF FF FF 00 00", self.receive, Access.HOLDER),
            operation("SECURITY PROTOCOL OUT", "B5 FF FF FF 00 00 FF FF FF FF 00 00", self.send, timeout_s=300),
        ]

    # -- keys ----------------------------------------------------------------------------------------------------

    def apply(self, nexus: Nexus) -> None:
        """Have the drive use the key of an initiator."""
        found = self._of(nexus)
        self._drive.set_cipher(found.cipher if found else None)

    def unloaded(self) -> None:
        """The tape has gone, and keys that go with it."""
        self._local = {nexus: each for nexus, each in self._local.items() if _stays(each)}
        if self._for_all is not None and not _stays(self._for_all):
            self._for_all = None

    def reset(self) -> None:
        """All keys are lost."""
        self._local.clear()
        self._for_all = None

    def forget(self, nexus: Nexus) -> None:
        """An initiator has gone."""
        self._local.pop(nexus, None)
        self._known.discard(nexus)

    def _of(self, nexus: Nexus) -> _Set | None:
        return self._local.get(nexus, self._for_all)

    # -- SECURITY PROTOCOL IN ------------------------------------------------------------------------------------

    def receive(self, command: Command) -> Done:
        """SECURITY PROTOCOL IN."""
        protocol, page = command.cdb[1], command.number(2, 2)
        if protocol == _PROTOCOLS and page == 0:
            data = bytes(6) + bytes([0, 2, _PROTOCOLS, TAPE_DATA_ENCRYPTION])
        elif protocol != TAPE_DATA_ENCRYPTION:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        else:
            self._known.add(command.nexus)
            data = self._page(page, command.nexus)
        return command.give(data, command.number(6, 4))

    def _page(self, page: int, nexus: Nexus) -> bytes:
        pages: dict[int, Callable[[Nexus], bytes]] = {
            _IN_PAGES: lambda _: _numbers(sorted(pages)),
            _OUT_PAGES: lambda _: _numbers([SET_DATA_ENCRYPTION]),
            DATA_ENCRYPTION_CAPABILITIES: lambda _: self._capabilities(),
            _KEY_FORMATS: lambda _: b"\0",
            DATA_ENCRYPTION_STATUS: self._status,
            NEXT_BLOCK_STATUS: self._next_block,
        }
        if page not in pages:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        body = pages[page](nexus)
        return page.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body

    def _capabilities(self) -> bytes:
        # CFG_P 1: the host may set keys.
        body = bytes([0x01]) + bytes(15)
        # This volume can be encrypted (AVFMV), encrypted blocks are told from others (DELB_C), all by hardware.
        able = 0x80 * self._drive.status().loaded | 0x10 | 0x0A
        algorithm = bytes([able, 0x00]) + _MOST_NAME_BYTES.to_bytes(2, "big") + bytes(2) + _KEY_BYTES.to_bytes(2, "big")
        algorithm += bytes(8) + AES_256_GCM.to_bytes(4, "big")
        return body + bytes([_ALGORITHM, 0]) + len(algorithm).to_bytes(2, "big") + algorithm

    def _status(self, nexus: Nexus) -> bytes:
        found = self._of(nexus)
        own = Scope.LOCAL if nexus in self._local else Scope.PUBLIC
        if found is not None and found is self._for_all and found.by == nexus:
            own = Scope.ALL
        key_scope = Scope.PUBLIC if found is None else Scope.LOCAL if nexus in self._local else Scope.ALL
        cipher = found.cipher if found else None
        encrypts, decrypts = _modes(cipher)
        body = bytes([own << 5 | key_scope, encrypts, decrypts, _ALGORITHM if cipher else 0])
        body += (found.instance if found else self._instance).to_bytes(4, "big") + bytes(12)
        return body + (_kad(cipher.name) if cipher and cipher.name else b"")

    def _next_block(self, nexus: Nexus) -> bytes:
        self.apply(nexus)
        block = self._drive.position().block
        code = _NEXT[self._drive.next_block()]
        return block.to_bytes(8, "big") + bytes([code, _ALGORITHM if code in (5, 6) else 0, 0, 0])

    # -- SECURITY PROTOCOL OUT -----------------------------------------------------------------------------------

    def send(self, command: Command) -> Done:
        """SECURITY PROTOCOL OUT: a key is set, or taken away."""
        if command.cdb[1] != TAPE_DATA_ENCRYPTION:
            raise refuse(INVALID_FIELD_IN_CDB, 1)
        if command.number(2, 2) != SET_DATA_ENCRYPTION:
            raise refuse(INVALID_FIELD_IN_CDB, 2)
        length = command.number(6, 4)
        page = command.parameters(length)
        if not page:
            return Done()
        self._known.add(command.nexus)
        self._set(command.nexus, page)
        return Done(length, length)

    def _set(self, nexus: Nexus, page: bytes) -> None:
        _check(page)
        scope = page[4] >> 5
        if page[5] & _CKOD and not self._drive.status().loaded:
            raise refuse_parameter(5)
        self._instance += 1
        found = _Set(None if scope == Scope.PUBLIC else _cipher(page), nexus, self._instance)
        self._local.pop(nexus, None)
        if scope == Scope.LOCAL:
            self._local[nexus] = found
        elif scope == Scope.ALL:
            self._for_all = found if found.cipher else None
            for other in self._known - {nexus} - set(self._local):
                self._tell(other, ENCRYPTION_CHANGED)


def _check(page: bytes) -> None:
    """Refuse what makes no sense, and what this device does not do. Raises CheckCondition."""
    if len(page) < _HEAD_BYTES or len(page) != 4 + int.from_bytes(page[2:4], "big"):
        raise refuse(PARAMETER_LIST_LENGTH)
    if int.from_bytes(page[:2], "big") != SET_DATA_ENCRYPTION:
        raise refuse_parameter(0)
    encrypts, decrypts = page[6], page[7]
    is_on = encrypts != _OFF or decrypts != _OFF
    wrong = {
        4: page[4] & 0x1F or page[4] >> 5 > Scope.ALL,
        5: page[5] & _SDK_CKORP_CKORL or page[5] >> 6 > 1 or page[5] >> 4 & 3 == 1,
        6: encrypts not in (_OFF, _ENCRYPT),
        7: decrypts not in (_OFF, _DECRYPT, _MIXED),
        8: is_on and page[8] != _ALGORITHM,
        9: page[9],
        10: page[10] > 2,
        # stenc sends a key of zeros when it switches encryption off.
        18: is_on and int.from_bytes(page[18:20], "big") != _KEY_BYTES,
    }
    for place, is_wrong in wrong.items():
        if is_wrong:
            raise refuse_parameter(place)


def _cipher(page: bytes) -> Cipher | None:
    encrypts, decrypts = page[6], page[7]
    if encrypts == _OFF and decrypts == _OFF:
        return None
    key_end = _HEAD_BYTES + _KEY_BYTES
    return Cipher(
        page[_HEAD_BYTES:key_end],
        _name(page, key_end),
        encrypts=encrypts == _ENCRYPT,
        is_mixed=decrypts == _MIXED,
        decrypts=decrypts != _OFF,
        leaves_with_tape=bool(page[5] & _CKOD),
    )


def _name(page: bytes, at: int) -> bytes:
    """Return the key-associated data, of which there may be one piece, not authenticated."""
    if at == len(page):
        return b""
    if len(page) < at + 4 or page[at] != UNAUTHENTICATED_KAD:
        raise refuse_parameter(at)
    length = int.from_bytes(page[at + 2 : at + 4], "big")
    if length > _MOST_NAME_BYTES or at + 4 + length != len(page):
        raise refuse_parameter(at + 2)
    return page[at + 4 :]


def _kad(name: bytes) -> bytes:
    return bytes([UNAUTHENTICATED_KAD, 1]) + len(name).to_bytes(2, "big") + name


def _modes(cipher: Cipher | None) -> tuple[int, int]:
    if cipher is None:
        return _OFF, _OFF
    reading = (_MIXED if cipher.is_mixed else _DECRYPT) if cipher.decrypts else _OFF
    return _ENCRYPT if cipher.encrypts else _OFF, reading


def _stays(found: _Set) -> bool:
    return found.cipher is not None and not found.cipher.leaves_with_tape


def _numbers(pages: Sequence[int]) -> bytes:
    return b"".join(page.to_bytes(2, "big") for page in pages)
