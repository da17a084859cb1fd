"""A backup to a mounted volume, read back by the product and by GNU tar; the volume is a folder as LTFS shows one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.drivers.ltfs_bench import BARCODE, make_volume


def test_backup_append_and_restore(tmp_path: Path) -> None:
    """Two sets on one volume; zstd and tar read a payload, restore brings all of it back."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "noise").write_bytes(os.urandom(3_000_000))
    (source / "text").write_text("hello")
    mount = make_volume(tmp_path / "mnt")
    home = tmp_path / "home"

    def tapefs(*arguments: str | Path) -> str:
        command = [sys.executable, "-m", "tapefs", "--home", str(home), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tapefs("init", "--driver", "ltfs", "--drive", mount)
    first = tapefs("backup", source).splitlines()[-1]
    (source / "later").write_text("more")
    second = tapefs("backup", source).splitlines()[-1]
    assert first != second
    (tape,) = json.loads(tapefs("tapes", "--json"))
    assert (tape["label"], set(tape["sets"])) == (BARCODE, {first, second})
    assert os.getxattr(mount, "user.ltfs.sync") == b"1"

    # LABEL, SET LABEL, and HEADER, PAYLOAD, TRAILER, SET INDEX for each set.
    assert sorted(path.name for path in (mount / "tapefs").glob("0*")) == [f"{number:05d}" for number in range(10)]
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    subprocess.run(["tar", "--zstd", "-xpf", mount / "tapefs" / "00003", "-C", by_hand], check=True)
    assert (by_hand / str(source)[1:] / "noise").read_bytes() == (source / "noise").read_bytes()

    tapefs("restore", second, "--to", tmp_path / "out")
    restored = tmp_path / "out" / str(source)[1:]
    assert {path.name: path.read_bytes() for path in restored.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
