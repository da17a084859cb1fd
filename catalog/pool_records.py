"""The ledger's records of pools: what the tapes of one are for. Frozen and typed, like `catalog.records`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta

from catalog.records import Record


class RetentionKind(Enum):
    """How a pool says for how long a set stays; see `tapefs.retention.rules`."""

    #: The pool says nothing: as the job says.
    JOB = "job"
    #: So many days from the end of the set.
    DAYS = "days"
    #: To the same day, so many months from the end of the set.
    MONTHS = "months"
    #: To the end of the month that follows by so many on the one in which its tape was begun: TAF's rule.
    TAPE_MONTHS = "tape-months"
    FOR_EVER = "for-ever"


class RetentionRule(Record, frozen=True, kw_only=True):
    """For how long sets stay."""

    kind: RetentionKind = RetentionKind.JOB
    #: Days or months; 0 where the kind needs none.
    count: Annotated[int, Meta(ge=0)] = 0


class AllocationKind(Enum):
    """Which begun tape of a pool a job may go on with; see `tapefs.retention.allocation`."""

    #: Any with room.
    CONTINUE = "continue"
    #: One that was begun in this period.
    PERIOD = "period"
    #: One that holds sets of this job only.
    JOB = "job"
    #: None but those that this run has begun itself.
    RUN = "run"


class AllocationRule(Record, frozen=True, kw_only=True):
    """When a new tape is begun though another one has room."""

    kind: AllocationKind = AllocationKind.CONTINUE
    #: Calendar event, as systemd writes them, at which a period begins; empty for the other kinds.
    period: str = ""


class Pool(Record, frozen=True, kw_only=True):
    """Tapes that serve one purpose, and the rules for them."""

    name: str
    description: str = ""
    retention: RetentionRule = RetentionRule()
    allocation: AllocationRule = AllocationRule()
    #: Every set of the pool is copied to tapes of these pools, too.
    copy_pools: tuple[str, ...] = ()
    #: A blank tape of the scratch pool may be taken when the pool has none.
    use_scratch: bool = True
    #: A tape may be overwritten when all of its sets have expired so many days ago.
    reuse: bool = False
    reuse_grace_days: Annotated[int, Meta(ge=0)] = 7
    #: Where its tapes belong once they are full; empty: they stay in the library.
    vault: str = ""
    #: … or so many days after they were begun, whatever comes first; 0: only when they are full.
    vault_after_days: Annotated[int, Meta(ge=0)] = 0
    created_at_ns: int = 0
