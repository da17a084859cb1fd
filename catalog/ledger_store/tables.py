"""The ledger's databases and their keys.

    database          key                                     value
    meta              `layout`                                Layout: version of this layout, and LMDB's version
                      `installation`                          Installation
                      `counter.job|set|intent|event|user`     the number given out last, an integer from 0
                      `counter.schedule|run|notice`           likewise
                      `counter.tape-task|cleaning|verification` the same of tasks
                      `counter.followed`                      number of the event up to which notices were made
                      `counter.name.STEM`                     the same of tapes' names such as STEM01
                      `index.damaged_segments`                1, once `damaged_segments` is kept
    volumes           volume id                               Volume
    volume_labels     label                                   volume id
    jobs              job number (8)                          Job
    job_ids           job id                                  job number
    jobs_by_state     state, 0, job number (8)                job number
    jobs_by_name      name, 0, job number (8)                 job number
    jobs_to_check     job number (8)                          job number, while its newest run is to be verified
    queue             `state`                                 QueueState; none: it is not held
    sets              set id                                  BackupSet
    set_numbers       set number (4)                          set id; a number is never given out twice
    sets_by_job       job id, 0, set number (4)               set id
    segments          segment id                              Segment
    segments_by_set   set id, 0, number within the set (4)    segment id
    copies            segment id, 0, volume id                SegmentCopy
    copies_by_volume  volume id, 0, header's block (8)        segment id
    damaged_segments  segment id                              set id, while no copy of the segment is good
    index_copies      set id, 0, index id, 0, volume id       IndexCopy
    intents           volume id, 0, order of opening (8)      Intent; only open ones are kept
    pins              pin id                                  StagePin
    stage_requests    request id                              StageRequest
    recoveries        recovery id                             Recovery; open ones, and the newest 1,000
    pools             name                                    Pool
    mountings         cartridge, began in ns (8), id          Mounting; the newest 200 of each cartridge
    lives             cartridge                               CartridgeLife
    schedules         schedule number (8)                     Schedule
    schedule_ids      schedule id                             schedule number
    schedule_runs     schedule number (8), run number (8)     ScheduleRun; of each schedule the newest 200 ended
    tasks             family, 0, task number (8)              TaskRecord; of each family the newest 1,000 ended
    users             user id                                 User
    credentials       credential id                           Credential
    notices           notice number (8)                       Notice; the newest 10,000
    deliveries        channel, 0, notice number (8)           Delivery; only open ones, and the newest given up
    channels          name                                    ChannelRecord
    conditions        name                                    Condition; only those that have not ended
    events            event number (8)                        Event; the newest 10,000

Numbers in keys are unsigned, big-endian, of the length in parentheses, so that LMDB's order is theirs. Texts are UTF-8
(see `text_key` for the odd ones). Every value is sealed by `catalog.checked` under its database's name. A database that
points to another (`volume_labels`, `job_ids`, `jobs_by_state`, `jobs_by_name`, `jobs_to_check`, `schedule_ids`,
`set_numbers`, `sets_by_job`, `segments_by_set`, `copies_by_volume`, `damaged_segments`) changes in the same
transaction as its target.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from catalog.access_records import Credential, User
from catalog.checked import Codec
from catalog.ids import BlockNo, JobId, JobNumber, SegmentId, SetId, SetNumber, VolumeId
from catalog.life_records import CartridgeLife, Mounting
from catalog.notice_records import ChannelRecord, Condition, Delivery, Notice
from catalog.pool_records import Pool
from catalog.queue_records import QueueState
from catalog.records import (
    BackupSet,
    Event,
    IndexCopy,
    Installation,
    Intent,
    Job,
    JobState,
    Segment,
    SegmentCopy,
    StagePin,
    Volume,
)
from catalog.recovery_records import Recovery
from catalog.schedule_records import RunNumber, Schedule, ScheduleNumber, ScheduleRun
from catalog.stage_records import StageRequest
from catalog.task_records import TaskFamily, TaskRecord

#: Version of this layout. It grows when an older program could not read or would spoil what a newer one wrote.
LAYOUT_VERSION = 1
#: Longer texts are hashed in keys; three of these and their separators stay below LMDB's limit of 511 bytes.
_MAX_TEXT_BYTES = 160

R = TypeVar("R")


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """Which layout a ledger has. This record, its database and its key stay readable in all versions."""

    version: int
    #: LMDB's version when the ledger was made, for the operator.
    lmdb: str


@dataclass(frozen=True, slots=True)
class Table(Generic[R]):
    """One database with one type of records; `meta` has several."""

    name: str
    codec: Codec[R]


def _table(name: str, type_: type[R]) -> Table[R]:
    return Table(name, Codec(name, type_))


LAYOUT = _table("meta", Layout)
INSTALLATION = _table("meta", Installation)
COUNTERS = _table("meta", int)
VOLUMES = _table("volumes", Volume)
VOLUME_LABELS = _table("volume_labels", str)
JOBS = _table("jobs", Job)
JOB_IDS = _table("job_ids", int)
JOBS_BY_STATE = _table("jobs_by_state", int)
JOBS_BY_NAME = _table("jobs_by_name", int)
JOBS_TO_CHECK = _table("jobs_to_check", int)
QUEUE = _table("queue", QueueState)
SETS = _table("sets", BackupSet)
SET_NUMBERS = _table("set_numbers", str)
SETS_BY_JOB = _table("sets_by_job", str)
SEGMENTS = _table("segments", Segment)
SEGMENTS_BY_SET = _table("segments_by_set", str)
COPIES = _table("copies", SegmentCopy)
COPIES_BY_VOLUME = _table("copies_by_volume", str)
DAMAGED_SEGMENTS = _table("damaged_segments", str)
INDEX_COPIES = _table("index_copies", IndexCopy)
INTENTS = _table("intents", Intent)
EVENTS = _table("events", Event)
PINS = _table("pins", StagePin)
STAGE_REQUESTS = _table("stage_requests", StageRequest)
RECOVERIES = _table("recoveries", Recovery)
POOLS = _table("pools", Pool)
MOUNTINGS = _table("mountings", Mounting)
LIVES = _table("lives", CartridgeLife)
SCHEDULES = _table("schedules", Schedule)
SCHEDULE_IDS = _table("schedule_ids", int)
SCHEDULE_RUNS = _table("schedule_runs", ScheduleRun)
TASKS = _table("tasks", TaskRecord)
USERS = _table("users", User)
CREDENTIALS = _table("credentials", Credential)
NOTICES = _table("notices", Notice)
DELIVERIES = _table("deliveries", Delivery)
CHANNELS = _table("channels", ChannelRecord)
CONDITIONS = _table("conditions", Condition)

#: Every ledger has them.
_FIRST = (
    "meta",
    "volumes",
    "volume_labels",
    "jobs",
    "job_ids",
    "sets",
    "set_numbers",
    "segments",
    "segments_by_set",
    "copies",
    "copies_by_volume",
    "index_copies",
    "intents",
    "events",
)
#: Ledgers of earlier versions lack these: they are made when one is opened for writing, and empty until then.
LATER_DATABASES = (
    "pins",
    "pools",
    "mountings",
    "lives",
    "jobs_by_state",
    "jobs_by_name",
    "jobs_to_check",
    "queue",
    "schedules",
    "schedule_ids",
    "schedule_runs",
    "stage_requests",
    "recoveries",
    "users",
    "credentials",
    "notices",
    "deliveries",
    "channels",
    "conditions",
    "tasks",
    "damaged_segments",
    "sets_by_job",
)
DATABASES = (*_FIRST, *LATER_DATABASES)
#: Fixed when an environment is opened; more than there are, so that a newer minor version may add some.
MAX_DATABASES = 64

LAYOUT_KEY = b"layout"
INSTALLATION_KEY = b"installation"
QUEUE_KEY = b"state"
JOB_COUNTER = b"counter.job"
SET_COUNTER = b"counter.set"
INTENT_COUNTER = b"counter.intent"
EVENT_COUNTER = b"counter.event"
SCHEDULE_COUNTER = b"counter.schedule"
RUN_COUNTER = b"counter.run"
USER_COUNTER = b"counter.user"
NOTICE_COUNTER = b"counter.notice"
TASK_COUNTERS = {
    TaskFamily.TAPE: b"counter.tape-task",
    TaskFamily.CLEANING: b"counter.cleaning",
    TaskFamily.VERIFICATION: b"counter.verification",
    TaskFamily.UPKEEP: b"counter.upkeep",
}
FOLLOWED_COUNTER = b"counter.followed"
#: Followed by the stem of the names that it counts.
NAME_COUNTER = b"counter.name."
DAMAGED_SEGMENTS_KEY = b"index.damaged_segments"


def text_key(text: str) -> bytes:
    """Return the key for an id or a label: its UTF-8.

    A text that is empty, long or contains a zero byte (it came from a user then) becomes a zero byte and a BLAKE2b-256,
    so that every text is a valid key, different texts have different ones, and none is the beginning of another key's
    first part with its separator.
    """
    data = text.encode("utf-8", "surrogatepass")
    if 0 < len(data) <= _MAX_TEXT_BYTES and b"\0" not in data:
        return data
    return b"\0" + hashlib.blake2b(data, digest_size=32).digest()


def parts(*texts: str) -> bytes:
    """Return the beginning of a key that goes on behind these texts: each with a zero byte behind it."""
    return b"".join(text_key(text) + b"\0" for text in texts)


def job_key(number: JobNumber) -> bytes:
    """Key in `jobs`."""
    return number.to_bytes(8, "big")


def job_by_state_key(state: JobState, number: JobNumber) -> bytes:
    """Key in `jobs_by_state`."""
    return parts(state.value) + job_key(number)


def job_by_name_key(name: str, number: JobNumber) -> bytes:
    """Key in `jobs_by_name`."""
    return parts(name) + job_key(number)


def event_key(number: int) -> bytes:
    """Key in `events`."""
    return number.to_bytes(8, "big")


def set_number_key(number: SetNumber) -> bytes:
    """Key in `set_numbers`."""
    return number.to_bytes(4, "big")


def set_by_job_key(job_id: JobId, number: SetNumber) -> bytes:
    """Key in `sets_by_job`."""
    return parts(job_id) + set_number_key(number)


def segment_by_set_key(set_id: SetId, number: int) -> bytes:
    """Key in `segments_by_set`."""
    return parts(set_id) + number.to_bytes(4, "big")


def copy_key(segment_id: SegmentId, volume_id: VolumeId) -> bytes:
    """Key in `copies`."""
    return parts(segment_id) + text_key(volume_id)


def copy_by_volume_key(volume_id: VolumeId, block: BlockNo) -> bytes:
    """Key in `copies_by_volume`."""
    return parts(volume_id) + block.to_bytes(8, "big")


def index_copy_key(set_id: SetId, index_id: str, volume_id: VolumeId) -> bytes:
    """Key in `index_copies`."""
    return parts(set_id, index_id) + text_key(volume_id)


def intent_key(volume_id: VolumeId, order: int) -> bytes:
    """Key in `intents`."""
    return parts(volume_id) + order.to_bytes(8, "big")


def mounting_key(code: str, loaded_at_ns: int, mounting_id: str) -> bytes:
    """Key in `mountings`."""
    return parts(code) + loaded_at_ns.to_bytes(8, "big") + text_key(mounting_id)


def schedule_key(number: ScheduleNumber) -> bytes:
    """Key in `schedules`, and the beginning of those in `schedule_runs`."""
    return number.to_bytes(8, "big")


def run_key(schedule: ScheduleNumber, number: RunNumber) -> bytes:
    """Key in `schedule_runs`."""
    return schedule_key(schedule) + number.to_bytes(8, "big")


def delivery_key(channel: str, notice: int) -> bytes:
    """Key in `deliveries`."""
    return parts(channel) + notice.to_bytes(8, "big")


def task_key(family: TaskFamily, number: int) -> bytes:
    """Key in `tasks`."""
    return parts(family.value) + number.to_bytes(8, "big")
