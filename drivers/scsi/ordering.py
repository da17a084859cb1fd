"""Asking a drive in which order pieces of its tape are read soonest. Blocking; the drive's thread. Moves no tape."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from drivers.errors import BadAnswer, NotSupported
from drivers.scsi.device import Device
from drivers.scsi.outcomes import Doing
from drivers.scsi.rao import (
    HEADER_BYTES,
    LIMITS_BYTES,
    NAME_BYTES,
    SEGMENT_BYTES,
    Limits,
    Segment,
    generate_rao,
    parse_rao_limits,
    parse_rao_list,
    rao_parameters,
    receive_rao,
)

_log = logging.getLogger(__name__)


class Ordering:
    """The recommended access order of one drive."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._has_complained = False

    def order(self, extents: Sequence[tuple[int, int]]) -> list[int] | None:
        """Return the order; None when the drive has none to tell. See `RecommendsOrder`."""
        segments = [_segment(number, *extent) for number, extent in enumerate(extents)]
        if not segments:
            return []
        try:
            limits = parse_rao_limits(self._device.read(receive_rao(LIMITS_BYTES, limits=True), LIMITS_BYTES))
        except NotSupported:
            return None
        except BadAnswer as error:
            self._complain(str(error))
            return None
        size_bytes = HEADER_BYTES + len(segments) * max(SEGMENT_BYTES, limits.segment_bytes)
        if not self._fits(len(segments), size_bytes, limits):
            return None
        try:
            return self._ask(segments, size_bytes)
        except (NotSupported, BadAnswer) as error:
            self._complain(str(error))
            return None

    def _fits(self, count: int, size_bytes: int, limits: Limits) -> bool:
        return count <= limits.most_segments and size_bytes <= self._device.transport.max_transfer_bytes

    def _ask(self, segments: Sequence[Segment], size_bytes: int) -> list[int] | None:
        parameters = rao_parameters(segments)
        self._device.run(generate_rao(len(parameters)), Doing.ASK, data_out=parameters)
        answer = parse_rao_list(self._device.read(receive_rao(size_bytes), size_bytes))
        numbers = {each.name: number for number, each in enumerate(segments)}
        order = [numbers.get(each.name, -1) for each in answer]
        if sorted(order) != list(range(len(segments))):
            self._complain("it leaves segments out, or has others")
            return None
        return order

    def _complain(self, why: str) -> None:
        """Say once that the drive's order cannot be used: it would come with every request."""
        if not self._has_complained:
            self._has_complained = True
            _log.warning("%s: its recommended access order cannot be used: %s", self._device.name, why)


def _segment(number: int, first_block: int, last_block: int) -> Segment:
    if not 0 <= first_block <= last_block:
        raise ValueError(f"there are no blocks {first_block} to {last_block}")
    if first_block == last_block:
        # A segment of one block at the head or the end of the list would be a point where the drive must begin or end.
        first_block, last_block = max(0, first_block - 1), max(1, last_block)
    return Segment(f"{number:0{NAME_BYTES}}".encode(), first_block, last_block)
