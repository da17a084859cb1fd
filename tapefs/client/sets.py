"""Sets as the sidecar tells them. Pure."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from catalog.ids import JobId, JobNumber, SetId, SetNumber
from catalog.records import BackupSet, CopyState, SetState
from tapefs.client.calling import PAGE, Ask, Steps, call, every, in_path
from tapefs.client.views import SetVerdict

if TYPE_CHECKING:
    from tapefs.report.views import FullReport

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class SetView(msgspec.Struct, frozen=True, kw_only=True):
    """A set; unknown keys are ignored."""

    set_id: SetId
    number: SetNumber
    job: JobNumber
    name: str
    type: str
    state: SetState
    started_at: datetime | None
    finished_at: datetime | None
    parent_id: SetId | None
    sources_b64: list[str]
    codec: str
    level: int
    files: int
    directories: int
    bytes: int
    stored_bytes: int
    troubled_files: int
    segments: int
    tapes: list[str]
    pool: str | None
    copy_pools: list[str]
    retention_days: int
    error: str | None
    partial: str | None
    #: Of `troubled_files`, what could not be read at all.
    unread_files: int = 0

    def record(self) -> BackupSet:
        """Return what the ledger has of it, as far as the sidecar tells; times to the microsecond."""
        return BackupSet(
            set_id=self.set_id,
            number=self.number,
            job_id=JobId(""),
            job_number=self.job,
            name=self.name,
            type=self.type,
            codec=self.codec,
            level=self.level,
            sources=tuple(map(b64decode, self.sources_b64)),
            state=self.state,
            started_at_ns=_nanoseconds(self.started_at),
            finished_at_ns=_nanoseconds(self.finished_at),
            parent_id=self.parent_id,
            retention_days=self.retention_days,
            pool=self.pool or "",
            copy_pools=tuple(self.copy_pools),
            files=self.files,
            directories=self.directories,
            bytes=self.bytes,
            stored_bytes=self.stored_bytes,
            troubled_files=self.troubled_files,
            unread_files=self.unread_files,
            segments=self.segments,
            tapes=tuple(self.tapes),
            error=self.error or "",
            partial=self.partial or "",
        )


class SetCopyView(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a part."""

    tape: str
    state: CopyState
    first_block: int
    read_back_at: datetime | None = None


class SetPartView(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a set, an archive by itself."""

    segment_id: str
    number: int
    plain_bytes: int
    stored_bytes: int
    copies: list[SetCopyView]


class SetDetail(SetView, frozen=True, kw_only=True):
    """A set and where it lies."""

    #: Of the part that has the fewest.
    good_copies: int
    #: The first thousand; `set_parts` has all.
    parts: list[SetPartView]


class SetCalls:
    """The calls. Each may raise Unreachable."""

    @call
    @staticmethod
    def sets(state: SetState | None = None, name: str | None = None) -> Steps[list[SetView]]:
        """List sets, newest first: in a state, else all but expired ones; of a job's name, or all."""
        chosen = ({} if state is None else {"state": state.value}) | ({} if name is None else {"name": name})
        return every(f"/api/v1/sets?{urlencode(chosen)}" if chosen else "/api/v1/sets", SetView)

    @call
    @staticmethod
    def set(set_id: str) -> Ask[SetDetail]:
        """Tell of one, and where it lies; by its whole id. Raises NoSuchThing, UsageError."""
        return Ask("GET", f"/api/v1/sets/{in_path(set_id)}", None, SetDetail)

    @call
    @staticmethod
    def set_parts(set_id: str) -> Steps[list[SetPartView]]:
        """List all parts of one, by number. Raises NoSuchThing, UsageError."""
        return every(f"/api/v1/sets/{in_path(set_id)}/parts", SetPartView)

    @call
    @staticmethod
    def report(set_id: str) -> Steps[FullReport]:
        """Tell how the run of one went, with all troubles. Raises NoSuchThing, UsageError."""
        from tapefs.report.views import FullReport

        url = f"/api/v1/sets/{in_path(set_id)}/report?limit={PAGE}"
        report: FullReport = yield Ask("GET", url, None, FullReport)
        troubles, page = [*report.trouble_list], report.trouble_list
        while len(page) == PAGE:
            more: FullReport = yield Ask("GET", f"{url}&offset={len(troubles)}", None, FullReport)
            page = more.trouble_list
            troubles += page
        return msgspec.structs.replace(report, trouble_list=troubles)

    @call
    @staticmethod
    def verdicts(named: Sequence[SetId] = (), *, failed: bool = False) -> Steps[list[SetVerdict]]:
        """Tell of all sets what `expire` would do with them, by number; nothing changes. Raises NoSuchThing."""
        chosen = ({"sets": ",".join(named)} if named else {}) | ({"failed": "true"} if failed else {})
        target = f"/api/v1/expire?{urlencode(chosen)}" if chosen else "/api/v1/expire"
        return every(target, SetVerdict, inside="verdicts")


def _nanoseconds(at: datetime | None) -> int:
    """Return 0 for never, as records have it."""
    return 0 if at is None else (at - _EPOCH) // timedelta(microseconds=1) * 1000
