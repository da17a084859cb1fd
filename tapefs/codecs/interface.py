"""What a codec can do: the seam that every codec implements and that the contract tests test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

#: A frame holds at most this many plain bytes: bounds what a hostile tape can make a reader allocate.
MAX_FRAME_BYTES = 64 << 20

#: Turns the plain bytes of one frame into its stored bytes. Belongs to one thread; releases the GIL while it works.
Encoder = Callable[[bytes | memoryview], bytes]


class Codec(Protocol):
    """A way of compressing a payload, frame by frame. Without state: any thread may use it."""

    @property
    def name(self) -> str:
        """The name in headers and on the command line, for instance `zstd`."""
        ...

    @property
    def suffix(self) -> str:
        """What a payload's file name ends in, for instance `.tar.zst`."""
        ...

    @property
    def unpack_command(self) -> str:
        """The shell command that turns a payload on its standard input into the plain tar stream."""
        ...

    def check_level(self, level: int) -> None:
        """Raise UsageError unless `level` is one that `encoder` takes."""
        ...

    def encoder(self, level: int) -> Encoder:
        """Return an encoder for one thread; each of its calls makes one frame that decodes on its own.

        Raises UsageError for a level that does not exist; the encoder raises ValueError over MAX_FRAME_BYTES.
        """
        ...

    def decode(self, stored: bytes | memoryview, plain_bytes: int) -> bytes:
        """Return the `plain_bytes` bytes of one frame; never allocate more than that and a little.

        Raises BadStructure when it is not exactly one whole frame of that plain length.
        """
        ...

    def closing(self, frames: Sequence[tuple[int, int]]) -> bytes:
        """Return what ends the payload behind its last frame, for readers on disk; may be empty.

        `frames` are the (stored, plain) lengths of all its frames, in order.
        """
        ...
