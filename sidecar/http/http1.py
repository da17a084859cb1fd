"""HTTP/1 and nothing else on a connection. Trio only.

Hypercorn would go over to HTTP/2 whenever a client asks for it in plain text, by `Upgrade: h2c` or by beginning so. No
client of ours does, TLS offers none, and it would be another way in with limits of its own: a hundred requests over
one connection that are made and broken off as fast as frames come, and a tunnel through a proxy that passes the
upgrade on and then takes its client's next requests for data. WebSockets are not served either. What asks for them is
answered as if it had not.
"""

from __future__ import annotations

import h11
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol


class Http1(H11Protocol):
    """Serves HTTP/1."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1."""

    async def _create_stream(self, request: h11.Request) -> None:
        """Serve a request; no upgrade of it is seen."""
        if any(name == b"upgrade" for name, _ in request.headers):
            headers = [(name, value) for name, value in request.headers if name != b"upgrade"]
            request = h11.Request(
                method=request.method, target=request.target, headers=headers, http_version=request.http_version
            )
        await super()._create_stream(request)


def keep_to_http1(wrapper: ProtocolWrapper) -> None:
    """Have a connection, over which nothing has come yet, be served so."""
    wrapper.protocol = Http1(
        wrapper.app,
        wrapper.config,
        wrapper.context,
        wrapper.task_group,
        wrapper.state,
        wrapper.ssl,
        wrapper.client,
        wrapper.server,
        wrapper.send,
    )
