"""The operations on users and what they were given out.

See `catalog.lmdb_ledger` for threads and durability.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from catalog.access_records import Credential, User
from catalog.ledger_store import access
from catalog.ledger_store.environment import operation
from catalog.lmdb_ledger.base import LmdbBase

_PUT_USER = operation("put_user")
_DELETE_USER = operation("delete_user")
_ADD_CREDENTIAL = operation("add_credential")
_USE_CREDENTIALS = operation("use_credentials")
_DROP_CREDENTIALS = operation("drop_credentials")


class AccessOperations(LmdbBase):
    """See `catalog.ledger.Ledger` for what they do and raise."""

    def users(self) -> list[User]:
        """Return all users, by name."""
        return self._read(access.users)

    def put_user(self, known: User | None, wanted: User, now_ns: int) -> User:
        """Record a user, or change the one that is as `known`. Raises Conflict."""
        return self._write(_PUT_USER, access.put_user, known, wanted, now_ns)

    def delete_user(self, user_id: str, now_ns: int) -> None:
        """Forget a user with his sessions and logins. Idempotent."""
        self._write(_DELETE_USER, access.delete_user, user_id, now_ns)

    def credentials(self) -> list[Credential]:
        """Return all tokens, sessions and logins, oldest first."""
        return self._read(access.credentials)

    def add_credential(self, credential: Credential) -> Credential:
        """Record what was given out. Idempotent. Raises Conflict."""
        return self._write(_ADD_CREDENTIAL, access.add_credential, credential)

    def use_credentials(self, used_at_ns: Mapping[str, int]) -> None:
        """Note when credentials were used last. Idempotent."""
        self._write(_USE_CREDENTIALS, access.use_credentials, used_at_ns)

    def drop_credentials(self, credential_ids: Iterable[str], now_ns: int) -> None:
        """Forget credentials. Idempotent."""
        self._write(_DROP_CREDENTIALS, access.drop_credentials, tuple(credential_ids), now_ns)
