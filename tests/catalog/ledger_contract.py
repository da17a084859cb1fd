"""What every ledger must do. An implementation's test module subclasses `LedgerContract` and provides the fixtures
`ledger` (a new, empty one) and `again` (opens the same ledger once more, as another process would)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from catalog.errors import Conflict, NotFound
from catalog.ids import JobNumber, PinId, SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import JobState, VolumeState
from tests.catalog.builders import (
    NOW,
    Stage,
    job_of,
    set_of,
    started,
    uuid_of,
    volume_of,
)
from tests.catalog.contract_access import AccessContract
from tests.catalog.contract_adopting import AdoptingContract
from tests.catalog.contract_base import ODD_TEXTS, Again, newest
from tests.catalog.contract_damage import DamageContract
from tests.catalog.contract_giving_up import GivingUpContract
from tests.catalog.contract_jobs import JobsContract
from tests.catalog.contract_leaving import LeavingContract
from tests.catalog.contract_lives import LivesContract
from tests.catalog.contract_moving import MovingContract
from tests.catalog.contract_notices import NoticesContract
from tests.catalog.contract_pins import PinsContract
from tests.catalog.contract_pools import PoolsContract
from tests.catalog.contract_queueing import QueueingContract
from tests.catalog.contract_recoveries import RecoveriesContract
from tests.catalog.contract_schedules import SchedulesContract
from tests.catalog.contract_segments import SegmentsContract
from tests.catalog.contract_sets import SetsContract
from tests.catalog.contract_sets_of_jobs import SetsOfJobsContract
from tests.catalog.contract_staging import StagingContract
from tests.catalog.contract_tasks import TasksContract
from tests.catalog.contract_volumes import VolumesContract


class LedgerContract(
    VolumesContract,
    JobsContract,
    SetsContract,
    SetsOfJobsContract,
    SegmentsContract,
    DamageContract,
    PinsContract,
    RecoveriesContract,
    StagingContract,
    TasksContract,
    PoolsContract,
    GivingUpContract,
    LeavingContract,
    AdoptingContract,
    MovingContract,
    QueueingContract,
    LivesContract,
    SchedulesContract,
    AccessContract,
    NoticesContract,
):
    # -- installation ------------------------------------------------------------------------------------------------

    def test_has_one_identity(self, ledger: Ledger, again: Again) -> None:
        first = ledger.installation()
        assert first.created_at_ns == NOW
        assert len(first.installation_id) == 36
        assert again().installation() == first

    def test_close_twice_is_harmless(self, ledger: Ledger) -> None:
        ledger.close()
        ledger.close()

    def test_an_empty_ledger_has_nothing(self, ledger: Ledger) -> None:
        nowhere = uuid_of("nowhere")
        assert ledger.volumes() == []
        assert ledger.jobs() == []
        assert ledger.backup_sets() == []
        assert ledger.events_since(0) == []
        assert ledger.segments(SetId(nowhere)) == []
        assert ledger.copies(SegmentId(nowhere)) == []
        assert ledger.copies_on(VolumeId(nowhere)) == []
        assert ledger.index_copies(SetId(nowhere)) == []
        assert ledger.intents(VolumeId(nowhere)) == []
        assert ledger.pins() == []
        ledger.drop_pin(PinId(nowhere), NOW)

    @pytest.mark.parametrize("text", [uuid_of("nowhere"), *ODD_TEXTS])
    def test_what_is_not_there_is_not_found(self, ledger: Ledger, text: str) -> None:
        """Whatever text a user asks for."""
        asked: list[Callable[[], object]] = [
            lambda: ledger.volume(VolumeId(text)),
            lambda: ledger.volume_by_label(text),
            lambda: ledger.backup_set(SetId(text)),
            lambda: ledger.segment(SegmentId(text)),
            lambda: ledger.claim_volume(VolumeId(text)),
            lambda: ledger.mark_volume(VolumeId(text), VolumeState.FULL),
            lambda: ledger.complete_set(SetId(text), NOW),
            lambda: ledger.fail_set(SetId(text), "", NOW),
            lambda: ledger.expire_set(SetId(text), NOW),
        ]
        for ask in asked:
            with pytest.raises(NotFound):
                ask()

    @pytest.mark.parametrize("number", [0, -1, 1, 2**64, -(2**70)])
    def test_no_such_job(self, ledger: Ledger, number: int) -> None:
        for ask in (
            lambda: ledger.job(JobNumber(number)),
            lambda: ledger.queue_job(JobNumber(number), NOW),
            lambda: ledger.edit_job(job_of("a", number=number), job_of("a", number=number, level=4), NOW),
            lambda: ledger.delete_job(JobNumber(number), NOW),
            lambda: ledger.finish_job(JobNumber(number), JobState.FAILED, "", NOW),
        ):
            with pytest.raises(NotFound):
                ask()

    # -- events ------------------------------------------------------------------------------------------------------

    def test_events_are_numbered_without_gaps(self, ledger: Ledger, stage: Stage) -> None:
        events = ledger.events_since(0)
        assert [event.number for event in events] == list(range(1, len(events) + 1))
        assert events[0].kind == "volume.added"
        assert events[0].subject == stage.volume.volume_id
        assert ledger.events_since(3) == events[3:]
        assert ledger.events_since(-5) == events
        assert ledger.events_since(2, limit=2) == events[2:4]
        assert ledger.events_since(len(events)) == []
        assert ledger.events_since(2**70) == []

    def test_a_refused_operation_leaves_no_trace(self, ledger: Ledger, stage: Stage) -> None:
        before = newest(ledger)
        with pytest.raises(Conflict):
            ledger.complete_set(stage.backup_set.set_id, NOW)
        with pytest.raises(Conflict):
            ledger.begin_set(set_of("another", stage.job))
        assert newest(ledger) == before
        ledger.finish_job(stage.job.number, JobState.FAILED, "", NOW)
        _, backup_set = started(ledger, "later")
        assert backup_set.number == 2

    def test_everybody_sees_a_commit(self, ledger: Ledger, again: Again) -> None:
        other = again()
        ledger.add_volume(volume_of("T1"))
        assert other.volumes() == [volume_of("T1")]
        other.claim_volume(volume_of("T1").volume_id)
        assert ledger.volume_by_label("T1").claim == 1
