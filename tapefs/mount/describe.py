"""The extended attributes that tell where a file is. Looked up on demand, in the event loop; nothing is fetched for
them.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping

from catalog.index.model import EntryFlag
from tapefs.mount.errnos import NoAttribute
from tapefs.vfs.nodes import EntryNode, Node
from tapefs.vfs.residency import Piece, Residency, State, pieces_of

#: What tools of the Worldwide LHC Computing Grid ask for, under the name that StoRM and dCache give it.
_GRID_STATUS = {State.NEARLINE: b"NEARLINE", State.STAGING: b"NEARLINE"}


class Description:
    """Answers getxattr."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._attributes: Mapping[bytes, Callable[[EntryNode, tuple[Piece, ...]], bytes | None]] = {
            b"user.tapefs.state": self._state,
            b"user.tapefs.tape": self._tape,
            b"user.tapefs.segment": self._segment,
            b"user.tapefs.position": self._position,
            b"user.tapefs.sha256": self._sha256,
            b"user.status": self._status,
        }

    def value(self, node: Node, name: bytes) -> bytes:
        """Return one attribute. Raises NoAttribute."""
        attribute = self._attributes.get(name)
        if attribute is not None and isinstance(node, EntryNode) and stat.S_ISREG(node.entry.mode):
            value = attribute(node, pieces_of(node.view.reader, node.number, node.entry))
            if value is not None:
                return value
        raise NoAttribute(f"there is no {name.decode(errors='replace')} here")

    def _state(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes:
        return self._residency.state(node.view.reader, node.entry, pieces).value.encode()

    def _status(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        state = self._residency.state(node.view.reader, node.entry, pieces)
        if state is State.ONLINE:
            on_tape = pieces and all(self._residency.place(node.view.reader, piece) is not None for piece in pieces)
            return b"ONLINE_AND_NEARLINE" if on_tape else b"ONLINE"
        return _GRID_STATUS.get(state)

    def _tape(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        places = [self._residency.place(node.view.reader, piece) for piece in pieces]
        labels = dict.fromkeys(place.label for place in places if place is not None)
        return ",".join(labels).encode() or None

    def _segment(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        return ",".join(dict.fromkeys(piece.segment_id for piece in pieces)).encode() or None

    def _position(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        place = self._residency.place(node.view.reader, pieces[0]) if pieces else None
        return None if place is None else f"file={place.file} block={place.block} byte={place.byte}".encode()

    def _sha256(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        # The parts of a split file have one checksum each, and the whole has none.
        if len(pieces) != 1 or node.entry.flags & EntryFlag.SPLIT:
            return None
        digest = node.view.reader.sha256(pieces[0].segment_no, pieces[0].offset)
        return None if digest is None else digest.hex().encode()
