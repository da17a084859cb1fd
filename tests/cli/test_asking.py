"""Secrets are asked for at a terminal only; where there is none the command says how else they are given."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("arguments", "option"),
    [(("user", "create", "ada"), "--password-file"), (("key", "create", "house"), "--passphrase-file")],
)
def test_without_a_terminal(home, arguments: tuple[str, ...], option: str) -> None:
    """A session of its own has no /dev/tty either."""
    done = subprocess.run(
        [sys.executable, "-m", "tapefs", "--home", str(home.path), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("tapefs: there is no terminal to ask at for the new pass")
    assert option in done.stderr
    assert done.stderr.count("\n") == 1
