"""/api/v1/frames: which frames hold sets or trees of them, and which of these are staged. `tapefs stage` elsewhere."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response

from catalog.ids import FrameNo, SetId
from catalog.records import PinnedFrames
from sidecar.http.answers import json_answer
from sidecar.http.callers import Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.requests import Invalid, Uuid, body_of
from sidecar.own.recalls import SpanBody, frames_of
from sidecar.service import Service
from tapefs.client.api import FrameSpan
from tapefs.errors import UsageError
from tapefs.mover.messages import FrameRange
from tapefs.staging.area import StagingArea
from tapefs.staging.pinned import FrameLengths
from tapefs.staging.trees import FrameRuns, add_set, add_tree
from tapefs.vfs.archive import Archive

#: Pieces of one answer, about 10 MB; a set that builds on none has one for each segment.
MOST_SPANS = 100_000
#: Looking through trees of a million files takes a processor for seconds.
WALKS = 2


class TreeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A set, or what is at a path of it."""

    set_id: Uuid
    #: From the root of the set; empty: all of it. One that is not UTF-8 comes as base64.
    path: Annotated[str, msgspec.Meta(max_length=16_384)] = ""
    path_b64: Annotated[str, msgspec.Meta(max_length=16_384)] = ""

    def raw(self, place: int) -> bytes:
        """Return the path. Raises Invalid."""
        if not self.path_b64:
            return self.path.encode().strip(b"/")
        try:
            return b64decode(self.path_b64, validate=True).strip(b"/")
        except (binascii.Error, ValueError) as error:
            raise Invalid("value_error", ["body", "trees", place, "path_b64"], "is no base64", self.path_b64) from error


class FramesBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/frames: trees, or frames that are known."""

    trees: Annotated[list[TreeBody], msgspec.Meta(max_length=1000)] = []
    segments: list[SpanBody] = []


class FramesView(msgspec.Struct, frozen=True, kw_only=True):
    """Frames that hold something."""

    #: How many there are, and about how much they hold.
    frames: int
    bytes: int
    #: Those of the trees, and those of all that are not staged.
    segments: list[FrameSpan]
    missing: list[FrameSpan]


class FrameCalls:
    """Where content lies, in frames."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limiter = trio.CapacityLimiter(WALKS)

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call(
                "/api/v1/frames", self.show, methods=["POST"], needs=Role.OPERATOR, body=FramesBody, answer=FramesView,
                errors=(404,),
            )
        ]  # fmt: skip

    async def show(self, request: Request) -> Response:
        """Tell which frames hold sets or trees of them, and which of these, or of others, are not staged."""
        body = await body_of(request, FramesBody)
        known = [frames_of(span, ["body", "segments", place]) for place, span in enumerate(body.segments)]
        trees = [(SetId(tree.set_id), tree.raw(place)) for place, tree in enumerate(body.trees)]
        files, caller = self._service.files, caller_of(request)
        await files.refresh()
        for set_id, path in trees:
            files.find(b"sets/" + set_id.encode() + b"/" + path, caller)
        work = partial(self._look, trees, known)
        return json_answer(await trio.to_thread.run_sync(work, limiter=self._limiter))

    def _look(self, trees: Sequence[tuple[SetId, bytes]], known: Iterable[FrameRange]) -> FramesView:
        """Blocking. Raises NoSuchThing, CatalogError, UsageError for what is in too many pieces."""
        service = self._service
        found = self._of_trees(trees)
        spans = [*found, *(_span(each) for each in known)]
        lengths = FrameLengths(service.ledger)
        area = StagingArea(service.home.staging)
        return FramesView(
            frames=sum(span.last - span.first + 1 for span in spans),
            bytes=lengths.of(PinnedFrames(span.segment, ((span.first, span.last),)) for span in spans),
            segments=found,
            missing=list(_missing(area, spans)),
        )

    def _of_trees(self, trees: Sequence[tuple[SetId, bytes]]) -> list[FrameSpan]:
        runs = FrameRuns()
        archive = Archive(self._service.home, self._service.ledger)
        try:
            for set_id, path in trees:
                reader = archive.index(set_id)
                if path:
                    add_tree(runs, archive, reader, archive.resolve(reader, path))
                else:
                    add_set(runs, archive, reader)
        finally:
            archive.close()
        found = runs.spans()
        if len(found) > MOST_SPANS:
            raise UsageError(f"this lies in {len(found):,} pieces, more than {MOST_SPANS:,}: name smaller trees")
        return found


def _span(frames: FrameRange) -> FrameSpan:
    return FrameSpan(segment=frames.segment_id, first=frames.first, last=frames.last)


def _missing(area: StagingArea, spans: Iterable[FrameSpan]) -> Iterator[FrameSpan]:
    for span in spans:
        for run in area.missing_runs(span.segment, range(span.first, span.last + 1)):
            yield FrameSpan(segment=span.segment, first=FrameNo(run.start), last=FrameNo(run.stop - 1))
