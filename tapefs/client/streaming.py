"""Sending a stream of unknown length to the sidecar. Blocking."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import msgspec

from catalog.ids import JobNumber, SetId
from tapefs.client.address import Address
from tapefs.client.calling import in_path
from tapefs.client.transport import connection_errors, connection_to, error_of


class StreamStored(msgspec.Struct, frozen=True, kw_only=True):
    """A stream that is on tape."""

    job: JobNumber
    set_id: SetId
    bytes: int


def stream_path(name: str) -> str:
    """Return the path of a stream's calls."""
    return f"/api/v1/streams/{in_path(name)}"


def send_stream(where: Path | Address, name: str, job: JobNumber, pieces: Iterator[bytes]) -> StreamStored:
    """Send all `pieces`, then the end, and wait until they are on tape.

    What `pieces` raises passes through; the sidecar sees a connection that breaks, and keeps nothing. Raises
    Unreachable when the sidecar goes away, and the error that belongs to its answer. There is no time limit: the
    sidecar takes what comes when it has room for it.
    """
    address = where if isinstance(where, Address) else Address(socket=where)
    connection = connection_to(address, None)
    headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream", "Connection": "close"}
    headers |= address.headers()
    with closing(connection):
        # It may have answered in the middle, and closed: then the answer says why. Else the next line fails, too.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request("POST", f"{stream_path(name)}?job={job}", _own(pieces), headers, encode_chunked=True)
        with connection_errors(address):
            answer = connection.getresponse()
            data = answer.read()
    if answer.status >= 400:
        raise error_of(answer.status, data)
    return msgspec.json.decode(data, type=StreamStored)


def _own(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the pieces; an empty one would end the body."""
    return (piece for piece in pieces if piece)
