"""The cookie of a session. Pure functions.

`__Host-` binds it to this host and to TLS; browsers take it over TLS only, so without TLS it has a plain name.
"""

from __future__ import annotations

from sidecar.access.digests import PREFIX

PLAIN = "tapefs_session"
SECURE = f"__Host-{PLAIN}"


def session_in(header: str, *, is_encrypted: bool) -> str:
    """Return the secret in a Cookie header; empty when there is none.

    Over TLS the plain name does not count: a page of a neighbouring host could have set it.
    """
    wanted = SECURE if is_encrypted else PLAIN
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted and value.startswith(PREFIX):
            return value
    return ""


def cookie(secret: str, *, is_encrypted: bool, longest_s: int) -> str:
    """Return the Set-Cookie header that has a browser keep a session, or forget it when `longest_s` is 0."""
    name = SECURE if is_encrypted else PLAIN
    secure = "; Secure" if is_encrypted else ""
    return f"{name}={secret}; Path=/; Max-Age={longest_s}; HttpOnly; SameSite=Strict{secure}"
