"""Secrets that are given out, and what is kept of them. Pure functions but for the random number.

A secret is 256 random bits, so a plain fast hash is enough: there is nothing to guess.
"""

from __future__ import annotations

import hashlib
import secrets

#: What programs that look for secrets in repositories and logs can look for.
PREFIX = "tapefs_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """Return a new secret: ASCII without anything that a header, a cookie or a shell minds."""
    return PREFIX + secrets.token_urlsafe(_SECRET_BYTES)


def digest_of(secret: str) -> bytes:
    """Return what is kept of a secret."""
    data = secret.encode("utf-8", "surrogateescape")
    return hashlib.blake2b(data, digest_size=32, person=b"tapefs.secret").digest()


def csrf_token_of(secret: str) -> str:
    """Return what a page has to send beside the cookie: whoever only makes a browser send it does not know this."""
    return hashlib.blake2b(
        digest_of(secret), digest_size=16, key=secret.encode()[:64], person=b"tapefs.csrf"
    ).hexdigest()
