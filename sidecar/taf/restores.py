"""TAF's POST /api/recovery/restore, also spelled /api/recovery/tasks: files of a set back onto this host."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec
import trio
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import DirectoryNo
from catalog.recovery_records import Recovery
from sidecar.http.answers import json_answer, moment, shown
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.requests import Invalid, body_of
from sidecar.restores.new import new_restore
from sidecar.service import Service
from sidecar.taf.browsing import set_called
from sidecar.taf.notification import Said

#: Of the files of a restore so many are shown.
_SHOWN = 1000
_ROOT = DirectoryNo(0)


class WantedFile(msgspec.Struct, frozen=True):
    """A file or folder, as the listings have it; whatever else TAF's clients send of it is ignored."""

    file_path: Annotated[str, Meta(min_length=1, max_length=16_384)]
    #: Its bytes, where they are not UTF-8.
    path_base64: str | None = None


class RecoveryRequest(msgspec.Struct, frozen=True):
    """The body of POST /api/recovery/restore."""

    #: UUID, number, or TAF's name of a set.
    backup_set_id: str | int
    #: `/` is all of it.
    files: Annotated[list[WantedFile], Meta(min_length=1)]
    #: An absolute path; each file comes there with its whole path.
    target_path: Annotated[str, Meta(min_length=1, max_length=4096)]
    #: Replace files that are there; else they are left alone, and the restore says so.
    overwrite: bool = False


class Accepted(msgspec.Struct, frozen=True):
    """What to ask for."""

    success: bool
    recovery_id: str
    message: str
    poll: str


class RecoveryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a restore is."""

    recovery_id: str
    backup_set_id: str
    files: list[WantedFile]
    target_path: str
    status: str
    created_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    progress_percent: float
    processed_files: int
    total_files: int
    total_bytes: int
    processed_bytes: int
    error_message: str | None
    created_by: str


class RestoreCalls:
    """Restores on this host."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        post = partial(Call, methods=["POST"], needs=Role.OPERATOR)
        begin = partial(post, endpoint=self.begin, body=RecoveryRequest, answer=Accepted, status=202)
        one = "/api/recovery/tasks/{recovery_id}"
        return [
            begin("/api/recovery/restore"),
            begin("/api/recovery/tasks"),
            Call(f"{one}/status", self.status, needs=Role.VIEWER, answer=RecoveryStatus),
            post(f"{one}/cancel", self.cancel, answer=Said),
        ]

    async def begin(self, request: Request) -> Response:
        """Have files of a set restored beneath a folder of this host; 202 with the id to ask for."""
        body, caller, service = await body_of(request, RecoveryRequest), caller_of(request), self._service
        target, paths = _target(body.target_path), _paths(body.files)
        backup_set = await trio.to_thread.run_sync(set_called, service.ledger, str(body.backup_set_id))
        recovery = await new_restore(service, caller, backup_set, paths, target, over=body.overwrite)
        poll = f"/api/recovery/tasks/{recovery.recovery_id}/status"
        message = f"{len(paths)} paths of set {backup_set.name} are being restored: see GET {poll}"
        return json_answer(Accepted(True, recovery.recovery_id, message, poll), 202)

    async def status(self, request: Request) -> Response:
        """Tell how far a restore is."""
        return json_answer(_status(self._service.restorations.find(str(request.path_params["recovery_id"]))))

    async def cancel(self, request: Request) -> Response:
        """Give a restore up; what it has written stays."""
        recovery_id = str(request.path_params["recovery_id"])
        await self._service.restorations.cancel(recovery_id)
        return json_answer(Said(True, f"Restore {recovery_id} is being cancelled; what it has written stays"))


def _target(text: str) -> bytes:
    path = os.fsencode(text)
    if not path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
        raise Invalid("value_error", ["body", "target_path"], "must be an absolute path without `..`", text)
    return path


def _paths(files: Sequence[WantedFile]) -> tuple[bytes, ...]:
    """Return the paths, each once. Raises Invalid."""
    found = []
    for place, file in enumerate(files):
        try:
            path = os.fsencode(file.file_path)
            if file.path_base64 is not None:
                path = base64.b64decode(file.path_base64, validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise Invalid("value_error", ["body", "files", place], f"is no path: {error}") from error
        if b"\0" in path or b".." in path.split(b"/"):
            raise Invalid("value_error", ["body", "files", place], "must be a path without `..`", file.file_path)
        found.append(b"/" + path.strip(b"/"))
    return tuple(dict.fromkeys(found))


def _status(recovery: Recovery) -> RecoveryStatus:
    files = [WantedFile(shown(path)) for path in (recovery.paths or (b"/",))[:_SHOWN]]
    return RecoveryStatus(
        recovery_id=recovery.recovery_id,
        backup_set_id=recovery.set_id,
        files=files,
        target_path=shown(recovery.target),
        status=recovery.state.value,
        created_at=moment(recovery.created_at_ns),
        started_at=moment(recovery.started_at_ns),
        completed_at=moment(recovery.finished_at_ns),
        progress_percent=_percent(recovery),
        processed_files=recovery.files,
        total_files=recovery.files_total,
        total_bytes=recovery.bytes_total,
        processed_bytes=recovery.bytes,
        error_message=recovery.error or None,
        created_by=recovery.created_by,
    )


def _percent(recovery: Recovery) -> float:
    if recovery.state.value == "completed":
        return 100.0
    return min(99.9, round(100 * recovery.bytes / recovery.bytes_total, 1)) if recovery.bytes_total else 0.0
