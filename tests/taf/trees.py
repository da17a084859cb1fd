"""What TAF is said to have backed up."""

from __future__ import annotations

import os
from pathlib import Path


def make_source(folder: Path, *, noise_bytes: int) -> Path:
    """Make files, links and folders: one that no compressor makes smaller, one whose name is not ASCII, empty ones."""
    (folder / "sub" / "deep").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "a").write_bytes(b"hello")
    (folder / "zero").touch()
    (folder / "sub" / "noise").write_bytes(os.urandom(noise_bytes))
    (folder / "sub" / "deep" / "文件 ü").write_bytes(b"x" * 5000)
    (folder / "link").symlink_to("sub/noise")
    (folder / "a").chmod(0o640)
    os.utime(folder / "a", ns=(0, 981_173_106_000_000_000))
    return folder
