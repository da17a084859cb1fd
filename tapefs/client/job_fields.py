"""What a job is asked to do, as it travels over HTTP: by name, every field optional. Used by both ends; pure.

A field that is not set is left as it is (PATCH), or takes its default (POST). What the values mean, with units and
defaults, stands at `catalog.records.Job`; what is allowed in `sidecar.jobs.new`.
"""

from __future__ import annotations

import base64
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from catalog.queue_records import HIGHEST_PRIORITY
from catalog.records import AS_POOL, Job

#: A run is tried again so often at most, with a week between two tries.
MOST_RETRIES, LONGEST_PAUSE_S = 50, 7 * 24 * 3600


class EncodedPath(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A path that is not UTF-8, in base64."""

    b64: str


Path = str | EncodedPath
Pattern = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class JobFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a job that its owner chooses."""

    name: str | UnsetType = UNSET
    sources: list[Path] | UnsetType = UNSET
    #: In the place of sources; a new job's only.
    stream: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    codec: str | UnsetType = UNSET
    level: int | UnsetType = UNSET
    threads: int | UnsetType = UNSET
    checksum: bool | UnsetType = UNSET
    excludes: list[Pattern] | UnsetType = UNSET
    exclude_caches: bool | UnsetType = UNSET
    one_file_system: bool | UnsetType = UNSET
    min_bytes: int | UnsetType = UNSET
    max_bytes: int | UnsetType = UNSET
    min_age_s: int | UnsetType = UNSET
    max_age_s: int | UnsetType = UNSET
    verify: bool | UnsetType = UNSET
    copies: int | UnsetType = UNSET
    keep_sources: bool | UnsetType = UNSET
    #: None: as the settings say.
    spool: bool | UnsetType | None = UNSET
    description: Annotated[str, msgspec.Meta(max_length=4096)] | UnsetType = UNSET
    #: `pool`: as the rule of its pool says.
    retention_days: int | Literal["pool"] | UnsetType = UNSET
    pool: Annotated[str, msgspec.Meta(max_length=64)] | UnsetType = UNSET
    copy_pools: Annotated[list[str], msgspec.Meta(max_length=8)] | UnsetType = UNSET
    priority: Annotated[int, msgspec.Meta(ge=0, le=HIGHEST_PRIORITY)] | UnsetType = UNSET
    retries: Annotated[int, msgspec.Meta(ge=0, le=MOST_RETRIES)] | UnsetType = UNSET
    retry_first_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_PAUSE_S)] | UnsetType = UNSET
    retry_longest_s: Annotated[int, msgspec.Meta(ge=1, le=LONGEST_PAUSE_S)] | UnsetType = UNSET
    #: Numbers of jobs.
    after: Annotated[list[int], msgspec.Meta(max_length=100)] | UnsetType = UNSET
    after_any: bool | UnsetType = UNSET
    then_verify: Literal["", "all", "sample"] | UnsetType = UNSET
    #: Names of hooks in the settings.
    hooks_before: Annotated[list[str], msgspec.Meta(max_length=20)] | UnsetType = UNSET
    hooks_after: Annotated[list[str], msgspec.Meta(max_length=20)] | UnsetType = UNSET

    def changes(self) -> dict[str, object]:
        """Return the fields that are set."""
        values = ((field, getattr(self, field)) for field in JobFields.__struct_fields__)
        changes = {field: value for field, value in values if value is not UNSET}
        if changes.get("retention_days") == "pool":
            changes["retention_days"] = AS_POOL
        return changes


def asked_of(job: Job) -> dict[str, object]:
    """Return what a job is asked to do, by field; sources as the kernel has them."""
    asked = {field: getattr(job, field) for field in JobFields.__struct_fields__}
    return asked | ({"retention_days": "pool"} if job.retention_days == AS_POOL else {})


def encoded(path: bytes) -> Path:
    """Return a path of any bytes for JSON."""
    try:
        return path.decode("utf-8")
    except UnicodeDecodeError:
        return EncodedPath(base64.b64encode(path).decode("ascii"))


def decoded(path: Path) -> bytes:
    """Return the bytes of a path. Raises ValueError for one that is none."""
    return path.encode() if isinstance(path, str) else base64.b64decode(path.b64, validate=True)
