"""What every driver promises of a drive that encrypts: a mixin for benches of drives."""

from __future__ import annotations

from typing import Protocol

import pytest

from drivers.errors import NotReady, Undecryptable, WrongKey
from drivers.interface import BlockNo, Drive, DriveKey, Encryption, Encrypts, NextBlock
from tests.drivers.contract import FILEMARK, block_of, position, write

KEY = DriveKey(bytes(range(32)), "0123456789abcdef0123456789abcdef")
OTHER = DriveKey(bytes(range(32, 64)), "other")


class EncryptingDrive(Drive, Encrypts, Protocol):
    """Both."""


class EncryptingBench(Protocol):
    """A drive with a tape in it."""

    def open(self) -> EncryptingDrive: ...

    def loaded(self) -> EncryptingDrive: ...


def read(drive: Drive) -> bytes:
    buffer = memoryview(bytearray(4 * 2**20))
    return bytes(buffer[: drive.read_into(buffer)])


class EncryptionContract:
    """Whoever inherits it has a fixture `bench`."""

    def test_blocks_are_read_with_their_key_only(self, bench: EncryptingBench) -> None:
        drive = bench.loaded()
        write(drive, block_of(0))
        drive.set_key(KEY)
        assert drive.position() == position(1, 0)
        assert drive.encryption() == Encryption(encrypts=True, decrypts=True, key_name=KEY.name)
        write(drive, block_of(1), block_of(2), FILEMARK, sync=True)
        drive.set_key(OTHER)
        write(drive, block_of(3), sync=True)
        drive.set_key(None)
        assert drive.encryption() == Encryption(encrypts=False, decrypts=False)
        write(drive, block_of(4), FILEMARK, sync=True)

        drive.rewind()
        assert drive.next_block() is NextBlock.PLAIN
        assert read(drive) == block_of(0)
        assert drive.next_block() is NextBlock.LOCKED
        for _ in range(2):
            with pytest.raises(Undecryptable) as no_key:
                read(drive)
            assert type(no_key.value) is Undecryptable
            assert drive.position() == position(1, 0)
        drive.set_key(KEY, writes=False)
        assert drive.encryption() == Encryption(encrypts=False, decrypts=True, key_name=KEY.name)
        assert drive.next_block() is NextBlock.DECRYPTABLE
        assert [read(drive) for _ in range(2)] == [block_of(1), block_of(2)]
        assert drive.next_block() is NextBlock.NO_BLOCK
        assert read(drive) == b""
        with pytest.raises(WrongKey):
            read(drive)
        assert drive.position() == position(4, 1)
        drive.set_key(OTHER, writes=False)
        assert [read(drive) for _ in range(3)] == [block_of(3), block_of(4), b""]
        drive.close()

    def test_who_only_reads_writes_plainly(self, bench: EncryptingBench) -> None:
        drive = bench.loaded()
        drive.set_key(KEY, writes=False)
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.set_key(None)
        drive.rewind()
        assert read(drive) == block_of(0)
        drive.close()

    def test_what_is_overwritten_plainly_is_plain(self, bench: EncryptingBench) -> None:
        drive = bench.loaded()
        drive.set_key(KEY)
        write(drive, block_of(0), block_of(1), block_of(2), FILEMARK, sync=True)
        drive.set_key(None)
        drive.locate(BlockNo(1))
        write(drive, block_of(7), block_of(8), FILEMARK, sync=True)
        drive.locate(BlockNo(1))
        assert [read(drive), read(drive)] == [block_of(7), block_of(8)]
        drive.rewind()
        with pytest.raises(Undecryptable):
            read(drive)
        drive.close()

    def test_the_key_goes_with_the_tape(self, bench: EncryptingBench) -> None:
        drive = bench.loaded()
        drive.set_key(KEY)
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.unload()
        assert drive.encryption() == Encryption(encrypts=False, decrypts=False)
        with pytest.raises(NotReady):
            drive.set_key(KEY)
        drive.load()
        with pytest.raises(Undecryptable):
            read(drive)
        drive.locate(BlockNo(2))
        write(drive, block_of(1), FILEMARK, sync=True)
        drive.locate(BlockNo(2))
        assert drive.next_block() is NextBlock.PLAIN
        drive.close()

    def test_the_key_goes_with_the_process(self, bench: EncryptingBench) -> None:
        drive = bench.loaded()
        drive.set_key(KEY)
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.close()
        drive = bench.loaded()
        assert drive.encryption() == Encryption(encrypts=False, decrypts=False)
        with pytest.raises(Undecryptable):
            read(drive)
        drive.close()


@pytest.mark.parametrize(("secret", "name"), [(b"short", ""), (bytes(32), "x" * 33), (bytes(32), "é")])
def test_what_is_no_key(secret: bytes, name: str) -> None:
    with pytest.raises(ValueError, match="key"):
        DriveKey(secret, name)


def test_a_key_is_not_shown() -> None:
    assert "\\x01\\x02" not in repr(KEY)
    assert KEY.secret.hex() not in repr(KEY)
