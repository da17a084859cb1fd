"""A rig whose tapes are encrypted."""

from __future__ import annotations

from pathlib import Path

from tapefs.home import open_home
from tapefs.keys.identity import Identity
from tapefs.keys.store import KeyStore
from tests.backup.rig import Rig


def encrypt(rig: Rig, name: str = "main", *, rotates: bool = False) -> Identity:
    """Have new tapes encrypted with a new key, which is unlocked; its public half alone is in the store."""
    identity = Identity.new()
    KeyStore(rig.home.keys).add(name, identity.recipient, b"", rotates=rotates)
    set_encryption(rig, f'key = "{name}"')
    rig.home.keyring.add(identity)
    return identity


def set_encryption(rig: Rig, settings: str) -> None:
    """Change what the settings say."""
    toml = rig.home.path / "tapefs.toml"
    text = toml.read_text().split("\n[encryption]\n")[0]
    toml.write_text(f"{text}\n[encryption]\n{settings}\n" if settings else text)
    identities = rig.home.keyring.identities()
    rig.home = open_home(rig.home.path)
    rig.home.keyring.replace(identities)


def tape_files(rig: Rig, label: str) -> list[Path]:
    """Return the tape files of a virtual cartridge, in order."""
    folder = rig.home.library / "cartridges" / label
    return sorted(path for path in folder.iterdir() if path.name.isdigit())
