"""What every ledger must do about pins."""

from __future__ import annotations

import pytest

from catalog.errors import Conflict
from catalog.ledger import Ledger
from catalog.records import PinnedFrames
from tests.catalog.builders import (
    NOW,
    job_of,
    pin_of,
    segment_of,
    set_of,
    uuid_of,
)
from tests.catalog.contract_base import Again, kinds


class PinsContract:
    def test_a_pin_grows_and_ends(self, ledger: Ledger, again: Again) -> None:
        """The same again is harmless; runs are joined, the later end counts, whatever the order of the calls."""
        backup_set = set_of("set", job_of("job"))
        one, two = segment_of("one", backup_set, 0), segment_of("two", backup_set, 1)
        pin = pin_of("pin", one, (4, 5), (0, 1))
        for _ in range(2):
            stored = ledger.put_pin(pin)
            assert stored.frames == (PinnedFrames(one.segment_id, ((0, 1), (4, 5))),)
        assert again().pins() == [stored]
        grown = ledger.put_pin(pin_of("pin", one, (2, 2), (7, 9), reason="more", expires_at_ns=NOW + 500))
        assert grown.frames == (PinnedFrames(one.segment_id, ((0, 2), (4, 5), (7, 9))),)
        assert (grown.reason, grown.expires_at_ns) == ("more", NOW + 1000)
        both = ledger.put_pin(pin_of("pin", two, (3, 3), created_at_ns=NOW + 99, expires_at_ns=NOW + 2000))
        assert {frames.segment_id for frames in both.frames} == {one.segment_id, two.segment_id}
        assert (both.created_at_ns, both.expires_at_ns) == (pin.created_at_ns, NOW + 2000)
        assert again().pins() == [both]
        for _ in range(2):
            ledger.drop_pin(pin.pin_id, NOW + 3000)
        assert again().pins() == []
        told = [kind for kind, _ in kinds(ledger)]
        assert told == ["pin.added", "pin.changed", "pin.changed", "pin.ended"]

    def test_a_pin_belongs_to_its_owner(self, ledger: Ledger) -> None:
        segment = segment_of("one", set_of("set", job_of("job")), 0)
        stored = ledger.put_pin(pin_of("pin", segment, (0, 0)))
        with pytest.raises(Conflict, match="ada"):
            ledger.put_pin(pin_of("pin", segment, (1, 1), owner="eve"))
        assert ledger.pins() == [stored]

    def test_pins_come_oldest_first(self, ledger: Ledger) -> None:
        segment = segment_of("one", set_of("set", job_of("job")), 0)
        for name, later_ns in (("a", 3), ("b", 1), ("c", 2)):
            ledger.put_pin(pin_of(name, segment, (0, 0), created_at_ns=NOW + later_ns))
        assert [pin.pin_id for pin in ledger.pins()] == [uuid_of("b"), uuid_of("c"), uuid_of("a")]
