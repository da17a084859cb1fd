"""What a restore wants of the sidecar: frames, and word of those that cannot be had. Any thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from catalog.ids import FrameNo, SegmentId
from tapefs.client.api import Arrival, Client, FrameSpan
from tapefs.restore.records import FrameWish, NotFetched

#: A sidecar that went away is noticed after this.
ASK_S = 5.0


class Recalls:
    """The sidecar, as a restore sees it."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._failures: dict[tuple[SegmentId, int], NotFetched] = {}
        self._lock = threading.Lock()
        self._ask_s = time.monotonic() + ASK_S

    def fetch(self, wishes: Sequence[FrameWish]) -> None:
        """Ask for frames. Raises Unreachable."""
        self._client.stage(
            [FrameSpan(segment=each.segment_id, first=FrameNo(each.first), last=FrameNo(each.last)) for each in wishes],
            awaited=True,
        )

    def arrived(self, arrival: Arrival) -> None:
        """Note what cannot be had; called in another thread."""
        with self._lock:
            for frame in range(arrival.first, arrival.last + 1):
                if arrival.error:
                    reason = arrival.message or arrival.error
                    self._failures[arrival.segment, frame] = NotFetched(reason, arrival.error)
                else:
                    self._failures.pop((arrival.segment, frame), None)

    def failed(self) -> Mapping[tuple[SegmentId, int], NotFetched]:
        """Return what cannot be had. Raises Unreachable when the sidecar has gone: then nothing comes any more."""
        if time.monotonic() > self._ask_s:
            self._client.status()
            self._ask_s = time.monotonic() + ASK_S
        with self._lock:
            return dict(self._failures)
