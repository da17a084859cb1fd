"""Where tapes lie and should lie, and why things stay: /api/v1/vault, /api/v1/explain and the location of a tape."""

from __future__ import annotations

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.errors import NotFound
from catalog.records import Volume
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.http.requests import body_of
from sidecar.own.tape_views import place_of
from sidecar.service import Service
from sidecar.tapes.allotting import weigh
from sidecar.tapes.new_pools import check_text
from tapefs.client.pools import Due
from tapefs.keys.policy import sentences
from tapefs.retention.allocation import Want
from tapefs.retention.candidates import tapes_with_sets
from tapefs.retention.explain import explain_set, explain_tape
from tapefs.retention.holds import begun_at_ns
from tapefs.retention.places import Placement, placement
from tapefs.retention.pools import Pools
from tapefs.tape.names import tape_called
from tapefs.vfs.roster import Roster


class LocationBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of PUT /api/v1/tapes/{tape}/location."""

    #: Empty: in the library.
    location: str


class Explained(msgspec.Struct, frozen=True):
    """All that there is to say, in sentences."""

    sentences: list[str]


class PlaceCalls:
    """Places and reasons, as our own programs see them."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call(
                "/api/v1/tapes/{tape}/location",
                self.move,
                methods=["PUT"],
                needs=Role.OPERATOR,
                body=LocationBody,
                status=204,
            ),
            Call("/api/v1/vault", self.vault, needs=Role.VIEWER, answer=list[Due], query=PAGE),
            Call("/api/v1/explain/{what:path}", self.explain, needs=Role.VIEWER, answer=Explained),
        ]

    async def move(self, request: Request) -> Response:
        """Note where a tape lies; 204. One in an idle drive that lies elsewhere by now is brought to a slot."""
        body, ledger = await body_of(request, LocationBody), self._service.ledger
        volume = tape_called(ledger, str(request.path_params["tape"]))
        location, now_ns = check_text(body.location, "location"), self._service.jobs.now_ns()
        await trio.to_thread.run_sync(ledger.move_volume, volume.volume_id, location, now_ns)
        self._service.tape_tasks.look_again()
        return Response(status_code=204)

    async def vault(self, request: Request) -> Response:
        """Show every tape that lies elsewhere, or should, by label."""
        found = await trio.to_thread.run_sync(self._placements)
        wanted = [each for each in found if each.volume.location or each.should]
        return page_answer(request, sorted(wanted, key=_tape_of), _due, _tape_of)

    async def explain(self, request: Request) -> Response:
        """Say all of a tape, by its label or barcode, or of a set, by whatever names it. A tape's label comes first."""
        what = str(request.path_params["what"])
        return json_answer(Explained(await trio.to_thread.run_sync(self._explained, what)))

    def _explained(self, what: str) -> list[str]:
        """Blocking: verdicts on all sets. Of the library only what it knows is read."""
        try:
            volume = tape_called(self._service.ledger, what)
        except NotFound:
            return self._of_set(what)
        return self._of_tape(volume)

    def _of_set(self, what: str) -> list[str]:
        ledger = self._service.ledger
        found = Roster(ledger.backup_sets()).find_any(what)
        segments = ledger.segments(found.set_id)
        tapes = {copy.volume_id for each in segments for copy in ledger.copies(each.segment_id)}
        # A drive encrypts tapes, and not segments.
        by_drive = {volume.key_fingerprint for volume in map(ledger.volume, tapes) if volume.by_drive}
        keys = by_drive.union(segment.key_fingerprint for segment in segments)
        return [*explain_set(ledger, found, self._service.jobs.now_ns()), *sentences(self._service.home, keys)]

    def _of_tape(self, volume: Volume) -> list[str]:
        service, pools = self._service, Pools.of(self._service.home, self._service.ledger)
        pool, now_ns = pools.find(volume.pool) or pools.get(""), service.jobs.now_ns()
        choice = weigh(service.home, service.ledger, service.library, Want(pool=pool, now_ns=now_ns), None)
        element = service.library.place_of(volume.code)
        place = "" if element is None else place_of(element)
        said = explain_tape(service.ledger, pools, volume, place, choice, now_ns)
        return [*said, *sentences(service.home, [volume.key_fingerprint])]

    def _placements(self) -> list[Placement]:
        service, pools = self._service, Pools.of(self._service.home, self._service.ledger)
        now_ns = service.jobs.now_ns()
        return [
            placement(volume, pools.find(volume.pool), sets, begun_at_ns(service.ledger, volume), now_ns)
            for volume, sets in tapes_with_sets(service.ledger)
        ]


def _tape_of(each: Placement) -> tuple[str, str]:
    return each.volume.label, each.volume.volume_id


def _due(each: Placement) -> Due:
    return Due(
        tape=each.volume.label,
        pool=each.volume.pool,
        location=each.volume.location,
        should=each.should,
        is_due=each.is_due,
        reason=each.reason,
    )
