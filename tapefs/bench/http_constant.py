"""The peer of `scripts/bench http`: Starlette on Hypercorn and trio with one answer that never changes.

    .venv/bin/python -m tapefs.bench.http_constant PORT

What it can answer in a second is what this kind of server can on this machine, whatever stands behind it.
"""

from __future__ import annotations

import sys

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

BODY = b'{"status":"ok"}'


async def _answer(request: Request) -> Response:
    return Response(BODY, media_type="application/json")


def main() -> None:
    """Serve until killed."""
    config = Config()
    config.bind = [f"127.0.0.1:{int(sys.argv[1])}"]
    config.accesslog = None
    config.errorlog = None
    trio.run(serve, Starlette(routes=[Route("/health", _answer)]), config)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
