"""The public keys of an issuer: read from a file or fetched (in a thread), and kept for a while. One trio run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import structlog
import trio
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey

from sidecar.access.hosts import LOOPBACK_NAMES, is_loopback

#: Keys are looked up anew after this, or when a token names one that is not known, but not more often than AGAIN_S.
FRESH_S, AGAIN_S = 3600.0, 60.0
#: Keys that cannot be fetched anew go on counting for so long.
STALE_S = 24 * 3600.0
TIMEOUT_S = 5.0
MOST_BYTES = 256 * 1024
LEAST_RSA_BITS = 2048
_FAMILIES: dict[str, tuple[type[Key], ...]] = {"RS": (RSAKey,), "PS": (RSAKey,), "ES": (ECKey,), "Ed": (OKPKey,)}

log = structlog.get_logger(__name__)


class KeySource:
    """Where an issuer's keys come from."""

    def __init__(self, folder: Path, place: str) -> None:
        """Take a file or URL. Raises ValueError for a URL that others could answer."""
        self._place = place if "://" in place else str(folder / place)
        self._is_url = "://" in place
        if self._is_url:
            check_url(place)
        self._keys: list[Key] = []
        self._fetched_s = self._tried_s = -STALE_S
        self._fetching = trio.Lock()

    async def key(self, kid: object, algorithm: object, allowed: Sequence[str]) -> Key | None:
        """Return the key that a token says it is signed with; one that names none needs an issuer with one key."""
        if not isinstance(algorithm, str) or algorithm not in allowed:
            return None
        if trio.current_time() - self._fetched_s > FRESH_S or self._find(kid, algorithm) is None:
            await self._renew()
        return self._find(kid, algorithm)

    def _find(self, kid: object, algorithm: str) -> Key | None:
        if trio.current_time() - self._fetched_s > STALE_S:
            return None
        fitting = [key for key in self._keys if _fits(key, algorithm)]
        if kid is None:
            return fitting[0] if len(fitting) == 1 else None
        return next((key for key in fitting if key.kid == kid), None)

    async def _renew(self) -> None:
        async with self._fetching:
            if trio.current_time() - self._tried_s < AGAIN_S:
                return
            self._tried_s = trio.current_time()
            try:
                data = await trio.to_thread.run_sync(self._fetch, abandon_on_cancel=True)
                self._keys = keys_in(data)
            except (OSError, JoseError, ValueError, TypeError, KeyError) as error:
                log.warning("the keys of an issuer cannot be had", place=self._place, reason=str(error)[:200])
            else:
                self._fetched_s = trio.current_time()

    def _fetch(self) -> bytes:
        if not self._is_url:
            with open(self._place, "rb") as file:
                return _bounded(file.read(MOST_BYTES + 1))
        return _fetched(self._place)


def _fetched(url: str) -> bytes:
    import httpx  # Seldom needed, and long to import.

    try:
        with httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client:
            with client.stream("GET", url) as answer:
                if answer.status_code != 200:
                    raise ValueError(f"status {answer.status_code}")
                data = b""
                for piece in answer.iter_bytes():
                    data = _bounded(data + piece)
                return data
    except httpx.HTTPError as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def check_url(url: str) -> None:
    """Raise ValueError for a URL of keys that somebody on the way could change."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username or parts.password:
        raise ValueError(f"{parts.scheme}://{host} with a user in it: keys are public, leave that out")
    if parts.scheme == "https" and host:
        return
    if parts.scheme == "http" and (host in LOOPBACK_NAMES or is_loopback(host)):
        return
    raise ValueError(f"{url}: keys are fetched by https, and by http from loopback only")


def keys_in(data: bytes) -> list[Key]:
    """Return the keys of a key set that may prove something: public ones for signatures. Raises ValueError."""
    value = json.loads(data)
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise ValueError("this is no JSON Web Key Set")
    wanted = [each for each in value["keys"] if isinstance(each, dict) and each.get("kty") in ("RSA", "EC", "OKP")]
    usable = [each for each in wanted if each.get("use", "sig") == "sig"]
    if not usable:
        raise ValueError("there is no public key for signatures in this key set")
    return list(KeySet.import_key_set({"keys": usable}).keys)


def _fits(key: Key, algorithm: str) -> bool:
    stated = key.get("alg")
    if stated is not None and stated != algorithm:
        return False
    if not isinstance(key, _FAMILIES.get(algorithm[:2], ())):
        return False
    return not isinstance(key, RSAKey) or key.public_key.key_size >= LEAST_RSA_BITS


def _bounded(data: bytes) -> bytes:
    if len(data) > MOST_BYTES:
        raise ValueError(f"more than {MOST_BYTES} bytes")
    return data
