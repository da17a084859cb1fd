"""The gate in front of TCP: sound headers, a Host that means us, who calls, and how much he may ask. Trio only.

Who calls is told, in this order, by the header Authorization (the token of HOME/token, a token or login of ours, a
token of an issuer that the settings name), by the cookie of a session, by an address that the settings trust. A wrong
token is refused even where none is needed; without any of these the caller is nobody, and calls that need no role
answer.
"""

from __future__ import annotations

from dataclasses import replace
from hmac import compare_digest

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from catalog.access_records import CredentialKind
from sidecar.access.access import Access
from sidecar.access.addresses import Origin
from sidecar.access.basic import CHALLENGE as BASIC
from sidecar.access.basic import Pair, is_for_passwords, pair_in
from sidecar.access.cookies import session_in
from sidecar.access.digests import PREFIX, csrf_token_of
from sidecar.access.hosts import Hosts
from sidecar.access.hygiene import check_headers
from sidecar.access.origin import check_csrf, check_origin, check_site
from sidecar.access.registry import Proof
from sidecar.http.callers import CALLER, NOBODY, Caller, Role
from sidecar.http.gates import address_in, refuse
from sidecar.http.statuses import CHALLENGE, Forbidden, RequestRefused, Unauthorised

#: Key of the proof in the ASGI scope, of callers who have one of ours, and of the request's Origin.
PROOF, ORIGIN = "tapefs.proof", "tapefs.origin"
_BEARERS = (CredentialKind.TOKEN, CredentialKind.LOGIN)


class TcpGate:
    """For TCP."""

    def __init__(self, app: ASGIApp, access: Access, token: str, listen_host: str) -> None:
        self._app = app
        self._access = access
        self._token = token.encode()
        self._hosts = Hosts(listen_host, access.settings.hosts)
        self._limits, self._issuers = access.limits, access.issuers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request, and serve it."""
        headers = Headers(scope=scope)
        try:
            check_headers(scope)
            self._hosts.check(headers.get("host", ""))
            origin = self._access.addresses.origin(address_in(scope), headers, scope["scheme"] == "https")
            scope[ORIGIN] = origin
            if is_for_passwords(scope) and self._access.basic.are_taken(origin):
                scope[CHALLENGE] = BASIC
            caller = scope[CALLER] = await self._caller(scope, headers, origin)
            with self._limits.counted(caller):
                await self._app(scope, receive, send)
        except RequestRefused as error:
            await refuse(error, scope, receive, send)

    async def _caller(self, scope: Scope, headers: Headers, origin: Origin) -> Caller:
        header = headers.get("authorization")
        pair = pair_in(header) if header is not None and is_for_passwords(scope) else None
        if pair is not None:
            check_site(headers)  # A browser sends it unasked, to an address in a foreign page, too.
            return await self._basic(scope, pair, origin)
        if header is not None:
            return await self._bearer(scope, header, origin)
        check_origin(scope["method"], headers)
        proof = self._session(headers, origin)
        if proof is not None:
            check_csrf(scope["method"], headers, csrf_token_of(proof.secret))
            scope[PROOF] = proof
            return self._access.registry.caller(proof.credential, origin.address)
        return self._access.addresses.trusted(origin) or replace(NOBODY, address=origin.address)

    def _session(self, headers: Headers, origin: Origin) -> Proof | None:
        secret = session_in(headers.get("cookie", ""), is_encrypted=origin.is_encrypted)
        return self._access.registry.proof_of(secret, (CredentialKind.SESSION,)) if secret else None

    async def _bearer(self, scope: Scope, header: str, origin: Origin) -> Caller:
        self._limits.check_wrong(origin.address)
        scheme, _, rest = header.partition(" ")
        given = rest.strip()
        if scheme.lower() == "bearer":
            known = self._of_token(scope, given, origin)
            if known is not None:
                return known
            foreign = await self._issuers.caller(given, origin.address) if self._issuers is not None else None
            if foreign is not None:
                return foreign
        self._limits.wrong(origin.address)
        raise Unauthorised("the token is wrong, has run out, or was revoked: send `Authorization: Bearer` and a token")

    async def _basic(self, scope: Scope, pair: Pair, origin: Origin) -> Caller:
        """Return who sends name and password, or any name and a token."""
        self._limits.check_wrong(origin.address)
        if not self._access.basic.are_taken(origin):
            raise Forbidden("passwords are taken over TLS only: name a certificate, or the proxy, in the settings")
        known = self._of_token(scope, pair.password, origin)
        if known is not None:
            return known
        if not pair.password.startswith(PREFIX):
            return await self._access.basic.caller(pair, origin.address)
        self._limits.wrong(origin.address)
        raise Unauthorised("the token is wrong, has run out, or was revoked")

    def _of_token(self, scope: Scope, given: str, origin: Origin) -> Caller | None:
        """Return who sends a token of ours; None when it is none."""
        # As bytes: compare_digest takes no other text than ASCII.
        if compare_digest(given.encode("utf-8", "surrogateescape"), self._token):
            return Caller("token", Role.ADMIN, address=origin.address)
        proof = self._access.registry.proof_of(given, _BEARERS)
        if proof is None:
            return None
        scope[PROOF] = proof
        return self._access.registry.caller(proof.credential, origin.address)
