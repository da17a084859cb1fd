"""The life of a ledger in steps, for tests that stop it at one. Imports little: child processes start with it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from catalog.ids import InstallationId, JobNumber, SetId
from catalog.ledger import Ledger
from catalog.life_records import Mounting
from catalog.notice_records import Delivery, NewNotice, Notice
from catalog.pool_records import Pool
from catalog.queue_records import CheckState, HookResult, JobCheck, JobTry, QueueState, TryKind
from catalog.records import Adoption, CopyState, DriveMove, IntentKind, JobState, SetState, VolumeState
from catalog.recovery_records import Recovery
from catalog.schedule_records import RunNumber, RunState, ScheduleNumber, ScheduleRun
from catalog.stage_records import StageFile, StageRequest
from catalog.task_records import TaskFamily, TaskRecord, TaskState
from tests.catalog.builders import (
    LABEL_END,
    NOW,
    TOTALS,
    copy_of,
    credential_of,
    end_of,
    index_of,
    intent_of,
    job_of,
    pin_of,
    run_of,
    schedule_of,
    segment_of,
    set_of,
    user_of,
    uuid_of,
    volume_of,
)

T1 = volume_of("T1")
JOB = job_of("job", number=JobNumber(1), then_verify="all")
SET = set_of("set", JOB)
SEGMENT = segment_of("segment", SET, 0)
INDEX = index_of("index", SET, T1, 10, 5)
LAST_INDEX = index_of("last index", SET, T1, 12, 6)
T2 = volume_of("T2")
MOVED = msgspec.structs.replace(copy_of(SEGMENT, T2, 4, 2), replaces=T1.volume_id)
MOVED_INDEX = msgspec.structs.replace(index_of("moved index", SET, T2, 10, 5), replaces=T1.volume_id)
RENEWED = volume_of("T1 renewed", label="T1", overwrites="f00d")
OTHER_JOB = job_of("other", number=JobNumber(2))
RANKED = msgspec.structs.replace(OTHER_JOB, priority=51)
OTHER_SET = set_of("other set", OTHER_JOB)
FOUND_TAPE = volume_of("T7", state=VolumeState.APPENDABLE, end_block=20, end_file=7)
FOUND_SET = set_of("found", OTHER_JOB, state=SetState.FAILED, is_adopted=True)
FOUND_SEGMENT = segment_of("found segment", FOUND_SET, 0)
FOUND = Adoption(
    volumes=(FOUND_TAPE,),
    sets=(FOUND_SET,),
    segments=(FOUND_SEGMENT,),
    copies=(copy_of(FOUND_SEGMENT, FOUND_TAPE, 4, 2),),
)
MOVE = DriveMove(drive="drive0", reason="it does not answer", at_ns=NOW)
TRY = JobTry(kind=TryKind.FAILED, reason="/srv does not answer", at_ns=NOW, segments=0)
HOOK = HookResult(name="thaw", is_after=True)
CHECK = JobCheck(state=CheckState.GOOD, since_ns=NOW, at_ns=NOW)
HELD = QueueState(is_paused=True, reason="maintenance", at_ns=NOW)
MOUNTING = Mounting(mounting_id=uuid_of("mounting"), code="T1", drive="drive0", loaded_at_ns=NOW)
NIGHTLY = schedule_of("nightly", number=ScheduleNumber(1))
RUN = run_of(NIGHTLY, number=RunNumber(1))
RECOVERY = Recovery(
    recovery_id="recovery_20261123_024913",
    set_id=SetId(uuid_of("restored")),
    paths=(b"/etc/hosts",),
    target=b"/srv/back",
    created_by="ada",
    created_at_ns=NOW,
)
STAGE = StageRequest(
    request_id=uuid_of("stage"), owner="fts", created_at_ns=NOW, files=(StageFile(path="/x", lifetime_s=60),)
)
TASK = TaskRecord(
    task_id=uuid_of("task"), family=TaskFamily.TAPE, kind="erase", subject="T1", order=b"{}", added_at_ns=NOW
)
TOLD = NewNotice(at_ns=NOW, kind="backup.failed", subject="1", text="it failed", channels=("ops",))
TO_DELIVER = Delivery(
    channel="ops", notice=Notice(number=1, at_ns=NOW, kind="backup.failed", subject="1", text="it failed")
)
FIRST_TASK = msgspec.structs.replace(TASK, number=1)
BEGUN_TASK = msgspec.structs.replace(FIRST_TASK, state=TaskState.RUNNING, begun=1, began_at_ns=NOW)
PIN = pin_of("pin", SEGMENT, (0, 3))


def end_run(ledger: Ledger) -> object:
    [known] = ledger.schedule_runs(NIGHTLY.number)
    running = msgspec.structs.replace(RUN, state=RunState.RUNNING, job=JOB.number, job_runs=2, attempts=1)
    running = msgspec.structs.replace(running, started_at_ns=NOW)
    return ledger.change_schedule_run(running, ended(running if known.state is RunState.RUNNING else known), NOW)


def ended(run: ScheduleRun) -> ScheduleRun:
    return msgspec.structs.replace(run, state=RunState.COMPLETED, finished_at_ns=NOW + 5)


#: Name of the operation, and what does it. Every writing operation occurs.
STEPS: list[tuple[str, Callable[[Ledger], object]]] = [
    ("take_identity", lambda ledger: ledger.take_identity(InstallationId(uuid_of("found installation")))),
    ("add_volume", lambda ledger: ledger.add_volume(T1)),
    ("claim_volume", lambda ledger: ledger.claim_volume(T1.volume_id)),
    ("open_intent", lambda ledger: ledger.open_intent(intent_of(T1.volume_id, IntentKind.LABEL, T1, 0, None), 1)),
    ("label_volume", lambda ledger: ledger.label_volume(T1.volume_id, 1, LABEL_END, NOW)),
    ("add_job", lambda ledger: ledger.add_job(JOB)),
    ("queue_job", lambda ledger: ledger.queue_job(JOB.number, NOW)),
    ("begin_set", lambda ledger: ledger.begin_set(SET)),
    (
        "open_intent",
        lambda ledger: ledger.open_intent(intent_of(SEGMENT.segment_id, IntentKind.SEGMENT, T1, 4, SET.set_id), 1),
    ),
    (
        "commit_segment",
        lambda ledger: ledger.commit_segment(SEGMENT, copy_of(SEGMENT, T1, 4, 2), 1, end_of(10, 5), "T1"),
    ),
    (
        "mark_copy",
        lambda ledger: ledger.mark_copy(SEGMENT.segment_id, T1.volume_id, CopyState.DAMAGED, NOW),
    ),
    ("commit_index", lambda ledger: ledger.commit_index(INDEX, 1, end_of(12, 6), NOW)),
    ("seal_set", lambda ledger: ledger.seal_set(SET.set_id, TOTALS, LAST_INDEX, 1, end_of(14, 7), NOW)),
    ("complete_set", lambda ledger: ledger.complete_set(SET.set_id, NOW)),
    ("note_check", lambda ledger: ledger.note_check(JOB.number, 1, CHECK)),
    ("begin_hooks", lambda ledger: ledger.begin_hooks(JOB.number, NOW)),
    ("note_hook", lambda ledger: ledger.note_hook(JOB.number, NOW, HOOK, NOW)),
    ("add_job", lambda ledger: ledger.add_job(OTHER_JOB)),
    ("queue_job", lambda ledger: ledger.queue_job(OTHER_JOB.number, NOW)),
    ("begin_set", lambda ledger: ledger.begin_set(OTHER_SET)),
    ("open_intent", lambda ledger: ledger.open_intent(intent_of("torn", IntentKind.SEGMENT, T1, 14, None), 1)),
    ("drop_intent", lambda ledger: ledger.drop_intent("torn", T1.volume_id)),
    ("fail_set", lambda ledger: ledger.fail_set(OTHER_SET.set_id, "no tape", NOW)),
    ("finish_job", lambda ledger: ledger.finish_job(OTHER_JOB.number, JobState.FAILED, "no tape", NOW)),
    ("queue_job", lambda ledger: ledger.queue_job(OTHER_JOB.number, NOW, resume=True)),
    ("resume_set", lambda ledger: ledger.resume_set(OTHER_SET.set_id, NOW)),
    ("requeue_job", lambda ledger: ledger.requeue_job(OTHER_JOB.number, MOVE)),
    ("resume_set", lambda ledger: ledger.resume_set(OTHER_SET.set_id, NOW)),
    ("retry_job", lambda ledger: ledger.retry_job(OTHER_JOB.number, TRY, NOW + 60)),
    ("resume_set", lambda ledger: ledger.resume_set(OTHER_SET.set_id, NOW)),
    ("pause_job", lambda ledger: ledger.pause_job(OTHER_JOB.number, NOW)),
    ("rank_job", lambda ledger: ledger.rank_job(OTHER_JOB.number, 51, NOW)),
    ("hold_queue", lambda ledger: ledger.hold_queue(HELD)),
    ("release_job", lambda ledger: ledger.release_job(OTHER_JOB.number, NOW)),
    ("resume_set", lambda ledger: ledger.resume_set(OTHER_SET.set_id, NOW)),
    ("fail_set", lambda ledger: ledger.fail_set(OTHER_SET.set_id, "no tape", NOW)),
    ("finish_job", lambda ledger: ledger.finish_job(OTHER_JOB.number, JobState.FAILED, "no tape", NOW)),
    ("edit_job", lambda ledger: ledger.edit_job(RANKED, msgspec.structs.replace(RANKED, level=9), NOW)),
    ("delete_job", lambda ledger: ledger.delete_job(OTHER_JOB.number, NOW)),
    ("add_volume", lambda ledger: ledger.add_volume(T2)),
    ("claim_volume", lambda ledger: ledger.claim_volume(T2.volume_id)),
    ("label_volume", lambda ledger: ledger.label_volume(T2.volume_id, 1, LABEL_END, NOW)),
    ("commit_segment", lambda ledger: ledger.commit_segment(SEGMENT, MOVED, 1, end_of(10, 5), "T2")),
    ("mark_copy", lambda ledger: ledger.mark_copy(SEGMENT.segment_id, T2.volume_id, CopyState.GOOD, NOW)),
    ("commit_index", lambda ledger: ledger.commit_index(MOVED_INDEX, 1, end_of(12, 6), NOW)),
    ("leave_volume", lambda ledger: ledger.leave_volume(SET.set_id, T1.volume_id, NOW)),
    ("expire_set", lambda ledger: ledger.expire_set(SET.set_id, NOW)),
    ("put_pin", lambda ledger: ledger.put_pin(PIN)),
    ("drop_pin", lambda ledger: ledger.drop_pin(PIN.pin_id, NOW)),
    ("put_schedule", lambda ledger: ledger.put_schedule(None, NIGHTLY, NOW)),
    ("plan_schedule_runs", lambda ledger: ledger.plan_schedule_runs(NIGHTLY.number, NOW, NOW + 1, [RUN], NOW)),
    ("queue_scheduled_job", lambda ledger: ledger.queue_scheduled_job(RUN, JOB.number, "", NOW)),
    ("change_schedule_run", end_run),
    ("delete_schedule", lambda ledger: ledger.delete_schedule(NIGHTLY.number, NOW)),
    ("finish_job", lambda ledger: ledger.finish_job(JOB.number, JobState.CANCELLED, "", NOW)),
    ("put_stage_request", lambda ledger: ledger.put_stage_request(STAGE)),
    ("drop_stage_request", lambda ledger: ledger.drop_stage_request(STAGE.request_id)),
    ("add_task", lambda ledger: ledger.add_task(TASK)),
    ("change_task", lambda ledger: ledger.change_task(FIRST_TASK, BEGUN_TASK, NOW)),
    ("put_recovery", lambda ledger: ledger.put_recovery(RECOVERY)),
    ("drop_recovery", lambda ledger: ledger.drop_recovery(RECOVERY.recovery_id)),
    ("put_user", lambda ledger: ledger.put_user(None, user_of("ada"), NOW)),
    ("add_credential", lambda ledger: ledger.add_credential(credential_of("token"))),
    ("use_credentials", lambda ledger: ledger.use_credentials({credential_of("token").credential_id: NOW + 1})),
    ("drop_credentials", lambda ledger: ledger.drop_credentials([credential_of("token").credential_id], NOW)),
    ("delete_user", lambda ledger: ledger.delete_user(user_of("ada").user_id, NOW)),
    ("put_pool", lambda ledger: ledger.put_pool(None, Pool(name="monthly"), NOW)),
    ("delete_pool", lambda ledger: ledger.delete_pool("monthly", NOW)),
    ("add_volume", lambda ledger: ledger.add_volume(volume_of("T9"))),
    ("assign_volume", lambda ledger: ledger.assign_volume(volume_of("T9").volume_id, "monthly", NOW)),
    ("move_volume", lambda ledger: ledger.move_volume(T1.volume_id, "the vault", NOW)),
    ("note_mounting", lambda ledger: ledger.note_mounting(MOUNTING)),
    ("note_erased", lambda ledger: ledger.note_erased("T1", NOW)),
    ("note_used_up", lambda ledger: ledger.note_used_up("CLNU01CU", NOW)),
    ("post_notices", lambda ledger: ledger.post_notices([TOLD], followed=(None, 3))),
    ("note_delivery", lambda ledger: ledger.note_delivery(TO_DELIVER, NOW, "nobody answers", NOW + 1)),
    ("size_volume", lambda ledger: ledger.size_volume(T1.volume_id, 12 * 10**12, 8)),
    ("adopt", lambda ledger: ledger.adopt(FOUND, NOW)),
    ("mark_volume", lambda ledger: ledger.mark_volume(T1.volume_id, VolumeState.FULL)),
    ("identify_volume", lambda ledger: ledger.identify_volume(T1.volume_id, NOW)),
    ("renew_volume", lambda ledger: ledger.renew_volume(T1.volume_id, 1, RENEWED, NOW)),
    ("claim_volume", lambda ledger: ledger.claim_volume(RENEWED.volume_id)),
    ("settle_volume", lambda ledger: ledger.settle_volume(RENEWED.volume_id, 1)),
    ("forget_volume", lambda ledger: ledger.forget_volume(RENEWED.volume_id, 1, frozenset(), NOW)),
]
