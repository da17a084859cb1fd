"""Operations on users and on what they prove themselves with: functions of a transaction (see `catalog.ledger`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from catalog.access_records import Credential, User
from catalog.errors import Conflict
from catalog.ledger_store.tables import CREDENTIALS, USER_COUNTER, USERS, text_key
from catalog.ledger_store.transaction import Reader, Writer, plain_text


def users(tx: Reader) -> list[User]:
    """Return all users, by name."""
    return sorted((user for _, user in tx.scan(USERS)), key=lambda user: user.name)


def credentials(tx: Reader) -> list[Credential]:
    """Return all credentials, also those that have run out, oldest first."""
    found = (credential for _, credential in tx.scan(CREDENTIALS))
    return sorted(found, key=lambda credential: (credential.created_at_ns, credential.credential_id))


def put_user(tx: Writer, known: User | None, wanted: User, now_ns: int) -> User:
    """Record a user, or change the one that is as `known`; the same again is harmless. Raises Conflict."""
    key = text_key(wanted.user_id)
    there = tx.find(USERS, key)
    stored = msgspec.structs.replace(
        wanted,
        name=plain_text(wanted.name),
        number=there.number if there is not None else 0,
        created_at_ns=there.created_at_ns if there is not None else now_ns,
    )
    if there == stored:
        return stored
    if there != known:
        raise Conflict(f"user {wanted.name} was changed by somebody else meanwhile: look again")
    if any(user.name == stored.name and user.user_id != stored.user_id for _, user in tx.scan(USERS)):
        raise Conflict(f"there is a user {stored.name} already")
    if there is None:
        stored = msgspec.structs.replace(stored, number=tx.next_number(USER_COUNTER))
    tx.put(USERS, key, stored)
    if there is not None and (stored.password_hash, stored.role) != (there.password_hash, there.role):
        _end_all(tx, stored.user_id)
    tx.tell("user.added" if there is None else "user.changed", stored.user_id, stored.name, now_ns)
    return stored


def delete_user(tx: Writer, user_id: str, now_ns: int) -> None:
    """Forget a user with his sessions and logins; harmless when there is none."""
    known = tx.find(USERS, text_key(user_id))
    if known is None:
        return
    _end_all(tx, user_id)
    tx.delete(USERS, text_key(user_id))
    tx.tell("user.deleted", user_id, known.name, now_ns)


def _end_all(tx: Writer, user_id: str) -> None:
    for key in [key for key, credential in tx.scan(CREDENTIALS) if credential.user_id == user_id]:
        tx.delete(CREDENTIALS, key)


def add_credential(tx: Writer, credential: Credential) -> Credential:
    """Record what was given out; the same again is harmless. Raises Conflict."""
    key = text_key(credential.credential_id)
    stored = msgspec.structs.replace(credential, name=plain_text(credential.name))
    there = tx.find(CREDENTIALS, key)
    if there == stored:
        return stored
    if there is not None:
        raise Conflict(f"there is another credential {credential.credential_id}")
    if credential.user_id and tx.find(USERS, text_key(credential.user_id)) is None:
        raise Conflict("this user has been deleted meanwhile")
    tx.put(CREDENTIALS, key, stored)
    tx.tell(f"{stored.kind.value}.added", stored.credential_id, stored.name, stored.created_at_ns)
    return stored


def use_credentials(tx: Writer, used_at_ns: Mapping[str, int]) -> None:
    """Note when credentials were used last; those that are gone are none the worse."""
    for credential_id, at_ns in used_at_ns.items():
        known = tx.find(CREDENTIALS, text_key(credential_id))
        if known is not None and at_ns > known.used_at_ns:
            tx.put(CREDENTIALS, text_key(credential_id), msgspec.structs.replace(known, used_at_ns=at_ns))


def drop_credentials(tx: Writer, credential_ids: Iterable[str], now_ns: int) -> None:
    """Forget credentials, if they are there: nobody gets in with them any more."""
    for credential_id in credential_ids:
        known = tx.find(CREDENTIALS, text_key(credential_id))
        if known is not None:
            tx.delete(CREDENTIALS, text_key(credential_id))
            tx.tell(f"{known.kind.value}.ended", credential_id, known.name, now_ns)
