"""TAF's /api/user: what is a stub there works here."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from catalog.access_records import CredentialKind, User
from catalog.ids import new_uuid
from sidecar.access.access import Access
from sidecar.access.gate import ORIGIN, PROOF
from sidecar.access.logins import let_in
from sidecar.access.people import check_name, check_role
from sidecar.access.registry import Proof
from sidecar.http.answers import json_answer, moment
from sidecar.http.callers import Caller, Role, caller_of
from sidecar.http.calls import Call
from sidecar.http.requests import body_of, number_in_path, page_of
from sidecar.http.statuses import Unauthorised
from sidecar.service import Service
from tapefs.errors import NoSuchThing, UsageError

#: What TAF calls things that one may do, and the role that it takes here.
PERMISSIONS = {
    "backup:read": Role.VIEWER,
    "backup:create": Role.OPERATOR,
    "backup:delete": Role.OPERATOR,
    "recovery:read": Role.VIEWER,
    "recovery:create": Role.OPERATOR,
    "tape:read": Role.VIEWER,
    "tape:manage": Role.ADMIN,
    "scheduler:read": Role.VIEWER,
    "scheduler:manage": Role.OPERATOR,
    "system:read": Role.VIEWER,
    "system:config": Role.ADMIN,
    "user:manage": Role.ADMIN,
}


class LoginRequest(msgspec.Struct, frozen=True):
    """TAF's body of a login."""

    username: str
    password: str

    def __repr__(self) -> str:
        return "LoginRequest()"


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A user as TAF shows one."""

    id: int | None
    username: str
    role: str
    full_name: str
    email: str
    is_active: bool = True
    is_admin: bool = False
    created_at: str | None = None
    permissions: list[str] = []


class LoginResponse(msgspec.Struct, frozen=True, kw_only=True):
    """TAF's answer to a login."""

    success: bool
    access_token: str | None
    user_info: UserInfo | None
    message: str
    token_type: str = "bearer"  # noqa: S105 - a kind, no secret
    expires_in: int = 0

    def __repr__(self) -> str:
        return f"LoginResponse({self.success})"


class UserCreateRequest(msgspec.Struct, frozen=True):
    """TAF's body of a new user, with our `role`. What it has for people is taken and not kept."""

    username: str
    password: str
    email: str = ""
    full_name: str = ""
    phone: str | None = None
    role: str = "viewer"

    def __repr__(self) -> str:
        return "UserCreateRequest()"


class UserUpdateRequest(msgspec.Struct, frozen=True):
    """The body of a change; what is missing or null stays."""

    password: str | None = None
    role: str | None = None

    def __repr__(self) -> str:
        return "UserUpdateRequest()"


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """TAF's answer to what changes something."""

    success: bool
    message: str
    user_id: int | None = None


class Users(msgspec.Struct, frozen=True, kw_only=True):
    """A page of users, and how many there are."""

    users: list[UserInfo]
    total: int


class Permissions(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller may do."""

    permissions: list[str]


class UserCalls:
    """Users as TAF's scripts see them."""

    def __init__(self, service: Service) -> None:
        self._access: Access = service.access
        self._registry = service.access.registry

    def routes(self) -> list[Call]:
        """Return the routes of this family."""
        users, one = "/api/user/users", "/api/user/users/{user_id}"
        admin = Role.ADMIN
        return [
            Call(
                "/api/user/login",
                self.login,
                methods=["POST"],
                needs=None,
                body=LoginRequest,
                answer=LoginResponse,
                errors=(401, 403),
            ),
            Call("/api/user/logout", self.logout, methods=["POST"], needs=None, answer=Done, errors=(401, 403)),
            Call("/api/user/profile", self.profile, needs=Role.VIEWER, answer=UserInfo),
            Call("/api/user/permissions", self.permissions, needs=Role.VIEWER, answer=Permissions),
            Call(users, self.list, needs=admin, answer=Users),
            Call(users, self.create, methods=["POST"], needs=admin, body=UserCreateRequest, answer=Done),
            Call(one, self.change, methods=["PUT"], needs=admin, body=UserUpdateRequest, answer=Done),
            Call(one, self.delete, methods=["DELETE"], needs=admin, answer=Done),
        ]

    async def login(self, request: Request) -> Response:
        """Give a bearer token for a name and a password."""
        if request.scope.get(ORIGIN) is None:
            raise UsageError("logins are for TCP: the Unix socket knows who calls")
        body, access = await body_of(request, LoginRequest), self._access
        try:
            user, _, secret = await let_in(
                access, body.username, body.password, caller_of(request), CredentialKind.LOGIN
            )
        except Unauthorised as error:
            refusal = LoginResponse(success=False, access_token=None, user_info=None, message=str(error))
            return json_answer({**msgspec.structs.asdict(refusal), "detail": str(error)}, 401)
        answer = json_answer(
            LoginResponse(
                success=True,
                access_token=secret,
                user_info=_info(user),
                message=f"{user.name} is logged in",
                expires_in=access.sessions.longest_hours * 3600,
            )
        )
        answer.headers["cache-control"] = "no-store"
        return answer

    async def logout(self, request: Request) -> Response:
        """End the login or session that the request came with."""
        proof: Proof | None = request.scope.get(PROOF)
        if proof is not None and proof.credential.kind is not CredentialKind.TOKEN:
            await self._registry.revoke([proof.credential.credential_id])
        return json_answer(Done(success=True, message="logged out"))

    async def profile(self, request: Request) -> Response:
        """Tell who calls."""
        caller = caller_of(request)
        user = self._registry.user_named(caller.name)
        proof: Proof | None = request.scope.get(PROOF)
        if user is not None and proof is not None and proof.credential.user_id == user.user_id:
            return json_answer(_info(user))
        role = caller.role.name.lower() if caller.role is not None else ""
        return json_answer(
            UserInfo(
                id=None, username=caller.name, role=role, full_name=caller.name, email="",
                is_admin=caller.role is Role.ADMIN, permissions=_permissions(caller.role),
            )
        )  # fmt: skip

    async def permissions(self, request: Request) -> Response:
        """Tell what the caller may do."""
        caller: Caller = caller_of(request)
        return json_answer(Permissions(permissions=_permissions(caller.role)))

    async def list(self, request: Request) -> Response:
        """Show the users, by name."""
        users = self._registry.users()
        return json_answer(Users(users=[_info(user) for user in page_of(request).cut(users)], total=len(users)))

    async def create(self, request: Request) -> Response:
        """Record a user with a password."""
        body = await body_of(request, UserCreateRequest)
        wanted = User(
            user_id=new_uuid(),
            name=check_name(body.username, "username"),
            role=check_role(body.role),
            password_hash=await self._access.passwords.hash(body.password),
        )
        user = await self._registry.put_user(None, wanted)
        return json_answer(Done(success=True, message=f"user {user.name} was created", user_id=user.number))

    async def change(self, request: Request) -> Response:
        """Change password or role."""
        body, known = await body_of(request, UserUpdateRequest), self._numbered(request)
        changes: dict[str, object] = {}
        if body.role is not None:
            changes["role"] = check_role(body.role)
        if body.password is not None:
            changes["password_hash"] = await self._access.passwords.hash(body.password)
        user = await self._registry.put_user(known, msgspec.structs.replace(known, **changes))
        return json_answer(Done(success=True, message=f"user {user.name} was changed", user_id=user.number))

    async def delete(self, request: Request) -> Response:
        """Forget a user; what he has open ends."""
        user = self._numbered(request)
        await self._registry.delete_user(user)
        return json_answer(Done(success=True, message=f"user {user.name} was deleted", user_id=user.number))

    def _numbered(self, request: Request) -> User:
        number = number_in_path(request, "user_id")
        for user in self._registry.users():
            if user.number == number:
                return user
        raise NoSuchThing(f"there is no user {number}")


def _info(user: User) -> UserInfo:
    made = moment(user.created_at_ns)
    role = Role[user.role.name] if user.role.value else None
    return UserInfo(
        id=user.number,
        username=user.name,
        role=user.role.value,
        full_name=user.name,
        email="",
        is_admin=role is Role.ADMIN,
        created_at=made.isoformat() if made is not None else None,
        permissions=_permissions(role),
    )


def _permissions(role: Role | None) -> list[str]:
    return [name for name, needed in PERMISSIONS.items() if role is not None and role >= needed]
