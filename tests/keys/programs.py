"""The program `age`, which others wrote."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tapefs.keys.identity import Identity, Recipient


def decrypted(data: bytes, key_file: Path) -> bytes:
    """What `age -d -i` makes of it."""
    run = subprocess.run(["age", "-d", "-i", str(key_file)], input=data, capture_output=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def encrypted(data: bytes, recipient: Recipient) -> bytes:
    """What `age -r` makes of it."""
    return subprocess.run(["age", "-r", recipient.text], input=data, capture_output=True, check=True).stdout


def key_file(folder: Path, identity: Identity) -> Path:
    path = folder / "key.txt"
    path.write_text(identity.text + "\n")
    return path
