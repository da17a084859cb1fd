"""What the sidecar's own calls answer with. Pure."""

from __future__ import annotations

from datetime import datetime

import msgspec

from catalog.ids import FrameNo, JobNumber, SegmentId, SetId, VolumeId
from catalog.records import JobState


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown keys are ignored."""


class JobProgress(_View, frozen=True, kw_only=True):
    """How far a running job is."""

    stage: str = ""
    files: int = 0
    #: Content read so far, and bytes written to tape for it.
    bytes: int = 0
    stored_bytes: int = 0
    #: Payload bytes read back, at stage `verify`.
    verified_bytes: int = 0
    path: str = ""
    tape: str = ""


class Trouble(_View, frozen=True, kw_only=True):
    """A source file that could not be read as it was."""

    path: str
    reason: str


class JobView(_View, frozen=True, kw_only=True):
    """A job as the sidecar tells it."""

    number: JobNumber
    job_id: str
    name: str
    state: JobState
    description: str = ""
    set_id: SetId | None = None
    priority: int = 50
    queued_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    #: What the newest run was to make, and what it has made.
    run_type: str = "full"
    set_type: str | None = None
    #: Of an archive: what is on tape is not removed from the sources.
    keep_sources: bool = False
    error: str | None = None
    #: What it waits for, in a sentence: a drive that works, or somebody who moves a tape.
    waits_for: str | None = None
    #: When a queued one is tried again, or begins.
    not_before: datetime | None = None
    #: A running one is to stop at the end of its segment.
    is_pausing: bool = False
    progress: JobProgress | None = None
    #: The newest ones only; `trouble_count` counts all.
    troubles: list[Trouble] = []
    trouble_count: int = 0

    @property
    def is_finished(self) -> bool:
        """Has the newest run come to an end, good or bad?"""
        return self.state in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class QueueView(_View, frozen=True, kw_only=True):
    """The queue as a whole: is it paused, and how many jobs wait, run and are paused."""

    is_paused: bool
    reason: str | None = None
    queued: int = 0
    running: int = 0
    paused: int = 0


class Status(_View, frozen=True, kw_only=True):
    """Who answers."""

    version: str
    home: str
    pid: int
    installation_id: str


class DriveView(_View, frozen=True, kw_only=True):
    """A drive."""

    name: str
    #: `starting`, `empty`, `loaded`, `writing`, `reading`, `locating`, `loading`, `measuring`, `erasing` or `failed`.
    state: str
    tape: str | None = None
    #: What takes it long.
    note: str | None = None


class StreamView(_View, frozen=True, kw_only=True):
    """A stream on its way to tape."""

    name: str
    job: JobNumber
    #: That came so far, and of these so many as are on tape for good.
    bytes: int
    kept_bytes: int
    is_whole: bool
    #: Why nothing more will come.
    broken: str | None = None


class Arrival(_View, frozen=True, kw_only=True):
    """Frames that were staged, or, with `message`, that cannot be had."""

    segment: SegmentId
    first: FrameNo
    last: FrameNo
    error: str = ""
    message: str = ""


class FrameSpan(_View, frozen=True, kw_only=True):
    """Frames `first` to `last`, both included, of a segment."""

    segment: SegmentId
    first: FrameNo
    last: FrameNo


class VerifyFinding(_View, frozen=True, kw_only=True):
    """A copy that is damaged, or that could not be read."""

    segment_id: SegmentId
    set_id: SetId
    volume_id: VolumeId
    tape: str
    #: `damaged` or `unread`.
    state: str
    problems: list[str]
    #: How many files have lost content.
    files: int = 0


class VerifyView(_View, frozen=True, kw_only=True):
    """A verification as the sidecar tells it."""

    number: int
    #: `running`, `completed`, `failed` or `cancelled`.
    state: str
    #: Copies of segments in all, and by what became of them.
    copies: int
    good: int = 0
    damaged: int = 0
    unread: int = 0
    #: Of these, so many were read back lately and not again.
    passed_over: int = 0
    bytes: int = 0
    done_bytes: int = 0
    tape: str = ""
    findings: list[VerifyFinding] = []
    #: What has ended it before its end; empty: nothing.
    error: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None


class SetVerdict(_View, frozen=True, kw_only=True):
    """What becomes of a set; `why` names the rule, `reason` is for people."""

    set_id: SetId
    name: str
    goes: bool
    why: str
    reason: str


class Expired(_View, frozen=True, kw_only=True):
    """What became of the sets. `expired` may lack one of those that should have gone: something holds it by now."""

    verdicts: list[SetVerdict]
    expired: list[SetId]
    freed_bytes: int


class RecallView(_View, frozen=True, kw_only=True):
    """A process that reads a file and waits for it, or has waited."""

    id: int
    #: `asking`, `waiting` or `over`.
    state: str
    uid: int
    pid: int
    command: str
    path: str
    size_bytes: int
    #: Of the frames that it has waited for.
    bytes: int
    #: Reads that have waited, and by what became of them.
    waits: int
    outcomes: dict[str, int] = {}
    waited_s: float
    began_at: datetime
    last_at: datetime
    reason: str | None = None
    #: `granted` or `denied` by an operator.
    word: str | None = None
    tape: str | None = None
    #: Stretches of the tape that are fetched first, and when its own will be there, if nothing else wants the drive.
    ahead: int | None = None
    eta_s: float | None = None


class UserUsage(_View, frozen=True, kw_only=True):
    """What a user has had fetched within the last hour."""

    uid: int
    bytes: int
    pending_bytes: int
    tapes: int


class RecallsMode(_View, frozen=True, kw_only=True):
    """Whether readers may recall; limits of 0 are none."""

    mode: str
    user_hourly_bytes: int
    user_hourly_tapes: int
    users: list[UserUsage]


class Reads(_View, frozen=True, kw_only=True):
    """How many reads wait for what was said."""

    reads: int


class PinView(_View, frozen=True, kw_only=True):
    """A pin as the sidecar tells it."""

    id: str
    owner: str
    frames: int
    missing_frames: int
    #: About, by the mean length of frames.
    bytes: int
    expires_at: datetime


class PromptView(_View, frozen=True, kw_only=True):
    """What somebody is to do at a drive."""

    number: int
    drive: str
    text: str
    take_out: str | None = None
    put_in: str | None = None
    since: datetime


class Unlocked(msgspec.Struct, frozen=True):
    """Fingerprints of keys that are unlocked."""

    unlocked: list[str]


class NewTapes(_View, frozen=True, kw_only=True):
    """Tapes that were not known."""

    new: list[str]


class FramesView(_View, frozen=True, kw_only=True):
    """Frames that hold something: how many, about how many bytes, those of trees, and those that are not staged."""

    frames: int
    bytes: int
    segments: list[FrameSpan]
    missing: list[FrameSpan]


class Accepted(_View, frozen=True, kw_only=True):
    """How many spans were accepted."""

    accepted: int


class Freed(_View, frozen=True, kw_only=True):
    """How much was dropped, and how much of what was named is staged still."""

    freed_bytes: int
    left_bytes: int = 0
