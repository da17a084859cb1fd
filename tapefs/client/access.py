"""Users and tokens, as the sidecar tells them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import UNSET, UnsetType

from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every, in_path


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was given out."""

    id: str
    name: str
    #: `viewer`, `operator`, `admin`, or empty: only what its scopes say.
    role: str
    scopes: Sequence[str]
    #: The user of this system that it stands for.
    uid: int | None
    created_at: datetime | None
    #: None: it does not run out.
    expires_at: datetime | None
    #: None: never; about a minute exact.
    used_at: datetime | None
    is_over: bool


class NewToken(TokenView, frozen=True, kw_only=True):
    """A token that has just been made, with what nobody is ever told again."""

    secret: str

    def __repr__(self) -> str:
        return f"NewToken({self.id})"


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/tokens: a role, or scopes, or both."""

    role: str = ""
    scopes: Sequence[str] = ()
    name: str = ""
    #: A user of this system, by name or number.
    uid: int | str | None = None
    #: After so many days it runs out; 0: never.
    days: float = 90.0


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a password."""

    number: int
    name: str
    role: str
    uid: int | None
    created_at: datetime | None
    #: Sessions and logins that are open.
    open: int


class UserBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/users, which needs `password`, and of PATCH, where what is not named stays."""

    role: str | UnsetType = UNSET
    uid: int | str | UnsetType | None = UNSET
    password: str | UnsetType = UNSET

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class NewUser(UserBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of POST /api/v1/users."""

    name: str


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to what ends tokens."""

    revoked: int


class AccessCalls:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    @call
    @staticmethod
    def tokens() -> Steps[list[TokenView]]:
        """Ask for all tokens, oldest first."""
        return every("/api/v1/tokens", TokenView)

    @call
    @staticmethod
    def create_token(body: TokenBody) -> Ask[NewToken]:
        """Have a token made."""
        return Ask("POST", "/api/v1/tokens", msgspec.to_builtins(body), NewToken)

    @call
    @staticmethod
    def revoke_token(token_id: str) -> Ask[None]:
        """End a token."""
        return Ask("DELETE", f"/api/v1/tokens/{in_path(token_id)}", None, Revoked).giving(lambda _: None)

    @call
    @staticmethod
    def users() -> Steps[list[UserView]]:
        """Ask for all users, by name."""
        return every("/api/v1/users", UserView)

    @call
    @staticmethod
    def create_user(body: NewUser) -> Ask[UserView]:
        """Have a user recorded."""
        return Ask("POST", "/api/v1/users", msgspec.to_builtins(body), UserView)

    @call
    @staticmethod
    def change_user(name: str, body: UserBody) -> Ask[UserView]:
        """Change what the body names."""
        return Ask("PATCH", f"/api/v1/users/{in_path(name)}", msgspec.to_builtins(body), UserView)

    @call
    @staticmethod
    def delete_user(name: str) -> Ask[None]:
        """Forget a user; what he has open ends."""
        return Ask("DELETE", f"/api/v1/users/{in_path(name)}", None, type(None))


class AccessClient(AccessCalls, Family):
    """The calls, by a blocking client."""


class WaitingAccessClient(AccessCalls, WaitingFamily):
    """The calls, by a trio client."""
