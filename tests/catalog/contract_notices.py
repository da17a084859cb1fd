"""What every ledger must do about notices and their delivery."""

from __future__ import annotations

from typing import Any

from catalog.ledger import Ledger
from catalog.notice_records import KEPT_GIVEN_UP, Delivery, NewNotice
from tests.catalog.builders import NOW, Stage
from tests.catalog.contract_base import Again


def new_of(text: str, **changes: Any) -> NewNotice:
    return NewNotice(**({"at_ns": NOW, "kind": "backup.failed", "subject": "7", "text": text} | changes))


class NoticesContract:
    def test_notices_are_numbered_without_gaps(self, ledger: Ledger, again: Again) -> None:
        assert (ledger.newest_notice(), ledger.notices_since(0)) == (0, [])
        told = ledger.post_notices([new_of("one", facts={"bytes": 5, "name": "\udcff"}), new_of("two")])
        told += ledger.post_notices([new_of("three")])
        assert [notice.number for notice in told] == [1, 2, 3]
        assert told[0].facts == {"bytes": 5, "name": "\\udcff"}
        assert again().notices_since(0) == told
        assert again().notices_since(1, limit=1) == told[1:2]
        assert ledger.notices_since(-1) == told
        assert ledger.notices_since(3) == ledger.notices_since(2**70) == []
        assert ledger.newest_notice() == 3
        assert ledger.events_since(0) == [], "notices are no events"

    def test_what_events_mean_is_told_once(self, ledger: Ledger, stage: Stage, again: Again) -> None:
        """Whoever repeats it, or comes with what another has told meanwhile, tells nothing."""
        newest = ledger.newest_event()
        assert newest == ledger.events_since(0)[-1].number
        assert ledger.followed_event() is None
        for _ in range(2):
            ledger.post_notices([new_of("one")], followed=(None, 3))
        assert len(again().notices_since(0)) == 1
        assert again().followed_event() == 3
        ledger.post_notices([new_of("two")], followed=(3, newest))
        ledger.post_notices([new_of("late")], followed=(3, newest))
        assert [notice.text for notice in ledger.notices_since(0)] == ["one", "two"]
        assert ledger.followed_event() == newest

    def test_a_condition_is_told_when_it_begins_and_when_it_ends(self, ledger: Ledger, again: Again) -> None:
        began = new_of("it fails", raises="drive.failed drive0")
        over = new_of("it works", ends="drive.failed drive0")
        assert ledger.post_notices([over]) == []
        for each in (began, began, over, over, began):
            ledger.post_notices([each])
        assert [notice.text for notice in ledger.notices_since(0)] == ["it fails", "it works", "it fails"]
        assert [each.name for each in again().conditions()] == ["drive.failed drive0"]
        ledger.post_notices([], ended=["drive.failed drive0", "another"])
        assert ledger.conditions() == []

    def test_a_delivery_ends_in_one_of_three_ways(self, ledger: Ledger, again: Again) -> None:
        (notice,) = ledger.post_notices([new_of("one", channels=("ops", "mail"))])
        mail, ops = ledger.deliveries("mail")[0], ledger.deliveries("ops")[0]
        assert ledger.deliveries() == [mail, ops]
        assert ops == Delivery(channel="ops", notice=notice)
        for _ in range(2):
            ledger.note_delivery(mail, NOW + 1)
        assert again().deliveries() == [ops]
        for _ in range(2):
            ledger.note_delivery(ops, NOW + 2, "nobody answers", NOW + 60)
        (later,) = ledger.deliveries("ops")
        assert (later.attempts, later.next_at_ns, later.error) == (1, NOW + 60, "nobody answers")
        for _ in range(2):
            ledger.note_delivery(later, NOW + 61, "nobody answers")
        (over,) = ledger.deliveries("ops")
        assert over.is_given_up
        ledger.note_delivery(over, NOW + 62)
        assert ledger.deliveries() == [over], "what was given up stays so"
        by_name = {each.name: each for each in again().channel_records()}
        assert (by_name["mail"].delivered, by_name["mail"].delivered_at_ns, by_name["mail"].failed) == (1, NOW + 1, 0)
        ops_record = by_name["ops"]
        assert (ops_record.failed, ops_record.given_up, ops_record.error) == (2, 1, "nobody answers")

    def test_the_oldest_that_were_given_up_are_forgotten(self, ledger: Ledger) -> None:
        ledger.post_notices([new_of(str(i), channels=("ops",)) for i in range(KEPT_GIVEN_UP + 2)])
        for delivery in ledger.deliveries("ops")[:-1]:
            ledger.note_delivery(delivery, NOW, "gone")
        left = ledger.deliveries("ops")
        assert len(left) == KEPT_GIVEN_UP + 1
        assert not left[-1].is_given_up
        assert left[0].notice.number == 2
