"""Arrivals for clients that go and come."""

from __future__ import annotations

from catalog.ids import FrameNo, SegmentId
from sidecar.recalls.arrivals import Arrivals
from tapefs.mover.messages import FrameRange


async def test_what_arrives_behind_the_end_is_nobodys() -> None:
    """A drive that reads on while the sidecar ends is no error."""
    arrivals = Arrivals()
    with arrivals.subscribe(lambda: None) as client:
        arrivals.arrived(FrameRange(SegmentId("a"), FrameNo(0), FrameNo(1)))
        arrivals.end()
        arrivals.arrived(FrameRange(SegmentId("a"), FrameNo(2), FrameNo(3)))
        assert await client.next_piece() == b'{"segment":"a","first":0,"last":1}\n'
        assert await client.next_piece() is None
