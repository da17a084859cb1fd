"""What every ledger must do about what was found on tapes."""

from __future__ import annotations

import msgspec
import pytest

from catalog.errors import Conflict
from catalog.ids import BlockNo, FileNo, InstallationId, JobNumber, SetNumber, VolumeId
from catalog.ledger import Ledger
from catalog.records import Adoption, IntentKind, JobState, SetState, VolumeState
from tests.catalog.builders import (
    NOW,
    Stage,
    copy_of,
    index_of,
    intent_of,
    job_of,
    segment_of,
    set_of,
    started,
    uuid_of,
    volume_of,
)
from tests.catalog.contract_base import Again, newest

TAPE = volume_of("T9", state=VolumeState.APPENDABLE, end_block=20, end_file=7)
JOB = job_of("found", number=JobNumber(5))
SET = set_of("found set", JOB, state=SetState.FAILED, number=SetNumber(7), is_adopted=True, tapes=("T9",), segments=0)
SEGMENT = segment_of("found segment", SET, 0)
FOUND = Adoption(
    volumes=(TAPE,),
    jobs=(JOB,),
    sets=(SET,),
    segments=(SEGMENT,),
    copies=(copy_of(SEGMENT, TAPE, 4, 2),),
    indexes=(index_of("found index", SET, TAPE, 10, 5),),
    intents=(intent_of(uuid_of("torn"), IntentKind.SEGMENT, TAPE, 20, SET.set_id),),
)


class AdoptingContract:
    def test_what_was_found_is_there(self, ledger: Ledger, again: Again) -> None:
        """Jobs and sets under the numbers they had; the same again, or a part of it, is harmless."""
        for found in (FOUND, FOUND, Adoption(volumes=FOUND.volumes)):
            ledger.adopt(found, NOW)
        other = again()
        assert other.volumes() == [TAPE]
        assert other.jobs() == [JOB]
        assert other.backup_sets() == [msgspec.structs.replace(SET, segments=1)]
        assert other.segments(SET.set_id) == [SEGMENT]
        assert other.copies_on(TAPE.volume_id) == list(FOUND.copies)
        assert other.index_copies(SET.set_id) == list(FOUND.indexes)
        assert other.intents(TAPE.volume_id) == list(FOUND.intents)

    def test_numbers_that_were_found_are_not_given_out(self, ledger: Ledger) -> None:
        ledger.adopt(FOUND, NOW)
        job, backup_set = started(ledger)
        assert (job.number, backup_set.number) == (6, 8)

    def test_numbers_that_are_taken_stay(self, ledger: Ledger) -> None:
        """A set and a job that are found under numbers of others get new ones, and agree with each other."""
        job, backup_set = started(ledger)
        found_job = job_of("found", number=job.number)
        found = set_of("found set", found_job, state=SetState.FAILED, number=backup_set.number, is_adopted=True)
        ledger.adopt(Adoption(jobs=(found_job,), sets=(found,)), NOW)
        adopted = ledger.backup_set(found.set_id)
        assert adopted.number == backup_set.number + 1
        assert adopted.job_number == job.number + 1 == ledger.job(adopted.job_number).number
        assert ledger.job(job.number).job_id == job.job_id

    def test_sets_without_their_job_share_a_number(self, ledger: Ledger) -> None:
        """Imported sets come without a job; that of another one keeps its number, and theirs is never given out."""
        job, _ = started(ledger)
        foreign = job_of("foreign", number=job.number)
        sets = [
            set_of(name, foreign, state=SetState.FAILED, number=SetNumber(0), is_adopted=True, is_imported=True)
            for name in ("one", "two")
        ]
        ledger.adopt(Adoption(sets=tuple(sets)), NOW)
        numbers = {ledger.backup_set(each.set_id).job_number for each in sets}
        assert numbers == {job.number + 1}
        assert ledger.add_job(job_of("next")).number == job.number + 2

    def test_a_set_that_lacked_something_may_become_whole(self, ledger: Ledger) -> None:
        """FAILED becomes SEALED when it was adopted; what is further on, or was made here, stays as it is."""
        ledger.adopt(FOUND, NOW)
        whole = msgspec.structs.replace(SET, state=SetState.SEALED, files=9, tapes=("T8",))
        ledger.adopt(Adoption(sets=(whole,)), NOW)
        known = ledger.backup_set(SET.set_id)
        assert (known.state, known.files, known.segments) == (SetState.SEALED, 9, 1)
        assert known.tapes == ("T8", "T9")
        ledger.complete_set(SET.set_id, NOW)
        ledger.adopt(FOUND, NOW)
        assert ledger.backup_set(SET.set_id).state is SetState.COMPLETE

    def test_a_set_made_here_stays_as_it_is(self, ledger: Ledger) -> None:
        job, own = started(ledger)
        ledger.fail_set(own.set_id, "no tape", NOW)
        ledger.finish_job(job.number, JobState.FAILED, "no tape", NOW)
        before = ledger.backup_set(own.set_id)
        ledger.adopt(Adoption(sets=(msgspec.structs.replace(before, files=9),)), NOW)
        assert ledger.backup_set(own.set_id) == before
        ledger.expire_set(own.set_id, NOW)
        expired = ledger.backup_set(own.set_id)
        ledger.adopt(Adoption(sets=(msgspec.structs.replace(before, state=SetState.SEALED),)), NOW)
        assert ledger.backup_set(own.set_id) == expired

    def test_a_set_that_failed_here_turns_out_to_be_whole(self, ledger: Ledger) -> None:
        """The ledger is an old copy: the tape has all of it, and what this ledger says of who made it stays."""
        _, own = started(ledger)
        ledger.fail_set(own.set_id, "no tape", NOW)
        found = msgspec.structs.replace(
            ledger.backup_set(own.set_id),
            number=SetNumber(77),
            state=SetState.SEALED,
            error="",
            files=9,
            is_adopted=True,
        )
        ledger.adopt(Adoption(sets=(found,)), NOW)
        known = ledger.backup_set(own.set_id)
        assert (known.number, known.state, known.files, known.is_adopted) == (own.number, SetState.SEALED, 9, False)

    def test_a_known_tape_that_holds_more(self, ledger: Ledger) -> None:
        """Its end moves on, what was announced before there is over, its state is as said; all else stays, and so does
        all when it would end earlier."""
        ledger.adopt(FOUND, NOW)
        claim = ledger.claim_volume(TAPE.volume_id)
        ledger.move_volume(TAPE.volume_id, "vault", NOW)
        ledger.mark_volume(TAPE.volume_id, VolumeState.SUSPECT, "it has more than the ledger knows")
        grown = msgspec.structs.replace(
            TAPE, label="T9-other", pool="other", end_block=BlockNo(40), end_file=FileNo(12), used_bytes=77
        )
        ledger.adopt(Adoption(volumes=(grown,)), NOW)
        known = ledger.volume(TAPE.volume_id)
        assert (known.label, known.pool, known.location, known.claim) == ("T9", TAPE.pool, "vault", claim)
        assert (known.state, known.reason) == (VolumeState.APPENDABLE, "")
        assert (known.end_block, known.end_file, known.used_bytes) == (40, 12, 77)
        assert ledger.intents(TAPE.volume_id) == []
        ledger.mark_volume(TAPE.volume_id, VolumeState.SUSPECT, "write error")
        before = ledger.volume(TAPE.volume_id)
        ledger.adopt(FOUND, NOW)
        assert ledger.volume(TAPE.volume_id) == before

    def test_a_blank_tape_turns_out_to_be_labelled(self, ledger: Ledger) -> None:
        """By the very id that it has here: an old ledger does not know of the label."""
        blank = msgspec.structs.replace(volume_of("T9"), pool="default", claim=0)
        ledger.add_volume(blank)
        assert blank.volume_id == TAPE.volume_id
        ledger.adopt(msgspec.structs.replace(FOUND, volumes=(msgspec.structs.replace(TAPE, pool="weekly"),)), NOW)
        known = ledger.volume(TAPE.volume_id)
        assert (known.state, known.pool, known.end_block) == (VolumeState.APPENDABLE, "weekly", 20)

    def test_a_tape_that_was_begun_anew(self, ledger: Ledger) -> None:
        """The old one is forgotten with all that lay on it; its sets stay, with nothing left of them there."""
        ledger.adopt(FOUND, NOW)
        new = msgspec.structs.replace(
            TAPE, volume_id=VolumeId(uuid_of("anew")), end_block=BlockNo(4), end_file=FileNo(2)
        )
        with pytest.raises(Conflict, match="belongs to tape"):
            ledger.adopt(Adoption(volumes=(new,)), NOW)
        for _ in range(2):
            ledger.adopt(Adoption(volumes=(new,), begun_anew=(TAPE.volume_id,)), NOW)
        assert ledger.volumes() == [new]
        assert ledger.copies(SEGMENT.segment_id) == []
        assert ledger.index_copies(SET.set_id) == []
        assert ledger.backup_set(SET.set_id).state is SetState.EXPIRED  # It had FAILED, and cannot go on.

    def test_a_job_that_ran_on(self, ledger: Ledger) -> None:
        """A newer set of a job of ours: its runs are as after that, what it is asked for stays."""
        job, own = started(ledger)
        ledger.fail_set(own.set_id, "no tape", NOW)
        job = ledger.finish_job(job.number, JobState.FAILED, "no tape", NOW)
        later = set_of("later", job, state=SetState.FAILED, is_adopted=True, started_at_ns=NOW + 99)
        found = msgspec.structs.replace(
            job, state=JobState.COMPLETED, runs=7, set_id=later.set_id, started_at_ns=NOW + 99, description="other"
        )
        ledger.adopt(Adoption(jobs=(found,), sets=(later,)), NOW)
        known = ledger.job(job.number)
        assert (known.state, known.runs, known.set_id, known.error) == (JobState.COMPLETED, 7, later.set_id, "")
        assert known.description == job.description
        older = msgspec.structs.replace(found, started_at_ns=own.started_at_ns - 1, runs=99)
        ledger.adopt(Adoption(jobs=(older,)), NOW)
        assert ledger.job(job.number) == known

    @pytest.mark.parametrize("is_suspect", [False, True])
    def test_a_blank_tape_gives_way_to_what_it_turns_out_to_be(self, ledger: Ledger, is_suspect: bool) -> None:
        """The library enters tapes by their barcodes as blank before anybody reads them."""
        guess = msgspec.structs.replace(volume_of("guess"), label="T9")
        ledger.add_volume(guess)
        if is_suspect:
            ledger.mark_volume(guess.volume_id, VolumeState.SUSPECT, "it should be blank, but is not")
        ledger.adopt(FOUND, NOW)
        assert ledger.volumes() == [TAPE]
        assert ledger.volume_by_label("T9") == TAPE

    def test_a_tape_in_use_keeps_its_label(self, ledger: Ledger, stage: Stage) -> None:
        """And nothing at all is taken in then."""
        event = newest(ledger)
        found = msgspec.structs.replace(FOUND, volumes=(msgspec.structs.replace(TAPE, label=stage.volume.label),))
        with pytest.raises(Conflict, match="belongs to tape"):
            ledger.adopt(found, NOW)
        assert newest(ledger) == event
        assert all(each.set_id != SET.set_id for each in ledger.backup_sets())

    def test_two_segments_of_one_number_are_refused(self, ledger: Ledger) -> None:
        ledger.adopt(FOUND, NOW)
        with pytest.raises(Conflict, match="already"):
            ledger.adopt(Adoption(segments=(segment_of("another", SET, 0),)), NOW)

    def test_a_copy_behind_the_end_of_its_tape_is_refused(self, ledger: Ledger) -> None:
        far = msgspec.structs.replace(FOUND, copies=(copy_of(SEGMENT, TAPE, 400, 2),))
        with pytest.raises(Conflict, match="behind"):
            ledger.adopt(far, NOW)

    def test_a_new_ledger_takes_the_identity_of_its_tapes(self, ledger: Ledger, again: Again) -> None:
        """Tapes entered as blank before are that installation's, too; with sets of its own a ledger keeps its name."""
        own = ledger.installation().installation_id
        ledger.add_volume(volume_of("blank", installation_id=own))
        found = InstallationId(uuid_of("found installation"))
        for _ in range(2):
            ledger.take_identity(found)
        assert again().installation().installation_id == found
        assert [volume.installation_id for volume in ledger.volumes()] == [found]
        started(ledger)
        ledger.take_identity(found)
        with pytest.raises(Conflict, match="stays"):
            ledger.take_identity(own)
