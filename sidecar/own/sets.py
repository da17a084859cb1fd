"""Sets and tapes as lists under /api/v1: what `tapefs sets`, `tapefs show` and `tapefs tapes` tell on this host."""

from __future__ import annotations

import re
from base64 import b64encode
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from catalog.records import BackupSet, CopyState, Segment, SetState, Volume, VolumeState
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call, Query
from sidecar.http.paging import page_answer, part_of
from sidecar.http.requests import Invalid, number_of, text_of
from sidecar.service import Service

ChosenEnum = TypeVar("ChosenEnum", bound=Enum)

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SetAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A set."""

    set_id: str
    #: Counts the sets of this ledger.
    number: int
    job: int
    name: str
    type: str
    state: SetState
    started_at: datetime | None
    finished_at: datetime | None
    #: The set that it builds on.
    parent_id: str | None
    #: What is not UTF-8 in them as escapes; `sources_b64` has the bytes.
    sources: list[str]
    sources_b64: list[str]
    codec: str
    level: int
    files: int
    directories: int
    bytes: int
    stored_bytes: int
    #: Changed, shrank or vanished while they were read, or could not be read.
    troubled_files: int
    #: Of these, files that could not be read at all, and directories that could not be listed.
    unread_files: int
    segments: int
    tapes: list[str]
    pool: str | None
    copy_pools: list[str]
    retention_days: int
    error: str | None
    #: What of an imported set could not be read.
    partial: str | None


class SetCopyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of a segment."""

    tape: str
    state: CopyState
    first_block: int
    read_back_at: datetime | None


class SetSegmentAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a set, an archive by itself."""

    segment_id: str
    number: int
    plain_bytes: int
    stored_bytes: int
    copies: list[SetCopyAnswer]


class SetDetail(SetAnswer, frozen=True, kw_only=True):
    """A set and where it lies."""

    #: Of the part that has the fewest.
    good_copies: int
    #: The first thousand; `/api/v1/sets/{set_id}/parts` has all.
    parts: list[SetSegmentAnswer]


class TapeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A tape that is known."""

    label: str
    barcode: str
    volume_id: str
    pool: str
    state: VolumeState
    reason: str | None
    generation: int
    capacity_bytes: int
    used_bytes: int
    #: Of the drive that holds it.
    drive: str | None
    is_in_library: bool
    #: The vault that it lies in.
    location: str | None
    is_encrypted: bool
    written_at: datetime | None


class SetCalls:
    """Sets and tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        of_sets = (
            Query("state", "only those; without it all but expired ones", SetState),
            Query("name", "of the job, when it was made"),
            Query("type", "`full`, `incremental`, …"),
            Query("job", "number of a job", int),
            Query("tape", "label of a tape that it lies on"),
            *PAGE,
        )
        of_tapes = (Query("state", "only those", VolumeState), Query("pool", "only those of a pool"), *PAGE)
        return [
            Call("/api/v1/sets", self.sets, needs=Role.VIEWER, answer=list[SetAnswer], query=of_sets),
            Call("/api/v1/sets/{set_id}", self.show, needs=Role.VIEWER, answer=SetDetail),
            Call(
                "/api/v1/sets/{set_id}/parts", self.parts, needs=Role.VIEWER, answer=list[SetSegmentAnswer], query=PAGE
            ),
            Call("/api/v1/tapes", self.tapes, needs=Role.VIEWER, answer=list[TapeAnswer], query=of_tapes),
        ]

    async def sets(self, request: Request) -> Response:
        """List sets, newest first."""
        state, job = _chosen(request, "state", SetState), number_of(request, "job")
        name, kind, tape = text_of(request, "name"), text_of(request, "type"), text_of(request, "tape")

        def is_wanted(each: BackupSet) -> bool:
            return (
                (each.state is state if state else each.state is not SetState.EXPIRED)
                and (name is None or each.name == name)
                and (kind is None or each.type == kind)
                and (job is None or each.job_number == job)
                and (tape is None or tape in each.tapes)
            )

        def work() -> Response:
            found = [each for each in reversed(self._service.ledger.backup_sets()) if is_wanted(each)]
            part = part_of(request, found, lambda each: each.number, falls=True)
            return json_answer([SetAnswer(**_fields(each)) for each in part.items], headers=part.headers)

        return await trio.to_thread.run_sync(work)

    async def show(self, request: Request) -> Response:
        """Show one set, and on which tapes its parts lie."""
        return json_answer(await trio.to_thread.run_sync(self._detail, _set_id(request)))

    async def parts(self, request: Request) -> Response:
        """List the parts of a set, by number, and on which tapes they lie."""
        set_id = _set_id(request)

        def work() -> Response:
            ledger = self._service.ledger
            ledger.backup_set(set_id)
            return page_answer(request, ledger.segments(set_id), self._part, lambda segment: segment.number)

        return await trio.to_thread.run_sync(work)

    async def tapes(self, request: Request) -> Response:
        """List tapes by label; loads none. `/api/v1/tapes/show` tells all of one."""
        state, pool = _chosen(request, "state", VolumeState), text_of(request, "pool")
        return await trio.to_thread.run_sync(self._tapes, request, state, pool)

    # -- inside: in threads ------------------------------------------------------------------------------------------

    def _detail(self, set_id: SetId) -> SetDetail:
        """Raises NotFound."""
        ledger = self._service.ledger
        backup_set, segments = ledger.backup_set(set_id), ledger.segments(set_id)
        parts = [self._part(each) for each in segments]
        good = (sum(copy.state is CopyState.GOOD for copy in part.copies) for part in parts)
        return SetDetail(**_fields(backup_set), good_copies=min(good, default=0), parts=parts[:1000])

    def _part(self, segment: Segment) -> SetSegmentAnswer:
        ledger = self._service.ledger
        copies = [
            SetCopyAnswer(
                tape=ledger.volume(copy.volume_id).label,
                state=copy.state,
                first_block=copy.header_block,
                read_back_at=moment(copy.verified_at_ns),
            )
            for copy in ledger.copies(segment.segment_id)
        ]
        return SetSegmentAnswer(
            segment_id=segment.segment_id,
            number=segment.number,
            plain_bytes=segment.plain_bytes,
            stored_bytes=segment.stored_bytes,
            copies=copies,
        )

    def _tapes(self, request: Request, state: VolumeState | None, pool: str | None) -> Response:
        found = [
            each
            for each in self._service.ledger.volumes()
            if (state is None or each.state is state) and (pool is None or each.pool == pool)
        ]
        return page_answer(request, sorted(found, key=_label_of), self._tape, _label_of)

    def _tape(self, volume: Volume) -> TapeAnswer:
        place = self._service.library.place_of(volume.code)
        drives = [drive.name for drive in self._service.drives if drive.tape in (volume.label, volume.code)]
        return TapeAnswer(
            label=volume.label,
            barcode=volume.code,
            volume_id=volume.volume_id,
            pool=volume.pool,
            state=volume.state,
            reason=volume.reason or None,
            generation=volume.generation,
            capacity_bytes=volume.capacity_bytes,
            used_bytes=volume.used_bytes,
            drive=drives[0] if drives else None,
            is_in_library=place is not None,
            location=volume.location or None,
            is_encrypted=bool(volume.key_fingerprint),
            written_at=moment(volume.written_at_ns),
        )


def _chosen(request: Request, name: str, kind: type[ChosenEnum]) -> ChosenEnum | None:
    text = text_of(request, name)
    if text is None:
        return None
    try:
        return kind(text)
    except ValueError:
        words = ", ".join(str(each.value) for each in kind)
        raise Invalid("enum", ["query", name], f"must be one of {words}", text) from None


def _set_id(request: Request) -> SetId:
    text = str(request.path_params["set_id"])
    if not _UUID.fullmatch(text):
        raise Invalid("value_error", ["path", "set_id"], "Expected a UUID in lower case", text)
    return SetId(text)


def _label_of(volume: Volume) -> tuple[str, str]:
    return volume.label, volume.volume_id


def _fields(each: BackupSet) -> dict[str, Any]:
    return {
        "set_id": each.set_id,
        "number": each.number,
        "job": each.job_number,
        "name": each.name,
        "type": each.type,
        "state": each.state,
        "started_at": moment(each.started_at_ns),
        "finished_at": moment(each.finished_at_ns),
        "parent_id": each.parent_id,
        "sources": [shown(source) for source in each.sources],
        "sources_b64": [b64encode(source).decode() for source in each.sources],
        "codec": each.codec,
        "level": each.level,
        "files": each.files,
        "directories": each.directories,
        "bytes": each.bytes,
        "stored_bytes": each.stored_bytes,
        "troubled_files": each.troubled_files,
        "unread_files": each.unread_files,
        "segments": each.segments,
        "tapes": list(each.tapes),
        "pool": each.pool or None,
        "copy_pools": list(each.copy_pools),
        "retention_days": each.retention_days,
        "error": each.error or None,
        "partial": each.partial or None,
    }
