"""A tape file that is being written: cut into blocks, and encrypted before that if the tape is. One thread at a time.

`cryptography` is imported when a tape is encrypted, and not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tapefs.tape.blocks import BlockSink, BlockWriter

if TYPE_CHECKING:
    from tapefs.keys.chunks import Sealer
    from tapefs.keys.identity import Recipient

#: By another name, because in a class that has a field `bytes` that is what `bytes` means.
_Octets = bytes


class TapeFile:
    """PAYLOAD, TRAILER or SET INDEX on its way to tape."""

    def __init__(
        self, drive: BlockSink, block_size: int, recipient: Recipient | None = None, what: str = "", uuid: str = ""
    ) -> None:
        """With a `recipient` it is encrypted; `what` (`payload`, `trailer`, `index`) and `uuid` stand in the clear."""
        self._blocks = BlockWriter(drive, block_size)
        self._sealer: Sealer | None = None
        #: The age header and nonce that it begins with; nothing if it is not encrypted.
        self.preamble = b""
        if recipient is not None:
            from tapefs.keys import age, chunks

            opening = age.new_opening(recipient, age.Clear(what, uuid, recipient.fingerprint))
            self.preamble = opening.preamble
            self._sealer = chunks.Sealer(self._blocks, opening)

    @property
    def bytes(self) -> int:
        """Taken in so far, before encryption."""
        return self._blocks.bytes if self._sealer is None else self._sealer.bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes for the tape so far; what waits for its chunk to be full is not among them before `finish`."""
        return self._blocks.bytes

    @property
    def blocks(self) -> int:
        """Blocks written so far."""
        return self._blocks.blocks

    @property
    def end_is_near(self) -> bool:
        """The drive has warned that the tape ends soon."""
        return self._blocks.end_is_near

    def write(self, data: _Octets | memoryview) -> None:
        """Take in bytes, which do not change afterwards. Raises what Drive.write_block does."""
        (self._blocks if self._sealer is None else self._sealer).write(data)

    def finish(self) -> _Octets:
        """Write what is left; return the SHA-256 of all bytes on tape. Raises as `write`."""
        if self._sealer is not None:
            self._sealer.finish()
        return self._blocks.finish()
