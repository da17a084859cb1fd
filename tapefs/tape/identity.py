"""What is on the loaded tape, whoever wrote it: its first structures are read, nothing is written.

Runs in the drive's thread.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import Enum

from catalog.ids import InstallationId
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import Drive
from tapefs.errors import BadStructure
from tapefs.format.foreign import foreign_names, is_name_of_taf, ltfs_names
from tapefs.format.identify import foreign_format, is_ours
from tapefs.format.records import Label
from tapefs.format.structures import read_label
from tapefs.tape.blocks import BlockReader

#: Mark of a tape whose first block cannot be read.
UNREADABLE = "unreadable"
#: So much of a foreign tape is read at most to find what it is called.
_MOST_BYTES = 16 * 1024 * 1024
#: Stands for a first block that is larger than any that is read.
_TOO_LARGE = b"too large"
#: Tape files in which LTFS says what a volume is called: its label, an empty one, and its index.
_LTFS_FILES = 3


class Owner(Enum):
    """Whose tape it is."""

    #: Nothing is on it.
    NOBODY = "nobody"
    #: It has a label of this installation.
    OURS = "ours"
    #: It has a label of another installation of tapefs.
    ELSEWHERE = "elsewhere"
    #: Another program wrote it, or it cannot be read.
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a tape is."""

    owner: Owner
    #: As an operator knows it: `tapefs`, `LTFS`, `AMANDA`, `tar`; `blank`; `unreadable`.
    format: str
    #: What it is called, the usual name first; at least one, but of a blank tape.
    names: tuple[str, ...]
    #: Tells its first block from all others: SHA-256 as hexadecimal digits, or `unreadable`; empty for a blank tape.
    mark: str
    #: Its label, if it is a tape of tapefs.
    label: Label | None = None
    #: What is wrong with it, if anything.
    trouble: str = ""

    @property
    def name(self) -> str:
        """What it is called, and what must be repeated before it is overwritten; empty for a blank tape."""
        return self.names[0] if self.names else ""

    @property
    def sentence(self) -> str:
        """Tell what it is, without a full stop."""
        if self.owner is Owner.NOBODY:
            return "blank"
        if self.label is not None:
            where = "of this installation" if self.owner is Owner.OURS else f"of installation {self.label.installation}"
            return f"tape {self.name} {where}, volume {self.label.volume}"
        if self.format == UNREADABLE:
            return f"unreadable ({self.trouble})"
        about = f", {self.trouble}" if self.trouble else ""
        others = f" ({', '.join(self.names[1:])})" if self.names[1:] else ""
        return f"{self.format}{about}, called {self.name}{others}"


BLANK = Identity(Owner.NOBODY, "blank", (), "")


def mark_of(first_block: bytes) -> str:
    """Return what tells a first block from others."""
    return hashlib.sha256(first_block).hexdigest()


def first_mark(drive: Drive) -> str:
    """Rewind and return the mark of the loaded tape, as `Identity.mark`. Raises drive errors."""
    drive.rewind()
    try:
        return mark_of(bytes(BlockReader(drive, 0).read()))
    except EndOfData:
        return ""
    except ReadFailed:
        return UNREADABLE
    except BadStructure:
        return mark_of(_TOO_LARGE)


def identify(drive: Drive, installation: InstallationId) -> Identity:
    """Rewind and tell what the loaded tape is. Raises drive errors, but for a first block that cannot be read."""
    drive.rewind()
    reader = BlockReader(drive, 0)
    try:
        block = bytes(reader.read())
    except EndOfData:
        return BLANK
    except ReadFailed as error:
        return Identity(Owner.FOREIGN, UNREADABLE, (UNREADABLE,), UNREADABLE, trouble=str(error))
    except BadStructure as error:
        return _nameless("unknown data", _TOO_LARGE, f"in blocks too large to be read ({error})")
    if not block:
        return _nameless("unknown data", block, "which begins with a filemark")
    return _ours(block, installation) if is_ours(block) else _foreign(block, reader)


def _ours(block: bytes, installation: InstallationId) -> Identity:
    try:
        label = read_label(block)
    except BadStructure as error:
        return _nameless("tapefs", block, f"whose label is damaged or newer than this program ({error})")
    owner = Owner.OURS if label.installation == installation else Owner.ELSEWHERE
    return Identity(owner, "tapefs", (label.label, label.volume), mark_of(block), label)


def _foreign(block: bytes, reader: BlockReader) -> Identity:
    format = foreign_format(block) or "unknown data"
    names = foreign_names(format, block)
    if format == "LTFS":
        names = [*ltfs_names(_behind(reader)), *names]
        if any(map(is_name_of_taf, names)):
            format = "LTFS of TAF"
    if not names:
        return _nameless(format, block)
    return Identity(Owner.FOREIGN, format, tuple(dict.fromkeys(names)), mark_of(block))


def _nameless(format: str, block: bytes, trouble: str = "") -> Identity:
    """What has no name is called by its format and the beginning of its mark."""
    mark = mark_of(block)
    return Identity(Owner.FOREIGN, format, (f"{format.split()[0].lower()}-{mark[:8]}",), mark, trouble=trouble)


def _behind(reader: BlockReader) -> bytes:
    """Return the tape files behind the first, as far as they can be read; they only say more about the name."""
    found = bytearray()
    files = 0
    try:
        while files <= _LTFS_FILES and len(found) < _MOST_BYTES:
            block = reader.read()
            files += not block
            found += block
    except (EndOfData, ReadFailed, BadStructure):
        pass
    return bytes(found)
