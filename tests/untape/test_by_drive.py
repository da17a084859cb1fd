"""Tapes that the drive has encrypted: what is needed is told, and with it they are like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drivers.interface import Encrypts
from tapefs.keys.driving import give_key
from tests.backup.rig import Rig, rigs
from tests.backup.trees import random_files
from tests.compare.look import differences, look
from tests.keys.programs import key_file
from tests.keys.rig import encrypt, set_encryption
from tests.untape.runs import cartridges, untape


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


def test_what_is_needed_is_told(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    tree = random_files(tmp_path / "tree", 10, 100_000)
    rig = make_rig(backup_settings="segment_bytes = 2097152\nframe_bytes = 65536")
    identity = encrypt(rig)
    set_encryption(rig, 'key = "main"\nby = "drive"')
    set_id = rig.backup(tree)
    (cartridge,) = cartridges(rig)
    done = untape("list", cartridge)
    assert f"encrypted by the drive with key {identity.fingerprint}" in done.out
    assert "stenc -f /dev/nst0" in done.told
    done = untape("restore", set_id, cartridge, "--to", tmp_path / "none")
    assert done.code != 0
    assert "the drive has encrypted this tape" in done.told
    (volume,) = (each for each in rig.ledger.volumes() if each.by_drive)
    key = untape("drive-key", key_file(tmp_path, identity), volume.volume_id)
    assert (key.code, key.out.strip()) == (0, identity.drive_key(volume.volume_id).hex())
    wrong = tmp_path / "wrong"
    text = identity.text
    wrong.write_text(text[:30] + ("Q" if text[30] != "Q" else "P") + text[31:])
    assert untape("drive-key", wrong, volume.volume_id).code == 2
    # Dumped by a drive that has the key, it is a tape like any other.
    dump = tmp_path / "dump"
    dump.mkdir()
    give_key(rig.home, rig.drive, volume)
    assert isinstance(rig.drive, Encrypts)
    rig.drive.rewind()
    room = memoryview(bytearray(1 << 20))
    for number in range(volume.end_file, 0, -1):
        with (dump / f"{volume.end_file - number:05}").open("wb") as file:
            while length := rig.drive.read_into(room):
                file.write(room[:length])
    out = tmp_path / "out"
    done = untape("restore", set_id, dump, "--to", out)
    assert done.code == 0, done.told
    assert differences(look(Path(f"{out}{tree}")), look(tree)) == []
    assert untape("check", dump).code == 0
    shutil.rmtree(dump)
