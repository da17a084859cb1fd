"""ScsiDrive gives keys to a device server; the pages, byte for byte as SSC lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import BadAnswer, DeviceFailed, NotSupported, Undecryptable
from drivers.interface import BlockNo, DriveKey, Encryption, NextBlock
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.encryption import (
    AES_256_GCM,
    NO_KEY,
    Algorithm,
    Capabilities,
    EncryptionMode,
    EncryptionStatus,
    KeySetting,
    Scope,
    parse_capabilities,
    parse_encryption_status,
    parse_next_block,
)
from drivers.scsi.transport import Reply, Status
from drivers.vtl.local import LocalTransport
from tests.drivers.contract import FILEMARK, block_of, write
from tests.drivers.contract_encryption import KEY, OTHER, EncryptionContract, read
from tests.drivers.scsi.bench import ServedBench

SECRET = bytes(range(32))
GOLDEN = [
    (NO_KEY, "0010 0010 40 40 00 00 00 00 00 00000000000000 0000"),
    (
        KeySetting(EncryptionMode.ON, EncryptionMode.MIXED, 1, SECRET, b"main.1"),
        "0010 003a 40 44 02 03 01 00 02 00000000000000 0020" + SECRET.hex() + "00 00 0006 6d61696e2e31",
    ),
    (
        KeySetting(EncryptionMode.OFF, EncryptionMode.ON, 3, SECRET, scope=Scope.LOCAL, lock=True),
        "0010 0030 21 44 00 02 03 00 00 00000000000000 0020" + SECRET.hex(),
    ),
    (
        KeySetting(
            EncryptionMode.OFF,
            EncryptionMode.RAW,
            scope=Scope.PUBLIC,
            checks_external_mode=2,
            raw_decryption_control=3,
            is_supplemental=True,
            clear_on_demount=False,
            clear_on_preempt=True,
            clear_on_loss=True,
        ),
        "0010 0010 00 bb 00 01 00 00 00 00000000000000 0000",
    ),
]


@pytest.mark.parametrize(("setting", "page"), GOLDEN)
def test_a_key_as_it_is_sent(setting: KeySetting, page: str) -> None:
    assert setting.encode() == bytes.fromhex(page)
    assert SECRET.hex() not in repr(setting)
    assert repr(SECRET) not in repr(setting)


def test_capabilities() -> None:
    """Two algorithms: one of a length that is not ours to know, and what LTO drives have."""
    page = bytes.fromhex(
        "0010 0048 01" + "00" * 15 + "01 00 0018 8a 08 0020 000c 0010" + "00" * 8 + "00010010" + "ffffffff"
        "02 00 0014 9a 0b 0020 000c 0020" + "00" * 8 + "00010014"
    )
    told = parse_capabilities(page)
    assert told.is_configurable
    assert told.algorithms == (
        Algorithm(1, 0x00010010, 16, can_encrypt=True, can_decrypt=True, most_name_bytes=32, is_name_fixed=False),
        Algorithm(2, AES_256_GCM, 32, can_encrypt=True, can_decrypt=True, most_name_bytes=32, is_name_fixed=True),
    )
    assert told.aes == told.algorithms[1]
    assert parse_capabilities(page[:60]).algorithms == told.algorithms[:1]
    assert not parse_capabilities(page[:4] + b"\x02" + page[5:]).is_configurable


def test_a_drive_whose_keys_others_control_is_none() -> None:
    page = bytes.fromhex("0010 0028 01" + "00" * 15 + "01 00 0014 8f 00 0020 000c 0020" + "00" * 8 + "00010014")
    assert parse_capabilities(page) == Capabilities(
        True,
        (Algorithm(1, AES_256_GCM, 32, can_encrypt=False, can_decrypt=False, most_name_bytes=32, is_name_fixed=False),),
    )
    assert parse_capabilities(page).aes is None


def test_status() -> None:
    page = bytes.fromhex("0020 001e 42 02 03 01 00000007" + "00" * 12 + "00 01 0006 6d61696e2e31")
    assert parse_encryption_status(page) == EncryptionStatus(EncryptionMode.ON, EncryptionMode.MIXED, 7, 1, "main.1")
    with pytest.raises(BadAnswer):
        parse_encryption_status(page[:6])
    with pytest.raises(BadAnswer, match="mode 9"):
        parse_encryption_status(page[:5] + b"\x09" + page[6:])


@pytest.mark.parametrize(
    ("code", "meaning"),
    [("00", "UNKNOWN"), ("12", "NO_BLOCK"), ("23", "PLAIN"), ("04", "LOCKED"), ("25", "DECRYPTABLE"), ("06", "LOCKED")],
)
def test_next_block(code: str, meaning: str) -> None:
    assert parse_next_block(bytes.fromhex(f"0021 000c 0000000000000005 {code} 01 00 00")) is NextBlock[meaning]


# -- with a drive ----------------------------------------------------------------------------------------------------


class TestServed(EncryptionContract):
    @pytest.fixture
    def bench(self, tmp_path: Path) -> ServedBench:
        return ServedBench(tmp_path)


class Spoiling(LocalTransport):
    """Answers SECURITY PROTOCOL IN with what a test wants, by page; counts what was sent."""

    def __init__(self, bench: ServedBench) -> None:
        super().__init__(bench.server)
        self.pages: dict[int, bytes | None] = {}
        self.sent = 0

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        self.sent += cdb[0] == 0xB5
        page = int.from_bytes(cdb[2:4], "big")
        if cdb[0] != 0xA2 or page not in self.pages:
            return super().execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
        answer = self.pages[page]
        if answer is None:
            return Reply(Status.CHECK_CONDITION, bytes.fromhex("70000500000000 0a 00000000 2000 00000000"), 0)
        assert data_in is not None
        data_in[: len(answer)] = answer
        return Reply(Status.GOOD, b"", len(answer))


def spoiled(tmp_path: Path, pages: dict[int, bytes | None]) -> tuple[ScsiDrive, Spoiling]:
    transport = Spoiling(ServedBench(tmp_path))
    drive = ScsiDrive(transport, tmp_path / "notes")
    drive.load()
    transport.pages = pages
    return drive, transport


def test_a_drive_that_cannot(tmp_path: Path) -> None:
    drive, transport = spoiled(tmp_path, {0x10: None, 0x20: None, 0x21: None})
    with pytest.raises(NotSupported, match="AES-256-GCM"):
        drive.set_key(KEY)
    assert drive.encryption() is None
    assert drive.next_block() is NextBlock.UNKNOWN
    assert not transport.sent
    drive.close()
    assert not transport.sent


def test_a_library_that_manages_the_keys(tmp_path: Path) -> None:
    page = "0010 0028 02" + "00" * 15 + "01 00 0014 9a 00 0020 000c 0020" + "00" * 8 + "00010014"
    drive, transport = spoiled(tmp_path, {0x10: bytes.fromhex(page)})
    with pytest.raises(NotSupported, match="library"):
        drive.set_key(KEY)
    assert not transport.sent
    drive.close()


def test_a_drive_that_does_otherwise_than_it_was_told(tmp_path: Path) -> None:
    drive, transport = spoiled(tmp_path, {0x20: bytes.fromhex("0020 0014 00 00 00 00 00000000") + bytes(12)})
    with pytest.raises(DeviceFailed, match="writing off"):
        drive.set_key(KEY)
    drive.close()
    # The key is taken away all the same.
    assert transport.sent == 2


def test_a_reset_does_not_make_it_write_plainly(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive = bench.loaded()
    drive.set_key(KEY)
    write(drive, block_of(0), FILEMARK, sync=True)
    bench.server.reset()
    with pytest.raises(Exception, match="reset"):
        write(drive, block_of(1))
    drive.rewind()
    drive.locate(BlockNo(2))
    write(drive, block_of(1), FILEMARK, sync=True)
    drive.set_key(None)
    drive.locate(BlockNo(2))
    with pytest.raises(Undecryptable):
        read(drive)
    drive.close()


def test_another_host_that_changes_the_key_is_told_of_and_overruled(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive = bench.loaded()
    drive.set_key(KEY)
    write(drive, block_of(0), FILEMARK, sync=True)
    other = LocalTransport(bench.server, "other")
    for _ in range(3):
        page = KeySetting(EncryptionMode.OFF, EncryptionMode.OFF, clear_on_demount=False).encode()
        cdb = bytes.fromhex("b520001000000000") + bytes([0, len(page), 0, 0])
        other.execute(cdb, data_out=page, timeout_s=10)
    # Its reservation keeps the other out.
    write(drive, block_of(1), FILEMARK, sync=True)
    assert drive.encryption() == Encryption(encrypts=True, decrypts=True, key_name=KEY.name)
    drive.close()


def test_without_a_reservation_another_host_is_heard_of(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive = ScsiDrive(LocalTransport(bench.server), tmp_path / "notes", reserve=False)
    drive.load()
    drive.set_key(KEY)
    write(drive, block_of(0), FILEMARK, sync=True)
    other = ScsiDrive(LocalTransport(bench.server, "other"), tmp_path / "other", reserve=False)
    other.set_key(OTHER)
    with pytest.raises(DeviceFailed, match="another host changed the drive's encryption"):
        write(drive, block_of(1))
    write(drive, block_of(1), sync=True)
    assert drive.encryption() == Encryption(encrypts=True, decrypts=True, key_name=KEY.name)
    drive.rewind()
    assert read(drive) == block_of(0)
    drive.close()


def test_a_key_that_a_dead_process_left_is_taken_away(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    drive = bench.loaded()
    drive.set_key(KEY)
    write(drive, block_of(0), FILEMARK, sync=True)
    # As if killed: nothing is sent any more, the lock goes with the process.
    drive._session.notes.close()
    following = bench.open()
    assert following.encryption() == Encryption(encrypts=True, decrypts=True, key_name=KEY.name)
    following.load()
    assert following.encryption() == Encryption(encrypts=False, decrypts=False)
    following.locate(BlockNo(2))
    write(following, block_of(1), FILEMARK, sync=True)
    following.locate(BlockNo(2))
    assert following.next_block() is NextBlock.PLAIN
    following.close()


def test_a_key_that_somebody_else_set_stays(tmp_path: Path) -> None:
    bench = ServedBench(tmp_path)
    other = ScsiDrive(LocalTransport(bench.server, "other"), tmp_path / "other", reserve=False)
    other.load()
    other.set_key(DriveKey(SECRET, "theirs"))
    drive = ScsiDrive(LocalTransport(bench.server), tmp_path / "notes", reserve=False)
    drive.load()
    drive.set_key(None)
    found = drive.encryption()
    assert found is not None
    assert found.key_name == "theirs"
    drive.close()
    other.close()
