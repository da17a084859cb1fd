"""What a drive and a changer can do: the seam that every driver implements and that the contract suites test.

All calls block. A drive is used by one thread of one process; a changer likewise. Sizes are bytes, times seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import NewType, Protocol, runtime_checkable

from drivers.health import DriveHealth

BlockNo = NewType("BlockNo", int)
FileNo = NewType("FileNo", int)

#: AES-256.
DRIVE_KEY_BYTES = 32
#: What all LTO drives keep of a name with each block.
DRIVE_KEY_NAME_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class Position:
    """Where the head stands, as READ POSITION (long form) tells it."""

    #: Logical block that the next read or write touches; a filemark counts as one block.
    block: BlockNo
    #: Filemarks before this place.
    file: FileNo


@dataclass(frozen=True, slots=True)
class Seconds:
    """Time spent by kind, by the motion model (virtual drive) or by the clock (real drives)."""

    load: float = 0.0
    locate: float = 0.0
    read: float = 0.0
    write: float = 0.0
    rewind: float = 0.0
    backhitch: float = 0.0


@dataclass(frozen=True, slots=True)
class Counters:
    """What a drive has done since it was made; all values only grow."""

    loads: int = 0
    locates: int = 0
    blocks_read: int = 0
    blocks_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    #: Times that the tape stopped and had to back up before it went on, and those of them that came because the host
    #: was too slow and the drive's buffer ran empty while writing.
    backhitches: int = 0
    underruns: int = 0
    seconds: Seconds = field(default_factory=Seconds)


@dataclass(frozen=True, slots=True)
class DriveStatus:
    """A snapshot of the drive and its cartridge."""

    #: Is a tape threaded and ready?
    loaded: bool
    #: Barcode of the cartridge in the drive (threaded or not), None when there is none or it has no barcode.
    barcode: str | None
    #: LTO generation of the drive, for instance 9.
    generation: int
    #: LTO generation of the cartridge, None when none is there.
    medium_generation: int | None
    write_protected: bool
    #: Does the drive compress what is written? Capacities count as if it did not gain anything by it.
    compresses: bool
    #: Bytes the cartridge holds when full; 0 when none is there.
    capacity_bytes: int
    #: Bytes from here to the early warning; 0 behind it. A lower bound, not a promise.
    remaining_bytes: int
    #: Vendor, model and serial number in one line.
    identity: str
    counters: Counters
    #: The cartridge can be written only once, as far as the drive tells.
    worm: bool = False
    #: Its maker's serial number and how often it was loaded, by the cartridge's memory; empty, None: not told.
    medium_serial: str = ""
    medium_loads: int | None = None


class Drive(Protocol):
    """One tape drive, variable-block mode.

    After any DriveError other than EndOfData and EndOfMedium the caller asks `position()` before it writes again.
    """

    def load(self, *, compress: bool | None = None) -> None:
        """Thread the cartridge that the changer or a human put in; the head stands at block 0.

        `compress` says whether the drive compresses what is written from now on, None leaves that as it is. Reading
        needs no word of it: a drive knows from the medium. One that cannot compress takes True and does not.

        Raises NotReady when there is none, IncompatibleMedium, DeviceFailed.
        """
        ...

    def unload(self) -> None:
        """Sync, rewind, unthread and eject; harmless when nothing is loaded."""
        ...

    def status(self) -> DriveStatus:
        """Return a snapshot; works without a tape."""
        ...

    def position(self) -> Position:
        """Return where the head stands. Raises NotReady, PositionLost."""
        ...

    def rewind(self) -> None:
        """Go to block 0; clears PositionLost."""
        ...

    def locate(self, block: BlockNo) -> None:
        """Go to a logical block, at most to the end of data. Raises EndOfData (the head then stands there)."""
        ...

    def space_filemarks(self, count: int) -> None:
        """Go forwards over `count` filemarks; the head stands behind the last. Raises EndOfData."""
        ...

    def seek_end(self) -> None:
        """Go to the end of data, where an append goes on."""
        ...

    def read_into(self, buffer: memoryview) -> int:
        """Read the next block into the start of `buffer`; return its length, or 0 for a filemark (passed over).

        Raises EndOfData behind the last block, ReadFailed, and ValueError when the block is larger than the buffer
        (the head then still stands before it).
        """
        ...

    def write_block(self, block: bytes | memoryview) -> bool:
        """Write one block at the head and drop everything behind it; True means: early warning, end soon.

        The block may still be in the drive's buffer. Raises EndOfMedium, WriteProtected, WriteFailed, PositionLost.
        """
        ...

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """Write `count` filemarks; with `sync` return only when all that was written is on the medium.

        `count` 0 with `sync` only flushes. Raises as write_block.
        """
        ...

    def erase(self, *, long: bool) -> None:
        """Erase from the head to the end of the tape, on the medium when this returns; the head stands where it stood.

        What is there is not looked at, and the answer does not come back: callers rewind first, or go where the data
        ends that they want to keep. Short, nothing can be read behind the head any more; `long` also has every metre
        written over, which takes up to a day. Raises as write_block, and NotSupported, before anything is erased, where
        the medium cannot be written over. A tape that can be written once is refused with WriteProtected.
        """
        ...

    def close(self) -> None:
        """Let go of the device without moving the tape; unsynced blocks may be lost. Harmless twice."""
        ...


@runtime_checkable
class RecommendsOrder(Protocol):
    """What some drives can besides: they know where blocks lie on the tape, so in which order they are read soonest."""

    def recommended_order(self, extents: Sequence[tuple[int, int]]) -> list[int] | None:
        """Return the order in which to read `extents`, (first block, last block) each, from where the head stands.

        The answer is a permutation of range(len(extents)), first what is to be read first. None: this drive or this
        tape has no order to tell, not for so many, or none that makes sense; then the caller uses its own. The tape
        does not move. Raises NotReady, PositionLost, DeviceFailed, and ValueError for what is no extent.
        """
        ...


class Lengthy(Enum):
    """What takes a drive so long that people must be told how far it is."""

    LOADING = "loading"
    #: The first load of a new LTO-9 cartridge, of which the drive makes itself a picture; up to two hours.
    MEASURING = "measuring"
    ERASING = "erasing"


@dataclass(frozen=True, slots=True)
class Busy:
    """How far a drive is with something lengthy."""

    doing: Lengthy
    #: 0 … 1; None when the drive does not tell.
    share: float | None = None


#: Hears how far it is, from the thread that uses the drive; None when it is over, however it ended.
Listener = Callable[[Busy | None], None]


@runtime_checkable
class TellsProgress(Protocol):
    """What some drives can besides: they tell how far they are with what takes long."""

    def watch(self, listener: Listener) -> None:
        """Have `listener` told from now on, instead of another one; it must not use the drive."""
        ...


@dataclass(frozen=True, slots=True)
class DriveKey:
    """A key for a drive that encrypts: AES-256-GCM. Its secret is not shown by repr()."""

    secret: bytes = field(repr=False)
    #: Up to 32 ASCII characters that tell which key it is; stored in clear with every block, where the drive can.
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.secret) != DRIVE_KEY_BYTES:
            raise ValueError(f"the key of a drive has {DRIVE_KEY_BYTES} bytes, not {len(self.secret)}")
        if len(self.name) > DRIVE_KEY_NAME_CHARACTERS or not self.name.isascii() or not self.name.isprintable():
            raise ValueError(f"the name of a drive's key has at most {DRIVE_KEY_NAME_CHARACTERS} ASCII characters")


@dataclass(frozen=True, slots=True)
class Encryption:
    """What becomes of blocks on their way, by the drive's own word."""

    #: What is written is encrypted from here on; what is encrypted is decrypted when it is read.
    encrypts: bool
    decrypts: bool
    #: Name of the key, "" when there is none or the drive does not tell.
    key_name: str = ""


class NextBlock(Enum):
    """What lies before the head, as far as the drive tells without reading it out."""

    UNKNOWN = "unknown"
    #: A filemark, or the end of data.
    NO_BLOCK = "no block"
    PLAIN = "plain"
    #: Encrypted, and the drive has its key.
    DECRYPTABLE = "decryptable"
    #: Encrypted, and the drive has no key for it, or does not know how.
    LOCKED = "locked"


@runtime_checkable
class Encrypts(Protocol):
    """What some drives can besides: they encrypt what they write, with a key that they are given.

    While a key is set, blocks that are not encrypted are read as they are. A block for which the drive lacks the key
    raises Undecryptable, and the head stays before it. The key goes when the tape is unloaded and when the drive is
    closed; a drive that was reset meanwhile is given it again by `rewind`, before anything can be written.
    """

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """Give the drive a key, or take it away with None; a tape must be loaded.

        Without `writes` what is written is not encrypted, and only reading uses the key. The head does not move, and
        what was written before stays as it went. Raises NotReady, and NotSupported where this drive or this tape cannot
        encrypt or a library manages the keys; then nothing has changed.
        """
        ...

    def encryption(self) -> Encryption | None:
        """Ask the drive; None when it cannot encrypt. Raises DeviceFailed."""
        ...

    def next_block(self) -> NextBlock:
        """Ask what lies before the head. Raises NotReady, PositionLost."""
        ...


@runtime_checkable
class TellsHealth(Protocol):
    """What some drives can besides: they tell how they are, and what the memory of their cartridge has counted."""

    def health(self) -> DriveHealth:
        """Ask drive and cartridge. Moves nothing, but is not cheap: not to be asked while the tape streams.

        Works without a tape. A drive whose TapeAlert can only be read by clearing it has it read here and nowhere else,
        so that what is told once is told to who keeps it. Raises NotReady, DeviceFailed.
        """
        ...


@runtime_checkable
class CanBeCleaned(Protocol):
    """What some drives can besides: they clean themselves with a cartridge for that."""

    def clean(self) -> None:
        """Wait until the cleaning cartridge that was put in has done its work and can be taken out again.

        Raises NotReady when there is none, CleaningUsedUp when it is used up, IncompatibleMedium when it is none for
        this drive, DeviceFailed.
        """
        ...


@runtime_checkable
class HoldsFiles(Protocol):
    """What some drives can besides: their medium is a file system, of which the files of others can be read, too."""

    def medium_id(self) -> str:
        """Return the id that the medium was given when it was formatted; "" when it has none. Raises NotReady."""
        ...

    def folder(self) -> Path:
        """Return the medium's root, to look at what is there while it is loaded. Raises NotReady."""
        ...

    def open_file(self, path: bytes) -> int:
        """Return a descriptor to read a regular file with, by its path from the medium's root; links are not followed.

        The caller closes it before the medium is unloaded. Raises NotReady, DeviceFailed, and NoSuchFile when there
        is none.
        """
        ...


class ElementKind(Enum):
    """What a place in a library is."""

    DRIVE = "drive"
    SLOT = "slot"
    #: A slot through which humans hand cartridges in and out.
    PORT = "port"


@dataclass(frozen=True, slots=True)
class Element:
    """One place of a library."""

    kind: ElementKind
    #: Number within its kind, from 0; ports are numbered on behind the slots, so that moves can name them as such.
    number: int
    #: A cartridge is here.
    full: bool
    #: Its barcode, if it has one.
    barcode: str | None


class Changer(Protocol):
    """A robot or a human that moves cartridges between slots and drives."""

    def inventory(self) -> list[Element]:
        """Return all drives, then all slots, then all ports."""
        ...

    def load(self, slot: int, drive: int) -> None:
        """Move a cartridge from a slot into a drive. Raises SlotEmpty, SlotFull, NoSuchElement."""
        ...

    def unload(self, drive: int, slot: int) -> None:
        """Move an ejected cartridge from a drive to a slot. Raises as load, and NotReady while it is threaded."""
        ...

    def transfer(self, source: int, target: int) -> None:
        """Move a cartridge from slot to slot. Raises as load."""
        ...

    def close(self) -> None:
        """Let go of the device. Harmless twice."""
        ...
