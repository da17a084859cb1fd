"""Answers of devices, byte for byte as the standards lay them out, and any other bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.errors import BadAnswer
from drivers.scsi import elements, inquiry, logs, mam, modes, opcodes, position, reservations, tape_alerts
from drivers.scsi.inquiry import Designator, Identity
from drivers.scsi.robot_cdb import ElementType

MIB = 1024 * 1024


def hexed(*lines: str) -> bytes:
    return bytes.fromhex(" ".join(lines))


# -- INQUIRY ---------------------------------------------------------------------------------------------------------

LTO9 = hexed("01 80 06 02 5b 00 01 30") + b"IBM     ULT3580-TD9     Q3A1" + bytes(60)


def test_inquiry() -> None:
    assert inquiry.parse_inquiry(LTO9) == Identity(inquiry.TAPE, True, "IBM", "ULT3580-TD9", "Q3A1")
    assert not inquiry.parse_inquiry(hexed("7f 00 06 02 1f 00 00 00") + b" " * 28).connected


def test_vital_product_data() -> None:
    assert inquiry.parse_serial(hexed("01 80 00 0c") + b"  10WT012345") == "10WT012345"
    page = (
        hexed("01 83 00 32")
        + hexed("02 01 00 22")
        + b"IBM     ULT3580-TD9     10WT012345"
        + hexed("01 13 00 08 50 05 07 63 12 34 56 78")
    )
    assert inquiry.parse_designators(page) == [
        Designator(inquiry.IdKind.T10, 0, "IBM     ULT3580-TD9     10WT012345"),
        Designator(inquiry.IdKind.NAA, 1, "5005076312345678"),
    ]


def test_another_page_than_asked_for_is_refused() -> None:
    with pytest.raises(BadAnswer, match="80h"):
        inquiry.parse_serial(hexed("01 83 00 00"))


# -- modes -----------------------------------------------------------------------------------------------------------

COMPRESSION = hexed("8f 0e c0 80 00 00 00 01 00 00 00 01 00 00 00 00")
MODE_10 = hexed("00 1e 00 90 00 00 00 08", "60 00 00 00 00 00 00 00") + COMPRESSION
MODE_6 = hexed("1b 00 10 08", "60 00 00 00 00 04 00 00") + COMPRESSION


def test_mode_data() -> None:
    ten = modes.parse_mode_10(MODE_10)
    assert ten == modes.ModeData(0, True, 1, 0, 0x60, modes.VARIABLE, COMPRESSION)
    six = modes.parse_mode_6(MODE_6 + bytes(40))
    assert six == modes.ModeData(0, False, 1, 0, 0x60, 0x40000, COMPRESSION)
    assert modes.parse_mode_6(hexed("03 00 80 00")) == modes.ModeData(0, True, 0, 0, None, 0, b"")


def test_mode_parameters_to_set() -> None:
    wanted = replace(modes.parse_mode_6(MODE_6), block_bytes=0, page=modes.with_compression(COMPRESSION, False))
    page = "0f 0e 40 80 00 00 00 01 00 00 00 01 00 00 00 00"
    assert modes.mode_parameters_6(wanted) == hexed("00 00 10 08 60 00 00 00 00 00 00 00", page)
    assert modes.mode_parameters_10(wanted) == hexed("00 00 00 10 00 00 00 08 60 00 00 00 00 00 00 00", page)
    assert modes.mode_parameters_6(modes.ModeData(0, True, 0, 0, None, 0, b"")) == hexed("00 00 00 00")


def test_compression_page() -> None:
    assert modes.parse_compression(COMPRESSION) == modes.Compression(True, True, True, 1)
    off = modes.with_compression(COMPRESSION, False)
    assert modes.parse_compression(off) == modes.Compression(True, False, True, 1)
    assert modes.with_compression(off, True) == COMPRESSION


def test_element_address_page() -> None:
    page = hexed("1d 12 00 56 00 01 10 00 00 2c 03 00 00 03 01 00 00 02 00 00")
    assert modes.parse_element_addresses(page) == modes.ElementAddresses(
        modes.AddressRange(0x56, 1),
        modes.AddressRange(0x1000, 44),
        modes.AddressRange(0x300, 3),
        modes.AddressRange(0x100, 2),
    )


# -- position --------------------------------------------------------------------------------------------------------


def test_read_position_long() -> None:
    data = hexed(
        "40 00 00 00 00 00 00 01",
        "00 00 00 00 00 01 e2 40",
        "00 00 00 00 00 00 00 2a",
        "00 00 00 00 00 00 00 00",
    )
    assert position.parse_position_long(data) == position.LongPosition(False, True, 1, 123456, 42)
    unknown = position.parse_position_long(hexed("8c") + data[1:])
    assert (unknown.at_beginning, unknown.block, unknown.file) == (True, None, None)


def test_read_block_limits() -> None:
    assert position.parse_block_limits(hexed("00 80 00 00 00 01")) == position.BlockLimits(1, 8 * MIB, 1)
    assert position.parse_block_limits(hexed("e2 00 00 00 00 04")) == position.BlockLimits(4, 0, 4)


# -- logs ------------------------------------------------------------------------------------------------------------


def test_tape_alert_response_page() -> None:
    data = hexed("12 00 00 0c 00 00 03 08", "80 00 00 10 00 00 00 01")
    assert logs.parse_tape_alert_response(data) == {1, 28, 64}
    assert logs.parse_tape_alert_response(data[:8] + bytes(8)) == frozenset()


def test_tape_alert_page() -> None:
    data = hexed("2e 00 00 0f", "00 01 60 01 00", "00 14 60 01 01", "00 40 60 01 01")
    assert logs.parse_tape_alert(data) == {20, 64}


def test_sequential_access_page() -> None:
    data = hexed(
        "0c 00 00 54",
        "00 00 40 08 00 00 00 00 00 00 10 00",
        "00 04 40 08 00 00 00 00 00 00 00 07",
        "00 05 40 08 00 00 00 00 01 12 a8 80",
        "00 06 40 08 ff ff ff ff ff ff ff ff",
        "00 07 40 08 00 00 00 00 ff ff ff ff",
        "00 08 40 08 00 00 00 00 00 00 03 e8",
        "01 00 40 08 00 00 00 00 00 00 00 01",
    )
    page = logs.parse_sequential_access(data)
    assert (page.received_bytes, page.written_bytes) == (4096, None)
    assert (page.to_end_of_data_bytes, page.to_early_warning_bytes) == (7_000_000, 18_000_000_000_000)
    assert (page.behind_warning_bytes, page.to_head_bytes) == (None, None)
    assert (page.buffer_bytes, page.wants_cleaning) == (1_000_000_000, True)


def test_tape_capacity_page() -> None:
    data = hexed(
        "31 00 00 10",
        "00 01 40 04 00 00 00 10",
        "00 03 40 04 01 0f 00 00",
    )
    assert logs.parse_tape_capacity(data) == logs.TapeCapacity(16 * MIB, 0x010F0000 * MIB)
    assert logs.parse_tape_capacity(hexed("31 00 00 00")) == logs.TapeCapacity(None, None)


def test_device_statistics_page() -> None:
    data = hexed("14 00 00 18", "00 00 40 04 00 00 02 00", "00 02 40 04 00 00 10 00", "00 0e 40 04 00 00 00 03")
    page = logs.parse_device_statistics(data)
    assert (page.loads, page.power_on_hours, page.hard_write_errors) == (512, 4096, 3)
    assert (page.cleanings, page.hard_read_errors) == (None, None)


def test_volume_statistics_page() -> None:
    data = (
        hexed("17 00 00 3d", "00 01 40 04 00 00 00 07", "00 09 40 04 00 00 00 02", "00 81 40 01 01")
        + hexed("00 42 41 20")
        + b"TP0001L9".ljust(32)
    )
    page = logs.parse_volume_statistics(data)
    assert (page.loads, page.read_errors, page.worm, page.barcode) == (7, 2, 1, "TP0001L9")
    assert (page.write_errors, page.serial) == (None, "")


def test_a_parameter_that_was_cut_is_left_out() -> None:
    data = hexed("31 00 00 10", "00 01 40 04 00 00 00 10", "00 03 40 04 01")
    assert logs.parse_tape_capacity(data) == logs.TapeCapacity(16 * MIB, None)


def test_alerts_are_told_worst_first() -> None:
    told = tape_alerts.describe(frozenset({21, 20, 48}))
    assert [each.number for each in told] == [20, 21, 48]
    assert "cleaned now" in told[0].message
    assert all(each.number == number for number, each in tape_alerts.ALERTS.items())


# -- the cartridge's memory ------------------------------------------------------------------------------------------


def test_attributes() -> None:
    data = hexed(
        "00 00 00 30",
        "00 00 80 00 08 00 00 00 00 01 0f 44 7f",
        "04 08 80 00 01 80",
    ) + (hexed("08 06 01 00 20") + b"TP0001L9".ljust(32))
    # The available length counts more than was asked for: the last one is cut.
    found = mam.parse_attributes(data[:50])
    assert list(found) == [mam.AttributeId.REMAINING_CAPACITY_MIB, mam.AttributeId.MEDIUM_TYPE]
    assert found[0].number == 0x010F447F
    assert found[0].read_only
    assert found[mam.AttributeId.MEDIUM_TYPE].number == mam.WORM
    whole = mam.parse_attributes(hexed("00 00 00 38") + data[4:])
    assert whole[mam.AttributeId.BARCODE] == mam.Attribute(0x0806, False, mam.Format.ASCII, b"TP0001L9".ljust(32))
    assert whole[mam.AttributeId.BARCODE].text == "TP0001L9"


# -- what a device can do --------------------------------------------------------------------------------------------


def test_supported_opcodes() -> None:
    data = hexed(
        "00 00 00 30",
        "1b 00 00 00 00 02 00 06", "00 0a 00 00 00 00 00 11 00 00 1e f0",
        "a3 00 00 0c 00 03 00 0c", "00 0a 00 00 00 00 00 00 00 00 00 00",
        "01 00 00 00 00 00 00 06",
    )  # fmt: skip
    assert opcodes.parse_supported_opcodes(data) == [
        opcodes.Supported(0x1B, None, 17, 7920),
        opcodes.Supported(0xA3, 0x0C, None, None),
        opcodes.Supported(0x01, None, None, None),
    ]


# -- reservations ----------------------------------------------------------------------------------------------------


def test_reservations() -> None:
    keys = hexed("00 00 00 05 00 00 00 10", "11 22 33 44 55 66 77 88", "00 00 00 00 00 00 00 2a")
    assert reservations.parse_keys(keys) == [0x1122334455667788, 42]
    held = hexed("00 00 00 05 00 00 00 10", "00 00 00 00 00 00 00 2a", "00 00 00 00 00 03 00 00")
    assert reservations.parse_reservation(held) == reservations.Reservation(42, reservations.EXCLUSIVE_ACCESS)
    assert reservations.parse_reservation(hexed("00 00 00 05 00 00 00 00")) is None


ISCSI_PORT = hexed("45 00 00 14") + b"iqn.2026:a,i,0x00ff\0"
FC_PORT = hexed("00 00 00 00 00 00 00 00 50 05 07 63 12 34 56 78") + bytes(8)
SAS_PORT = hexed("06 00 00 00 50 05 07 63 12 34 56 79") + bytes(12)


def registered(port: bytes, *, holds: bool) -> bytes:
    head = hexed("00 00 00 00 00 00 00 2a 00 00 00 00") + bytes([holds, 3 * holds]) + bytes(5) + b"\1"
    return head + len(port).to_bytes(4, "big") + port


@pytest.mark.parametrize(
    ("port", "name"),
    [
        (ISCSI_PORT, "iqn.2026:a"),
        (FC_PORT, "the port 50:05:07:63:12:34:56:78"),
        (SAS_PORT, "the port 50:05:07:63:12:34:56:79"),
        (hexed("0A 00 00 00"), ""),
        (b"", ""),
    ],
)
def test_who_holds_a_reservation(port: bytes, name: str) -> None:
    body = registered(b"\6" + bytes(23), holds=False) + registered(port, holds=True)
    head = hexed("00 00 00 05") + len(body).to_bytes(4, "big")
    assert reservations.parse_holder_name(head + body) == name
    nobody = registered(port, holds=False)
    assert reservations.parse_holder_name(hexed("00 00 00 05") + len(nobody).to_bytes(4, "big") + nobody) == ""


# -- libraries -------------------------------------------------------------------------------------------------------

SLOTS = (
    hexed("10 00 00 02 00 00 00 70", "02 80 00 34 00 00 00 68")
    + (hexed("10 00 09 00 00 00 00 00 00 80 01 00") + b"TP0001L9".ljust(32) + bytes(8))
    + (hexed("10 01 08 00 00 00 00 00 00 00 00 00") + b" " * 32 + bytes(8))
)


def test_element_status_of_slots() -> None:
    first, second = elements.parse_element_status(SLOTS)
    assert (first.kind, first.address, first.full, first.accessible) == (ElementType.STORAGE, 0x1000, True, True)
    assert (first.barcode, first.source, first.device) == ("TP0001L9", 0x0100, None)
    assert (second.address, second.full, second.barcode, second.source) == (0x1001, False, None, None)


def test_element_status_of_drives_with_their_serials() -> None:
    serial = b"10WT012345"
    data = (
        hexed("01 00 00 02 00 00 00 3c", "04 00 00 1a 00 00 00 34")
        + (hexed("01 01 08 00 00 00 00 00 00 00 00 00", "02 00 00 0a") + serial)
        + (hexed("01 00 05 00 83 00 00 00 00 00 00 00", "02 00 00 00") + bytes(10))
    )
    empty, full = elements.parse_element_status(data)
    assert (empty.address, full.address) == (0x0100, 0x0101)
    assert (empty.full, empty.accessible, empty.excepted, empty.asc, empty.ascq) == (True, False, True, 0x83, 0)
    assert empty.device is None
    assert full.device == Designator(inquiry.IdKind.VENDOR_SPECIFIC, 0, "10WT012345")


def test_import_export_element_that_a_human_filled() -> None:
    data = hexed(
        "03 00 00 01 00 00 00 18", "03 00 00 10 00 00 00 10", "03 00 3b 00 00 00 00 00 00 00 00 00 00 00 00 00"
    )
    (port,) = elements.parse_element_status(data)
    assert (port.kind, port.full, port.by_hand, port.accessible) == (ElementType.IMPORT_EXPORT, True, True, True)


def test_a_last_element_that_is_a_few_bytes_short_counts_when_its_barcode_is_whole() -> None:
    full = SLOTS[:16] + SLOTS[16 + 52 :] + SLOTS[16 : 16 + 52]
    assert [each.barcode for each in elements.parse_element_status(full[:-8])] == ["TP0001L9", None]
    assert [each.address for each in elements.parse_element_status(full[:-9])] == [0x1001]


def test_an_element_without_room_for_its_barcode_is_refused() -> None:
    with pytest.raises(BadAnswer, match="too few"):
        elements.parse_element_status(hexed("10 00 00 01 00 00 00 14", "02 80 00 0c 00 00 00 0c") + bytes(12))


# -- anything --------------------------------------------------------------------------------------------------------

DECODERS: list[tuple[Callable[[bytes], object], bytes]] = [
    (inquiry.parse_inquiry, LTO9),
    (inquiry.parse_serial, hexed("01 80 00 02 41 42")),
    (inquiry.parse_designators, hexed("01 83 00 08 02 01 00 02 41 42 00 00")),
    (modes.parse_mode_6, MODE_6),
    (modes.parse_mode_10, MODE_10),
    (modes.parse_compression, COMPRESSION),
    (lambda data: modes.with_compression(data, True), COMPRESSION),
    (modes.parse_element_addresses, hexed("1d 12") + bytes(18)),
    (position.parse_position_long, bytes(32)),
    (position.parse_block_limits, bytes(6)),
    (logs.parse_tape_alert_response, hexed("12 00 00 0c 00 00 03 08") + bytes(8)),
    (logs.parse_tape_alert, hexed("2e 00 00 05 00 01 60 01 00")),
    (logs.parse_sequential_access, hexed("0c 00 00 06 00 00 40 02 00 01")),
    (logs.parse_tape_capacity, hexed("31 00 00 08 00 01 40 04 00 00 00 10")),
    (logs.parse_device_statistics, hexed("14 00 00 08 00 00 40 04 00 00 02 00")),
    (logs.parse_volume_statistics, hexed("17 00 00 08 00 01 40 04 00 00 02 00")),
    (mam.parse_attributes, hexed("00 00 00 06 04 08 80 00 01 80")),
    (opcodes.parse_supported_opcodes, hexed("00 00 00 14 1b 00 00 00 00 02 00 06 00 0a") + bytes(10)),
    (reservations.parse_keys, hexed("00 00 00 05 00 00 00 08") + bytes(8)),
    (reservations.parse_reservation, hexed("00 00 00 05 00 00 00 10") + bytes(16)),
    (reservations.parse_holder_name, hexed("00 00 00 05 00 00 00 30") + registered(ISCSI_PORT, holds=True)),
    (elements.parse_element_status, SLOTS),
]


@given(st.sampled_from(DECODERS), st.data())
def test_no_bytes_make_a_decoder_raise_anything_else(
    decoder: tuple[Callable[[bytes], object], bytes], data: st.DataObject
) -> None:
    """Random bytes, and sound answers with a few bytes changed and their ends cut off."""
    decode, sound = decoder
    changed = bytearray(sound)
    for at in data.draw(st.lists(st.integers(0, len(sound) - 1), max_size=6)):
        changed[at] = data.draw(st.integers(0, 255))
    cut = bytes(changed[: data.draw(st.integers(0, len(changed)))])
    for each in (cut, bytes(changed), data.draw(st.binary(max_size=80))):
        with contextlib.suppress(BadAnswer):
            decode(each)


@pytest.mark.parametrize("decoder", DECODERS)
def test_sound_answers_are_decoded(decoder: tuple[Callable[[bytes], object], bytes]) -> None:
    decode, sound = decoder
    decode(sound)
    with pytest.raises(BadAnswer):
        decode(b"")
