"""The answer to PROPFIND: a multistatus, made page by page and sent while it is made. Trio.

Between pages others get their turn, and no more than a page is held, however large the folder is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from urllib.parse import quote

import structlog
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from catalog.errors import CatalogError
from sidecar.dav.asking import Wanted
from sidecar.dav.places import Place, Places
from sidecar.dav.properties import HEAD, TAIL, Shown, response
from sidecar.http.listeners import CONNECTION, Connection
from sidecar.view.content import send_soon, shown, until_gone
from sidecar.view.files import Files, Item
from sidecar.view.paths import url_of
from tapefs.errors import TapefsError
from tapefs.vfs.residency import State

MEDIA_TYPE = 'application/xml; charset="utf-8"'
#: Entries that are looked up and written without a break: some milliseconds.
PAGE = 50

log = structlog.get_logger(__name__)


class Listing:
    """What is told of a place, and of what is in it."""

    def __init__(self, files: Files, places: Places, place: Place, path: bytes, root: str, wanted: Wanted) -> None:
        """`path` is how it was asked for, below the URL `root`."""
        self._files = files
        self._places = places
        self._place = place
        self._path = path
        self._root = root
        self._wanted = wanted
        self._total_bytes = files.total_bytes()

    @property
    def href(self) -> str:
        """The URL's path of the place, as it is written here."""
        base = f"{self._root}/{url_of(self._path)}"
        return base.rstrip("/") + "/" if self._place.item.is_directory else base

    def answer(self, *, with_children: bool) -> Response:
        """Return the answer; what goes wrong with the first page raises here."""
        first = HEAD + self._told(self.href, self._path.rpartition(b"/")[2], self._place.item)
        following: int | None = None
        if with_children and self._place.item.is_directory:
            page, following = self.page(0)
            first += page
        if following is None:
            return Response(first + TAIL, 207, media_type=MEDIA_TYPE)
        return _Stream(self.page, first, following, self._path)

    def page(self, start: int) -> tuple[str, int | None]:
        """Return a page of the children, and where it goes on. Raises Forbidden, CatalogError."""
        base = self.href
        found = list(islice(self._places.children(self._place, start), PAGE))
        text = "".join(
            self._told(base + quote(name, safe="~") + ("/" if item.is_directory else ""), name, item)
            for _, name, item in found
            if item is not None
        )
        return text, found[-1][0] if len(found) == PAGE else None

    def _told(self, href: str, name: bytes, item: Item) -> str:
        return response(Shown(href, name, item, self._is_cold, self._total_bytes), self._wanted)

    def _is_cold(self, item: Item) -> bool:
        return self._files.state(item) is not State.ONLINE


class _Stream(Response):
    """Pages, one after the other. The end is missing where something went wrong: a connection that breaks says so."""

    def __init__(self, page: Callable[[int], tuple[str, int | None]], first: str, following: int, path: bytes) -> None:
        super().__init__(status_code=207, media_type=MEDIA_TYPE)
        del self.headers["content-length"]
        self._page = page
        self._first = first
        self._following = following
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the client has gone; one that takes nothing is cut off."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(until_gone, receive, nursery.cancel_scope)
            await self._send(scope[CONNECTION], send)
            nursery.cancel_scope.cancel()

    async def _send(self, connection: Connection, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send_soon(send, connection, self._first.encode())
        start: int | None = self._following
        try:
            while start is not None:
                await trio.lowlevel.checkpoint()
                text, start = self._page(start)
                await send_soon(send, connection, text.encode())
        except (TapefsError, CatalogError, OSError) as error:
            log.warning("a folder could not be listed whole", path=shown(self._path), error=str(error))
            connection.cut()
            return
        await send({"type": "http.response.body", "body": TAIL.encode(), "more_body": False})
