"""What every ledger must do with the life of cartridges; see `ledger_contract`."""

from __future__ import annotations

import msgspec

from catalog.ledger import Ledger
from catalog.life_records import KEPT_MISHAPS, KEPT_MOUNTINGS, AlertSeen, CartridgeLife, MediumFacts, Mishap, Mounting
from tests.catalog.builders import NOW, Stage, uuid_of
from tests.catalog.contract_base import ODD_TEXTS, Again, kinds, newest

FIRST = Mounting(mounting_id=uuid_of("first"), code="TP0001L9", drive="drive0", loaded_at_ns=NOW)
LATER = msgspec.structs.replace(
    FIRST,
    unloaded_at_ns=NOW + 9,
    purposes=("backup",),
    written_bytes=700,
    read_bytes=30,
    write_failures=1,
    alerts=(3, 20),
    mishaps=(Mishap(at_ns=NOW + 5, kind="WriteFailed", message="block 7"),),
)


def facts(at_ns: int, capacity_bytes: int, loads: int = 3) -> MediumFacts:
    return MediumFacts(asked_at_ns=at_ns, loads=loads, capacity_bytes=capacity_bytes)


class LivesContract:
    def test_a_mounting_is_told_as_it_goes_on(self, ledger: Ledger, again: Again) -> None:
        """And told twice it counts once."""
        for mounting in (FIRST, FIRST, LATER, LATER):
            ledger.note_mounting(mounting)
        other = again()
        assert other.mountings(FIRST.code) == [LATER]
        life = other.life(FIRST.code)
        assert (life.mountings, life.first_at_ns, life.last_at_ns) == (1, NOW, NOW)
        assert (life.written_bytes, life.read_bytes, life.write_failures, life.read_failures) == (700, 30, 1, 0)
        assert life.alerts == (
            AlertSeen(number=3, mountings=1, last_at_ns=NOW),
            AlertSeen(number=20, mountings=1, last_at_ns=NOW),
        )
        assert kinds(ledger) == [("cartridge.mounted", "drive0")]

    def test_what_is_known_changes_nothing(self, ledger: Ledger) -> None:
        ledger.note_mounting(LATER, facts(NOW, 100))
        before = newest(ledger)
        ledger.note_mounting(LATER, facts(NOW, 100))
        assert newest(ledger) == before

    def test_lives_add_up(self, ledger: Ledger) -> None:
        ledger.note_mounting(LATER)
        second = msgspec.structs.replace(LATER, mounting_id=uuid_of("second"), loaded_at_ns=NOW + 20, alerts=(3,))
        ledger.note_mounting(second)
        ledger.note_mounting(msgspec.structs.replace(FIRST, code="other"))
        life = ledger.life(FIRST.code)
        assert (life.mountings, life.written_bytes, life.last_at_ns) == (2, 1400, NOW + 20)
        assert life.alerts[0] == AlertSeen(number=3, mountings=2, last_at_ns=NOW + 20)
        assert ledger.mountings(FIRST.code) == [second, LATER]
        assert [each.code for each in ledger.lives()] == [FIRST.code, "other"]
        assert ledger.mountings_since(NOW + 1) == [second]
        assert len(ledger.mountings_since(0)) == 3

    def test_old_mountings_go_and_the_sums_stay(self, ledger: Ledger) -> None:
        for number in range(KEPT_MOUNTINGS + 3):
            mounting = msgspec.structs.replace(
                FIRST, mounting_id=uuid_of(str(number)), loaded_at_ns=NOW + number, written_bytes=10
            )
            ledger.note_mounting(mounting)
        kept = ledger.mountings(FIRST.code)
        assert [each.loaded_at_ns - NOW for each in kept] == list(range(KEPT_MOUNTINGS + 2, 2, -1))
        life = ledger.life(FIRST.code)
        assert (life.mountings, life.written_bytes) == (KEPT_MOUNTINGS + 3, 10 * (KEPT_MOUNTINGS + 3))
        assert life.first_at_ns == NOW

    def test_the_newest_mishaps_are_kept(self, ledger: Ledger) -> None:
        mishaps = tuple(Mishap(at_ns=number, kind="ReadFailed", message="\udcff") for number in range(50))
        ledger.note_mounting(msgspec.structs.replace(LATER, mishaps=mishaps))
        (kept,) = ledger.mountings(FIRST.code)
        assert [each.at_ns for each in kept.mishaps] == list(range(50 - KEPT_MISHAPS, 50))
        assert kept.mishaps[0].message == "\\udcff"

    def test_the_newest_facts_count_and_the_most_capacity(self, ledger: Ledger) -> None:
        ledger.note_mounting(FIRST, facts(NOW + 1, 100))
        ledger.note_mounting(FIRST, facts(NOW + 2, 90, loads=4))
        ledger.note_mounting(FIRST, facts(NOW, 80))
        ledger.note_mounting(LATER)
        life = ledger.life(FIRST.code)
        assert life.medium == facts(NOW + 2, 90, loads=4)
        assert life.most_capacity_bytes == 100

    def test_an_erasure_and_the_end_of_a_cleaning_cartridge(self, ledger: Ledger, again: Again) -> None:
        for _ in range(2):
            ledger.note_erased("TP0001L9", NOW)
            ledger.note_used_up("CLNU01CU", NOW)
        ledger.note_erased("TP0001L9", NOW - 1)
        assert again().life("TP0001L9").erased_at_ns == NOW
        assert again().life("CLNU01CU").is_used_up
        assert kinds(ledger) == [("cartridge.erased", ""), ("cartridge.used_up", "")]

    def test_a_life_outlives_its_volume(self, ledger: Ledger, stage: Stage) -> None:
        """It is the cartridge's, which may come back."""
        mounting = msgspec.structs.replace(LATER, code=stage.volume.code)
        ledger.note_mounting(mounting)
        ledger.fail_set(stage.backup_set.set_id, "broken", NOW)
        ledger.forget_volume(stage.volume.volume_id, stage.claim, frozenset({stage.backup_set.set_id}), NOW)
        assert ledger.mountings(stage.volume.code) == [mounting]

    def test_any_text_is_a_code(self, ledger: Ledger) -> None:
        for code in ODD_TEXTS:
            if code == "\udcff":
                continue  # No barcode and no label: those are checked where they come in.
            ledger.note_mounting(msgspec.structs.replace(LATER, code=code))
            assert len(ledger.mountings(code)) == 1
        assert ledger.life("unknown") == CartridgeLife(code="unknown")
