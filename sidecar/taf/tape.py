"""TAF's tape calls that only look. A tape's id there is its label here; a barcode is taken, too."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import NotFound
from catalog.ids import new_uuid
from catalog.records import Volume
from sidecar.drives.drive import DriveTask
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import Call, Query
from sidecar.http.requests import page_of, text_of
from sidecar.service import Service
from sidecar.taf.system import newest_entries
from sidecar.taf.tape_facts import STATUSES, TapeKnowledge
from sidecar.taf.tape_models import (
    CurrentTape,
    Devices,
    FormatChecked,
    Inventory,
    LabelRead,
    Message,
    TapeChecked,
    TapeHealth,
    TapeHistory,
    TapeList,
    TapeOperation,
    TapeShown,
    TapeUsage,
    UuidMade,
)
from tapefs.audit import Entry

#: Calls whose doings are those of tapes, by the first word behind /api or /api/v1.
_ABOUT_TAPES = frozenset({"tape", "tapes", "inventory", "ports", "reclaim", "shelf"})
PAGE = (Query("limit", "at most", int), Query("offset", "behind so many", int))
WHICH = (Query("tape_id", "label or barcode; else the tape in the only drive that has one"),)
NO_TAPE = "no tape is in a drive"


class TapeCalls:
    """The tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._knows = TapeKnowledge(service)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        base, viewer = "/api/tape", Role.VIEWER
        rescan = (Query("force_rescan", "taken, and without meaning: what a drive is, it says when it starts", bool),)
        return [
            Call(f"{base}/list", self.list, needs=viewer, answer=TapeList, query=PAGE),
            Call(f"{base}/show/{{tape_id}}", self.show, needs=viewer, answer=TapeShown),
            Call(f"{base}/check/{{tape_id}}", self.check, needs=viewer, answer=TapeChecked),
            Call(f"{base}/inventory", self.inventory, needs=viewer, answer=Inventory),
            Call(f"{base}/current", self.current, needs=viewer, answer=CurrentTape | Message, query=WHICH),
            Call(f"{base}/history", self.history, needs=Role.ADMIN, answer=TapeHistory, query=PAGE),
            Call(f"{base}/read-label", self.read_label, needs=viewer, answer=LabelRead, query=WHICH),
            Call(f"{base}/test-read-label", self.read_label, needs=viewer, answer=LabelRead, query=WHICH),
            Call(
                f"{base}/operations/check-format", self.check_format, needs=viewer, answer=FormatChecked, query=WHICH
            ),
            Call(f"{base}/health", self.health, needs=viewer, answer=TapeHealth, query=WHICH),
            Call(f"{base}/usage", self.usage, needs=viewer, answer=TapeUsage, query=WHICH),
            Call(f"{base}/devices", self.devices, needs=viewer, answer=Devices, query=rescan),
            Call(f"{base}/generate-uuid", self.generate_uuid, needs=viewer, answer=UuidMade),
        ]  # fmt: skip

    async def list(self, request: Request) -> Response:
        """Show all tapes by label, or a page of them."""
        page = page_of(request)
        is_paged = "limit" in request.query_params or "offset" in request.query_params
        rows = await trio.to_thread.run_sync(self._knows.rows, page.limit if is_paged else None, page.offset)
        return json_answer(TapeList(True, rows, len(rows)))

    async def show(self, request: Request) -> Response:
        """Show one tape."""
        name = str(request.path_params["tape_id"])
        try:
            facts = await trio.to_thread.run_sync(lambda: self._knows.facts(self._knows.called(name)))
        except NotFound as error:
            return json_answer(TapeShown(False, message=str(error)))
        return json_answer(TapeShown(True, facts))

    async def check(self, request: Request) -> Response:
        """Tell whether there is such a tape."""
        try:
            volume = self._knows.called(str(request.path_params["tape_id"]))
        except NotFound:
            return json_answer(TapeChecked(False))
        expires = self._knows.expiry(volume)[1]
        is_over = self._knows.is_expired(volume)
        return json_answer(
            TapeChecked(True, volume.label, volume.label, STATUSES[volume.state], is_over, expiry_date=expires)
        )

    async def inventory(self, request: Request) -> Response:
        """Count the tapes."""
        return json_answer(await trio.to_thread.run_sync(self._knows.inventory))

    async def current(self, request: Request) -> Response:
        """Show the tape in the drive."""
        found = self._loaded(request)
        if found is None:
            return json_answer(Message(NO_TAPE))
        return json_answer(await trio.to_thread.run_sync(self._knows.current, *found))

    async def history(self, request: Request) -> Response:
        """Show who did what with tapes, the newest first."""
        page = page_of(request)
        found = await trio.to_thread.run_sync(self._operations, page.offset, page.limit)
        return json_answer(TapeHistory(True, [*found], len(found)))

    def _operations(self, offset: int, limit: int) -> Sequence[TapeOperation]:
        """Blocking."""
        rows = [_operation(entry) for entry in newest_entries(self._service.home.audit) if _is_about_tapes(entry)]
        return rows[offset : offset + limit]

    # -- the tape in the drive -------------------------------------------------------------------------------------

    async def read_label(self, request: Request) -> Response:
        """Tell what the label of the tape in the drive says, as its mover has read it."""
        found = self._loaded(request)
        if found is None:
            return json_answer(LabelRead(False, NO_TAPE))
        facts = self._knows.label_facts(found[1])
        if facts is None:
            return json_answer(LabelRead(False, self._unlabelled(found[1])))
        return json_answer(LabelRead(True, f"tape {facts.label} is in {found[0].name}", facts))

    async def check_format(self, request: Request) -> Response:
        """Tell whether the tape in the drive has a label."""
        found = self._loaded(request)
        if found is None:
            return json_answer(FormatChecked(False, None, None, NO_TAPE))
        is_labelled, facts = self._knows.is_labelled(found[1]), self._knows.label_facts(found[1])
        said = f"tape {found[1].label} has a label" if is_labelled else self._unlabelled(found[1])
        return json_answer(FormatChecked(True, is_labelled, facts, said))

    def _unlabelled(self, volume: Volume) -> str:
        if self._knows.is_labelled(volume) is None:
            return f"nobody has looked at tape {volume.label} yet: POST /api/tape/operations/load has it looked at"
        return f"tape {volume.label} is blank"

    async def health(self, request: Request) -> Response:
        """Tell how the tape in the drive is."""
        found = self._loaded(request)
        if found is None:
            broken = [drive.name for drive in self._service.drives if drive.health.reason]
            return json_answer(TapeHealth(not broken, None, None))
        stats = await trio.to_thread.run_sync(self._knows.usage, found[1])
        return json_answer(TapeHealth(stats.code == 0 and not found[0].health.reason, stats.health_score, stats))

    async def usage(self, request: Request) -> Response:
        """Tell how the tape in the drive has done."""
        found = self._loaded(request)
        if found is None:
            return json_answer(TapeUsage(False, None))
        return json_answer(TapeUsage(True, await trio.to_thread.run_sync(self._knows.usage, found[1])))

    def _loaded(self, request: Request) -> tuple[DriveTask, Volume] | None:
        return self._knows.loaded(text_of(request, "tape_id") or "")

    # -- drives ----------------------------------------------------------------------------------------------------

    async def devices(self, request: Request) -> Response:
        """Show the drives."""
        return json_answer(Devices(await trio.to_thread.run_sync(self._knows.devices), cached=True))

    async def generate_uuid(self, request: Request) -> Response:
        """Make a UUID."""
        return json_answer(UuidMade(True, "a random UUID, not noted anywhere", new_uuid()))


def _is_about_tapes(entry: Entry) -> bool:
    words = [word for word in entry.operation.partition(" ")[2].split("/") if word and word not in ("api", "v1")]
    return bool(words) and words[0] in _ABOUT_TAPES


def _operation(entry: Entry) -> TapeOperation:
    is_good = entry.outcome in ("done", "begun")
    return TapeOperation(
        id=entry.number,
        operation_time=entry.at,
        operation_type=entry.operation,
        operation_user=entry.who,
        resource_type="tape",
        resource_id=entry.resource.rpartition("/")[2],
        details={"resource": entry.resource, "request_id": entry.request, "status": entry.status},
        ip_address=entry.address or None,
        user_agent=None,
        result=entry.outcome,
        error_message=entry.error or (None if is_good else f"status {entry.status}"),
        duration_ms=entry.duration_ms,
    )
