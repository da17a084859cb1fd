"""Name and password with every request, as clients of WebDAV send them. One trio run.

A comparison by Argon2 takes 100 ms and 64 MiB, and clients send the same pair hundreds of times a minute. So one that
was right is remembered for some minutes, as a digest with a key that only this process has; it counts as long as the
user has that password. Requests that bring the same pair at one time wait for one comparison.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple

import trio
from starlette.types import Scope

from sidecar.access.addresses import Origin
from sidecar.access.hosts import is_loopback
from sidecar.access.registry import ROLES
from sidecar.http.callers import Caller
from sidecar.http.statuses import Unauthorised

if TYPE_CHECKING:
    from sidecar.access.access import Access

#: The only paths where passwords are taken: what is there changes nothing, for browsers send them unasked.
PREFIX = "/dav"
CHALLENGE = 'Basic realm="tapefs", charset="UTF-8"'
REMEMBERED_S = 300.0
MOST_REMEMBERED = 1000


class Pair(NamedTuple):
    """What came with a request."""

    name: str
    password: str

    def __repr__(self) -> str:
        return "Pair()"


class _Right(NamedTuple):
    """A pair that was right."""

    name: str
    password_hash: str
    until_s: float


def is_for_passwords(scope: Scope) -> bool:
    """Is this one of the calls that take a password?"""
    path: str = scope["path"]
    return path == PREFIX or path.startswith(PREFIX + "/")


def pair_in(header: str) -> Pair | None:
    """Return the pair in a header Authorization; None when it is of another scheme. Raises Unauthorised."""
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        raw = b64decode(rest.strip(), validate=True)
    except (Base64Error, ValueError) as error:
        raise Unauthorised("the header Authorization holds no name and password") from error
    try:
        text = raw.decode()
    except UnicodeDecodeError:  # Old clients ignore what the challenge says of UTF-8.
        text = raw.decode("latin-1")
    name, _, password = text.partition(":")
    return Pair(name, password)


class BasicLogins:
    """Who calls with name and password."""

    def __init__(self, access: Access, *, without_tls: bool) -> None:
        self._access = access
        self._without_tls = without_tls
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, _Right] = OrderedDict()
        self._comparing: dict[bytes, trio.Event] = {}

    def are_taken(self, origin: Origin) -> bool:
        """Are passwords taken from there? By TLS, or from this host itself, unless the settings take them from all."""
        is_own = is_loopback(origin.address) and not origin.is_hidden
        return origin.is_encrypted or is_own or self._without_tls

    async def caller(self, pair: Pair, address: str) -> Caller:
        """Return who calls. Raises Unauthorised, TooMany."""
        digest = self._digest(pair)
        while digest in self._comparing:
            await self._comparing[digest].wait()
        if not self._is_known(digest):
            await self._compare(digest, pair, address)
        user = self._access.registry.user_named(pair.name)
        if user is None:
            raise Unauthorised("name or password is wrong")
        return Caller(user.name, ROLES[user.role], user.uid, frozenset(), address, f"user {user.user_id}")

    async def _compare(self, digest: bytes, pair: Pair, address: str) -> None:
        from sidecar.access.logins import prove  # With Argon2, which most sidecars never need.

        done = self._comparing[digest] = trio.Event()
        try:
            user = await prove(self._access, pair.name, pair.password, address)
        finally:
            del self._comparing[digest]
            done.set()
        self._right[digest] = _Right(user.name, user.password_hash, trio.current_time() + REMEMBERED_S)
        while len(self._right) > MOST_REMEMBERED:
            self._right.popitem(last=False)

    def _is_known(self, digest: bytes) -> bool:
        known = self._right.get(digest)
        if known is None:
            return False
        user = self._access.registry.user_named(known.name)
        if trio.current_time() < known.until_s and user is not None and user.password_hash == known.password_hash:
            return True
        del self._right[digest]
        return False

    def _digest(self, pair: Pair) -> bytes:
        name, password = (text.encode("utf-8", "surrogatepass") for text in pair)
        text = len(name).to_bytes(4, "big") + name + password
        return hashlib.blake2b(text, digest_size=32, key=self._key, person=b"tapefs.basic").digest()
