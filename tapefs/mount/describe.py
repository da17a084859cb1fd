"""Extended attributes: those that the source had, ACLs among them, and ours that tell where a file is.

Looked up on demand, in the event loop; nothing is fetched for them.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from catalog.index.model import EntryFlag
from tapefs.vfs.nodes import DirectoryNode, EntryNode, Node
from tapefs.vfs.residency import Piece, Residency, State, pieces_of, stretches

#: Plain numbers: an IntFlag costs 1.5 us an operation.
_XATTRS = int(EntryFlag.XATTRS)
_IN_PIECES = int(EntryFlag.SPLIT | EntryFlag.SPARSE)

#: What tools of the Worldwide LHC Computing Grid ask for, under the name that StoRM and dCache give it.
_GRID_STATUS = {State.NEARLINE: b"NEARLINE", State.STAGING: b"NEARLINE"}


#: Ours only where the source had none: anybody may use that name.
_STATUS = b"user.status"
_TRUSTED = b"trusted."
_CAP_SYS_ADMIN = 21


class Description:
    """Answers getxattr and listxattr."""

    def __init__(self, residency: Residency) -> None:
        self._residency = residency
        self._ours: Mapping[bytes, Callable[[EntryNode, tuple[Piece, ...]], bytes | None]] = {
            b"user.tapefs.state": self._state,
            b"user.tapefs.tape": self._tape,
            b"user.tapefs.segment": self._segment,
            b"user.tapefs.position": self._position,
            b"user.tapefs.sha256": self._sha256,
            b"user.status": self._status,
        }

    def value(self, node: Node, name: bytes) -> bytes | None:
        """Return one attribute, None if there is none.

        The kernel asks for the ACL of whatever is accessed, so the answer that there is none must be quick.
        """
        if name == _STATUS or name not in self._ours:
            for stored, value in _stored(node):
                if stored == name:
                    return value
        attribute = self._ours.get(name)
        if attribute is not None and isinstance(node, EntryNode) and stat.S_ISREG(node.entry.mode):
            return attribute(node, pieces_of(node.view.reader, node.number, node.entry))
        return None

    def names(self, node: Node, thread_id: int) -> list[bytes]:
        """Return the names of the attributes that the source had, for that caller.

        Ours are not listed: the state of a file on tape would be copied along by `cp -a`, `rsync -X`, `tar --xattrs`.
        """
        names = [name for name, _ in _stored(node) if name == _STATUS or name not in self._ours]
        if any(name.startswith(_TRUSTED) for name in names) and not _may_administer(thread_id):
            names = [name for name in names if not name.startswith(_TRUSTED)]
        return names

    def _state(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes:
        return self._residency.state(node.view.reader, node.entry, pieces).value.encode()

    def _status(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        state = self._residency.state(node.view.reader, node.entry, pieces)
        if state is State.ONLINE:
            on_tape = pieces and all(
                self._residency.place(node.view.reader, piece) is not None for piece in stretches(pieces)
            )
            return b"ONLINE_AND_NEARLINE" if on_tape else b"ONLINE"
        return _GRID_STATUS.get(state)

    def _tape(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        places = [self._residency.place(node.view.reader, piece) for piece in stretches(pieces)]
        labels = dict.fromkeys(place.label for place in places if place is not None)
        return ",".join(labels).encode() or None

    def _segment(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        return ",".join(dict.fromkeys(piece.segment_id for piece in pieces)).encode() or None

    def _position(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        place = self._residency.place(node.view.reader, pieces[0]) if pieces else None
        return None if place is None else f"file={place.file} block={place.block} byte={place.byte}".encode()

    def _sha256(self, node: EntryNode, pieces: tuple[Piece, ...]) -> bytes | None:
        # The parts of a split file have one checksum each, and the whole has none; a sparse file's is of its data only.
        if len(pieces) != 1 or node.entry.flags & _IN_PIECES:
            return None
        digest = node.view.reader.sha256(pieces[0].segment_no, pieces[0].offset)
        return None if digest is None else digest.hex().encode()


def _stored(node: Node) -> Sequence[tuple[bytes, bytes]]:
    if isinstance(node, EntryNode):
        return node.view.reader.xattrs(node.number) if node.entry.flags & _XATTRS else ()
    if isinstance(node, DirectoryNode):
        return node.view.reader.directory_xattrs(node.directory.number) if node.directory.flags & _XATTRS else ()
    return ()


def _may_administer(thread_id: int) -> bool:
    """Tell whether a thread has CAP_SYS_ADMIN, without which trusted attributes are hidden: in lists, by us."""
    try:
        status = Path(f"/proc/{thread_id}/status").read_text()
    except OSError:
        return False  # it has ended, or lives in another namespace
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
