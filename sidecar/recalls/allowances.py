"""How much each user has had fetched from tape within the last hour. Pure bookkeeping; times in seconds are passed in.

Frames count for the user who was the first to wish them, when they come; what others wish meanwhile is joined and
counts for nobody. What was admitted and has not come yet counts towards the limit, or many reads at once would pass it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from catalog.ids import SegmentId, VolumeId
from tapefs.spans import Spans

WINDOW_S = 3600.0
#: Arrivals of a user so close in time are kept as one.
_GRAIN_S = 10.0

Runs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a user may have fetched within an hour; 0 means no limit."""

    hourly_bytes: int
    hourly_tapes: int
    is_root_limited: bool

    def hold_for(self, uid: int) -> bool:
        """Is this user limited at all?"""
        return bool(self.hourly_bytes or self.hourly_tapes) and (uid != 0 or self.is_root_limited)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a user has had within the last hour, and what is on its way to him."""

    uid: int
    bytes: int
    pending_bytes: int
    tapes: int


@dataclass(slots=True)
class _Pending:
    volume_id: VolumeId
    frame_bytes: int
    frames: Spans = field(default_factory=Spans)

    def bytes(self) -> int:
        return self.frame_bytes * sum(last - first + 1 for first, last in self.frames)


@dataclass(slots=True)
class _Account:
    pending: dict[SegmentId, _Pending] = field(default_factory=dict)
    #: When, and how many bytes; oldest first.
    fetched: deque[tuple[float, int]] = field(default_factory=deque)
    #: When something last came from a tape.
    tapes: dict[VolumeId, float] = field(default_factory=dict)

    def forget_before(self, moment_s: float) -> None:
        while self.fetched and self.fetched[0][0] <= moment_s:
            self.fetched.popleft()
        self.tapes = {volume_id: at_s for volume_id, at_s in self.tapes.items() if at_s > moment_s}

    def fetched_bytes(self) -> int:
        return sum(count for _, count in self.fetched)

    def pending_bytes(self) -> int:
        return sum(pending.bytes() for pending in self.pending.values())

    def volumes(self) -> set[VolumeId]:
        return set(self.tapes) | {pending.volume_id for pending in self.pending.values()}

    def note(self, now_s: float, count_bytes: int, volume_id: VolumeId) -> None:
        if self.fetched and now_s - self.fetched[-1][0] < _GRAIN_S:
            at_s, before = self.fetched.pop()
            self.fetched.append((at_s, before + count_bytes))
        else:
            self.fetched.append((now_s, count_bytes))
        self.tapes[volume_id] = now_s


class Allowances:
    """The accounts of all users."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._accounts: dict[int, _Account] = {}

    def refusal(self, uid: int, count_bytes: int, volume_id: VolumeId, now_s: float) -> str | None:
        """Return why a user may not have so much more from that tape now, None if he may."""
        limits = self.limits
        if not limits.hold_for(uid):
            return None
        account = self._account(uid, now_s)
        used = account.fetched_bytes() + account.pending_bytes()
        if limits.hourly_bytes and used + count_bytes > limits.hourly_bytes:
            return f"user {uid} has had {used} bytes fetched in this hour, of {limits.hourly_bytes} that he may"
        volumes = account.volumes()
        if limits.hourly_tapes and volume_id not in volumes and len(volumes) >= limits.hourly_tapes:
            return f"user {uid} has had {len(volumes)} tapes read in this hour, and may have no more"
        return None

    def admit(self, uid: int, segment_id: SegmentId, runs: Runs, frame_bytes: int, volume_id: VolumeId) -> None:
        """These frames are being fetched for a user."""
        if runs:
            account = self._accounts.setdefault(uid, _Account())
            pending = account.pending.setdefault(segment_id, _Pending(volume_id, frame_bytes))
            for run in runs:
                pending.frames.add(*run)

    def arrived(self, segment_id: SegmentId, first: int, last: int, now_s: float) -> None:
        """Frames have come."""
        for account in self._accounts.values():
            pending = account.pending.get(segment_id)
            came = pending.frames.within(first, last) if pending is not None else []
            if pending is not None and came:
                count = sum(high - low + 1 for low, high in came)
                account.note(now_s, count * pending.frame_bytes, pending.volume_id)
        self.dropped(segment_id, [(first, last)])

    def dropped(self, segment_id: SegmentId, runs: Iterable[tuple[int, int]]) -> None:
        """Frames do not come any more: nobody wants them, or they cannot be had."""
        spans = list(runs)
        for account in self._accounts.values():
            pending = account.pending.get(segment_id)
            if pending is None:
                continue
            for run in spans:
                pending.frames.remove(*run)
            if not pending.frames:
                del account.pending[segment_id]

    def pending(self, segment_id: SegmentId) -> list[tuple[int, int]]:
        """Return the frames of a segment that are on their way to anybody on his account."""
        runs = Spans()
        for account in self._accounts.values():
            if segment_id in account.pending:
                for run in account.pending[segment_id].frames:
                    runs.add(*run)
        return list(runs)

    def usage(self, now_s: float) -> list[Usage]:
        """Return what every user has had within the last hour; who had nothing is left out."""
        found = []
        for uid in sorted(self._accounts):
            account = self._account(uid, now_s)
            if account.volumes():
                found.append(Usage(uid, account.fetched_bytes(), account.pending_bytes(), len(account.volumes())))
            else:
                del self._accounts[uid]
        return found

    def _account(self, uid: int, now_s: float) -> _Account:
        account = self._accounts.setdefault(uid, _Account())
        account.forget_before(now_s - WINDOW_S)
        return account
