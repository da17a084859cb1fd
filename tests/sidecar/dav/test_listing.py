"""Listings that are sent while they are made."""

from __future__ import annotations

from typing import Any

import trio

from sidecar.dav.listing import _Stream
from sidecar.http.listeners import CONNECTION


async def test_nothing_is_listed_for_who_has_gone() -> None:
    """The folder has no end: only the client's leaving ends this."""
    sent: list[Any] = []
    gone = trio.Event()

    async def receive() -> dict[str, str]:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 10:
            gone.set()

    stream = _Stream(lambda start: ("<entry/>", start + 1), "<begin>", 1, b"folder")
    with trio.fail_after(60):
        await stream({"type": "http", CONNECTION: None}, receive, send)
    assert sent[0]["status"] == 207
    assert 10 <= len(sent) < 20
    assert all(message["more_body"] for message in sent[1:]), "it was not ended as if it were whole"
