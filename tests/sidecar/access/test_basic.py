"""Passwords with every request: one comparison for many requests, and none that outlives the password."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from argon2 import PasswordHasher
from trio.testing import MockClock

from catalog.access_records import AccessRole, User
from catalog.ids import new_uuid
from catalog.lmdb_ledger import LmdbLedger
from sidecar.access.access import Access
from sidecar.access.addresses import Origin
from sidecar.access.basic import REMEMBERED_S, BasicLogins, Pair, pair_in
from sidecar.access.passwords import Passwords
from sidecar.http.callers import Role
from sidecar.http.statuses import Unauthorised
from tests.sidecar.access.rig import home_with
from tests.sidecar.rig import make_home

RIGHT, WRONG = Pair("ada", "the right password"), Pair("ada", "a wrong password")


class Counted(PasswordHasher):
    """Quick, and counts."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.count = 0

    def verify(self, *args: str | bytes) -> bool:  # type: ignore[override]
        self.count += 1
        return super().verify(*args)  # type: ignore[arg-type]


@pytest.fixture
def access(tmp_path: Path) -> Iterator[Access]:
    home = make_home(tmp_path / "home")
    with LmdbLedger.open(home.ledger) as ledger:
        yield Access(home, ledger, lambda: 1)


async def with_ada(access: Access) -> tuple[BasicLogins, Counted]:
    hasher = Counted()
    access.passwords = Passwords(hasher)
    ada = User(user_id=new_uuid(), name="ada", role=AccessRole.OPERATOR, password_hash=hasher.hash(RIGHT.password))
    await access.registry.put_user(None, ada)
    return BasicLogins(access, without_tls=False), hasher


async def test_many_requests_at_once_are_one_comparison(access: Access) -> None:
    logins, hasher = await with_ada(access)
    found = []

    async def ask() -> None:
        found.append((await logins.caller(RIGHT, "192.0.2.1")).role)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)
    assert found == [Role.OPERATOR] * 100
    assert hasher.count == 1


async def test_it_is_forgotten_in_time(access: Access, mock_clock: MockClock) -> None:
    logins, hasher = await with_ada(access)
    for _ in range(2):
        await logins.caller(RIGHT, "")
    mock_clock.jump(REMEMBERED_S + 1)
    await logins.caller(RIGHT, "")
    assert hasher.count == 2


async def test_a_wrong_one_is_never_remembered(access: Access) -> None:
    logins, hasher = await with_ada(access)
    await logins.caller(RIGHT, "")
    for _ in range(2):
        with pytest.raises(Unauthorised):
            await logins.caller(WRONG, "")
    assert hasher.count == 3


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_another_password_counts_at_once(access: Access, is_deleted: bool) -> None:
    logins, hasher = await with_ada(access)
    await logins.caller(RIGHT, "")
    known = access.registry.user_named("ada")
    assert known is not None
    if is_deleted:
        await access.registry.delete_user(known)
    else:
        changed = User(
            user_id=known.user_id, name="ada", role=AccessRole.ADMIN, password_hash=hasher.hash("another one")
        )
        await access.registry.put_user(known, changed)
        assert (await logins.caller(Pair("ada", "another one"), "")).role is Role.ADMIN
    with pytest.raises(Unauthorised):
        await logins.caller(RIGHT, "")


async def test_name_and_password_do_not_run_together(access: Access) -> None:
    logins, _ = await with_ada(access)
    await logins.caller(RIGHT, "")
    with pytest.raises(Unauthorised):
        await logins.caller(Pair("adat", "he right password"), "")


def test_where_passwords_are_taken_from(access: Access) -> None:
    logins = BasicLogins(access, without_tls=False)
    assert logins.are_taken(Origin("127.0.0.1", is_hidden=False, is_encrypted=False))
    assert logins.are_taken(Origin("192.0.2.1", is_hidden=False, is_encrypted=True))
    assert not logins.are_taken(Origin("192.0.2.1", is_hidden=False, is_encrypted=False))
    assert not logins.are_taken(Origin("127.0.0.1", is_hidden=True, is_encrypted=False))
    assert BasicLogins(access, without_tls=True).are_taken(Origin("192.0.2.1", is_hidden=False, is_encrypted=False))


def test_passwords_without_tls_are_a_warning(tmp_path: Path) -> None:
    settings = "[dav]\npasswords_without_tls = true"
    home = home_with(tmp_path / "home", settings)
    with LmdbLedger.open(home.ledger) as ledger:
        access = Access(home, ledger, lambda: 1)
        assert "without TLS" in access.warnings()[0]
        assert access.basic.are_taken(Origin("192.0.2.1", is_hidden=False, is_encrypted=False))


def test_what_headers_say() -> None:
    assert pair_in("Bearer abc") is None
    assert pair_in("basic " + b64encode("ada:pä:ss".encode()).decode()) == Pair("ada", "pä:ss")
    assert pair_in("Basic " + b64encode("ada:pä".encode("latin-1")).decode()) == Pair("ada", "pä")
    assert "pä" not in repr(pair_in("Basic " + b64encode(b"ada:p").decode()))
    with pytest.raises(Unauthorised):
        pair_in("Basic !!")
