"""May a caller name these paths of this host? Admins may name any, others what the settings list. Pure functions."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import UNSET

from catalog.records import Job
from sidecar.http.callers import Caller, Role
from sidecar.http.statuses import Forbidden
from tapefs.access.places import root_of
from tapefs.client.job_fields import JobFields, decoded
from tapefs.settings.access import AccessSettings


def check_sources(caller: Caller, sources: Sequence[bytes], settings: AccessSettings) -> None:
    """Raise Forbidden when he may not have one of these backed up."""
    _check(caller, sources, settings.sources, "backed up", "sources")


def check_job(caller: Caller, job: Job, settings: AccessSettings) -> None:
    """Raise Forbidden when he may neither change nor delete a job; a stream is of nothing on this host."""
    check_sources(caller, () if job.stream else job.sources, settings)


def check_fields(caller: Caller, fields: JobFields, settings: AccessSettings) -> None:
    """The same for what a new job, or a change to one, names; before anybody looks whether it is there."""
    for source in fields.sources if fields.sources is not UNSET else ():
        try:
            path = decoded(source)
        except ValueError:
            continue  # It is no path: who makes the job says so.
        check_sources(caller, [path], settings)


def check_targets(caller: Caller, targets: Sequence[bytes], settings: AccessSettings) -> None:
    """Raise Forbidden when he may not have files restored to one of these.

    Whoever writes there opens it by `tapefs.access.places.open_target` then, if the caller is no admin.
    """
    _check(caller, targets, settings.restore_targets, "restored to", "restore_targets")


def _check(caller: Caller, paths: Sequence[bytes], roots: Sequence[str], what: str, setting: str) -> None:
    if caller.role is Role.ADMIN:
        return
    for path in paths:
        if root_of(path, roots) is None:
            shown = os.fsdecode(path).encode("utf-8", "backslashreplace").decode()
            raise Forbidden(f"{shown} may be {what} by admins only: it is in no folder of [access] {setting}")
