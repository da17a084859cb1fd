"""What a set has left for people: GET /api/v1/sets/{id}/report, which `tapefs report` shows without a sidecar."""

from __future__ import annotations

import re
from itertools import islice

import trio
from msgspec import UnsetType, structs
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import SetId
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import counted_headers, counted_page
from sidecar.http.requests import Invalid, Page
from sidecar.service import Service
from tapefs.report.files import read_troubles
from tapefs.report.present import set_report, trouble_view, view_of
from tapefs.report.views import FullReport

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Lost files of a damaged copy in one answer; they are counted, and the damage file names all.
MOST_LOST = 1000


class ReportCalls:
    """Reports of sets."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [Call("/api/v1/sets/{set_id}/report", self.show, needs=Role.VIEWER, answer=FullReport, query=PAGE)]

    async def show(self, request: Request) -> Response:
        """Show a set's report with a page of its troubles."""
        text = str(request.path_params["set_id"])
        if not _UUID.fullmatch(text):
            raise Invalid("value_error", ["path", "set_id"], "Expected a UUID in lower case", text)
        page = counted_page(request)
        report, has_more = await trio.to_thread.run_sync(self._report, SetId(text), page)
        total = None if isinstance(report.troubles, UnsetType) else report.troubles
        return json_answer(report, headers=counted_headers(request, page, total, has_more=has_more))

    def _report(self, set_id: SetId, page: Page) -> tuple[FullReport, bool]:
        """Return a report with a page of its troubles, and whether there are more. Blocking."""
        service = self._service
        report = set_report(service.home, service.ledger, service.ledger.backup_set(set_id))
        troubles = list(islice(read_troubles(service.home, set_id), page.offset, page.offset + page.limit + 1))
        listed = [trouble_view(trouble) for trouble in troubles[: page.limit]]
        view = FullReport(**structs.asdict(view_of(report, most_lost=MOST_LOST)), trouble_list=listed)
        return view, len(troubles) > page.limit
