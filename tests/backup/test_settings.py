"""Settings that make no sense are refused when the state folder is opened, not by a backup that goes wrong."""

from __future__ import annotations

import pytest

from tapefs.errors import HomeError
from tapefs.home import Home, open_home


@pytest.mark.parametrize(
    "line",
    [
        "block_size = 0",
        "block_size = 4095",
        "block_size = 16777217",
        "frame_bytes = 0",
        "frame_bytes = 100000",
        "frame_bytes = 67109376",
        "segment_bytes = -1",
        "segment_bytes = 32768",
        "segment_members = 0",
        "threads = -1",
        'pool = ""',
    ],
)
def test_refused(home: Home, line: str) -> None:
    """The message names the file and the setting."""
    settings = home.path / "tapefs.toml"
    settings.write_text(settings.read_text().replace("[backup]\n", f"[backup]\n{line}\n"))
    with pytest.raises(HomeError, match=r"tapefs\.toml: .*(backup|segment_bytes)"):
        open_home(home.path)


@pytest.mark.parametrize(
    "line", ["block_size = 4096", "frame_bytes = 67108864", "segment_bytes = 1048576", "threads = 1"]
)
def test_taken(home: Home, line: str) -> None:
    """Values at the border are good."""
    settings = home.path / "tapefs.toml"
    settings.write_text(settings.read_text().replace("[backup]\n", f"[backup]\n{line}\n"))
    name, _, value = line.partition(" = ")
    assert getattr(open_home(home.path).settings.backup, name) == int(value)
