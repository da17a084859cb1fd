"""Sessions and tokens over time: what runs out, what is written down, what a restart finds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import trio

from catalog.access_records import AccessRole, CredentialKind, User
from catalog.errors import Conflict, StorageFailed
from catalog.lmdb_ledger import LmdbLedger
from sidecar.access.addresses import counted_as
from sidecar.access.passwords import MOST_WAITING, Passwords, Throttle
from sidecar.access.registry import MOST_OPEN, NOTE_S, Registry
from sidecar.http.statuses import TooMany
from tests.catalog.builders import NOW, user_of

KINDS = tuple(CredentialKind)
MINUTE_S = 60.0


class Clock:
    def __init__(self) -> None:
        self.later_s = 0.0

    def now_ns(self) -> int:
        return NOW + int((trio.current_time() + self.later_s) * 1e9)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LmdbLedger]:
    with LmdbLedger.create(tmp_path / "ledger", NOW) as ledger:
        yield ledger


def registry(ledger: LmdbLedger, clock: Clock) -> Registry:
    return Registry(ledger, clock.now_ns)


async def ada(known: Registry) -> User:
    return await known.put_user(None, user_of("ada", role=AccessRole.OPERATOR))


async def test_a_session_ends_idle_or_old(ledger: LmdbLedger, autojump_clock: trio.abc.Clock) -> None:
    clock = Clock()
    known = registry(ledger, clock)
    user = await ada(known)
    _, secret = await known.let_in(user, CredentialKind.SESSION, 180 * MINUTE_S, 60 * MINUTE_S)
    for _ in range(3):  # Used every 59 minutes it lives on, but not beyond three hours.
        assert known.proof_of(secret, KINDS) is not None
        clock.later_s += 59 * MINUTE_S
    assert known.proof_of(secret, KINDS) is not None
    clock.later_s += 3 * MINUTE_S
    assert known.proof_of(secret, KINDS) is None
    _, secret = await known.let_in(user, CredentialKind.SESSION, 180 * MINUTE_S, 60 * MINUTE_S)
    clock.later_s += 60 * MINUTE_S
    assert known.proof_of(secret, KINDS) is None


@pytest.mark.parametrize("change", ["password", "role", "deleted"])
async def test_nobody_comes_in_by_what_was_so_before(ledger: LmdbLedger, change: str) -> None:
    """The password was proven; before the session is made somebody takes it, or the role, away."""
    known = registry(ledger, Clock())
    user = await ada(known)
    if change == "deleted":
        await known.delete_user(user)
    else:
        changes = {"password_hash": "other"} if change == "password" else {"role": AccessRole.VIEWER}
        await known.put_user(user, msgspec.structs.replace(user, **changes))
    with pytest.raises(Conflict, match="meanwhile"):
        await known.let_in(user, CredentialKind.SESSION, 180 * MINUTE_S, 60 * MINUTE_S)
    assert known.open_of(user) == []


def test_addresses_of_one_host_are_counted_as_one() -> None:
    """A host with IPv6 has 2⁶⁴ addresses to try passwords from."""
    throttle = Throttle()
    for number in range(6):
        throttle.try_("ada", f"2001:db8::{number}")
    with pytest.raises(TooMany):
        throttle.try_("ada", "2001:db8::ffff:1")
    throttle.try_("ada", "2001:db8:0:1::1")
    throttle.try_("ada", "192.0.2.1")
    throttle.try_("ada", "192.0.2.2")
    assert counted_as("::ffff:192.0.2.1") == counted_as("192.0.2.1") == "192.0.2.1"
    assert counted_as("") == ""


async def test_its_use_outlives_a_restart(ledger: LmdbLedger, autojump_clock: trio.abc.Clock) -> None:
    """What has run out is forgotten meanwhile, and only that."""
    clock = Clock()
    known = registry(ledger, clock)
    user = await ada(known)
    token, _ = await known.give_token(AccessRole.VIEWER, (), "t", None, clock.now_ns() + 1)
    _, idle = await known.let_in(user, CredentialKind.LOGIN, 600 * MINUTE_S, MINUTE_S)
    used, secret = await known.let_in(user, CredentialKind.SESSION, 600 * MINUTE_S, 60 * MINUTE_S)
    clock.later_s += 50 * MINUTE_S
    assert known.proof_of(secret, KINDS) is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(known.run)
        await trio.sleep(NOTE_S + 1)
        nursery.cancel_scope.cancel()
    kept = {each.credential_id: each for each in ledger.credentials()}
    assert set(kept) == {token.credential_id, used.credential_id}
    assert kept[used.credential_id].used_at_ns > NOW + 49 * 60 * 10**9
    clock.later_s += 50 * MINUTE_S
    again = registry(ledger, clock)
    assert again.proof_of(secret, KINDS) is not None
    assert again.proof_of(idle, KINDS) is None


@pytest.mark.log_warnings
async def test_a_ledger_that_refuses_ends_nobody(
    ledger: LmdbLedger, autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = registry(ledger, Clock())
    _, secret = await known.give_token(AccessRole.VIEWER, (), "t", None, 0)

    def fail(*_: object) -> None:
        raise StorageFailed("full", retryable=True)

    monkeypatch.setattr(LmdbLedger, "use_credentials", fail)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(known.run)
        for _ in range(3):
            assert known.proof_of(secret, KINDS) is not None
            await trio.sleep(NOTE_S + 1)
        nursery.cancel_scope.cancel()
    monkeypatch.setattr(LmdbLedger, "add_credential", fail)
    with pytest.raises(StorageFailed):
        await known.give_token(AccessRole.ADMIN, (), "u", None, 0)
    assert len(known.tokens()) == 1, "what is not written down is not given out"


async def test_sessions_of_one_user_are_bounded(ledger: LmdbLedger, autojump_clock: trio.abc.Clock) -> None:
    clock = Clock()
    known = registry(ledger, clock)
    user = await ada(known)
    secrets = []
    for _ in range(MOST_OPEN + 2):
        clock.later_s += 1
        secrets.append((await known.let_in(user, CredentialKind.SESSION, 1e6, 1e6))[1])
    assert [known.proof_of(secret, KINDS) is not None for secret in secrets] == [False] * 2 + [True] * MOST_OPEN
    assert len(ledger.credentials()) == MOST_OPEN


async def test_an_unknown_name_takes_as_long_as_a_wrong_password() -> None:
    passwords = Passwords()
    user = user_of("ada", password_hash=await passwords.hash("a long enough password"))

    async def best_s(who: User | None) -> float:
        found = []
        for _ in range(3):
            began = time.process_time()
            assert not await passwords.is_right(who, "wrong", "")
            found.append(time.process_time() - began)
        return min(found)

    known, unknown = await best_s(user), await best_s(None)
    assert 0.5 < known / unknown < 2
    assert await passwords.is_right(user, "a long enough password", "")
    assert not await passwords.is_right(user_of("bob"), "", "")


async def test_logins_at_one_time_are_bounded() -> None:
    passwords, refused = Passwords(), 0

    async def one() -> None:
        nonlocal refused
        try:
            await passwords.is_right(None, "x", "")
        except TooMany:
            refused += 1

    async with trio.open_nursery() as nursery:
        for _ in range(MOST_WAITING + 5):
            nursery.start_soon(one)
    assert refused == 5
