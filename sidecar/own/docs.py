"""GET /openapi.json, the document of all calls, and /docs, which shows it in a browser. Both are open to everybody.

The viewer is Swagger UI out of the package `offapi`: all of it comes from here, nothing from elsewhere, and the page's
Content-Security-Policy has no script but these files run. Trio only; files are read in threads, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sidecar.http.calls import JSON, Call
from sidecar.service import Service
from tapefs.errors import NoSuchThing

HTML, SCRIPT, STYLE = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/css; charset=utf-8"
#: Names in the package of the viewer.
BUNDLE, SHEET = "swagger_bundle.js", "swagger_style.css"
SAFE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cache-control": "no-cache",
}
# Addresses are relative: a proxy may serve all this below a path of its own.
PAGE = b"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tapefs over HTTP</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/viewer.css">
</head>
<body>
<div id="viewer"></div>
<noscript>This page takes JavaScript; <a href="openapi.json">the document</a> does not.</noscript>
<script src="docs/viewer.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# A session's cookie goes along by itself, but what changes anything takes its CSRF token as well.
START = b"""async function withCsrfToken(request) {
  const isSafe = ["GET", "HEAD"].includes((request.method || "GET").toUpperCase());
  if (isSafe || request.headers["Authorization"]) return request;
  const answer = await fetch("api/v1/session");
  const token = answer.ok ? (await answer.json()).csrf_token : null;
  if (token) request.headers["X-CSRF-Token"] = token;
  return request;
}
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  docExpansion: "none",
  defaultModelsExpandDepth: 0,
  filter: true,
  validatorUrl: null,
  requestInterceptor: withCsrfToken,
});
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is answered, with its ETag."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> Shown:
        """Take content."""
        return cls(content, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


class DocsCalls:
    """What can be called, for programs and for people."""

    def __init__(self, service: Service, others: Callable[[], Sequence[Call]]) -> None:
        """`others` returns all calls of the application."""
        self._service = service
        self._others = others
        self._document: Shown | None = None

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/", self.front, needs=None, status=307, media="*/*"),
            Call("/openapi.json", self.document, needs=None, answer=dict[str, object], also=(304,)),
            Call("/docs", self.page, needs=None, media="text/html", also=(304,)),
            Call("/docs/{file}", self.file, needs=None, media="*/*", also=(304,)),
        ]

    async def front(self, request: Request) -> Response:
        """Lead whoever opens the address in a browser to /docs."""
        return RedirectResponse("docs", headers=SAFE_HEADERS)

    async def document(self, request: Request) -> Response:
        """Tell all calls, as OpenAPI 3.1."""
        if self._document is None:
            self._document = await trio.to_thread.run_sync(self._make)
        return _answer(request, self._document, JSON)

    async def page(self, request: Request) -> Response:
        """Show all calls in a browser."""
        return _answer(request, Shown.of(PAGE), HTML)

    async def file(self, request: Request) -> Response:
        """Give a file of the viewer."""
        name = str(request.path_params["file"])
        if name == "start.js":
            return _answer(request, Shown.of(START), SCRIPT)
        known = {"viewer.js": (BUNDLE, SCRIPT), "viewer.css": (SHEET, STYLE)}
        if name not in known:
            raise NoSuchThing(f"the viewer has no file {name}")
        file, kind = known[name]
        return _answer(request, await trio.to_thread.run_sync(_packaged, file), kind)

    def _make(self) -> Shown:
        """Blocking: it takes some 20 ms."""
        from sidecar.http.openapi import document

        issuers = [each.issuer for each in self._service.home.settings.access.issuers]
        return Shown.of(msgspec.json.encode(document(self._others(), issuers)))


@cache
def _packaged(name: str) -> Shown:
    """Return a file of the viewer's package, which is not imported. Blocking. Raises NoSuchThing."""
    spec = find_spec("offapi")
    if spec is None or not spec.submodule_search_locations:
        raise NoSuchThing("the package offapi, which has the viewer, is not installed")
    return Shown.of((Path(spec.submodule_search_locations[0]) / name).read_bytes())


def _answer(request: Request, shown: Shown, kind: str) -> Response:
    headers = SAFE_HEADERS | {"etag": shown.etag}
    if shown.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(shown.content, media_type=kind, headers=headers)
