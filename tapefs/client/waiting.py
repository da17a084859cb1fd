"""Carries the same calls out in trio, by httpx. Imported only by those who want it: httpx takes long to load."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from typing import Any, TypeVar

import httpx
import trio

from tapefs.client.access import WaitingAccessClient
from tapefs.client.address import Address, tls_context
from tapefs.client.blocking import AGAIN_S, PATIENCE_S
from tapefs.client.calling import Ask, Fetch, Head, Pause, Step, Steps, Taker, Waiting
from tapefs.client.calls import Calls
from tapefs.client.cleaning import WaitingCleaningClient
from tapefs.client.files import PLAIN, FileCalls
from tapefs.client.notices import WaitingNoticeClient
from tapefs.client.pools import WaitingPoolClient
from tapefs.client.restores import WaitingRestoreClient
from tapefs.client.schedules import WaitingScheduleClient
from tapefs.client.sets import SetCalls
from tapefs.client.streams import Event, Events, event_target, search_target, whole_lines
from tapefs.client.tapes import WaitingTapeClient
from tapefs.client.transport import NOT_TAKEN_BYTES, STATUS, WentAway, error_of, is_unknown_call, other_version
from tapefs.client.upkeep import WaitingUpkeepClient
from tapefs.client.waits import WaitCalls
from tapefs.errors import HomeError, TapefsError, TooManyRequests, Unreachable
from tapefs.socket_name import socket_name

T = TypeVar("T")

#: Bytes go to a file in pieces of about this, each in a thread.
_PIECE_BYTES = 1024 * 1024
#: The sidecar closes idle connections after 5 s.
_LIMITS = httpx.Limits(max_connections=20, max_keepalive_connections=4, keepalive_expiry=4.0)


class AsyncClient(Calls, SetCalls, WaitCalls, FileCalls, Waiting):
    """A sidecar, for programs in trio; an async context manager. The calls are those of `Client`, to be awaited."""

    def __init__(self, address: Address, timeout_s: float = 60.0) -> None:
        self.address = address
        self.schedules = WaitingScheduleClient(self)
        self.pools = WaitingPoolClient(self)
        self.access = WaitingAccessClient(self)
        self.tapes = WaitingTapeClient(self)
        self.cleaning = WaitingCleaningClient(self)
        self.notices = WaitingNoticeClient(self)
        self.upkeep = WaitingUpkeepClient(self)
        self.restores = WaitingRestoreClient(self)
        self._timeout = httpx.Timeout(timeout_s)
        self._open = ExitStack()
        self._http: httpx.AsyncClient

    async def __aenter__(self) -> AsyncClient:
        address = self.address
        if address.socket is not None:
            name = self._open.enter_context(socket_name(address.socket))
            transport = httpx.AsyncHTTPTransport(uds=name, limits=httpx.Limits(max_keepalive_connections=0))
        else:
            context = await trio.to_thread.run_sync(tls_context, address) if address.is_tls else False
            transport = httpx.AsyncHTTPTransport(verify=context, limits=_LIMITS)
        self._http = httpx.AsyncClient(
            transport=transport, base_url=address.origin, timeout=self._timeout, headers=address.headers(),
            trust_env=False,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        with self._open:
            await self._http.aclose()

    async def carry_out(self, what: Ask[T] | Steps[T]) -> T:
        """Carry out a call, return its answer. Raises Unreachable, and what the sidecar refuses with."""
        if isinstance(what, Ask):
            return what.answer(await self._request(what))
        return await self._driven(what)

    @asynccontextmanager
    async def lines(
        self, target: str, silence_s: float = 60.0, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[AsyncIterator[str], None]:
        """Have the lines of an answer, as they come, inside the block."""
        timeout = httpx.Timeout(silence_s)
        try:
            asked = PLAIN | dict(headers or {})
            async with self._http.stream("GET", target, timeout=timeout, headers=asked) as answer:
                if answer.status_code >= 300:
                    raise error_of(answer.status_code, await answer.aread(), answer.headers)
                pieces = answer.aiter_raw()
                try:
                    async with aclosing(_lines(pieces)) as lines:
                        yield lines
                finally:
                    await _cut(answer, pieces)
        except httpx.HTTPError as error:
            raise self._meant(error) from error

    @asynccontextmanager
    async def events(
        self, *, after: str = "", silence_s: float = 60.0, **choice: str
    ) -> AsyncGenerator[AsyncIterator[Event], None]:
        """Have what happens from now on, or behind the event `after`, inside the block."""
        headers = {"Last-Event-ID": after} if after else {}
        async with self.lines(event_target(choice), silence_s, headers) as lines:

            async def found() -> AsyncGenerator[Event, None]:
                parser = Events()
                async for line in lines:
                    event = parser.feed(line)
                    if event is not None:
                        yield event

            async with aclosing(found()) as events:
                yield events

    async def find(self, *patterns: str, **choice: str) -> list[dict[str, Any]]:
        """Search all sets: see `Client.find`."""
        async with self.lines(search_target(patterns, choice.items())) as lines:
            return whole_lines([line.encode() async for line in lines])

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _driven(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    answer = await self._do(step)
                except (TapefsError, OSError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as end:
            answer_of_all: T = end.value
            return answer_of_all
        finally:
            steps.close()

    async def _do(self, step: Step) -> object:
        if isinstance(step, Ask):
            return step.answer(await self._request(step))
        if isinstance(step, Fetch):
            return await self._fetch(step)
        if isinstance(step, Pause):
            await trio.sleep(step.seconds)
            return None
        return await trio.to_thread.run_sync(step.do)

    async def _request(self, ask: Ask[Any]) -> Head:
        deadline_s = trio.current_time() + PATIENCE_S
        repeats = 1 if ask.is_safe else 0
        while True:
            try:
                return await self._once(ask)
            except WentAway:
                if not repeats:
                    raise
                repeats -= 1
                await trio.sleep(AGAIN_S)
            except TooManyRequests as error:
                if trio.current_time() + error.retry_after_s > deadline_s:
                    raise
                await trio.sleep(error.retry_after_s)

    async def _once(self, ask: Ask[Any]) -> Head:
        try:
            answer = await self._http.request(ask.method, ask.target, json=ask.body)
        except httpx.HTTPError as error:
            raise self._meant(error) from error
        if answer.status_code >= 300:
            raise await self._refusal(ask.target, answer.status_code, answer.content, answer.headers)
        return Head(answer.status_code, answer.headers, answer.content)

    async def _fetch(self, fetch: Fetch) -> Head:
        try:
            async with self._http.stream("GET", fetch.target, headers=dict(fetch.headers)) as answer:
                head = Head(answer.status_code, dict(answer.headers))
                if answer.status_code >= 300 and answer.status_code != 416:
                    data = await answer.aread()
                    raise await self._refusal(fetch.target, answer.status_code, data, answer.headers)
                if answer.status_code == 416 or not await trio.to_thread.run_sync(fetch.taker.begin, head):
                    return Head(head.status, head.headers, await _beginning(answer))
                await _take_all(answer, fetch.taker)
                return head
        except httpx.HTTPError as error:
            raise self._meant(error) from error

    async def _refusal(self, target: str, status: int, data: bytes, headers: Mapping[str, str]) -> TapefsError:
        error = error_of(status, data, headers)
        if not is_unknown_call(target, status, error):
            return error
        try:
            told = (await self._http.get(STATUS)).json()["version"]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return error
        return other_version(told)

    def _meant(self, error: httpx.HTTPError) -> TapefsError:
        where = self.address
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            causes = _causes(error)
            if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
                return HomeError(f"the certificate of {where} is not believed: name its CA, or its fingerprint")
            return Unreachable(f"no sidecar answers on {where} ({causes[-1]})")
        if isinstance(error, httpx.TimeoutException):
            return Unreachable(f"the sidecar on {where} does not answer in time: look at its log")
        return WentAway(f"the sidecar on {where} went away: see `tapefs jobs`, and its log")


async def _cut(answer: httpx.Response, pieces: AsyncIterator[bytes]) -> None:
    """End an answer before its end: httpx leaves generators behind that nobody closes, unless they come to an error."""
    with trio.CancelScope(shield=True), suppress(httpx.HTTPError, httpx.StreamError):
        await answer.extensions["network_stream"].aclose()
        async for _ in pieces:
            pass


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Put pieces together to lines; the last one may have no end."""
    held = b""
    async for piece in pieces:
        *whole, held = (held + piece).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")
    if held:
        yield held.decode(errors="replace")


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what has led to it, that first."""
    found: list[BaseException] = [error]
    while (cause := found[-1].__cause__ or found[-1].__context__) is not None and cause not in found:
        found.append(cause)
    return found


async def _beginning(answer: httpx.Response) -> bytes:
    found = b""
    async for data in answer.aiter_bytes():
        found += data
        if len(found) > NOT_TAKEN_BYTES:
            break
    return found


async def _take_all(answer: httpx.Response, taker: Taker) -> None:
    """Give the bytes to the taker in large pieces; what came before a break is given, too."""
    pieces: list[bytes] = []
    held_bytes = 0
    try:
        async for data in answer.aiter_raw():
            pieces.append(data)
            held_bytes += len(data)
            if held_bytes >= _PIECE_BYTES:
                joined, pieces, held_bytes = b"".join(pieces), [], 0
                await trio.to_thread.run_sync(taker.take, joined)
    finally:
        if pieces:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(taker.take, b"".join(pieces))
