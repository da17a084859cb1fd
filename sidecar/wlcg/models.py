"""The bodies and answers of the WLCG Tape REST API, field by field as its text has them. Pure functions."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated

import msgspec

from catalog.stage_records import StageFile, StageRequest
from sidecar.http.requests import Invalid

#: Files of one request; the body's limit of 1 MiB allows paths of about a hundred bytes then.
MOST_FILES = 10_000
LONGEST_PATH = 4096
_TEN_YEARS = timedelta(days=3660)
_NS_PER_S = 1_000_000_000

Path = Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_PATH)]

#: ISO 8601 durations as clients send them; months and years have no fixed length and are refused.
_DURATION = re.compile(r"P(?:(\d{1,6})W)?(?:(\d{1,6})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,9})(?:\.\d+)?S)?)?")


class Endpoint(msgspec.Struct, frozen=True):
    """One version of the API, and where it is."""

    uri: str
    version: str
    metadata: dict[str, str] = {}


class Discovery(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of GET /.well-known/wlcg-tape-rest-api."""

    sitename: str
    endpoints: tuple[Endpoint, ...]
    description: str = ""


class WantedFile(msgspec.Struct, frozen=True, rename="camel"):
    """One file that shall be staged."""

    path: Path
    disk_lifetime: str | None = None
    #: Taken, and without meaning here: there is one kind of disk.
    targeted_metadata: dict[str, object] | None = None


class StageBody(msgspec.Struct, frozen=True):
    """The body of POST stage. Further fields are ignored, as the API's text asks for."""

    files: Annotated[list[WantedFile], msgspec.Meta(min_length=1, max_length=MOST_FILES)]


class PathsBody(msgspec.Struct, frozen=True):
    """The body of POST release, cancel and archiveinfo."""

    paths: Annotated[list[Path], msgspec.Meta(min_length=1, max_length=MOST_FILES)]


class Accepted(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of POST stage."""

    request_id: str


class FileProgress(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """How far one file is; one that the client may not have tells only `error`. Times are seconds since the epoch."""

    path: str
    started_at: int = 0
    finished_at: int = 0
    error: str = ""
    state: str = ""


class Progress(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of GET stage/{id}."""

    id: str
    created_at: int
    files: list[FileProgress]
    started_at: int | msgspec.UnsetType = msgspec.UNSET
    completed_at: int | msgspec.UnsetType = msgspec.UNSET


class ArchiveInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where one file is, or why that cannot be told."""

    path: str
    locality: str = ""
    error: str = ""


def lifetime_s_of(text: str | None, place: list[str | int], usual_s: int) -> int:
    """Return the seconds of an ISO 8601 duration, `usual_s` for none. Raises Invalid."""
    if text is None:
        return usual_s
    found = _DURATION.fullmatch(text)
    if found is None or not any(found.groups()):
        raise Invalid("value_error", place, "Input should be an ISO 8601 duration in weeks, days or less, as P1D", text)
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    lifetime = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta() < lifetime <= _TEN_YEARS:
        raise Invalid("value_error", place, "Input should be more than nothing and at most ten years", text)
    return int(lifetime.total_seconds())


def progress_of(request: StageRequest) -> Progress:
    """Return what a client is told of its request."""
    return Progress(
        id=request.request_id,
        created_at=request.created_at_ns // _NS_PER_S,
        started_at=_seconds(request.started_at_ns),
        completed_at=_seconds(request.completed_at_ns),
        files=[_file(each) for each in request.files],
    )


def _seconds(at_ns: int) -> int | msgspec.UnsetType:
    return at_ns // _NS_PER_S if at_ns else msgspec.UNSET


def _file(file: StageFile) -> FileProgress:
    if file.is_forbidden:
        return FileProgress(path=file.path, error=file.error)
    return FileProgress(
        path=file.path,
        started_at=file.started_at_ns // _NS_PER_S,
        finished_at=file.finished_at_ns // _NS_PER_S,
        error=file.error,
        state=file.state.value,
    )
