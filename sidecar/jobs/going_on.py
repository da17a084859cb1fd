"""Runs that end without their end, and what becomes of them: another drive, another try later, a pause, or failure.

Blocking functions, idempotent; the ledger is the truth. What a run has committed stays in each case, and it goes on
behind that.
"""

from __future__ import annotations

from catalog.errors import Conflict
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.queue_records import MOST_INTERRUPTIONS, JobTry, TryKind
from catalog.records import MOST_MOVES, DriveMove, Job, JobState, SetState
from tapefs.home import Home
from tapefs.report.ending import end_interrupted

#: What a mover says, too, when a verification has failed.
_SET_IS_COMPLETE = "its set is complete"
_WHOLE = (SetState.SEALED, SetState.COMPLETE)
OPEN_STATES = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)

#: Kinds of failures that may pass by themselves: of the source, of drives, of a disk that is full for a while. A wrong
#: request, a full archive or a damaged set is the same an hour later.
MAY_PASS = frozenset({"source", "drive", "drive_failed", "no_space", "not_verified"})
#: Pause behind an interruption of the run by the sidecar's death, by how many there were without progress before.
PAUSES_S = (0, 10, 60)

#: Why a run of a job that stores a stream does not go on, or does not begin.
STREAM_WORDS = "stores a stream, which cannot be read again: have it sent anew (`tapefs backup --stdin`)"

_S = 10**9


def leave_drive(home: Home, ledger: Ledger, number: JobNumber, move: DriveMove) -> Job:
    """Bring a run whose drive has failed back into the queue, or to its end; return the job.

    A run that has come to its end all the same stays so; one that was left by too many drives fails with all of it.
    """
    job = ledger.job(number)
    if job.state not in OPEN_STATES:
        return job
    if _is_done_but_for_the_index(ledger, job) or job.stream:
        return finish(home, ledger, number, JobState.FAILED, _cannot_go_on(job, move.reason), move.at_ns)
    if len(job.moves) >= MOST_MOVES:
        return fail(home, ledger, number, story_of((*job.moves, move), number), "drive_failed", move.at_ns)
    queued = ledger.requeue_job(number, move)
    if queued.set_id is not None:
        end_interrupted(home, ledger, queued.set_id, move.reason, move.at_ns)
    return queued


def story_of(moves: tuple[DriveMove, ...], number: JobNumber) -> str:
    """Tell on which drives a run has failed, and what to do."""
    parts = [f"{move.drive}{f' with tape {move.tape}' if move.tape else ''}: {move.reason}" for move in moves]
    way_out = f"what was committed is kept, `tapefs job resume {number}` goes on when the drives were seen to"
    return f"{len(moves)} times a drive failed within the run: {'; then '.join(parts)}; {way_out}"


def fail(home: Home, ledger: Ledger, number: JobNumber, error: str, kind: str, now_ns: int) -> Job:
    """A run has failed: have it tried again later, if the job wants that and it may help, else bring it to its end."""
    job = ledger.job(number)
    failures = sum(attempt.kind is TryKind.FAILED for attempt in job.tries)
    is_open = job.state in (JobState.QUEUED, JobState.RUNNING)
    if not is_open or kind not in MAY_PASS or failures >= job.retries or _is_done_but_for_the_index(ledger, job):
        if is_open and failures:
            error = f"{error} (tried {failures + 1} times)"
        return finish(home, ledger, number, JobState.FAILED, error, now_ns)
    return _go_back(home, ledger, job, TryKind.FAILED, error, now_ns, now_ns + pause_s(job, failures) * _S)


def pause_s(job: Job, failures: int) -> int:
    """Return how long to wait before the next try, when so many have failed before the newest."""
    # The shift is bounded: no pause is longer than the longest.
    return min(job.retry_first_s << min(failures, 32), job.retry_longest_s)


def stop(home: Home, ledger: Ledger, number: JobNumber, reason: str, now_ns: int) -> Job:
    """The sidecar was told to end: the run goes on when it is there again."""
    job = ledger.job(number)
    if job.state is not JobState.RUNNING and job.state is not JobState.QUEUED:
        return job
    if _is_done_but_for_the_index(ledger, job) or job.stream:
        return finish(home, ledger, number, JobState.FAILED, _cannot_go_on(job, reason), now_ns)
    return _go_back(home, ledger, job, TryKind.STOPPED, reason, now_ns, 0)


def interrupt(home: Home, ledger: Ledger, number: JobNumber, reason: str, now_ns: int) -> Job:
    """The sidecar was killed while the run was on: it goes on, but not for ever.

    A run that was interrupted MOST_INTERRUPTIONS times without having brought anything to tape in between fails: it
    may well be what ends the sidecar.
    """
    job = ledger.job(number)
    if _is_done_but_for_the_index(ledger, job) or job.stream:
        return finish(home, ledger, number, JobState.FAILED, _cannot_go_on(job, reason), now_ns)
    vain = _vain_interruptions(ledger, job)
    if vain >= MOST_INTERRUPTIONS:
        error = (
            f"interrupted {vain + 1} times, and nothing was brought to tape between: the run may be what ends the "
            f"sidecar, see its log; `tapefs job resume {number}` tries again"
        )
        return finish(home, ledger, number, JobState.FAILED, error, now_ns)
    try:
        return _go_back(home, ledger, job, TryKind.INTERRUPTED, reason, now_ns, now_ns + PAUSES_S[min(vain, 2)] * _S)
    except Conflict as error:  # Its set has expired meanwhile.
        return finish(home, ledger, number, JobState.FAILED, f"{reason}; {error}", now_ns)


def _cannot_go_on(job: Job, reason: str) -> str:
    return f"{reason}; it {STREAM_WORDS}" if job.stream else reason


def _vain_interruptions(ledger: Ledger, job: Job) -> int:
    """Return how often in a row the run was interrupted since it has committed a segment the last time."""
    segments, count = _segments(ledger, job), 0
    for attempt in reversed(job.tries):
        if attempt.kind is not TryKind.INTERRUPTED or attempt.segments != segments:
            break
        count += 1
    return count


def pause(home: Home, ledger: Ledger, number: JobNumber, now_ns: int) -> Job:
    """The run has stopped because somebody wanted that; one that is whole on tape but for its index is not paused."""
    job = ledger.job(number)
    if job.state not in (JobState.QUEUED, JobState.RUNNING):
        return job
    if _is_done_but_for_the_index(ledger, job):
        return finish(home, ledger, number, JobState.FAILED, "", now_ns)
    paused = ledger.pause_job(number, now_ns)
    if job.state is JobState.RUNNING and paused.set_id is not None:
        end_interrupted(home, ledger, paused.set_id, "paused", now_ns)
    return paused


def _go_back(home: Home, ledger: Ledger, job: Job, kind: TryKind, reason: str, now_ns: int, not_before_ns: int) -> Job:
    attempt = JobTry(kind=kind, reason=reason, at_ns=now_ns, segments=_segments(ledger, job))
    queued = ledger.retry_job(job.number, attempt, not_before_ns)
    if job.state is JobState.RUNNING and queued.set_id is not None:
        end_interrupted(home, ledger, queued.set_id, reason, now_ns)
    return queued


def _segments(ledger: Ledger, job: Job) -> int:
    return 0 if job.set_id is None else ledger.backup_set(job.set_id).segments


def _is_done_but_for_the_index(ledger: Ledger, job: Job) -> bool:
    """Is all of the run on tape, and nothing else to be done with it?"""
    if job.state is not JobState.RUNNING or job.set_id is None:
        return False
    backup_set = ledger.backup_set(job.set_id)
    return backup_set.state in _WHOLE and not (job.verify or backup_set.copy_pools)


def finish(home: Home, ledger: Ledger, number: JobNumber, state: JobState, error: str, now_ns: int) -> Job:
    """Bring a job that is over to its end in the ledger, its set first; return it.

    What the mover has brought to an end stays. A set is failed only while nothing says that it is whole on tape. A job
    that was to be verified or copied has failed even if its set is whole, or is completed later. A report that its
    mover has not completed is.
    """
    job = ledger.job(number)
    if job.state not in OPEN_STATES:
        return job
    if job.state is JobState.RUNNING and job.set_id is not None:
        backup_set = ledger.backup_set(job.set_id)
        reached, is_more_to_do = backup_set.state, job.verify or bool(backup_set.copy_pools)
        if reached is SetState.SEALED and not is_more_to_do:
            end_interrupted(home, ledger, job.set_id, "", now_ns)
            return job
        if reached is SetState.RUNNING:
            ledger.fail_set(job.set_id, error, now_ns)
        elif reached in _WHOLE and state is JobState.FAILED and not error.startswith(_SET_IS_COMPLETE):
            missing = "read back" if job.verify else "copied"
            error = f"{_SET_IS_COMPLETE} on tape, but was not {missing}: {error}"
        end_interrupted(home, ledger, job.set_id, error, now_ns)
    if state is JobState.COMPLETED:
        state, error = JobState.FAILED, "the mover said that it was done, but the ledger has no complete set of it"
    return ledger.finish_job(number, state, error, now_ns)
