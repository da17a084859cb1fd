"""The ledger's records of who may call over HTTP. Frozen and typed, like `catalog.records`.

No secret is in them: of a token or a session only its digest, of a password only its Argon2 hash.
"""

from __future__ import annotations

from enum import Enum

from catalog.records import Record


class AccessRole(Enum):
    """What somebody may do; see `sidecar.http.callers.Role`."""

    #: Only what scopes say.
    NONE = ""
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class CredentialKind(Enum):
    """What a secret was given out as."""

    #: By an administrator, for a program.
    TOKEN = "token"  # noqa: S105 - a kind, no secret
    #: To a browser, as a cookie; needs its CSRF token as well.
    SESSION = "session"
    #: To a program that gave name and password, as a bearer token.
    LOGIN = "login"


class User(Record, frozen=True, kw_only=True):
    """Somebody with a password."""

    user_id: str
    #: Given out by the ledger, never twice; 0 before.
    number: int = 0
    name: str
    role: AccessRole
    #: The user of this system that he stands for; None: nobody in particular.
    uid: int | None = None
    #: As argon2 writes it, parameters and salt included; empty: nobody can log in.
    password_hash: str = ""
    created_at_ns: int = 0


class Credential(Record, frozen=True, kw_only=True):
    """A secret that was given out."""

    credential_id: str
    kind: CredentialKind
    #: BLAKE2b-256 of the secret.
    digest: bytes
    #: For people: what an administrator has called a token.
    name: str = ""
    #: Whose session or login; empty for tokens.
    user_id: str = ""
    #: Of tokens; sessions and logins have their user's.
    role: AccessRole = AccessRole.NONE
    #: Such as `storage.stage:/some/path`; of tokens.
    scopes: tuple[str, ...] = ()
    #: Of tokens: the user of this system that it stands for.
    uid: int | None = None
    created_at_ns: int = 0
    #: 0: never.
    expires_at_ns: int = 0
    #: … nor so long after its last use; 0: no matter when that was.
    idle_ns: int = 0
    #: 0: never; not exact, it is written down once a minute at most.
    used_at_ns: int = 0
