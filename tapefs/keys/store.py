"""The keys of an installation, in the folder `keys` of its state folder. Blocking; any thread may use it.

    NAME.1.json    what is public: recipient, fingerprint, when it was made
    NAME.1.age     the identity, encrypted with a passphrase; `age -d NAME.1.age > key.txt` opens it too

A key that is rotated goes on under its name with the next number; new tapes get the newest, older ones stay for
reading. Without the second file a key can write and not read. A key is there when its first file is: that is made last.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import msgspec

from catalog.crash import crash_point
from tapefs.durable import replace_file, sync_folder
from tapefs.errors import BadStructure, HomeError, KeyMissing, NoSuchThing, NotNow, UsageError
from tapefs.keys.identity import Identity, Recipient, is_fingerprint

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_FILE = re.compile(rf"({_NAME.pattern})\.([1-9][0-9]{{0,5}})\.json")
_NAMED = re.compile(rf"({_NAME.pattern})(?:\.([1-9][0-9]{{0,5}}))?")
_LEAST_PASSPHRASE_BYTES = 8

_after_identity = crash_point("keys.identity.after")
_after_key = crash_point("keys.key.after")


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What is public of a key."""

    name: str
    #: Counts up from 1 with every rotation.
    number: int
    #: As age writes it.
    recipient: str
    #: See `Recipient.fingerprint`.
    fingerprint: str
    created_ns: int

    @property
    def title(self) -> str:
        """How people name this very key."""
        return f"{self.name}.{self.number}"

    @property
    def public(self) -> Recipient:
        """To encrypt with."""
        return Recipient.parse(self.recipient)


class KeyStore:
    """The keys in a folder; it is made when the first key is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all_keys(self) -> list[Key]:
        """Return all keys, by name and number. Raises HomeError when one is unreadable."""
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise HomeError(f"cannot read {self._folder}: {error.strerror}") from error
        found = [self._read(name) for name in names if _FILE.fullmatch(name)]
        return sorted(found, key=lambda key: (key.name, key.number))

    def find(self, text: str) -> Key:
        """Return the key of a name (the newest), of a name with number, or a fingerprint.

        Raises NoSuchThing, HomeError.
        """
        named = _NAMED.fullmatch(text)
        keys = [
            key
            for key in self.all_keys()
            if text == key.fingerprint
            or (named is not None and named[1] == key.name and named[2] in (None, str(key.number)))
        ]
        if not keys:
            what = f"fingerprint {text}" if is_fingerprint(text) else f"name {text}"
            raise NoSuchThing(f"there is no key of the {what}: see `tapefs key list`")
        return keys[-1]

    def of_fingerprint(self, fingerprint: str) -> Key | None:
        """Return the key with this fingerprint, if it is here. Raises HomeError."""
        return next((key for key in self.all_keys() if key.fingerprint == fingerprint), None)

    def add(self, name: str, key: Recipient | Identity, passphrase: bytes, *, rotates: bool = False) -> Key:
        """Keep a key: an identity with its passphrase, or a recipient alone.

        A name that is taken is refused, or with `rotates` goes on with this key. Raises UsageError, NotNow,
        NoSuchThing.
        """
        if not _NAME.fullmatch(name):
            raise UsageError("a key's name has up to 32 letters, digits, - and _, and begins with a letter or a digit")
        known = self.all_keys()
        recipient = key.recipient if isinstance(key, Identity) else key
        twin = next((each for each in known if each.fingerprint == recipient.fingerprint), None)
        if twin is not None:
            raise NotNow(f"this key is here already, as {twin.title}")
        numbers = [each.number for each in known if each.name == name]
        if numbers and not rotates:
            raise NotNow(f"there is a key {name} already: choose another name, or `tapefs key rotate {name}`")
        if rotates and not numbers:
            raise NoSuchThing(f"there is no key {name} to rotate: `tapefs key create {name}` makes one")
        made = Key(
            name=name,
            number=max(numbers, default=0) + 1,
            recipient=recipient.text,
            fingerprint=recipient.fingerprint,
            created_ns=time.time_ns(),
        )
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if isinstance(key, Identity):
            replace_file(self._folder / f"{made.title}.age", _wrapped(made, key, passphrase))
            _after_identity()
        replace_file(self._folder / f"{made.title}.json", msgspec.json.format(msgspec.json.encode(made)) + b"\n")
        _after_key()
        return made

    def complete(self, key: Key, identity: Identity, passphrase: bytes) -> None:
        """Keep the identity of a key of which only the recipient is here. Raises UsageError, NotNow."""
        if identity.fingerprint != key.fingerprint:
            raise UsageError(f"this secret is not that of key {key.title}")
        if self.can_read(key):
            raise NotNow(f"this key is here already, as {key.title}")
        replace_file(self._folder / f"{key.title}.age", _wrapped(key, identity, passphrase))

    def can_read(self, key: Key) -> bool:
        """Is its identity here, too?"""
        return (self._folder / f"{key.title}.age").exists()

    def identity(self, key: Key, passphrase: bytes) -> Identity:
        """Return the secret. Raises WrongPassphrase, KeyMissing when only the recipient is here, BadStructure."""
        from tapefs.keys.chunks import unsealed_with_passphrase

        path = self._folder / f"{key.title}.age"
        try:
            sealed = path.read_bytes()
        except FileNotFoundError:
            raise KeyMissing(
                f"only the public half of key {key.title} is here: `tapefs key import` brings the other",
                key.fingerprint,
            ) from None
        identity = identity_in(unsealed_with_passphrase(sealed, passphrase))
        if identity.fingerprint != key.fingerprint:
            raise BadStructure(f"{path} holds another key than {key.title}")
        return identity

    def take_from(self, other: KeyStore) -> list[Key]:
        """Take what another store has and this one lacks; nothing that is here changes. Returns the new keys.

        A name that means other keys here gets `-restored` behind it, so that new tapes get the key that they got.
        Raises HomeError.
        """
        here = {key.fingerprint: key for key in self.all_keys()}
        theirs = other.all_keys()
        prints = {key.fingerprint for key in theirs}
        clashing = {key.name for key in here.values() if key.fingerprint not in prints}
        taken = []
        for key in theirs:
            known = here.get(key.fingerprint)
            new = known or self._free(key, is_clashing=key.name in clashing)
            # Half of a key that a crash has left counts for nothing.
            if other.can_read(key) and (known is None or not self.can_read(known)):
                self._folder.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._folder / f"{new.title}.age", (other._folder / f"{key.title}.age").read_bytes())
            if known is None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
                replace_file(self._folder / f"{new.title}.json", msgspec.json.format(msgspec.json.encode(new)) + b"\n")
                taken.append(new)
        return taken

    def _free(self, key: Key, *, is_clashing: bool) -> Key:
        """Return the key under a title that is free."""
        name = f"{key.name[:23]}-restored" if is_clashing else key.name
        numbers = [each.number for each in self.all_keys() if each.name == name]
        number = key.number if key.number not in numbers else max(numbers) + 1
        return msgspec.structs.replace(key, name=name, number=number)

    def remove(self, key: Key) -> None:
        """Forget a key, for ever: what is encrypted with it cannot be read any more without a copy of it."""
        (self._folder / f"{key.title}.json").unlink()
        sync_folder(self._folder)
        (self._folder / f"{key.title}.age").unlink(missing_ok=True)
        sync_folder(self._folder)

    def _read(self, name: str) -> Key:
        path = self._folder / name
        try:
            return msgspec.json.decode(path.read_bytes(), type=Key)
        except OSError as error:
            raise HomeError(f"cannot read {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise HomeError(f"{path} is damaged: {error}; bring it back from a backup") from error


def identity_text(key: Key, identity: Identity) -> str:
    """Return a key as `age-keygen` writes it; `age -d -i` takes it."""
    return (
        f"# key {key.title} of tapefs, fingerprint {key.fingerprint}\n# public key: {key.recipient}\n{identity.text}\n"
    )


def identity_in(text: bytes) -> Identity:
    """Return the one secret in a text as age writes them, or as the printed page has it. Raises UsageError."""
    from tapefs.keys.page import without_marks

    secrets = without_marks(text)
    if len(secrets) != 1:
        raise UsageError(f"there are {len(secrets)} secret keys (AGE-SECRET-KEY-1…) where one should be")
    return Identity.parse(secrets[0])


def _wrapped(key: Key, identity: Identity, passphrase: bytes) -> bytes:
    from tapefs.keys import age
    from tapefs.keys.chunks import sealed

    if len(passphrase) < _LEAST_PASSPHRASE_BYTES:
        raise UsageError(f"a passphrase has at least {_LEAST_PASSPHRASE_BYTES} characters")
    return sealed(identity_text(key, identity).encode("ascii"), age.new_passphrase_opening(passphrase))
