"""Pages of lists: `limit` with `offset` or `cursor` comes in, `Link` and `X-Total-Count` go out. Pure functions.

A cursor stands behind the last entry of a page. It names that entry by what the list is sorted by, so whoever follows
gets every entry that is there all the time once, whatever else comes and goes. A list that is sorted by nothing that
lasts counts positions instead.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from sidecar.http.answers import json_answer
from sidecar.http.calls import CURSOR
from sidecar.http.requests import Invalid, Page, page_of

T = TypeVar("T")
#: What a list is sorted by; no two entries have the same.
Key = int | str | tuple[int | str, ...]

TOTAL = "X-Total-Count"
#: Not there while all can be read; which they are says /health.
UNREADABLE = "X-Unreadable-Count"
#: What a cursor may count to.
_HIGHEST = 2**63 - 1
#: Parameters that say which part; all others say which list.
_OF_THE_PART = frozenset({"limit", "offset", CURSOR.name})


@dataclass(frozen=True, slots=True)
class Part(Generic[T]):
    """The entries that were asked for, and what says where the others are."""

    items: Sequence[T]
    headers: dict[str, str]


def part_of(
    request: Request, items: Sequence[T], key: Callable[[T], Key] | None = None, *, falls: bool = False
) -> Part[T]:
    """Return the part of a whole list that a request asks for, with `Link` and `X-Total-Count`.

    `items` are sorted by `key`, the highest first if it `falls`; without `key` the cursor counts. Raises Invalid.
    """
    page, start = page_of(request), _start(request, items, key, falls)
    end = start + page.limit
    found = items[start:end]
    behind: Key | None = None
    if found and end < len(items):
        behind = end if key is None else key(found[-1])
    return Part(found, {**_link(request, page.limit, behind), TOTAL: str(len(items))})


def page_answer(
    request: Request,
    items: Sequence[T],
    view: Callable[[T], object],
    key: Callable[[T], Key] | None = None,
    *,
    falls: bool = False,
) -> Response:
    """Answer with the part of a list that a request asks for, each entry as `view` shows it. Raises Invalid."""
    part = part_of(request, items, key, falls=falls)
    return json_answer([view(each) for each in part.items], headers=part.headers)


def missing(answer: Response, count: int) -> Response:
    """Have the answer with a list say how many of its kind are not in it because their records cannot be read."""
    if count:
        answer.headers[UNREADABLE] = str(count)
    return answer


def counted_page(request: Request) -> Page:
    """Return which part is wanted of a list that is read in parts; its cursors count. Raises Invalid."""
    page = page_of(request)
    place = _cursor(request, int)
    if place is None:
        return page
    if place < 0:
        raise _wrong(request.query_params[CURSOR.name])
    return Page(page.limit, place)


def counted_headers(request: Request, page: Page, total: int | None, *, has_more: bool) -> dict[str, str]:
    """Return the headers of a part of such a list; `total` is None where counting takes long."""
    link = _link(request, page.limit, page.offset + page.limit if has_more else None)
    return link if total is None else {**link, TOTAL: str(total)}


def _start(request: Request, items: Sequence[T], key: Callable[[T], Key] | None, falls: bool) -> int:
    if key is None:
        return counted_page(request).offset
    behind = _cursor(request, type(key(items[0])) if items else object)
    if behind is None:
        return page_of(request).offset

    def is_behind(place: int) -> bool:
        at: Any = key(items[place])
        return bool(at < behind if falls else at > behind)

    try:
        return bisect_left(range(len(items)), True, key=is_behind)
    except TypeError:  # Parts of a tuple that cannot be compared.
        raise _wrong(request.query_params[CURSOR.name]) from None


def _cursor(request: Request, kind: type) -> Any:
    """Return what the cursor of a request stands for, None when it has none. Raises Invalid."""
    text = request.query_params.get(CURSOR.name)
    if text is None:
        return None
    if "offset" in request.query_params:
        raise Invalid("value_error", ["query", CURSOR.name], "name a cursor or an offset, not both", text)
    try:
        found = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        raise _wrong(text) from None
    found = tuple(found) if isinstance(found, list) else found
    if not isinstance(found, kind) or isinstance(found, bool) or (isinstance(found, int) and abs(found) > _HIGHEST):
        raise _wrong(text)
    return found


def _wrong(text: str) -> Invalid:
    return Invalid("value_error", ["query", CURSOR.name], "is none that this list has given out", text)


def _link(request: Request, limit: int, behind: Key | None) -> dict[str, str]:
    if behind is None:
        return {}
    cursor = urlsafe_b64encode(msgspec.json.encode(behind)).rstrip(b"=").decode()
    return next_link(request, limit=limit, cursor=cursor)


def next_link(request: Request, **part: object) -> dict[str, str]:
    """Return the `Link` to the next page: the same list with other values of what says which part."""
    others = _OF_THE_PART.union(part)
    kept = [(name, value) for name, value in request.query_params.multi_items() if name not in others]
    query = urlencode([*kept, *part.items()])
    return {"Link": f'<{quote(request.scope["path"])}?{query}>; rel="next"'}
