"""A call of the HTTP interface: a route that knows who may make it, and what goes in and comes out. Trio only."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sidecar.http.callers import Role, caller_in
from sidecar.http.request_notes import notes_in
from sidecar.http.statuses import Forbidden, Unauthorised

JSON, LINES = "application/json", "application/x-ndjson"
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Query:
    """A value that may stand behind the `?`."""

    name: str
    meaning: str
    #: What it is: a plain type, an Enum, or one of these with msgspec's Meta.
    kind: Any = str
    is_required: bool = False


#: Where a page of a list begins; see `sidecar.paging`.
CURSOR = Query("cursor", "behind what was shown by then: the one of the last answer's `Link`")
#: Of lists: which part is wanted.
PAGE = (
    Query("limit", "at most so many, 50 if none is named, 1000 at most", Annotated[int, msgspec.Meta(ge=1)]),
    Query("offset", "so many are left out at the beginning", Annotated[int, msgspec.Meta(ge=0)]),
    CURSOR,
)


class Call(Route):
    """One path with its methods."""

    def __init__(
        self,
        path: str,
        endpoint: Endpoint,
        *,
        needs: Role | None,
        methods: Sequence[str] = ("GET",),
        scopes: tuple[str, ...] = (),
        body: Any = None,
        answer: Any = None,
        status: int = 200,
        query: tuple[Query, ...] = (),
        also: tuple[int, ...] = (),
        errors: tuple[int, ...] = (),
        media: str = JSON,
        is_body_optional: bool = False,
    ) -> None:
        """Make a route.

        `needs` is the least role, None for everybody; `scopes` admits tokens that have no role but one of these, whose
        paths the endpoint checks. `body` and `answer` are the types of JSON that go in and come out, `status` what a
        call that succeeds answers, `also` what it may answer else when it does, `errors` with what it can fail beyond
        what its kind of call has anyway, and `media` the kind of content of an answer that is not JSON.
        """
        super().__init__(path, endpoint, methods=list(methods))
        # `$` would take a line break behind the path for its end, and others who look at the path would not.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")
        self.needs = needs
        self.scopes = scopes
        self.body = body
        self.answer = answer
        self.status = status
        self.query = query
        self.also = also
        self.errors = errors
        self.media = media
        self.is_body_optional = is_body_optional

    @property
    def summary(self) -> str:
        """The first line of the endpoint's docstring."""
        return (inspect.getdoc(self.endpoint) or "").partition("\n")[0].rstrip(".")

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, if its sender may make it. Raises Unauthorised, Forbidden, NotAudited."""
        if not self.methods or scope["method"] in self.methods:
            self._require(scope)
            notes = notes_in(scope)
            if notes is not None:
                notes.template = self.path
                if notes.begin is not None:
                    await notes.begin(scope)
        await super().handle(scope, receive, send)

    def _require(self, scope: Scope) -> None:
        caller = caller_in(scope)
        if caller.may(self.needs, self.scopes):
            return
        if caller.role is None and not caller.scopes:
            raise Unauthorised("say who you are: send `Authorization: Bearer` and a token")
        needed = self.needs.name.lower() if self.needs else "none"
        raise Forbidden(f"{caller.name} may not do that: it takes the role {needed}")
