"""The virtual drive encrypts: for real, on the disk, and through a loss of power."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import PositionLost, ReadFailed, Undecryptable
from drivers.interface import BlockNo, Encryption, NextBlock
from drivers.virtual.drive import VirtualDrive
from tests.drivers.benches import FaultyBench, VirtualBench
from tests.drivers.contract import FILEMARK, block_of, position, write
from tests.drivers.contract_encryption import (
    KEY,
    EncryptionContract,
    read,
    test_a_key_is_not_shown,
    test_what_is_no_key,
)

__all__ = ["test_a_key_is_not_shown", "test_what_is_no_key"]


class TestVirtual(EncryptionContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> VirtualBench:
        return VirtualBench(tmp_path / "library")


class TestFaulty(EncryptionContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> FaultyBench:
        return FaultyBench(tmp_path / "library")


@pytest.fixture
def bench(tmp_path: Path) -> VirtualBench:
    return VirtualBench(tmp_path / "library")


def encrypted(bench: VirtualBench) -> VirtualDrive:
    drive = bench.loaded()
    drive.set_key(KEY)
    write(drive, block_of(0), block_of(1), FILEMARK, sync=True)
    return drive


def test_nothing_readable_is_on_the_disk(bench: VirtualBench) -> None:
    encrypted(bench).close()
    stored = b"".join(each.read_bytes() for each in bench.cartridge.iterdir())
    assert block_of(0)[:32] not in stored
    assert KEY.secret not in stored
    assert KEY.name.encode() in stored
    assert (bench.cartridge / "00000").stat().st_size == len(block_of(0)) + len(block_of(1))


@pytest.mark.parametrize("name", ["00000", "00000.sealed"])
def test_a_changed_byte_is_found(bench: VirtualBench, name: str) -> None:
    encrypted(bench).close()
    path = bench.cartridge / name
    data = bytearray(path.read_bytes())
    # The first bytes of the record's name are authenticated, too.
    data[5] ^= 1
    path.write_bytes(data)
    drive = bench.loaded()
    drive.set_key(KEY, writes=False)
    with pytest.raises(ReadFailed) as failed:
        read(drive)
    assert failed.value.block == 0
    assert drive.position() == position(0, 0)
    drive.locate(BlockNo(1))
    assert read(drive) == block_of(1)
    drive.close()


def test_a_drive_that_was_reset_gets_its_key_again_before_it_writes(bench: VirtualBench) -> None:
    drive = encrypted(bench)
    drive.reset()
    with pytest.raises(PositionLost):
        drive.set_key(KEY)
    drive.rewind()
    assert drive.encryption() == Encryption(encrypts=True, decrypts=True, key_name=KEY.name)
    drive.seek_end()
    write(drive, block_of(2), FILEMARK, sync=True)
    drive.set_key(None)
    drive.locate(BlockNo(3))
    assert drive.next_block() is NextBlock.LOCKED
    drive.close()


def test_a_power_cut_leaves_nothing_that_decrypts_what_came_later(bench: VirtualBench) -> None:
    drive = encrypted(bench)
    write(drive, block_of(2), block_of(3))
    drive.cut_power()
    drive.close()
    drive = bench.loaded()
    drive.seek_end()
    assert drive.position() == position(3, 1)
    write(drive, block_of(4), block_of(5), FILEMARK, sync=True)
    drive.locate(BlockNo(3))
    assert [read(drive), read(drive)] == [block_of(4), block_of(5)]
    drive.close()


def test_what_a_dead_process_wrote_encrypted_stays_so(bench: VirtualBench) -> None:
    drive = bench.loaded()
    drive.set_key(KEY)
    write(drive, block_of(0))
    drive.close()
    drive = bench.loaded()
    with pytest.raises(Undecryptable):
        read(drive)
    drive.set_key(KEY, writes=False)
    assert read(drive) == block_of(0)
    drive.close()


def test_an_erased_tape_forgets(bench: VirtualBench) -> None:
    drive = encrypted(bench)
    drive.rewind()
    drive.set_key(None)
    drive.erase(long=False)
    write(drive, block_of(5), sync=True)
    assert not list(bench.cartridge.glob("*.sealed"))
    drive.rewind()
    assert read(drive) == block_of(5)
    drive.close()
