"""The ledger's records of the queue: why a run is to be tried again, what a job waits for. Frozen and typed.

Times are nanoseconds since the epoch, UTC.
"""

from __future__ import annotations

from enum import Enum

import msgspec

#: Priorities are 0 to this; higher ones run first.
HIGHEST_PRIORITY, USUAL_PRIORITY = 100, 50
#: Interruptions in a row within which a run has brought nothing to tape; with one more it fails.
MOST_INTERRUPTIONS = 3
#: Tries that are remembered of one run.
KEPT_TRIES = 100


class TryKind(Enum):
    """Why a run went back into the queue."""

    #: It failed for a reason that may pass.
    FAILED = "failed"
    #: The sidecar was killed, or the machine ended, while it ran.
    INTERRUPTED = "interrupted"
    #: The sidecar was told to end while it ran.
    STOPPED = "stopped"


class JobTry(msgspec.Struct, frozen=True, kw_only=True):
    """A run has ended without its end, and is to go on."""

    kind: TryKind
    #: A sentence for people.
    reason: str
    at_ns: int
    #: Segments of its set that were committed by then.
    segments: int = 0


class CheckState(Enum):
    """How far the verification behind a job's run is."""

    WAITING = "waiting"
    GOOD = "good"
    #: Something of the set is damaged, or could not be read.
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What the verification behind a job's newest run has found."""

    state: CheckState
    #: When the run had ended, and when the verification had.
    since_ns: int
    at_ns: int = 0
    #: What is wrong, for people; empty: nothing.
    reason: str = ""


class HookResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a hook went."""

    name: str
    #: Empty: it went well.
    error: str = ""
    #: The end of what it printed.
    output: str = ""
    duration_ns: int = 0
    #: It ran behind what it belongs to.
    is_after: bool = False


class QueueState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the queue as a whole is held: then nothing new begins."""

    is_paused: bool = False
    #: Who wanted that or why, for people.
    reason: str = ""
    at_ns: int = 0
