"""Encrypted tapes as a person uses them: keys by commands, a mount, a restore; no secret in any log or process list."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.backup.trees import random_files
from tests.keys import quick
from tests.keys.programs import decrypted
from tests.test_end_to_end import Installation, installation, wait_until

__all__ = ["installation"]

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
]

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    path.chmod(0o600)
    return path


def encrypt(installation: Installation, passphrase: Path) -> None:
    """Make a key and have new tapes encrypted with it."""
    make_key(installation, "create", "main", "--passphrase-file", passphrase)
    with (installation.home / "tapefs.toml").open("a") as toml:
        toml.write('\n[encryption]\nkey = "main"\n')


def make_key(installation: Installation, *arguments: str | Path) -> None:
    """Run a `tapefs key` that writes one, whose passphrase takes no second."""
    done = subprocess.run(quick.command(installation.home, "key", *arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_keys_by_commands(installation: Installation, passphrase: Path, tmp_path: Path) -> None:
    """Made, listed, exported for `age` and on paper, rotated, imported elsewhere, deleted unless a tape needs them."""
    encrypt(installation, passphrase)
    text = installation.run("key", "export", "main", "--passphrase-file", passphrase)
    key_file = tmp_path / "key.txt"
    key_file.write_text(text)
    (key,) = installation.listing("key", "list")
    assert key["fingerprint"] in text
    assert (key["state"], key["tape_count"], key["for_new_tapes"]) == ("locked", 0, True)
    installation.backup(random_files(tmp_path / "tree", 3, 10_000))
    (key,) = installation.listing("key", "list")
    assert key["tapes"] == [tape["label"] for tape in installation.listing("tapes") if tape["state"] == "appendable"]
    files = sorted((installation.home / "library" / "cartridges" / str(key["tapes"][0])).glob("0000[3-5]"))
    for path in files:
        assert decrypted(path.read_bytes(), key_file)
    page = installation.run("key", "export", "main", "--page", "--passphrase-file", passphrase)
    (tmp_path / "page.txt").write_text(page)
    assert "tape" in installation.run("key", "delete", "main", "--yes", ok=False)
    installation.run("key", "rotate", "main", "--passphrase-file", passphrase)
    # What makes passphrases dear to guess: 256 MiB of memory, as the `age` program has it.
    assert b" 18\n" in (installation.home / "keys" / "main.2.age").read_bytes()[:100]
    old, new = installation.listing("key", "list")
    assert (old["key"], old["for_new_tapes"], new["key"], new["for_new_tapes"]) == ("main.1", False, "main.2", True)
    assert "main.1" in installation.run("key", "delete", "main.1", "--yes", ok=False)
    assert "toml" in installation.run("key", "delete", "main", "--yes", ok=False)
    other = Installation(_folder(tmp_path / "other"))
    other.run("init", "--tapes", "1", "--tape-size", "64MiB")
    other.run("key", "import", "theirs", "--public", str(key["public_key"]))
    assert other.listing("key", "list")[0]["state"] == "public half only"
    make_key(other, "import", "theirs", tmp_path / "page.txt", "--passphrase-file", passphrase)
    assert other.run("key", "export", "theirs", "--passphrase-file", passphrase).splitlines()[-1] in text
    assert "here already" in other.run("key", "import", "again", key_file, "--passphrase-file", passphrase, ok=False)
    other.run("key", "delete", "theirs", "--yes")
    assert other.listing("key", "list") == []
    wrong = tmp_path / "wrong"
    wrong.write_text("something else\n")
    assert "others may read" in installation.run("key", "export", "main", "--passphrase-file", wrong, ok=False)
    wrong.chmod(0o600)
    assert "passphrase is wrong" in installation.run("key", "export", "main", "--passphrase-file", wrong, ok=False)
    assert "no sidecar" in installation.run("key", "unlock", "main", "--passphrase-file", passphrase, ok=False)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_locked_and_unlocked(installation: Installation, passphrase: Path, tmp_path: Path) -> None:
    """Backups go on with the key locked; reads fail with ENOKEY, until it is unlocked."""
    encrypt(installation, passphrase)
    secret = installation.run("key", "export", "main.1", "--passphrase-file", passphrase).splitlines()[-1]
    tree = random_files(tmp_path / "tree", 3, 500_000)
    set_id = installation.backup(tree, "--name", "letters")
    installation.serve()
    shown = installation.mount_point / "jobs" / "letters" / "latest"
    names = sorted(path.name for path in tree.iterdir())
    paths = [shown / str(tree)[1:] / name for name in names]
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at
        paths[0].read_bytes()
    assert caught.value.errno == errno.ENOKEY
    assert os.getxattr(paths[0], "user.tapefs.state") == b"locked"
    out = tmp_path / "out"
    told = _text_of(installation, "restore", set_id, "--to", str(out))
    assert "tapefs key unlock main.1" in told
    assert f"{len(names)} locked (their key is not here" in told
    assert "damaged" not in told
    for what in ("TP0001L9", set_id):
        assert "which is locked: `tapefs key unlock main.1`, to read." in installation.run("explain", what)
    installation.run("key", "unlock", "main", "--passphrase-file", passphrase)
    assert installation.listing("key", "list")[0]["state"] == "unlocked"
    assert "which is unlocked." in installation.run("explain", "TP0001L9")
    assert [path.read_bytes() for path in paths] == [(tree / name).read_bytes() for name in names]
    assert "unlocked" in _over_tcp(installation)
    # A mover that dies is followed by one that has the key as well.
    installation.run("evict", "--all")
    (mover,) = installation.movers()
    os.kill(mover, 9)
    wait_until(lambda: installation.movers() not in ([], [mover]), "another mover")
    wait_until(lambda: _reads(paths[1]), "a read after the mover died")
    installation.run("key", "lock", "main")
    installation.run("evict", "--all")
    assert not _reads(paths[2])
    installation.run("verify", set_id)
    logs = (tmp_path / "log").read_text()
    for word in (PASSPHRASE, secret, secret[20:50]):
        assert word not in logs
        for entry in Path("/proc").iterdir():
            assert not entry.name.isdigit() or word.encode() not in _command_line(entry)


def _reads(path: Path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
    except OSError:
        return b""


def _text_of(installation: Installation, *arguments: str) -> str:
    done = subprocess.run(installation.command(*arguments), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    return done.stdout + done.stderr


def _over_tcp(installation: Installation) -> str:
    """Try to unlock over TCP; return what is answered."""
    (port,) = set(re.findall(r'"127\.0\.0\.1", ?(\d+)', (installation.folder / "log").read_text()))
    token = (installation.home / "token").read_text().strip()
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection.request("POST", "/api/v1/keys", json.dumps({"secret": "AGE-SECRET-KEY-1"}), headers)
    answer = connection.getresponse()
    assert answer.status == 422
    text = answer.read().decode()
    connection.close()
    return text


def test_a_passphrase_file_unlocks_when_a_sidecar_starts(
    installation: Installation, passphrase: Path, tmp_path: Path
) -> None:
    """Of the environment, for one restore; of the settings; and as a systemd credential."""
    encrypt(installation, passphrase)
    tree = random_files(tmp_path / "tree", 2, 50_000)
    set_id = installation.backup(tree)

    def restored(name: str, env: dict[str, str]) -> None:
        out = tmp_path / name
        installation.run("restore", set_id, "--to", out, env=env)
        same = subprocess.run(["diff", "-r", tree, out / str(tree)[1:]], capture_output=True, text=True)
        assert (same.returncode, same.stdout) == (0, "")
        wait_until(lambda: not installation.processes("serve"), "the end of the sidecar")
        installation.run("evict", "--all")
        wait_until(lambda: not installation.processes("serve"), "the end of the sidecar")

    # The one that the backup has started knows no key.
    wait_until(lambda: not installation.processes("serve"), "the end of the sidecar")
    restored("by-variable", {"TAPEFS_PASSPHRASE_FILE": str(passphrase)})
    credentials = _folder(tmp_path / "credentials")
    (credentials / "tapefs-passphrase").write_text(PASSPHRASE)
    (credentials / "tapefs-passphrase").chmod(0o400)
    restored("by-credential", {"CREDENTIALS_DIRECTORY": str(credentials)})
    toml = installation.home / "tapefs.toml"
    toml.write_text(toml.read_text() + f'passphrase_file = "{passphrase}"\n')
    restored("by-settings", {})
