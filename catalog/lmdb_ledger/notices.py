"""The operations on notices.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from collections.abc import Sequence

from catalog.ledger_store import notices
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase
from catalog.notice_records import ChannelRecord, Condition, Delivery, NewNotice, Notice

_POST_NOTICES = operation("post_notices")
_NOTE_DELIVERY = operation("note_delivery")


class NoticeOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def post_notices(
        self,
        new: Sequence[NewNotice],
        *,
        followed: tuple[int | None, int] | None = None,
        ended: Sequence[str] = (),
    ) -> list[Notice]:
        """Keep notices under the next numbers and queue their deliveries; return those that were news."""
        return self._write(_POST_NOTICES, notices.post, new, followed, ended)

    def notices_since(self, number: int, limit: int = 1000) -> list[Notice]:
        """Return notices with a higher number, oldest first; the newest 10,000 are kept."""
        return self._read(notices.since, number, limit)

    def newest_notice(self) -> int:
        """Return the number of the newest notice; 0: there was none."""
        return self._read(notices.newest)

    def followed_event(self) -> int | None:
        """Return up to which event notices were made; None: of none yet."""
        return self._read(notices.followed)

    def conditions(self) -> list[Condition]:
        """Return what notices said has begun and has not ended, by name."""
        return self._read(notices.conditions)

    def deliveries(self, channel: str = "") -> list[Delivery]:
        """Return what is to be delivered, or was given up."""
        return self._read(notices.deliveries, channel)

    def channel_records(self) -> list[ChannelRecord]:
        """Return how the channels have done, by name."""
        return self._read(notices.channels)

    def note_delivery(self, known: Delivery, now_ns: int, error: str = "", next_at_ns: int | None = None) -> None:
        """A delivery was tried: it is done, is tried again, or is given up. Idempotent."""
        self._write(_NOTE_DELIVERY, notices.note_delivery, known, now_ns, error, next_at_ns)
