"""Where a sidecar answers, and how one shows who one is. Blocking where a certificate is asked for.

| address | |
|---|---|
| `unix:/var/lib/tapefs/sidecar.sock` | the socket in a state folder; the kernel tells who calls |
| `https://tapes.example.org:8443` | TLS; a certificate of the system's CAs, of `ca`, or the one of `pin` |
| `http://127.0.0.1:8080` | TCP in clear: a token is sent to this machine only |
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import ssl
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tapefs.errors import HomeError, Unreachable, UsageError
from tapefs.home import URL, default_home

#: Settings of the environment besides the address: the token or a file with it, a file with CAs, a fingerprint.
TOKEN, TOKEN_FILE, CA, PIN = "TAPEFS_TOKEN", "TAPEFS_TOKEN_FILE", "TAPEFS_CA", "TAPEFS_PIN"
_PORTS = {"http": 80, "https": 443}
_CONNECT_S = 20
_LARGEST_TOKEN = 64 * 1024


@dataclass(frozen=True)
class Address:
    """A socket, or a host and port."""

    socket: Path | None = None
    host: str = "localhost"
    port: int = 0
    is_tls: bool = False
    token: str = field(default="", repr=False)
    #: CAs beside no others, in PEM.
    ca: Path | None = None
    #: SHA-256 of the only certificate that is believed, 64 hexadecimal digits; empty: any that a CA has signed.
    pin: str = ""

    def __str__(self) -> str:
        return str(self.socket) if self.socket is not None else self.origin

    @property
    def origin(self) -> str:
        """Return scheme, host and port as URLs begin."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.is_tls else 'http'}://{host}" + (f":{self.port}" if self.port else "")

    def headers(self) -> dict[str, str]:
        """Return what every request has to say."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def address_of(
    url: str, *, token: str = "", token_file: Path | None = None, ca: Path | None = None, pin: str = ""
) -> Address:
    """Return the address that a URL means. Raises UsageError, and HomeError for a token that cannot be read."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/"):
            raise UsageError(f"{url} is no address: name the socket by its whole path, unix:/…")
        return Address(socket=Path(path))
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"{url} is no address: {error}") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise UsageError(f"{url} is no address: give unix:/PATH, https://HOST:PORT or http://127.0.0.1:PORT")
    is_tls = parts.scheme == "https"
    token = token or (_token_in(token_file) if token_file is not None else "")
    if token and not is_tls and not _is_here(parts.hostname):
        raise UsageError(f"a token is not sent to {parts.hostname} in clear: use https://")
    return Address(
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        is_tls=is_tls,
        token=token,
        ca=ca,
        pin=_fingerprint(pin),
    )


def environment_address(
    url: str | None = None,
    *,
    token: str = "",
    token_file: Path | None = None,
    ca: Path | None = None,
    pin: str = "",
    environment: Mapping[str, str] = os.environ,
) -> Address:
    """Return the address; what is not given comes from the environment, or is the usual state folder's socket.

    Raises UsageError, HomeError.
    """
    url = url or environment.get(URL)
    if not url:
        return Address(socket=default_home() / "sidecar.sock")
    token = token or ("" if token_file is not None else environment.get(TOKEN, ""))
    file, cas = environment.get(TOKEN_FILE), environment.get(CA)
    return address_of(
        url,
        token=token,
        token_file=token_file or (Path(file) if file else None),
        ca=ca or (Path(cas) if cas else None),
        pin=pin or environment.get(PIN, ""),
    )


def tls_context(address: Address) -> ssl.SSLContext:
    """Return what a connection is checked against. With a pin it asks the server for its certificate first.

    Raises Unreachable, HomeError for a file that cannot be read, TapefsError for another certificate.
    """
    if address.pin:
        return _pinned(address)
    try:
        return ssl.create_default_context(cafile=address.ca)
    except (OSError, ssl.SSLError) as error:
        raise HomeError(f"{address.ca} holds no certificates that can be read: {error}") from error


def _pinned(address: Address) -> ssl.SSLContext:
    """Return a context that believes one certificate, whatever name and signature it has."""
    try:
        text = ssl.get_server_certificate((address.host, address.port), timeout=_CONNECT_S)
    except OSError as error:
        raise Unreachable(f"no sidecar answers on {address}: {error.strerror or error}") from error
    found = hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest()
    if found != address.pin:
        raise HomeError(f"{address} shows a certificate with the fingerprint {found}, not {address.pin}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=text)
    return context


def _fingerprint(text: str) -> str:
    plain = text.replace(":", "").lower()
    if plain and not re.fullmatch("[0-9a-f]{64}", plain):
        raise UsageError("a pin is the SHA-256 of a certificate: 64 hexadecimal digits")
    return plain


def _token_in(path: Path) -> str:
    """Return the token in a file. Raises HomeError, also when everybody may read it."""
    try:
        with path.open(encoding="ascii") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
                raise HomeError(f"{path} has a token and everybody may read it: chmod 600 {path}")
            return file.read(_LARGEST_TOKEN).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HomeError(f"no token can be read from {path}: {error}") from error


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
