"""The file that tells a mount which keys are unlocked."""

from __future__ import annotations

import stat
from pathlib import Path

from tapefs.keys.told import Unlocked, tell_unlocked


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Also one of an older version, and one that was half written."""
    path = tmp_path / "unlocked.json"
    for before in (path, tmp_path / ".unlocked.json"):
        before.write_text("[]")
        before.chmod(0o644)
        tell_unlocked(path, ["b", "a"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.iterdir()) == [path]
    assert Unlocked(path).has("a")
    assert not Unlocked(path).has("c")
