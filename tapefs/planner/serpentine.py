"""An LTO cartridge before its drive: positions are bytes of payload, times are seconds. Pure; any thread.

The geometry is the one that the virtual drive moves by (`drivers.virtual.motion`), with that drive's own coefficients
if they have been fitted. Requests become `Piece`s: what is read in one go, because it is wanted twice, overlaps, or
because the gap between is read through faster than a locate would skip it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from drivers.virtual.motion import Motion
from tapefs.planner.records import Request


@dataclass(frozen=True, slots=True)
class SerpentineModel:
    """The motion of one drive with one cartridge."""

    motion: Motion

    def set_out(self, head: float, target: float) -> float:
        """Return the seconds of a locate; it makes no difference what the drive did before."""
        return self.motion.locate_s(int(head), int(target))

    def locate(self, start: float, target: float) -> float:
        """Return the seconds of a locate; reading through the gap if that is faster."""
        return self.motion.locate_s(int(start), int(target))

    def read(self, length: float) -> float:
        """Return the seconds to read so many bytes while streaming."""
        return self.motion.read_s(int(length))


@dataclass(frozen=True, slots=True)
class Piece:
    """What is read in one go."""

    start: float
    end: float
    weight: float
    #: The requests in it, by place.
    members: tuple[int, ...]


def pieces_of(requests: Sequence[Request], motion: Motion, gap_bytes: float) -> list[Piece]:
    """Return the pieces by place: what overlaps is one, and on one wrap what is less than `gap_bytes` apart."""
    pieces: list[Piece] = []
    members: list[int] = []
    end = 0.0
    for index in sorted(range(len(requests)), key=lambda index: (requests[index].start, requests[index].length)):
        request = requests[index]
        if members and not _is_read_on(motion, end, request.start, gap_bytes):
            pieces.append(_piece(requests, members, end))
            members = []
        end = max(end, request.end) if members else request.end
        members.append(index)
    return [*pieces, _piece(requests, members, end)]


def _is_read_on(motion: Motion, end: float, start: float, gap_bytes: float) -> bool:
    if start < end:
        return True
    return start - end < gap_bytes and motion.place(int(end)).wrap == motion.place(int(start)).wrap


def _piece(requests: Sequence[Request], members: Sequence[int], end: float) -> Piece:
    weight = sum(requests[index].weight for index in members)
    return Piece(requests[members[0]].start, end, weight, tuple(members))


def in_full(pieces: Sequence[Piece], order: Iterable[int]) -> list[int]:
    """Return the requests of the pieces, piece by piece in this order."""
    return [index for piece in order for index in pieces[piece].members]


def in_pieces(pieces: Sequence[Piece], order: Iterable[int]) -> list[int]:
    """Return the pieces in the order in which one of their requests comes first."""
    home = {index: number for number, piece in enumerate(pieces) for index in piece.members}
    return list(dict.fromkeys(home[index] for index in order))
