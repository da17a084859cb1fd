"""What LTFS tells of a volume and its files through extended attributes. Blocking; any thread, no state.

The standard names them `ltfs.…`. On Linux, the kernel wants a namespace, so implementations there say `user.ltfs.…`;
both are asked for. Attributes of the volume belong to its root directory.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass

from drivers.health import CLEANING_FLAGS, DriveHealth, MediumHealth

MIB = 1024 * 1024

#: A path, or an open descriptor.
Where = str | bytes | int | os.PathLike[str]

_NAMESPACES = ("user.ltfs.", "ltfs.")
#: What says that there is no such attribute: the file system has none, or not this one, or the drive does not tell it.
_NOT_THERE = (errno.ENODATA, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM, errno.EACCES, errno.ERANGE)
#: What the attribute says of a volume that may be written to; else it is a word, or a number that is not 0.
_UNLOCKED = ("", "unlocked")


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume as LTFS describes it; empty text for what it does not say."""

    #: New with every formatting.
    uuid: str
    #: What its owner calls it.
    name: str
    #: Serial number that it was formatted with: the first six characters of the barcode.
    serial: str
    #: Barcode in the cartridge's memory.
    barcode: str
    #: Media pool.
    pool: str
    #: Bytes of a block on tape; 0 when unknown.
    block_bytes: int
    #: Number of the newest index; 0 when unknown.
    index_generation: int
    #: What formatted it.
    creator: str
    #: Its owner has locked it against writing.
    locked: bool

    @property
    def is_ltfs(self) -> bool:
        """Is this a volume of LTFS at all?"""
        return bool(self.uuid)


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where the first extent of a file begins."""

    #: Letter of the partition; the one with data usually is `b`.
    partition: str
    #: Logical block there.
    start_block: int


def read_attribute(where: Where, name: str) -> str | None:
    """Return LTFS's attribute `name`, given without `ltfs.`; None when there is none. Raises OSError."""
    for namespace in _NAMESPACES:
        try:
            value = os.getxattr(where, namespace + name)
        except OSError as error:
            if error.errno not in _NOT_THERE:
                raise
            continue
        return value.decode(errors="replace").strip(" \0\n")
    return None


def read_facts(root: Where) -> VolumeFacts:
    """Ask a volume's root directory who it is. Raises OSError when the volume does not answer."""

    def text(name: str) -> str:
        return read_attribute(root, name) or ""

    uuid = text("volumeUUID")
    if not uuid:
        return VolumeFacts("", "", "", "", "", 0, 0, "", locked=False)
    return VolumeFacts(
        uuid=uuid,
        name=text("volumeName"),
        serial=text("volumeSerial"),
        barcode=text("mamBarcode"),
        pool=text("mediaPool.name"),
        block_bytes=_number(text("volumeBlocksize")),
        index_generation=_number(text("indexGeneration")),
        creator=text("labelCreator"),
        locked=_is_locked(text("volumeLockState").lower()),
    )


def read_health(root: Where) -> DriveHealth:
    """Ask a volume's root directory how the cartridge is. Raises OSError when the volume does not answer."""

    def count(name: str) -> int | None:
        text = read_attribute(root, name) or ""
        return int(text) if text.isascii() and text.isdigit() else None

    def megabytes(name: str) -> int | None:
        number = count(name)
        return None if number is None else number * MIB

    alerts = _flags(read_attribute(root, "mediaStorageAlert") or "")
    return DriveHealth(
        alerts=alerts,
        wants_cleaning=bool(alerts & CLEANING_FLAGS),
        medium=MediumHealth(
            loads=count("mediaLoads"),
            written_bytes=megabytes("mediaMBWritten"),
            read_bytes=megabytes("mediaMBRead"),
            write_errors=count("mediaPermanentWriteErrors"),
            read_errors=count("mediaPermanentReadErrors"),
        ),
    )


def _flags(text: str) -> frozenset[int]:
    """Return the TapeAlert flags of 64 bits in hexadecimal, the first flag being the highest; none of anything else."""
    if re.fullmatch(r"(?:0x)?[0-9A-Fa-f]{1,16}", text) is None:
        return frozenset()
    bits = int(text, 16)
    return frozenset(number for number in range(1, 65) if bits >> (64 - number) & 1)


def read_place(where: Where) -> Place | None:
    """Return where a file begins on tape; None when it has no extent or the file system does not tell."""
    start = read_attribute(where, "startblock")
    if start is None or not start.isascii() or not start.isdigit():
        return None
    return Place(read_attribute(where, "partition") or "", int(start))


def ask_for_index(root: Where) -> bool:
    """Have LTFS write its index to tape; what was closed or synced before is then safe. False: there is no such way.

    Its fsync writes a file's data only, so that without an index nobody finds them. Raises OSError.
    """
    for namespace in _NAMESPACES:
        try:
            os.setxattr(root, f"{namespace}sync", b"1")
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENODATA):
                raise
        else:
            return True
    return False


def _is_locked(state: str) -> bool:
    return state not in _UNLOCKED and re.fullmatch(r"0x0+|0", state) is None


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
