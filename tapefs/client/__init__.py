"""The typed client of a sidecar's HTTP interface, for the command line, for scripts and for tests: docs/client.md.

    from tapefs.client import connect

    with connect("https://tapes.example.org:8443", token="…") as client:
        job = client.wait_job(client.run_job(3).number)

`connect` gives a blocking client, `connect_trio` one for trio. Importing this loads neither.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tapefs.client.address import Address
    from tapefs.client.api import Client
    from tapefs.client.waiting import AsyncClient

__all__ = ["connect", "connect_trio"]


def connect(
    url: str | None = None,
    *,
    token: str = "",
    token_file: Path | None = None,
    ca: Path | None = None,
    pin: str = "",
    timeout_s: float = 60.0,
) -> Client:
    """Return a blocking client of the sidecar at `url`: unix:/PATH, https://HOST:PORT, http://127.0.0.1:PORT.

    What is not given comes from TAPEFS_URL, TAPEFS_TOKEN or TAPEFS_TOKEN_FILE, TAPEFS_CA (file with CAs) and TAPEFS_PIN
    (the SHA-256 of the one certificate that is believed); without any the socket of the usual state folder. Nothing
    is connected before the first call. Raises UsageError, HomeError.
    """
    from tapefs.client.api import Client

    return Client(_address(url, token, token_file, ca, pin), timeout_s)


def connect_trio(
    url: str | None = None,
    *,
    token: str = "",
    token_file: Path | None = None,
    ca: Path | None = None,
    pin: str = "",
    timeout_s: float = 60.0,
) -> AsyncClient:
    """Return a client for trio, an async context manager; the parameters are those of `connect`."""
    from tapefs.client.waiting import AsyncClient

    return AsyncClient(_address(url, token, token_file, ca, pin), timeout_s)


def _address(url: str | None, token: str, token_file: Path | None, ca: Path | None, pin: str) -> Address:
    from tapefs.client.address import environment_address

    return environment_address(url, token=token, token_file=token_file, ca=ca, pin=pin)
