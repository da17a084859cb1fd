"""The ledger's records: frozen, typed, encoded with msgspec.

Times are nanoseconds since the epoch, UTC. Unknown keys are ignored when reading: a newer minor version may add some.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import msgspec

from catalog.ids import (
    BlockNo,
    FileNo,
    InstallationId,
    JobId,
    JobNumber,
    PinId,
    SegmentId,
    SetId,
    SetNumber,
    VolumeId,
)
from catalog.queue_records import USUAL_PRIORITY, HookResult, JobCheck, JobTry

#: A path as the kernel has it. An alias, because within a record that has a field `bytes`, that name means the field.
RawPath = bytes


class VolumeState(Enum):
    """What may be done with a tape."""

    #: Known by its barcode, no label of ours on it yet; its first use writes one.
    BLANK = "blank"
    #: Labelled, has room, may be appended to.
    APPENDABLE = "appendable"
    #: Labelled, no room left; only read.
    FULL = "full"
    #: Not written until an operator has looked at it: write errors, a mismatch with the ledger, a foreign label.
    SUSPECT = "suspect"


class SetState(Enum):
    """How far a backup set has come."""

    RUNNING = "running"
    #: Its last SET INDEX is on tape and synced; the namespace index is still to be put in place.
    SEALED = "sealed"
    COMPLETE = "complete"
    FAILED = "failed"
    EXPIRED = "expired"


class JobState(Enum):
    """How far the newest run of a job has come. The values are TAF's, and `queued`."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    #: Somebody has stopped it, waiting or running; it goes on when somebody says so.
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CopyState(Enum):
    """What the newest reading back of a copy has found; `SegmentCopy.verified_at_ns` says when that was."""

    #: Nothing is wrong that is known of: it was never read back, or was found as it was written.
    GOOD = "good"
    #: Something of it is unreadable or not what was written; what can be read of it is still right.
    DAMAGED = "damaged"


class IntentKind(Enum):
    """What kind of structure is about to be written."""

    LABEL = "label"
    SEGMENT = "segment"
    INDEX = "index"


#: What `Segment.codec` says of an archive that another program has written.
FOREIGN_CODEC = "foreign"

#: What `retention_days` says of a job that leaves it to its pool.
AS_POOL = -1


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all records."""


class Installation(Record, frozen=True, kw_only=True):
    """This state folder's identity; one per ledger."""

    installation_id: InstallationId
    created_at_ns: int


class Volume(Record, frozen=True, kw_only=True):
    """A tape."""

    volume_id: VolumeId
    #: Its name; need not be unique among tapes of several installations, but is within one ledger.
    label: str
    pool: str
    #: Installation that labelled it.
    installation_id: InstallationId
    #: LTO generation of the cartridge.
    generation: int
    capacity_bytes: int
    block_size: int
    state: VolumeState
    #: Why a SUSPECT volume is one, for the operator.
    reason: str = ""
    #: Logical block and file number where the last committed structure ends (behind its filemark): the place to append.
    end_block: BlockNo = BlockNo(0)
    end_file: FileNo = FileNo(0)
    #: Bytes of all blocks written to it up to `end_block`.
    used_bytes: int = 0
    created_at_ns: int = 0
    written_at_ns: int = 0
    #: Fencing token of the newest writer; grows by one with every claim.
    claim: int = 0
    #: When its label was written; 0: not yet, or by a version that did not note it.
    labelled_at_ns: int = 0
    #: Where it lies when that is not the library, for people: a vault's name. Nothing is written to it there.
    location: str = ""
    #: What a library or a shelf calls it, where that is not the label; empty: it is.
    barcode: str = ""
    #: Of a BLANK tape that was given up: what its label may be written over, as `tapefs.tape.identity` names it.
    overwrites: str = ""
    #: Of the key that all its data is encrypted with, fixed when it is labelled; empty: it is not encrypted.
    key_fingerprint: str = ""
    #: The drive encrypts it, with a key made of that one; else the payload is encrypted before it gets there.
    by_drive: bool = False
    #: When somebody looked what is on it, without writing to it; 0: never.
    identified_at_ns: int = 0
    #: When a set left it the last time because all of it was copied to another tape; 0: never.
    left_at_ns: int = 0
    #: Another program has written it, and what lies on it are files of its own: `taf`. Nothing of ours is on it, and
    #: it is only read. Empty: it is a tape of tapefs.
    foreign: str = ""

    @property
    def code(self) -> str:
        """What a library or a shelf calls it."""
        return self.barcode or self.label


#: A run may leave so many drives that have failed; then it fails.
MOST_MOVES = 3


class DriveMove(Record, frozen=True, kw_only=True):
    """A run has left a drive that failed, to go on with another, or with the same when that works again."""

    #: Name of the drive that failed.
    drive: str
    #: Its sentence for people.
    reason: str
    at_ns: int
    #: Label of the tape that was in it; empty: none.
    tape: str = ""


class Job(Record, frozen=True, kw_only=True):
    """A backup task: what to back up, and the state of its newest run."""

    number: JobNumber
    job_id: JobId
    #: A plain file name: no slash, no control characters; several jobs may share it.
    name: str
    #: Absolute source paths, any bytes.
    sources: tuple[bytes, ...]
    #: `full`, `incremental`, `differential`, `mirror` or `archive`.
    type: str = "full"
    #: As `tapefs.codecs` names them, and one of that codec's levels; -1: `auto`.
    codec: str = "zstd"
    level: int = -1
    #: Compression threads; 0 means what the settings say.
    threads: int = 0
    #: Segments go to disk before they go to tape; None means what the settings say.
    spool: bool | None = None
    #: Compare content where size and times say that nothing changed.
    checksum: bool = False
    #: Read everything back from tape before the job is completed.
    verify: bool = False
    #: Tapes that shall hold it.
    copies: int = 1
    #: Of an archive: the sources stay where they are.
    keep_sources: bool = False
    one_file_system: bool = False
    #: Leave out what is in a folder with a CACHEDIR.TAG.
    exclude_caches: bool = False
    #: Regular files outside these bounds are left out; 0 means none. Ages are of the mtime, when the run begins.
    min_bytes: int = 0
    max_bytes: int = 0
    min_age_s: int = 0
    max_age_s: int = 0
    #: Patterns as `.gitignore` has them, relative to each source; see `tapefs.backup.patterns`.
    excludes: tuple[str, ...] = ()
    description: str = ""
    #: Name of the one file of its sets, whose content is sent while it runs; empty: the sources are read.
    stream: str = ""
    #: 0: for ever; AS_POOL: as the rule of its pool says.
    retention_days: int = 0
    #: Its sets go to tapes of this pool; empty: the one of the settings.
    pool: str = ""
    #: … and copies of them to tapes of these, beside those that the pool itself names.
    copy_pools: tuple[str, ...] = ()
    #: 0 to 100; of jobs that wait the highest runs first, and an hour of waiting counts like one step.
    priority: int = USUAL_PRIORITY
    #: So often a run that failed for a reason that may pass is tried again by itself, the first time after so long,
    #: then after twice as long each time, up to the longest.
    retries: int = 0
    retry_first_s: int = 60
    retry_longest_s: int = 3600
    #: It runs when the newest runs of these jobs have ended, and all well; with `after_any` in whatever way.
    after: tuple[JobNumber, ...] = ()
    after_any: bool = False
    #: When a run is completed, its set is read back as a task of its own: `all`, `sample`, or empty: not.
    then_verify: str = ""
    #: Names of hooks in the settings: before a run gets a drive, and when it has ended in whatever way.
    hooks_before: tuple[str, ...] = ()
    hooks_after: tuple[str, ...] = ()
    state: JobState = JobState.PENDING
    runs: int = 0
    #: The set of the newest run, once that has begun.
    set_id: SetId | None = None
    #: Type of the set that the newest run makes, where that is not `type`; empty: it is.
    run_type: str = ""
    #: The queued run goes on with `set_id`, which failed, behind its last committed segment.
    resume: bool = False
    #: The drives that the newest run has left because they failed, oldest first.
    moves: tuple[DriveMove, ...] = ()
    #: How often the newest run went back into the queue otherwise, and why; oldest first.
    tries: tuple[JobTry, ...] = ()
    #: The queued run does not begin before; 0: at once.
    not_before_ns: int = 0
    paused_at_ns: int = 0
    #: Of the newest run, if it is to be verified behind its end.
    check: JobCheck | None = None
    #: When the hooks of the newest run began; 0: they have not. And how those went that have ended.
    hooks_begun_at_ns: int = 0
    hooks: tuple[HookResult, ...] = ()
    created_at_ns: int = 0
    queued_at_ns: int = 0
    started_at_ns: int = 0
    finished_at_ns: int = 0
    #: Of the newest run; empty when it did not fail.
    error: str = ""


class Filters(Record, frozen=True, kw_only=True):
    """What a run leaves out of its sources; the fields are Job's."""

    one_file_system: bool = False
    exclude_caches: bool = False
    min_bytes: int = 0
    max_bytes: int = 0
    min_age_s: int = 0
    max_age_s: int = 0
    excludes: tuple[str, ...] = ()


class BackupSet(Record, frozen=True, kw_only=True):
    """One run's result: a tree of files as it was."""

    set_id: SetId
    number: SetNumber
    job_id: JobId
    job_number: JobNumber
    #: Name of the job when the set was made.
    name: str
    type: str
    #: As the job said.
    codec: str
    level: int
    sources: tuple[RawPath, ...]
    state: SetState
    started_at_ns: int
    finished_at_ns: int = 0
    #: The set this one is based on; none for full sets.
    parent_id: SetId | None = None
    #: As the job said when the set was begun: a run that goes on with it leaves out the same. None: not noted then.
    filters: Filters | None = None
    #: As the job said when the set was begun; 0 means for ever.
    retention_days: int = 0
    #: Where it went; empty: not noted then.
    pool: str = ""
    #: Where copies of it are to go, by what job and pool said when it was begun.
    copy_pools: tuple[str, ...] = ()
    #: 0: it has not expired, or when it did was not noted.
    expired_at_ns: int = 0
    #: Everything but directories.
    files: int = 0
    directories: int = 0
    #: Content of regular files.
    bytes: int = 0
    #: Payload bytes on tape.
    stored_bytes: int = 0
    #: Files that changed, shrank or vanished while they were read, or could not be read.
    troubled_files: int = 0
    #: Of these, files that could not be read, or not to their end, and directories that could not be listed.
    unread_files: int = 0
    #: Tells which these are from others: a sum over their paths. 0: there are none, or it was not noted.
    unread_mark: int = 0
    segments: int = 0
    #: Labels of the tapes it lies on, in the order of writing.
    tapes: tuple[str, ...] = ()
    #: Why it failed.
    error: str = ""
    #: More than one run has made it: what could not be read in those before the last was not all counted.
    is_resumed: bool = False
    #: It was found on tapes, not made with this ledger.
    is_adopted: bool = False
    #: Another installation has made it: no later set builds on it.
    is_imported: bool = False
    #: What the program that made it calls it, where that is another one: `2026-11_000001` of TAF.
    foreign_name: str = ""
    #: Of a COMPLETE set: what of it could not be read when it was imported. Empty: nothing is missing.
    partial: str = ""
    #: Of one that was begun when the clock was behind the sets of that name that were there: what they say it was then.
    after_ns: int = 0

    @property
    def order_ns(self) -> int:
        """By this sets of a name follow each other: a clock that was put back makes none older than those before it."""
        return max(self.started_at_ns, self.after_ns)

    @property
    def kept_from_ns(self) -> int:
        """From here on its retention counts."""
        return max(self.finished_at_ns, self.after_ns)


class SetTotals(Record, frozen=True, kw_only=True):
    """What is known of a set when it is sealed; the fields are BackupSet's."""

    files: int
    directories: int
    bytes: int
    stored_bytes: int
    troubled_files: int
    unread_files: int = 0
    unread_mark: int = 0


class ForeignArchive(Record, frozen=True, kw_only=True):
    """An archive that another program has written as a file: read as a whole, from its beginning or a checkpoint."""

    #: On the medium, from its root.
    path: RawPath
    #: How it is packed: `.tar`, `.tar.gz`, `.tar.zst` or `.7z`.
    suffix: str
    #: When it was read; another one means another file.
    mtime_ns: int
    #: Places from which it can be decompressed without what is before them: stored and plain offset, each 8 bytes
    #: big-endian, ascending. The beginning is one without being named.
    checkpoints: bytes = b""


class Segment(Record, frozen=True, kw_only=True):
    """A committed segment: one complete archive."""

    segment_id: SegmentId
    set_id: SetId
    #: Ordinal within its set, from 0.
    number: int
    #: Format of the payload as its header names it: `zstd`, `gzip`, `tar` or `7z`.
    codec: str
    #: Length of the plain tar stream and of the payload on tape.
    plain_bytes: int
    stored_bytes: int
    members: int
    frames: int
    #: Of the payload as it is on tape.
    payload_sha256: bytes
    committed_at_ns: int
    #: Of the key it is encrypted with; empty: it is not.
    key_fingerprint: str = ""
    #: Encrypted: the age header and nonce that the payload begins with, so that any place of it can be read at once.
    preamble: bytes = b""
    #: It is a file of another program; `codec` is FOREIGN_CODEC then, and frames are slices of its plain stream.
    archive: ForeignArchive | None = None


class SegmentCopy(Record, frozen=True, kw_only=True):
    """Where a segment lies on one tape."""

    segment_id: SegmentId
    volume_id: VolumeId
    header_file: FileNo
    header_block: BlockNo
    payload_block: BlockNo
    trailer_block: BlockNo
    #: Behind the trailer's filemark.
    end_block: BlockNo
    #: Block size the payload was cut into.
    block_size: int
    #: Of the trailer as it is on this tape, where that is encrypted: each copy is by itself.
    trailer_sha256: bytes = b""
    #: When it was read back wholly the last time; 0: never.
    verified_at_ns: int = 0
    state: CopyState = CopyState.GOOD
    #: It was made to take the place of the copy on that tape; empty: it was not.
    replaces: VolumeId = VolumeId("")


class IndexCopy(Record, frozen=True, kw_only=True):
    """Where a SET INDEX lies on one tape."""

    index_id: str
    set_id: SetId
    volume_id: VolumeId
    file: FileNo
    block: BlockNo
    end_block: BlockNo
    #: It takes the place of the indexes on that tape; empty: it does not.
    replaces: VolumeId = VolumeId("")


class Intent(Record, frozen=True, kw_only=True):
    """A structure that is about to be written to a tape; written before its first block, closed by its commit."""

    #: UUID of the segment or index; of the volume for a label.
    structure_id: str
    kind: IntentKind
    volume_id: VolumeId
    block: BlockNo
    #: None for a label.
    set_id: SetId | None
    opened_at_ns: int


class Adoption(Record, frozen=True, kw_only=True):
    """What was found on tapes, to be taken into a ledger."""

    volumes: tuple[Volume, ...] = ()
    #: Under the numbers that they had; so are the sets.
    jobs: tuple[Job, ...] = ()
    #: FAILED, or SEALED where the namespace index is in place.
    sets: tuple[BackupSet, ...] = ()
    segments: tuple[Segment, ...] = ()
    copies: tuple[SegmentCopy, ...] = ()
    indexes: tuple[IndexCopy, ...] = ()
    #: Torn structures at the ends of tapes, which the next writer may overwrite.
    intents: tuple[Intent, ...] = ()
    #: Tapes that were begun anew since, under another id: they are forgotten, with all that lay on them.
    begun_anew: tuple[VolumeId, ...] = ()


class VolumeEnd(Record, frozen=True, kw_only=True):
    """Where a tape's committed data ends after a commit."""

    block: BlockNo
    file: FileNo
    used_bytes: int


class PinnedFrames(NamedTuple):
    """Frames of one segment."""

    segment_id: SegmentId
    #: Runs of frames, first and last, both included; ascending, with a gap between any two.
    runs: tuple[tuple[int, int], ...]


class StagePin(Record, frozen=True, kw_only=True):
    """A wish that frames be kept staged once they are."""

    pin_id: PinId
    #: Who asked for it, for people.
    owner: str
    reason: str = ""
    #: By segment id, each only once.
    frames: tuple[PinnedFrames, ...]
    created_at_ns: int
    #: Then it ends by itself.
    expires_at_ns: int


class Event(Record, frozen=True, kw_only=True):
    """Something that happened, for those who follow along; a hint, never the truth itself."""

    number: int
    at_ns: int
    #: For instance `set.complete`, `volume.state`, `job.state`.
    kind: str
    #: The record's id or number as text.
    subject: str
    detail: str = ""
