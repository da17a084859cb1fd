"""Users and tokens, as the sidecar tells them. Blocking; for any thread."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import quote

import msgspec
from msgspec import UNSET, UnsetType

from tapefs.client.api import Client


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


class AccessClient:
    """The calls. Each may raise Unreachable, NoSuchThing, NotNow and UsageError."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def tokens(self) -> list[TokenView]:
        """Ask for all tokens, oldest first."""
        return self._client.call("GET", "/api/v1/tokens?limit=1000", None, list[TokenView])

    def create_token(self, body: TokenBody) -> NewToken:
        """Have a token made."""
        return self._client.call("POST", "/api/v1/tokens", msgspec.to_builtins(body), NewToken)

    def revoke_token(self, token_id: str) -> None:
        """End a token."""
        self._client.call("DELETE", f"/api/v1/tokens/{quote(token_id, safe='')}", None, Revoked)

    def users(self) -> list[UserView]:
        """Ask for all users, by name."""
        return self._client.call("GET", "/api/v1/users?limit=1000", None, list[UserView])

    def create_user(self, body: NewUser) -> UserView:
        """Have a user recorded."""
        return self._client.call("POST", "/api/v1/users", msgspec.to_builtins(body), UserView)

    def change_user(self, name: str, body: UserBody) -> UserView:
        """Change what the body names."""
        return self._client.call("PATCH", f"/api/v1/users/{quote(name, safe='')}", msgspec.to_builtins(body), UserView)

    def delete_user(self, name: str) -> None:
        """Forget a user; what he has open ends."""
        self._client.call("DELETE", f"/api/v1/users/{quote(name, safe='')}", None, type(None))
