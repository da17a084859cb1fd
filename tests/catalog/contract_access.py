"""What every ledger must do about users, and what they prove themselves with; see `ledger_contract`."""

from __future__ import annotations

import msgspec
import pytest

from catalog.access_records import AccessRole
from catalog.errors import Conflict
from catalog.ledger import Ledger
from tests.catalog.builders import NOW, credential_of, user_of
from tests.catalog.contract_base import Again, kinds, newest


class AccessContract:
    def test_a_user_comes_changes_and_goes(self, ledger: Ledger, again: Again) -> None:
        for _ in range(2):
            ada = ledger.put_user(None, user_of("ada", password_hash="$argon2id$", uid=1000), NOW)
        assert (ada.number, ada.created_at_ns) == (1, NOW)
        bob = ledger.put_user(None, user_of("bob"), NOW + 1)
        assert again().users() == [ada, bob]
        changed = ledger.put_user(ada, msgspec.structs.replace(ada, role=AccessRole.ADMIN), NOW + 2)
        assert changed == msgspec.structs.replace(ada, role=AccessRole.ADMIN)
        for _ in range(2):
            ledger.delete_user(bob.user_id, NOW + 3)
        assert again().users() == [changed]
        assert ledger.put_user(None, user_of("eve"), NOW).number == 3, "numbers are not given out twice"
        told = [kind for kind, _ in kinds(ledger)]
        assert told == ["user.added", "user.added", "user.changed", "user.deleted", "user.added"]

    def test_who_saw_another_user_changes_nothing(self, ledger: Ledger) -> None:
        ada = ledger.put_user(None, user_of("ada"), NOW)
        before = newest(ledger)
        with pytest.raises(Conflict, match="there is a user ada already"):
            ledger.put_user(None, user_of("ada", user_id="another"), NOW)
        for seen in (None, msgspec.structs.replace(ada, uid=5)):
            with pytest.raises(Conflict, match="changed by somebody else"):
                ledger.put_user(seen, msgspec.structs.replace(ada, uid=6), NOW)
        with pytest.raises(Conflict, match="changed by somebody else"):
            ledger.put_user(user_of("gone"), user_of("gone", uid=3), NOW)
        assert (ledger.users(), newest(ledger)) == ([ada], before)

    def test_a_new_password_or_role_ends_what_was_open(self, ledger: Ledger, again: Again) -> None:
        ada, bob = (ledger.put_user(None, user_of(name), NOW) for name in ("ada", "bob"))
        token = ledger.add_credential(credential_of("token"))
        other = ledger.add_credential(credential_of("bob's", bob))
        for change in ({"password_hash": "new"}, {"role": AccessRole.OPERATOR}):
            ledger.add_credential(credential_of("session", ada))
            ada = ledger.put_user(ada, msgspec.structs.replace(ada, **change), NOW)
            assert {each.credential_id for each in again().credentials()} == {token.credential_id, other.credential_id}
        ledger.add_credential(credential_of("session", ada))
        ada = ledger.put_user(ada, msgspec.structs.replace(ada, uid=7), NOW)
        assert len(ledger.credentials()) == 3
        ledger.delete_user(ada.user_id, NOW)
        assert len(again().credentials()) == 2

    def test_credentials_are_added_used_and_dropped(self, ledger: Ledger, again: Again) -> None:
        first = credential_of("first", scopes=("storage.poll:/",), role=AccessRole.NONE, uid=5)
        second = credential_of("second", created_at_ns=NOW + 1)
        for _ in range(2):
            assert [ledger.add_credential(each) for each in (second, first)] == [second, first]
        assert again().credentials() == [first, second]
        with pytest.raises(Conflict, match="another credential"):
            ledger.add_credential(msgspec.structs.replace(first, digest=b"x" * 32))
        ledger.use_credentials({first.credential_id: NOW + 5, "gone": NOW})
        ledger.use_credentials({first.credential_id: NOW + 4})
        assert again().credentials()[0] == msgspec.structs.replace(first, used_at_ns=NOW + 5)
        for _ in range(2):
            ledger.drop_credentials([first.credential_id, "gone"], NOW)
        assert again().credentials() == [second]
        told = [kind for kind, _ in kinds(ledger)]
        assert told == ["token.added", "token.added", "token.ended"]

    def test_who_was_deleted_gets_no_session(self, ledger: Ledger) -> None:
        ada = ledger.put_user(None, user_of("ada"), NOW)
        ledger.delete_user(ada.user_id, NOW)
        with pytest.raises(Conflict, match="deleted meanwhile"):
            ledger.add_credential(credential_of("session", ada))
        assert ledger.credentials() == []
