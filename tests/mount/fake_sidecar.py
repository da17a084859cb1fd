"""A sidecar without tapes: the agreed HTTP on the Unix socket; what is asked for comes from the shelf after a delay."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from catalog.ids import SegmentId
from tests.vfs.shelf import Shelf


@dataclass
class FakeSidecar:
    """Runs in a thread of its own between `start` and `stop`; the fields may be changed meanwhile."""

    shelf: Shelf
    #: None: nothing ever arrives.
    delay_s: float | None = 0.05
    #: Answer with an error instead of bytes.
    failure: str | None = None
    #: Refuse the one who asks with this word.
    refusal: str | None = None
    #: Say nothing about arrivals: the mount has to look for itself.
    silent: bool = False
    #: What was posted, newest last.
    waiters: list[dict[str, object]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    #: What walks said, newest last; nothing is fetched for them.
    walks: list[dict[str, object]] = field(default_factory=list)
    ended_walks: list[str] = field(default_factory=list)
    window_bytes: int = 1 << 40

    def start(self) -> FakeSidecar:
        self._streams: set[trio.MemorySendChannel[dict[str, object]]] = set()
        self._seen: set[str] = set()
        ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._main, ready))
        self._thread.start()
        assert ready.wait(60)
        return self

    def stop(self) -> None:
        trio.from_thread.run_sync(self._ending.set, trio_token=self._token)
        self._thread.join(60)
        assert not self._thread.is_alive()

    @property
    def segments(self) -> set[object]:
        """What was asked for so far."""
        return {each["segment"] for each in self.waiters}

    async def _main(self, ready: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._ending = trio.Event()
        self.shelf.home.socket.unlink(missing_ok=True)
        config = Config()
        config.bind = [f"unix:{self.shelf.home.socket}"]
        config.errorlog = None
        config.graceful_timeout = 0.1
        routes = [
            Route("/api/v1/recalls", self._recalls, methods=["POST"]),
            Route("/api/v1/recalls/cancel", self._cancel, methods=["POST"]),
            Route("/api/v1/arrivals", self._arrivals),
            Route("/api/v1/walks", self._walk, methods=["POST"]),
            Route("/api/v1/walks/end", self._end_walks, methods=["POST"]),
        ]
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            start = partial(serve, Starlette(routes=routes), config, shutdown_trigger=self._ending.wait)
            await nursery.start(start)  # type: ignore[arg-type]
            ready.set()
            await self._ending.wait()
            for stream in self._streams:
                stream.close()
            with trio.move_on_after(1):
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    async def _recalls(self, request: Request) -> JSONResponse:
        waiters = (await request.json())["waiters"]
        for waiter in waiters:
            if waiter["id"] not in self._seen:
                self._seen.add(waiter["id"])
                self.waiters.append(waiter)
                self._nursery.start_soon(self._fetch, waiter)
        return JSONResponse({"accepted": len(waiters)}, status_code=202)

    async def _fetch(self, waiter: dict[str, object]) -> None:
        if self.delay_s is None:
            return
        await trio.sleep(self.delay_s)
        segment, first, last = SegmentId(str(waiter["segment"])), int(str(waiter["first"])), int(str(waiter["last"]))
        message: dict[str, object] = {"segment": segment, "first": first, "last": last}
        if self.refusal:
            message = {"waiter": waiter["id"], "error": self.refusal, "message": f"refused: {self.refusal}"}
        elif self.failure:
            message |= {"error": self.failure, "message": f"no: {self.failure}"}
        else:
            await trio.to_thread.run_sync(self.shelf.stage_frames, segment, first, last)
        if not self.silent:
            for stream in self._streams:
                await stream.send(message)

    async def _cancel(self, request: Request) -> JSONResponse:
        ids = (await request.json())["ids"]
        self.cancelled += ids
        return JSONResponse({"cancelled": len(ids)})

    async def _walk(self, request: Request) -> JSONResponse:
        self.walks.append(await request.json())
        return JSONResponse({"window_bytes": self.window_bytes}, status_code=202)

    async def _end_walks(self, request: Request) -> JSONResponse:
        ids = (await request.json())["ids"]
        self.ended_walks += ids
        return JSONResponse({"ended": len(ids)})

    async def _arrivals(self, request: Request) -> StreamingResponse:
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[bytes]:
        send, receive = trio.open_memory_channel[dict[str, object]](10_000)
        self._streams.add(send)
        try:
            yield b'{"hello":1}\n'
            async for message in receive:
                yield json.dumps(message).encode() + b"\n"
        finally:
            self._streams.discard(send)
