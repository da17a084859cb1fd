"""A set's report as JSON shows it: `tapefs report --json` and GET /api/v1/sets/{id}/report. Frozen; times ISO 8601."""

from __future__ import annotations

import msgspec
from msgspec import UNSET, UnsetType

from catalog.ids import JobNumber, SetId, SetNumber
from catalog.records import SetState
from drivers.interface import Counters
from tapefs.report.records import BufferUse, TapeUse


class PathView(msgspec.Struct, frozen=True, kw_only=True):
    """A path."""

    #: For people: what is not UTF-8 is replaced.
    path: str
    #: Its bytes, where it is not UTF-8.
    path_b64: str | UnsetType = UNSET


class TroubleView(PathView, frozen=True, kw_only=True):
    """A source file that is not in the set as it was, and why."""

    reason: str


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One of the stages that work at the same time."""

    #: Seconds it worked, summed over its threads, and seconds it waited for the others.
    busy_s: float
    waited_s: float
    bytes: int
    #: While it worked.
    bytes_per_s: int


class MoveView(msgspec.Struct, frozen=True, kw_only=True):
    """A drive that the run has left because it failed."""

    drive: str
    tape: str | None
    reason: str
    at: str | None


class DamageView(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a segment that is not as it was written."""

    segment_id: str
    tape: str
    verified_at: str | None
    problems: list[str]
    #: So many files have lost content; over HTTP the first thousand are named.
    lost_files: int
    lost: list[PathView]


class VerificationView(msgspec.Struct, frozen=True, kw_only=True):
    """What reading the copies back has found."""

    copies: int
    #: How many were ever read back, and when that was longest ago; null unless all were.
    verified: int
    oldest_at: str | None
    #: What it took to read the set back behind its run; 0: it was not.
    seconds: float
    damaged: list[DamageView]


class Streaming(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the drive streamed; null where it is not known, as while the run goes on."""

    #: What the drive has done for this run, by its own counters.
    drive: Counters | None = None
    buffer: BufferUse | None = None


class ReportView(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a set; what only its run knows is missing where there is no report of that."""

    set_id: SetId
    number: SetNumber
    job: JobNumber
    name: str
    type: str
    parent: SetId | None
    state: SetState
    error: str | None
    codec: str
    level: int
    sources: list[PathView]
    begun_at: str | None
    files: int
    directories: int
    bytes: int
    troubled_files: int
    #: Runs that have made the set; all that follows is of the last one, where nothing else is said.
    runs: int | UnsetType = UNSET
    started_at: str | UnsetType | None = UNSET
    finished_at: str | UnsetType | None = UNSET
    #: It was killed: `finished_at` is when that was noticed.
    interrupted: bool | UnsetType = UNSET
    moves: list[MoveView] | UnsetType = UNSET
    #: Of all runs: compared with the set that it builds on, and what was read to be stored.
    new_files: int | UnsetType = UNSET
    changed_files: int | UnsetType = UNSET
    removed_files: int | UnsetType = UNSET
    read_bytes: int | UnsetType = UNSET
    stored_bytes: int | UnsetType = UNSET
    #: Bytes on tape for each byte that was read; null when nothing was.
    ratio: float | UnsetType | None = UNSET
    segments: int | UnsetType = UNSET
    tapes: list[TapeUse] | UnsetType = UNSET
    #: `read`, `compress` and `write`.
    stages: dict[str, StageView] | UnsetType = UNSET
    #: Frames by the level that they were compressed with.
    levels: dict[int, int] | UnsetType = UNSET
    drive: Counters | UnsetType | None = UNSET
    buffer: BufferUse | UnsetType | None = UNSET
    #: Files that could not be read as they were.
    troubles: int | UnsetType = UNSET
    verification: VerificationView


class FullReport(ReportView, frozen=True, kw_only=True):
    """A report with some of its troubles."""

    trouble_list: list[TroubleView]
