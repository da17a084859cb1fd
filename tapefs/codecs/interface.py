"""What a codec can do: the seam that every codec implements and that the contract tests test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from tapefs.errors import BadStructure, UsageError

if TYPE_CHECKING:
    from tapefs.codecs.shelf import Shelf

#: A frame holds at most this many plain bytes: bounds what a hostile tape can make a reader allocate.
MAX_FRAME_BYTES = 64 << 20

#: The level of a job that leaves it to the run to choose one for each frame; of codecs that have `auto_levels`.
AUTO_LEVEL = -1

#: Turns the plain bytes of one frame into its stored bytes, which never change: a view of them is read-only. Belongs to
#: one thread; releases the GIL while it works.
Encoder = Callable[[bytes | memoryview], bytes | memoryview]


class Codec(Protocol):
    """A way of compressing a payload, frame by frame. Without state: any thread may use it."""

    @property
    def name(self) -> str:
        """The name in jobs and on the command line, for instance `pgzip`."""
        ...

    @property
    def format(self) -> str:
        """What the payload is, as headers and the ledger's segments name it, for instance `gzip`."""
        ...

    @property
    def suffix(self) -> str:
        """What a payload's file name ends in, for instance `.tar.zst`."""
        ...

    @property
    def is_tar(self) -> bool:
        """Is the plain stream a tar stream? Else it is the contents of the members, one behind the other."""
        ...

    @property
    def unpack_command(self) -> str:
        """The shell filter that turns a payload into the plain stream; empty when it is that stream."""
        ...

    @property
    def levels(self) -> range:
        """The levels that exist, from fast to small."""
        ...

    @property
    def auto_levels(self) -> range:
        """The levels among which a run chooses for each frame when the job's is AUTO_LEVEL; none: it cannot."""
        ...

    @property
    def default_level(self) -> int:
        """The level of a job that names none; may be AUTO_LEVEL."""
        ...

    @property
    def is_compressed(self) -> bool:
        """Is the payload compressed, so that a drive need not try?"""
        ...

    def encoder(self, level: int, shelf: Shelf | None = None) -> Encoder:
        """Return an encoder for one thread; each of its calls makes one frame that decodes on its own.

        Frames may come in memory of the `shelf`, which is used again when no view of them is left.

        With AUTO_LEVEL where there are `auto_levels` it is one of the highest of them.

        Raises UsageError for a level that does not exist; the encoder raises ValueError over MAX_FRAME_BYTES.
        """
        ...

    def decode(self, stored: bytes | memoryview, plain_bytes: int) -> bytes:
        """Return the `plain_bytes` bytes of one frame; never allocate more than that and a little.

        Raises BadStructure when it is not exactly one whole frame of that plain length. Whether the bytes are those
        that were written tells the frame's checksum: not every codec has one of its own.
        """
        ...

    def closing(self, frames: Sequence[tuple[int, int]]) -> bytes:
        """Return what ends the payload behind its last frame, for readers on disk; may be empty.

        `frames` are the (stored, plain) lengths of all its frames, in order.
        """
        ...


def check_level(codec: Codec, level: int) -> None:
    """Raise UsageError unless `level` is one of the codec's, or open."""
    levels = codec.levels
    if level in levels or is_open(codec, level):
        return
    if level == AUTO_LEVEL:
        raise UsageError(f"{codec.name} does not choose its level by itself: give a number, or leave the level out")
    if len(levels) == 1:
        raise UsageError(f"{codec.name} does not compress, so it has no level {level}: leave the level out")
    raise UsageError(f"{codec.name} has no level {level}: use {levels[0]} (fast) to {levels[-1]} (small)")


def is_open(codec: Codec, level: int) -> bool:
    """Does the level leave it to the run to choose one for each frame?"""
    return level == AUTO_LEVEL and bool(codec.auto_levels)


def check_plain(plain: bytes | memoryview) -> None:
    """Raise ValueError when these are too many bytes for a frame: what no reader takes must not be written."""
    if len(plain) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(plain)} bytes is over the limit of {MAX_FRAME_BYTES}")


def check_claim(plain_bytes: int) -> None:
    """Raise BadStructure when a frame cannot be that long, before memory is taken for it."""
    if not 0 <= plain_bytes <= MAX_FRAME_BYTES:
        raise BadStructure(f"a frame of {plain_bytes} plain bytes is over the limit of {MAX_FRAME_BYTES}")
