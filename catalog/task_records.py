"""The ledger's records of tasks: what operators want done beside jobs, and what became of it. Frozen and typed."""

from __future__ import annotations

from enum import Enum

from catalog.records import Record

#: Of each family so many that have ended are kept, the newest.
KEPT_TASKS = 1000


class TaskFamily(Enum):
    """What kind of task it is; each family has numbers of its own, and none is given out twice."""

    #: Something is to be done with a tape: identify, label, relabel, erase, reclaim, import.
    TAPE = "tape"
    #: A drive is to be cleaned.
    CLEANING = "cleaning"
    #: Copies are to be read back.
    VERIFICATION = "verification"
    #: The catalog is to be checked, or copied.
    UPKEEP = "upkeep"


class TaskState(Enum):
    """How far a task is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    #: The sidecar ended while it ran, and it is not begun again by itself.
    INTERRUPTED = "interrupted"


#: Something still becomes of these.
OPEN_TASKS = (TaskState.WAITING, TaskState.RUNNING)


class TaskRecord(Record, frozen=True, kw_only=True):
    """One task."""

    task_id: str
    family: TaskFamily
    #: Within its family; 0 until the ledger has given it out.
    number: int = 0
    #: What is to be done, as its family calls it.
    kind: str
    #: Label of a tape, or name of a drive; for people.
    subject: str
    #: All that was asked for, as JSON of the sidecar.
    order: bytes
    state: TaskState = TaskState.WAITING
    #: How often it was begun.
    begun: int = 0
    #: Kind and sentence of what went wrong.
    error_kind: str = ""
    error: str = ""
    #: What came of it, as JSON of the sidecar; empty: nothing is known.
    outcome: bytes = b""
    added_at_ns: int
    #: When it was begun the last time; 0: not yet.
    began_at_ns: int = 0
    finished_at_ns: int = 0

    @property
    def is_open(self) -> bool:
        """Does something still become of it?"""
        return self.state in OPEN_TASKS
