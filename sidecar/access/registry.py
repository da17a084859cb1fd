"""Users, and the secrets that were given out: in memory for every request, in the ledger for good.

One trio run. Changes go to the ledger first, in a thread, and take effect here when they are there; one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import msgspec
import structlog
import trio

from catalog.access_records import AccessRole, Credential, CredentialKind, User
from catalog.errors import CatalogError, Conflict
from catalog.ids import new_uuid
from catalog.ledger import Ledger
from sidecar.access.digests import digest_of, new_secret
from sidecar.http.callers import Caller, Role
from tapefs.access.scopes import implied

#: Times of use are written down so often.
NOTE_S = 60.0
#: Sessions and logins of one user; with one more the oldest ends.
MOST_OPEN = 20

log = structlog.get_logger(__name__)

ROLES = {
    AccessRole.NONE: None,
    AccessRole.VIEWER: Role.VIEWER,
    AccessRole.OPERATOR: Role.OPERATOR,
    AccessRole.ADMIN: Role.ADMIN,
}


@dataclass(frozen=True, slots=True)
class Proof:
    """A secret that came with a request, and what it is of."""

    credential: Credential
    secret: str

    def __repr__(self) -> str:
        return f"Proof({self.credential.credential_id})"


class Registry:
    """All users and credentials."""

    def __init__(self, ledger: Ledger, now_ns: Callable[[], int]) -> None:
        """Read them. Blocks."""
        self._ledger = ledger
        self.now_ns = now_ns
        self._users = {user.user_id: user for user in ledger.users()}
        self._credentials = {each.digest: each for each in ledger.credentials()}
        #: When credentials were used, since it was written down last.
        self._used: dict[str, int] = {}
        self._changing = trio.Lock()

    # -- looking -----------------------------------------------------------------------------------------------------

    def proof_of(self, secret: str, kinds: Collection[CredentialKind]) -> Proof | None:
        """Return what a secret is of, and note its use; None when it is none of these, has run out or was revoked."""
        credential = self._credentials.get(digest_of(secret))
        if credential is None or credential.kind not in kinds or self.is_over(credential):
            return None
        if credential.user_id and credential.user_id not in self._users:
            return None
        self._used[credential.credential_id] = self.now_ns()
        return Proof(credential, secret)

    def is_open(self, proof: Proof) -> bool:
        """Does what has let somebody in still do so? Notes no use of it."""
        known = self._credentials.get(proof.credential.digest)
        if known is None or self.is_over(known):
            return False
        return not known.user_id or known.user_id in self._users

    def is_over(self, credential: Credential) -> bool:
        """Has it run out?"""
        now_ns = self.now_ns()
        if credential.expires_at_ns and now_ns >= credential.expires_at_ns:
            return True
        return bool(credential.idle_ns) and now_ns >= self.used_at_ns(credential) + credential.idle_ns

    def used_at_ns(self, credential: Credential) -> int:
        """Return when it was used last, or made."""
        noted = self._used.get(credential.credential_id, 0)
        return max(noted, credential.used_at_ns, credential.created_at_ns)

    def caller(self, credential: Credential, address: str) -> Caller:
        """Return who calls with it. A session's user has the role that he has now."""
        if credential.user_id:
            user = self._users[credential.user_id]
            return Caller(user.name, ROLES[user.role], user.uid, frozenset(), address, f"user {user.user_id}")
        name = f"token {credential.name or credential.credential_id[:8]}"
        identity = f"token {credential.credential_id}"
        return Caller(name, ROLES[credential.role], credential.uid, implied(credential.scopes), address, identity)

    def users(self) -> list[User]:
        """Return all users, by name."""
        return sorted(self._users.values(), key=lambda user: user.name)

    def user_named(self, name: str) -> User | None:
        """Return a user."""
        return next((user for user in self._users.values() if user.name == name), None)

    def tokens(self) -> list[Credential]:
        """Return the tokens that were given out, oldest first."""
        return [each for each in self._credentials.values() if each.kind is CredentialKind.TOKEN]

    def open_of(self, user: User) -> list[Credential]:
        """Return the sessions and logins of a user, oldest first."""
        return [each for each in self._credentials.values() if each.user_id == user.user_id]

    # -- changing ----------------------------------------------------------------------------------------------------

    async def give_token(
        self, role: AccessRole, scopes: Sequence[str], name: str, uid: int | None, expires_at_ns: int
    ) -> tuple[Credential, str]:
        """Make a token; returns it and its secret, which nobody ever gets to see again."""
        return await self._give(
            partial(
                Credential,
                kind=CredentialKind.TOKEN,
                role=role,
                scopes=tuple(scopes),
                name=name,
                uid=uid,
                expires_at_ns=expires_at_ns,
            )
        )

    async def let_in(self, user: User, kind: CredentialKind, longest_s: float, idle_s: float) -> tuple[Credential, str]:
        """Make a session or a login. Raises Conflict when the user is gone, or another password or role has come."""
        too_many = self.open_of(user)[: -MOST_OPEN + 1] if len(self.open_of(user)) >= MOST_OPEN else []
        await self.revoke([each.credential_id for each in too_many])
        return await self._give(
            partial(
                Credential,
                kind=kind,
                user_id=user.user_id,
                name=user.name,
                expires_at_ns=self.now_ns() + int(longest_s * 1e9),
                idle_ns=int(idle_s * 1e9),
            ),
            user,
        )

    async def _give(self, make: Callable[..., Credential], user: User | None = None) -> tuple[Credential, str]:
        secret = new_secret()
        credential = make(credential_id=new_uuid(), digest=digest_of(secret), created_at_ns=self.now_ns())
        async with self._changing:
            if user is not None and not self._is_as(user):
                raise Conflict("this user has been changed or deleted meanwhile")
            stored = await trio.to_thread.run_sync(self._ledger.add_credential, credential)
            self._credentials[stored.digest] = stored
        return stored, secret

    def _is_as(self, user: User) -> bool:
        """Has the user still the password and the role? A change of these ends what is open, and waits for its turn."""
        now = self._users.get(user.user_id)
        return now is not None and (now.password_hash, now.role) == (user.password_hash, user.role)

    async def revoke(self, credential_ids: Collection[str]) -> int:
        """End credentials; returns how many there were."""
        gone = [each for each in self._credentials.values() if each.credential_id in credential_ids]
        if not gone:
            return 0
        async with self._changing:
            ids = [each.credential_id for each in gone]
            await trio.to_thread.run_sync(self._ledger.drop_credentials, ids, self.now_ns())
            self._forget(gone)
        return len(gone)

    async def put_user(self, known: User | None, wanted: User) -> User:
        """Record a user, or change one; another password or role ends what he has open. Raises Conflict."""
        async with self._changing:
            stored = await trio.to_thread.run_sync(self._ledger.put_user, known, wanted, self.now_ns())
            self._users[stored.user_id] = stored
            if known is not None and (known.password_hash, known.role) != (stored.password_hash, stored.role):
                self._forget(self.open_of(stored))
        return stored

    async def delete_user(self, user: User) -> None:
        """Forget a user and what he has open."""
        async with self._changing:
            await trio.to_thread.run_sync(self._ledger.delete_user, user.user_id, self.now_ns())
            self._forget(self.open_of(user))
            self._users.pop(user.user_id, None)

    def _forget(self, credentials: Collection[Credential]) -> None:
        for credential in list(credentials):
            self._credentials.pop(credential.digest, None)
            self._used.pop(credential.credential_id, None)

    # -- while the sidecar runs --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write down when credentials were used, and forget sessions that have run out; until cancelled."""
        try:
            while True:
                await trio.sleep(NOTE_S)
                await self._tidy()
        finally:
            with trio.CancelScope(shield=True):
                await self._note()

    async def _tidy(self) -> None:
        over = [each for each in self._credentials.values() if each.user_id and self.is_over(each)]
        try:
            await self.revoke([each.credential_id for each in over])
        except CatalogError as error:  # They let nobody in, and are forgotten next time.
            log.warning("sessions that have run out stay in the ledger", error=str(error))
        await self._note()

    async def _note(self) -> None:
        """Write down what has been used; what could not be, by an error or a cancel, is written next time."""
        used = dict(self._used)
        if not used:
            return
        try:
            await trio.to_thread.run_sync(self._ledger.use_credentials, used)
        except CatalogError as error:
            log.warning("when tokens were used could not be written down", error=str(error))
            return
        for digest, credential in self._credentials.items():
            if credential.credential_id in used:
                self._credentials[digest] = _used_at(credential, used[credential.credential_id])
        for credential_id, at_ns in used.items():
            if self._used.get(credential_id) == at_ns:
                del self._used[credential_id]


def _used_at(credential: Credential, at_ns: int) -> Credential:

    return msgspec.structs.replace(credential, used_at_ns=max(at_ns, credential.used_at_ns))
