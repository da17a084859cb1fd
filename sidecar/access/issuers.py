"""Bearer tokens of others: JSON web tokens of the OpenID Connect providers that the settings name. One trio run.

A token counts if its `iss` is one of these, it is signed with one of their keys by an algorithm on the list (which has
no symmetric ones: a public key is no secret), `aud` names us, and it is neither too old nor too new.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from sidecar.access.keysets import KeySource
from sidecar.http.callers import Caller, Role
from tapefs.access.scopes import check_scope, implied
from tapefs.access.uids import uid_of
from tapefs.errors import HomeError, UsageError
from tapefs.settings.access import Issuer

LONGEST_BYTES = 16 * 1024
LONGEST_NAME = 200

log = structlog.get_logger(__name__)
Claims = Mapping[str, object]


class Issuers:
    """Those who are believed."""

    def __init__(self, folder: Path, issuers: Sequence[Issuer]) -> None:
        """Raises HomeError when the keys of one could be changed on the way."""
        try:
            self._known = {each.issuer: (each, KeySource(folder, each.jwks)) for each in issuers}
        except ValueError as error:
            raise HomeError(f"{folder}/tapefs.toml: {error}") from error

    async def caller(self, token: str, address: str) -> Caller | None:
        """Return who calls with a token; None when it is no good, which the log explains at level info."""
        if len(token) > LONGEST_BYTES or token.count(".") != 2:
            return None
        try:
            head, body = _unproven(token, 0), _unproven(token, 1)
            issuer, source = self._known[str(body.get("iss"))]
            key = await source.key(head.get("kid"), head.get("alg"), issuer.algorithms)
            if key is None:
                raise ValueError("no key of the issuer fits")
            found = jwt.decode(token, key, list(issuer.algorithms), JWSRegistry(algorithms=list(issuer.algorithms)))
            _check(issuer, found.claims)
        except (JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
            log.info("a bearer token was refused", address=address, reason=f"{type(error).__name__}: {_brief(error)}")
            return None
        return _caller(issuer, found.claims, address)


def _unproven(token: str, part: int) -> dict[str, object]:
    """Return a part of a token that nobody has checked yet. Raises ValueError."""
    text = token.split(".")[part]
    value = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _check(issuer: Issuer, claims: dict[str, object]) -> None:
    """Raise JoseError or ValueError unless the claims hold here and now."""
    registry = jwt.JWTClaimsRegistry(
        leeway=issuer.leeway_s,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "values": list(issuer.audience)},
        exp={"essential": True},
        sub={"essential": True},
    )
    registry.validate(claims)
    if not isinstance(claims["sub"], str):
        raise ValueError("`sub` is no text")


def _caller(issuer: Issuer, claims: Claims, address: str) -> Caller:
    host = issuer.issuer.partition("://")[2].partition("/")[0] or issuer.issuer
    name = "".join(char for char in f"{claims['sub']}@{host}"[:LONGEST_NAME] if char.isprintable())
    # Whole, as the name may be cut, and of the issuer, as a host may have several.
    whole = f"{issuer.issuer}\0{claims['sub']}".encode("utf-8", "surrogatepass")
    identity = f"subject {hashlib.blake2b(whole, digest_size=16).hexdigest()}"
    return Caller(name, _role(issuer, claims), _uid(issuer, claims), _scopes(issuer, claims), address, identity)


def _role(issuer: Issuer, claims: Claims) -> Role | None:
    value = claims.get(issuer.role_claim)
    words = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    roles = [issuer.roles[word] for word in ["*", *words] if isinstance(word, str) and word in issuer.roles]
    return max((Role[role.upper()] for role in roles), default=None)


def _scopes(issuer: Issuer, claims: Claims) -> frozenset[str]:
    """Return the scopes for storage: of tokens of the WLCG's profile, whose version they state, and of no others."""
    version, text = claims.get("wlcg.ver"), claims.get("scope")
    if not issuer.storage_scopes or not str(version).startswith("1.") or not isinstance(text, str):
        return frozenset()
    found = []
    for word in text.split():
        try:
            found.append(check_scope(word))
        except UsageError:
            continue  # Tokens have scopes for other services, too.
    return implied(found)


def _uid(issuer: Issuer, claims: Claims) -> int | None:
    """Return the user of this system; never root, whatever the issuer says."""
    name = claims.get(issuer.user_claim) if issuer.user_claim else None
    if not isinstance(name, str) or name.isdecimal():
        return None
    try:
        return uid_of(name) or None
    except UsageError:
        return None


def _brief(error: Exception) -> str:
    # A KeyError's text is the issuer that a stranger has written; lengths are bounded, and nothing of a key is in it.
    return str(error)[:200]
