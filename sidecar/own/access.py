"""Tokens and users under /api/v1/tokens and /api/v1/users: what `tapefs token` and `tapefs user` use."""

from __future__ import annotations

import msgspec
import trio
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from catalog.access_records import Credential, User
from catalog.ids import new_uuid
from sidecar.access.people import check_name, check_role, check_scopes, check_title, check_uid, end_ns
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Role
from sidecar.http.calls import PAGE, Call
from sidecar.http.paging import page_answer
from sidecar.http.requests import Invalid, body_of
from sidecar.service import Service
from tapefs.client.access import NewToken, NewUser, Revoked, TokenBody, TokenView, UserBody, UserView
from tapefs.errors import NoSuchThing, UsageError

#: So much of an id is enough, if only one token begins with it.
_SHORTEST_ID = 4


class AccessCalls:
    """Who may call."""

    def __init__(self, service: Service) -> None:
        self._registry = service.access.registry
        self._access = service.access

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        return [
            Call("/api/v1/tokens", self.tokens, needs=Role.ADMIN, answer=list[TokenView], query=PAGE),
            Call(
                "/api/v1/tokens", self.create_token, methods=["POST"], needs=Role.ADMIN, body=TokenBody,
                answer=NewToken, status=201,
            ),
            Call("/api/v1/tokens/{id}", self.revoke_token, methods=["DELETE"], needs=Role.ADMIN, answer=Revoked),
            Call("/api/v1/users", self.users, needs=Role.ADMIN, answer=list[UserView], query=PAGE),
            Call(
                "/api/v1/users", self.create_user, methods=["POST"], needs=Role.ADMIN, body=NewUser, answer=UserView,
                status=201,
            ),
            Call(
                "/api/v1/users/{name}", self.change_user, methods=["PATCH"], needs=Role.ADMIN, body=UserBody,
                answer=UserView,
            ),
            Call("/api/v1/users/{name}", self.delete_user, methods=["DELETE"], needs=Role.ADMIN, status=204),
        ]  # fmt: skip

    async def tokens(self, request: Request) -> Response:
        """Show the tokens that were given out, oldest first; never their secrets."""
        return page_answer(request, sorted(self._registry.tokens(), key=_age_of), self._token_view, _age_of)

    async def create_token(self, request: Request) -> Response:
        """Make a token; the answer has its secret, which nobody is told again."""
        body, registry = await body_of(request, TokenBody), self._registry
        role, scopes = check_role(body.role, may_be_none=True), check_scopes(body.scopes)
        if not role.value and not scopes:
            raise Invalid("missing", ["body", "role"], "a token needs a role, or a scope")
        uid = await trio.to_thread.run_sync(check_uid, body.uid)
        ends_ns = end_ns(body.days, registry.now_ns())
        token, secret = await registry.give_token(role, scopes, check_title(body.name), uid, ends_ns)
        fields = msgspec.structs.asdict(self._token_view(token))
        return json_answer(NewToken(secret=secret, **fields), 201)

    async def revoke_token(self, request: Request) -> Response:
        """End a token, by its id or the beginning of one: its next call is refused."""
        wanted = str(request.path_params["id"])
        found = [each for each in self._registry.tokens() if each.credential_id.startswith(wanted)]
        if len(wanted) < _SHORTEST_ID or not found:
            raise NoSuchThing(f"there is no token {wanted}: `tapefs token list` has their ids")
        if len(found) > 1:
            raise UsageError(f"{wanted} is the beginning of {len(found)} ids: write more of it")
        return json_answer(Revoked(revoked=await self._registry.revoke([found[0].credential_id])))

    async def users(self, request: Request) -> Response:
        """Show the users, by name."""
        return page_answer(request, self._registry.users(), self._user_view, lambda user: user.name)

    async def create_user(self, request: Request) -> Response:
        """Record a user with a password."""
        body = await body_of(request, NewUser)
        if body.password is UNSET:
            raise Invalid("missing", ["body", "password"], "Field required")
        wanted = User(user_id=new_uuid(), name=check_name(body.name, "name"), role=check_role(body.role or "viewer"))
        return json_answer(self._user_view(await self._put(None, wanted, body)), 201)

    async def change_user(self, request: Request) -> Response:
        """Change role, uid or password; another role or password ends what the user has open."""
        body, known = await body_of(request, UserBody), self._named(request)
        return json_answer(self._user_view(await self._put(known, known, body)))

    async def delete_user(self, request: Request) -> Response:
        """Forget a user; what he has open ends."""
        await self._registry.delete_user(self._named(request))
        return Response(status_code=204)

    async def _put(self, known: User | None, wanted: User, body: UserBody) -> User:
        changes: dict[str, object] = {}
        if body.role is not UNSET:
            changes["role"] = check_role(body.role)
        if body.uid is not UNSET:
            changes["uid"] = await trio.to_thread.run_sync(check_uid, body.uid)
        if body.password is not UNSET:
            changes["password_hash"] = await self._access.passwords.hash(body.password)
        return await self._registry.put_user(known, msgspec.structs.replace(wanted, **changes))

    def _named(self, request: Request) -> User:
        name = str(request.path_params["name"])
        user = self._registry.user_named(name)
        if user is None:
            raise NoSuchThing(f"there is no user {name}: `tapefs user list` has their names")
        return user

    def _token_view(self, token: Credential) -> TokenView:
        used_at_ns = self._registry.used_at_ns(token)
        return TokenView(
            id=token.credential_id,
            name=token.name,
            role=token.role.value,
            scopes=token.scopes,
            uid=token.uid,
            created_at=moment(token.created_at_ns),
            expires_at=moment(token.expires_at_ns),
            used_at=moment(used_at_ns) if used_at_ns > token.created_at_ns else None,
            is_over=self._registry.is_over(token),
        )

    def _user_view(self, user: User) -> UserView:
        return UserView(
            number=user.number,
            name=user.name,
            role=user.role.value,
            uid=user.uid,
            created_at=moment(user.created_at_ns),
            open=sum(not self._registry.is_over(each) for each in self._registry.open_of(user)),
        )


def _age_of(token: Credential) -> tuple[int, str]:
    return token.created_at_ns, token.credential_id
