"""Encrypted tapes, with the program `age`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.backup.rig import Rig, rigs
from tests.backup.trees import random_files
from tests.compare.look import differences, look
from tests.keys.programs import key_file
from tests.keys.rig import encrypt
from tests.untape.runs import cartridges, flip, tape_files, untape

pytestmark = pytest.mark.skipif(shutil.which("age") is None, reason="the program age is not installed")


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


def test_with_the_key_and_without(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """An incremental chain comes back with the key; without it, it is said what is needed, and nothing is made."""
    tree = random_files(tmp_path / "tree", 40, 100_000)
    os.link(tree / "file-00000", tree / "zz")
    rig = make_rig(backup_settings="segment_bytes = 2097152\nframe_bytes = 65536")
    key = key_file(tmp_path, encrypt(rig))
    job = rig.queued(tree)
    rig.run(job)
    (tree / "file-00007").unlink()
    (tree / "new").write_text("new")
    set_id = rig.again(job, type="incremental")
    (cartridge,) = cartridges(rig)
    out = tmp_path / "out"
    done = untape("restore", set_id, cartridge, "--identity", key, "--to", out)
    assert done.code == 0, done.told
    assert differences(look(Path(f"{out}{tree}")), look(tree)) == []
    for command in ("list", "sets", "check"):
        assert untape(command, cartridge, "--identity", key).code == 0
    assert untape("list", cartridge).code == 0
    assert "encrypted: age" in untape("list", cartridge).out
    done = untape("restore", set_id, cartridge, "--to", tmp_path / "none")
    assert done.code == 1
    assert "age -d -i FILE" in done.told
    assert not any((tmp_path / "none").iterdir())


def test_header_and_content_are_damaged(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A lost HEADER costs nothing. Of a damaged payload what is before the place comes back, the rest is named."""
    tree = random_files(tmp_path / "tree", 30, 60_000)
    rig = make_rig(backup_settings="frame_bytes = 65536")
    key = key_file(tmp_path, encrypt(rig))
    set_id = rig.backup(tree)
    (cartridge,) = cartridges(rig)
    header, payload, _ = tape_files(rig, set_id, 0)
    flip(header, 100)
    done = untape("restore", set_id, cartridge, "--identity", key, "--to", tmp_path / "out")
    assert f"lost: {tree}" not in done.told
    assert differences(look(Path(f"{tmp_path / 'out'}{tree}")), look(tree)) == []
    flip(payload, payload.stat().st_size // 2)
    done = untape("restore", set_id, cartridge, "--identity", key, "--to", tmp_path / "more")
    assert done.code == 1
    found = os.listdir(f"{tmp_path / 'more'}{tree}")
    assert 5 < len(found) < 25
    assert all((f"lost: {tree / name}: " in done.told) == (name not in found) for name in os.listdir(tree))
