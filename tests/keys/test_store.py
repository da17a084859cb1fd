"""Keys in a folder: kept, found, opened with their passphrase by us and by `age`, on paper and back."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tapefs.errors import HomeError, KeyMissing, NoSuchThing, NotNow, UsageError, WrongPassphrase
from tapefs.keys import age
from tapefs.keys.identity import Identity
from tapefs.keys.page import page
from tapefs.keys.store import KeyStore, identity_in, identity_text
from tests.keys import quick

PASSPHRASE = b"correct horse battery"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyStore:
    """One whose passphrases take no second."""
    monkeypatch.setattr(age.new_passphrase_opening, "__defaults__", (quick.LOG_N,))
    return KeyStore(tmp_path / "keys")


def test_a_key_is_kept_for_its_owner_alone(store: KeyStore, tmp_path: Path) -> None:
    """Modes; and nothing of the secret is in the clear."""
    identity = Identity.new()
    key = store.add("main", identity, PASSPHRASE)
    assert store.all_keys() == [key]
    assert (key.title, key.fingerprint, key.public) == ("main.1", identity.fingerprint, identity.recipient)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "keys").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert identity.text.encode() not in path.read_bytes()
    assert store.identity(key, PASSPHRASE) == identity
    with pytest.raises(WrongPassphrase):
        store.identity(key, b"something else")


def test_age_opens_the_key_with_the_passphrase(store: KeyStore, tmp_path: Path) -> None:
    """It wants a terminal to ask for it."""
    identity = Identity.new()
    key = store.add("main", identity, PASSPHRASE)
    ours, theirs = pty.openpty()
    out = tmp_path / "key.txt"
    wrapped = tmp_path / "keys" / "main.1.age"
    # A session of its own, whose terminal is ours.
    command = ["setsid", "-c", "-w", "age", "-d", "-o", str(out), str(wrapped)]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        while b"assphrase" not in seen:
            seen += os.read(ours, 1000)
        os.write(ours, PASSPHRASE + b"\n")
        assert process.wait(60) == 0
    os.close(ours)
    assert out.read_text() == identity_text(key, identity)


def test_names_and_numbers(store: KeyStore) -> None:
    """A rotated key goes on under its name; old ones stay and can be named."""
    first = store.add("main", Identity.new(), PASSPHRASE)
    with pytest.raises(NotNow, match="rotate"):
        store.add("main", Identity.new(), PASSPHRASE)
    second = store.add("main", Identity.new(), PASSPHRASE, rotates=True)
    assert (second.name, second.number) == ("main", 2)
    assert store.find("main") == second
    assert store.find("main.1") == first
    assert store.find(first.fingerprint) == first
    assert store.of_fingerprint("0" * 32) is None
    for wrong in ("main.3", "other", "0" * 32, "../main"):
        with pytest.raises(NoSuchThing):
            store.find(wrong)
    with pytest.raises(NoSuchThing, match="create"):
        store.add("other", Identity.new(), PASSPHRASE, rotates=True)
    for wrong in ("", "a/b", "..", "-x", "ä", "x" * 33, "a.1"):
        with pytest.raises(UsageError, match="name"):
            store.add(wrong, Identity.new(), PASSPHRASE)
    store.remove(first)
    assert store.all_keys() == [second]


def test_the_same_key_is_not_kept_twice(store: KeyStore) -> None:
    """Under no other name either."""
    identity = Identity.new()
    store.add("main", identity, PASSPHRASE)
    with pytest.raises(NotNow, match=r"main\.1"):
        store.add("other", identity, PASSPHRASE)


def test_a_public_half_alone_writes_and_does_not_read(store: KeyStore) -> None:
    """The secret can come later."""
    identity = Identity.new()
    key = store.add("far", identity.recipient, b"")
    assert not store.can_read(key)
    with pytest.raises(KeyMissing, match="public half"):
        store.identity(key, PASSPHRASE)
    with pytest.raises(UsageError, match="not that of key"):
        store.complete(key, Identity.new(), PASSPHRASE)
    store.complete(key, identity, PASSPHRASE)
    assert store.identity(key, PASSPHRASE) == identity


def test_a_short_passphrase_is_refused(store: KeyStore) -> None:
    """And leaves nothing behind."""
    with pytest.raises(UsageError, match="at least 8"):
        store.add("main", Identity.new(), b"short")
    assert store.all_keys() == []


def test_a_damaged_key_is_told(store: KeyStore, tmp_path: Path) -> None:
    """Rather than passed over: tapes would not be encrypted."""
    store.add("main", Identity.new().recipient, b"")
    (tmp_path / "keys" / "main.1.json").write_bytes(b"{")
    with pytest.raises(HomeError, match="damaged"):
        store.all_keys()


def test_paper_and_back(store: KeyStore) -> None:
    """The rows, as somebody types them in: in any case, with more or fewer spaces, without all the rest."""
    identity = Identity.new()
    key = store.add("main", identity.recipient, b"")
    printed = page(key, identity)
    assert max(map(len, printed.splitlines())) <= 80
    assert identity_in(printed.encode()) == identity
    assert identity_in(identity_text(key, identity).encode()) == identity
    rows = [line for line in printed.splitlines() if line.lstrip()[:2] in ("1)", "2)", "3)", "4)")]
    typed = "\n".join(row.strip().lower().replace(" ", "  ", 3) for row in rows)
    assert identity_in(typed.encode()) == identity
    with pytest.raises(UsageError, match="row 2 is missing"):
        identity_in("\n".join([rows[0], *rows[2:]]).encode())
    with pytest.raises(UsageError, match="at the end"):
        identity_in("\n".join(rows[:-1]).encode())
    row = rows[2].strip()
    wrong = row[:3] + ("Q" if row[3] != "Q" else "P") + row[4:]
    with pytest.raises(UsageError, match="row 3 of the key is mistyped"):
        identity_in("\n".join([*rows[:2], wrong, *rows[3:]]).encode())
    with pytest.raises(UsageError, match="0 secret keys"):
        identity_in(b"nothing at all")


def test_keys_of_a_copy_join_those_that_are_here(store: KeyStore, tmp_path: Path) -> None:
    """None is lost though both begin their names anew, and new tapes get the key that they got before."""
    old = KeyStore(tmp_path / "old")
    first, second, both = Identity.new(), Identity.new(), Identity.new()
    for key in (first, second):
        old.add("main", key, PASSPHRASE, rotates=key is second)
    old.add("both", both, PASSPHRASE)
    old.add("only", Identity.new(), PASSPHRASE)
    now = store.add("main", Identity.new(), PASSPHRASE)
    store.add("both", both.recipient, PASSPHRASE)
    (tmp_path / "keys" / "only.1.age").write_bytes(b"of a key that a crash has left half made")
    taken = store.take_from(old)
    assert [key.title for key in taken] == ["main-restored.1", "main-restored.2", "only.1"]
    assert store.find("main") == now
    for identity in (first, second, both):
        key = store.of_fingerprint(identity.fingerprint)
        assert key is not None
        assert store.identity(key, PASSPHRASE) == identity
    only = old.find("only")
    assert store.identity(store.find("only"), PASSPHRASE) == old.identity(only, PASSPHRASE)
    assert store.take_from(old) == []
