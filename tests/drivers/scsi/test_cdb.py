"""Commands, byte for byte as SPC, SSC and SMC lay them out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drivers.scsi import cdb, robot_cdb
from drivers.scsi import reservations as pr
from drivers.scsi.cdb import PageControl, Space
from drivers.scsi.robot_cdb import ElementType

GOLDEN = [
    (cdb.test_unit_ready(), "00 00 00 00 00 00"),
    (cdb.request_sense(), "03 00 00 00 fc 00"),
    (cdb.request_sense(96, descriptor=True), "03 01 00 00 60 00"),
    (cdb.inquiry(96), "12 00 00 00 60 00"),
    (cdb.inquiry(0x1234, page=0x83), "12 01 83 12 34 00"),
    (cdb.inquiry(255, page=0x00), "12 01 00 00 ff 00"),
    (cdb.read_block_limits(), "05 00 00 00 00 00"),
    (cdb.mode_sense_6(0x10, 252), "1a 00 10 00 fc 00"),
    (cdb.mode_sense_6(0x0F, 40, PageControl.CHANGEABLE), "1a 00 4f 00 28 00"),
    (cdb.mode_sense_10(0x0F, 0x0200, PageControl.DEFAULT), "5a 00 8f 00 00 00 00 02 00 00"),
    (cdb.mode_sense_10(0x0A, 64, subpage=0xF0), "5a 00 0a f0 00 00 00 00 40 00"),
    (cdb.mode_select_6(28), "15 10 00 00 1c 00"),
    (cdb.mode_select_10(32), "55 10 00 00 00 00 00 00 20 00"),
    (cdb.log_sense(0x12, 0x0400), "4d 00 52 00 00 00 00 04 00 00"),
    (cdb.log_sense(0x17, 256, parameter=0x0203), "4d 00 57 00 00 02 03 01 00 00"),
    (cdb.prevent_allow(prevent=True), "1e 00 00 00 01 00"),
    (cdb.prevent_allow(prevent=False), "1e 00 00 00 00 00"),
    (cdb.report_supported_opcodes(0x4000), "a3 0c 80 00 00 00 00 00 40 00 00 00"),
    (cdb.read_attribute(0x1000, first=0x0806), "8c 00 00 00 00 00 00 00 08 06 00 00 10 00 00 00"),
    (cdb.read_attribute(64, partition=1), "8c 00 00 00 00 00 00 01 00 00 00 00 00 40 00 00"),
    (cdb.security_protocol_in(0x20, 0x0020, 0x2000), "a2 20 00 20 00 00 00 00 20 00 00 00"),
    (cdb.security_protocol_out(0x20, 0x0010, 88), "b5 20 00 10 00 00 00 00 00 58 00 00"),
    (cdb.read_position_long(), "34 06 00 00 00 00 00 00 00 00"),
    (cdb.read_6(0x040000), "08 00 04 00 00 00"),
    (cdb.read_6(0x100000, suppress_length=True), "08 02 10 00 00 00"),
    (cdb.write_6(0x0FFFFF), "0a 00 0f ff ff 00"),
    (cdb.write_filemarks_6(1, immediate=True), "10 01 00 00 01 00"),
    (cdb.write_filemarks_6(0, immediate=False), "10 00 00 00 00 00"),
    (
        cdb.write_filemarks_16(2, block=0x0102030405, immediate=False),
        "80 00 00 00 00 00 00 01 02 03 04 05 00 00 02 00",
    ),
    (cdb.space_6(Space.FILEMARKS, 3), "11 01 00 00 03 00"),
    (cdb.space_6(Space.BLOCKS, -1), "11 00 ff ff ff 00"),
    (cdb.space_6(Space.END_OF_DATA), "11 03 00 00 00 00"),
    (cdb.space_16(Space.FILEMARKS, 0x01000000), "91 01 00 00 00 00 00 00 01 00 00 00 00 00 00 00"),
    (cdb.space_16(Space.BLOCKS, -2), "91 00 00 00 ff ff ff ff ff ff ff fe 00 00 00 00"),
    (cdb.locate_10(0x01020304), "2b 00 00 01 02 03 04 00 00 00"),
    (cdb.locate_16(0x0102030405060708), "92 00 00 00 01 02 03 04 05 06 07 08 00 00 00 00"),
    (cdb.rewind(), "01 00 00 00 00 00"),
    (cdb.rewind(immediate=True), "01 01 00 00 00 00"),
    (cdb.load_unload(load=True), "1b 00 00 00 01 00"),
    (cdb.load_unload(load=True, immediate=True), "1b 01 00 00 01 00"),
    (cdb.load_unload(load=False), "1b 00 00 00 00 00"),
    (cdb.erase_6(long=True), "19 01 00 00 00 00"),
    (cdb.erase_6(long=False, immediate=True), "19 02 00 00 00 00"),
    (cdb.erase_16(0x0102030405060708, long=True), "93 01 00 00 01 02 03 04 05 06 07 08 00 00 00 00"),
    (cdb.erase_16(5, long=False, immediate=True), "93 02 00 00 00 00 00 00 00 00 00 05 00 00 00 00"),
    (
        robot_cdb.read_element_status(ElementType.STORAGE, 0x010000, first=0x03E8, count=44, barcodes=True),
        "b8 12 03 e8 00 2c 00 01 00 00 00 00",
    ),
    (
        robot_cdb.read_element_status(ElementType.DATA_TRANSFER, 0xFFFF, device_ids=True),
        "b8 04 00 00 ff ff 01 00 ff ff 00 00",
    ),
    (robot_cdb.move_medium(0x03E8, 0x0100), "a5 00 00 00 03 e8 01 00 00 00 00 00"),
    (robot_cdb.move_medium(1, 2, robot=0x0056), "a5 00 00 56 00 01 00 02 00 00 00 00"),
    (pr.persistent_reserve_in(pr.ReserveIn.READ_RESERVATION, 24), "5e 01 00 00 00 00 00 00 18 00"),
    (pr.persistent_reserve_in(pr.ReserveIn.READ_KEYS, 0x0400), "5e 00 00 00 00 00 00 04 00 00"),
    (pr.persistent_reserve_out(pr.ReserveOut.REGISTER_AND_IGNORE), "5f 06 00 00 00 00 00 00 18 00"),
    (pr.persistent_reserve_out(pr.ReserveOut.RESERVE, pr.EXCLUSIVE_ACCESS), "5f 01 03 00 00 00 00 00 18 00"),
    (pr.persistent_reserve_out(pr.ReserveOut.PREEMPT, pr.EXCLUSIVE_ACCESS), "5f 04 03 00 00 00 00 00 18 00"),
]


@pytest.mark.parametrize(("command", "golden"), GOLDEN, ids=[golden for _, golden in GOLDEN])
def test_bytes(command: bytes, golden: str) -> None:
    assert command.hex(" ") == golden


@pytest.mark.parametrize(
    "call",
    [
        lambda: cdb.read_6(2**24),
        lambda: cdb.write_6(-1),
        lambda: cdb.space_6(Space.BLOCKS, 2**23),
        lambda: cdb.space_6(Space.BLOCKS, -(2**23) - 1),
        lambda: cdb.locate_10(2**32),
        lambda: cdb.locate_16(-1),
        lambda: cdb.mode_select_6(256),
        lambda: robot_cdb.move_medium(0x10000, 0),
    ],
)
def test_numbers_that_do_not_fit_are_refused(call: Callable[[], bytes]) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        call()


def test_parameters_of_persistent_reserve_out() -> None:
    assert pr.reserve_parameters(0x1122334455667788, 0xAABB).hex(" ") == (
        "11 22 33 44 55 66 77 88 00 00 00 00 00 00 aa bb 00 00 00 00 00 00 00 00"
    )
