"""ScsiDrive word for word: what a device server of ours never says, but real drives do."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import (
    DeviceFailed,
    DriveInUse,
    EndOfData,
    EndOfMedium,
    IncompatibleMedium,
    NotReady,
    PositionLost,
    ReadFailed,
    Undecryptable,
    WriteFailed,
)
from drivers.interface import BlockNo
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.transport import Reply, Status
from tests.drivers.scsi.script import Script, sense

Exchange = tuple[str, str | Reply]

UNKNOWN = "check 05 20 00"
READY: Exchange = ("00 00 00 00 00 00", "")
REWIND: Exchange = ("01 00 00 00 00 00", "")
PREVENT: Exchange = ("1e 00 00 00 01 00", "")
ALLOW: Exchange = ("1e 00 00 00 00 00", "")
LOAD: Exchange = ("1b 01 00 00 01 00", "")
RESET = "check 06 29 00"

WHO: list[Exchange] = [
    ("12 00 00 00 60 00", "01 80 06 02 5b 00 01 30 " + b"IBM     ULT3580-TD9     Q3A1".hex(" ")),
    ("12 01 80 00 ff 00", "01 80 00 0a " + b"10WT012345".hex(" ")),
]
#: A drive that knows no reservations and recommends no timeouts.
OPEN: list[Exchange] = [
    *WHO,
    ("5f 06 00 00 00 00 00 00 18 00", UNKNOWN),
    ("a3 0c 80 00 00 00 00 00 40 00 00 00", UNKNOWN),
    ("05 00 00 00 00 00", "00 80 00 00 00 01"),
]

SENSE_10 = "5a 00 0f 00 00 00 00 02 00 00"
PAGE_ON = "8f 0e c0 80 00 00 00 01 00 00 00 01 00 00 00 00"
PAGE_OFF = "8f 0e 40 80 00 00 00 01 00 00 00 01 00 00 00 00"
#: Variable blocks, buffered, LTO-9.
SET = "00 1e 00 10 00 00 00 08 60 00 00 00 00 00 00 00 "
MODES: Exchange = (SENSE_10, SET + PAGE_ON)
ALERTS = "4d 00 52 00 00 00 00 40 00 00"
NO_ALERTS: Exchange = (ALERTS, UNKNOWN)
LOADED: list[Exchange] = [*OPEN, READY, READY, REWIND, MODES, PREVENT, NO_ALERTS]


def at(block: int, *, file: int = 0, flags: int = 0) -> Exchange:
    """READ POSITION and its answer."""
    place = bytes([flags]) + bytes(7) + block.to_bytes(8, "big") + file.to_bytes(8, "big") + bytes(8)
    return ("34 06 00 00 00 00 00 00 00 00", place.hex())


class Talk:
    """A drive that was opened, perhaps loaded, and what goes on."""

    def __init__(self, folder: Path, exchanges: list[Exchange]) -> None:
        self.script = Script(exchanges)
        self.told: list[str] = []
        self.drive = ScsiDrive(self.script, folder, report=self.told.append, clock=self.script.clock)

    @classmethod
    def loaded(cls, folder: Path, *more: Exchange) -> Talk:
        talk = cls(folder, [*LOADED])
        talk.drive.load()
        talk.script.is_over()
        talk.script.add(*more)
        return talk


def check(key: int, asc: int, ascq: int, **more: int | bool | None) -> Reply:
    return Reply(Status.CHECK_CONDITION, sense(key, asc, ascq, **more))  # type: ignore[arg-type]


# -- opening and loading ---------------------------------------------------------------------------------------------


def test_opening_a_changer_is_refused(tmp_path: Path) -> None:
    nameless = [("12 01 80 00 ff 00", UNKNOWN), ("12 01 83 00 ff 00", UNKNOWN)]
    script = Script([("12 00 00 00 60 00", "08" + " 00" * 35), *nameless])
    with pytest.raises(DeviceFailed, match="no tape drive"):
        ScsiDrive(script, tmp_path)
    assert script.is_closed


def test_a_drive_without_a_serial_number_goes_by_its_own_name(tmp_path: Path) -> None:
    port_and_unit = "01 83 00 18 01 13 00 08 50 05 07 63 12 34 56 78 01 03 00 08 50 05 07 63 ab cd ef 01"
    talk = Talk(
        tmp_path, [WHO[0], (WHO[1][0], "01 80 00 04 20 20 20 20"), ("12 01 83 00 ff 00", port_and_unit), *OPEN[2:]]
    )
    assert talk.drive._device.serial == "50050763abcdef01"
    assert (tmp_path / "50050763abcdef01.lock").exists()


def test_a_busy_drive_is_waited_for(tmp_path: Path) -> None:
    talk = Talk(tmp_path, [(WHO[0][0], "busy"), (WHO[0][0], "busy"), *OPEN])
    assert talk.script.clock.at_s == 1
    script = Script([(WHO[0][0], "busy")] * 200)
    with pytest.raises(NotReady, match="busy"):
        ScsiDrive(script, tmp_path, clock=script.clock)
    assert 60 <= script.clock.at_s < 62


def test_a_drive_that_another_host_reserved_is_in_use(tmp_path: Path) -> None:
    reserve = "5f 01 03 00 00 00 00 00 18 00"
    held = "00 00 00 05 00 00 00 10 00 00 00 00 00 00 00 2a 00 00 00 00 00 03 00 00"
    script = Script(
        [
            *WHO,
            ("5f 06 00 00 00 00 00 00 18 00", ""),
            (reserve, "conflict"),
            ("5e 01 00 00 00 00 00 00 18 00", held),
            ("5e 03 00 00 00 00 00 20 00 00", UNKNOWN),
            ("5f 00 00 00 00 00 00 00 18 00", ""),
        ]
    )
    with pytest.raises(DriveInUse, match="0x2a"):
        ScsiDrive(script, tmp_path)
    registered, _, given_up = script.sent
    assert registered[:8] == bytes(8)
    assert registered[8:16] != bytes(8)
    assert given_up[:16] == registered[8:16] + bytes(8)
    assert script.is_closed


def test_the_drive_tells_its_timeouts(tmp_path: Path) -> None:
    told = "00 00 00 14 01 00 00 00 00 02 00 06 00 0a 00 00 00 00 00 10 00 00 04 d2"
    talk = Talk(tmp_path, [*OPEN[:3], (OPEN[3][0], told), OPEN[4], *LOADED[5:]])
    talk.drive.load()
    assert talk.script.timeouts_s[-4] == 1234
    talk.script.is_over()


def test_a_new_lto_9_tape_shows_as_progress(tmp_path: Path) -> None:
    becoming = ("00 00 00 00 00 00", Reply(Status.CHECK_CONDITION, bytes.fromhex(
        "70 00 02 00 00 00 00 0a 00 00 00 00 04 01 00 80 40 00")))  # fmt: skip
    talk = Talk(tmp_path, [*OPEN, ("00 00 00 00 00 00", "check 02 3a 00"), LOAD, *[becoming] * 3600, *LOADED[6:]])
    talk.drive.load()
    talk.script.is_over()
    assert talk.script.clock.at_s == 3600
    assert len(talk.told) == 60
    assert "25% done" in talk.told[0]
    assert talk.drive._tally.load_s == 3600


def test_a_drive_that_never_becomes_ready_is_given_up(tmp_path: Path) -> None:
    talk = Talk(tmp_path, [*OPEN, *[("00 00 00 00 00 00", "check 02 04 01")] * 8000])
    with pytest.raises(NotReady, match="7921 s"):
        talk.drive.load()


@pytest.mark.parametrize(
    ("answer", "error"),
    [("check 02 3a 00", NotReady), ("check 03 30 00", IncompatibleMedium), ("check 04 53 00", DeviceFailed)],
)
def test_loading_fails_for_a_reason(tmp_path: Path, answer: str, error: type[Exception]) -> None:
    talk = Talk(tmp_path, [*OPEN, ("00 00 00 00 00 00", "check 02 3a 00"), (LOAD[0], answer)])
    with pytest.raises(error):
        talk.drive.load()


def test_a_drive_that_cannot_load_in_the_background(tmp_path: Path) -> None:
    no_tape = ("00 00 00 00 00 00", "check 02 3a 00")
    slow = ("1b 00 00 00 01 00", "")
    talk = Talk(tmp_path, [*OPEN, no_tape, (LOAD[0], "check 05 24 00"), slow, *LOADED[6:]])
    talk.drive.load()
    assert talk.script.timeouts_s[7] == 7920
    talk.script.is_over()


def test_settings_are_made_and_checked(tmp_path: Path) -> None:
    fixed_unbuffered = "00 1e 00 00 00 00 00 08 60 00 00 00 00 00 02 00 " + PAGE_ON
    talk = Talk(
        tmp_path,
        [
            *LOADED[:-3],
            (SENSE_10, fixed_unbuffered),
            ("55 10 00 00 00 00 00 00 20 00", ""),
            (SENSE_10, SET + PAGE_OFF),
            PREVENT,
            NO_ALERTS,
        ],
    )
    talk.drive.load(compress=False)
    page = "0f 0e 40 80 00 00 00 01 00 00 00 01 00 00 00 00"
    assert talk.script.sent[-1] == bytes.fromhex("00 00 00 10 00 00 00 08 60 00 00 00 00 00 00 00" + page)
    talk.script.is_over()


def test_a_drive_that_knows_only_the_short_mode_commands_and_no_page(tmp_path: Path) -> None:
    """As tgt's: blocks can be set, compression cannot."""
    header = "0b 00 10 08 60 00 00 00 00 00 02 00"
    talk = Talk(
        tmp_path,
        [
            *LOADED[:-3],
            (SENSE_10, UNKNOWN),
            ("1a 00 0f 00 fc 00", "check 05 24 00"),
            ("5a 00 10 00 00 00 00 02 00 00", UNKNOWN),
            ("1a 00 10 00 fc 00", header),
            ("15 10 00 00 0c 00", ""),
            ("1a 00 0f 00 fc 00", "check 05 24 00"),
            ("1a 00 10 00 fc 00", "0b 00 10 08 60 00 00 00 00 00 00 00"),
            (PREVENT[0], UNKNOWN),
            NO_ALERTS,
        ],
    )
    # It refused the ten-byte sense once; the ten-byte select is not even tried.
    talk.drive.load(compress=True)
    talk.script.is_over()


def test_a_drive_that_stays_at_fixed_blocks_is_refused(tmp_path: Path) -> None:
    fixed = "00 1e 00 10 00 00 00 08 60 00 00 00 00 00 02 00 " + PAGE_ON
    select = ("55 10 00 00 00 00 00 00 10 00", "")
    talk = Talk(tmp_path, [*LOADED[:-3], (SENSE_10, fixed), select, (SENSE_10, fixed)])
    with pytest.raises(DeviceFailed, match="512 bytes"):
        talk.drive.load()


def test_what_the_drive_wants_to_be_told_is_told_once(tmp_path: Path) -> None:
    flags = "12 00 00 0c 00 00 03 08 00 00 18 00 00 00 00 00"
    talk = Talk(tmp_path, [*LOADED[:-1], (ALERTS, flags), (WRITE, "check 01 00 17"), (WRITE, "check 01 00 17")])
    talk.drive.load()
    assert [each[-15:] for each in talk.told] == [" [TapeAlert 20]", " [TapeAlert 21]"]
    talk.drive.write_block(b"abcd")
    talk.drive.write_block(b"abcd")
    assert len(talk.told) == 3
    assert "asks to be cleaned (clean the drive, then go on)" in talk.told[2]
    worse = "12 00 00 0c 00 00 03 08 10 00 18 00 00 00 00 00"
    talk.script.add(
        ("10 00 00 00 00 00", ""), READY, (ALERTS, worse), ALLOW, ("1b 00 00 00 00 00", ""),
        READY, REWIND, MODES, PREVENT, (ALERTS, "12 00 00 04 00 00"),
    )  # fmt: skip
    talk.drive.unload()
    assert len(talk.told) == 4
    assert "can no longer be read or written well" in talk.told[3]
    talk.script._exchanges.insert(0, READY)
    talk.drive.load()
    assert "cannot be read" in talk.told[4]
    talk.script.is_over()


# -- writing ---------------------------------------------------------------------------------------------------------

WRITE = "0a 00 00 00 04 00"


def test_early_warning_is_told_and_stays(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, ""), (WRITE, "early"), (WRITE, ""))
    assert [talk.drive.write_block(b"abcd") for _ in range(3)] == [False, True, True]
    talk.script.is_over()


def test_what_is_no_early_warning(tmp_path: Path) -> None:
    programmed = check(0, 0, 7, flags=0x40, information=0)
    talk = Talk.loaded(tmp_path, (WRITE, programmed), (WRITE, "check 01 00 17"), (WRITE, "check 00 00 17"))
    assert [talk.drive.write_block(b"abcd") for _ in range(3)] == [False, False, False]


def test_volume_overflow_is_the_end(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, check(0xD, 0, 2, flags=0x40, information=4)))
    with pytest.raises(EndOfMedium):
        talk.drive.write_block(b"abcd")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (check(3, 0x0C, 0), WriteFailed, "block 1: .*could not write.*03/0C/00"),
        (check(3, 0x0C, 0, deferred=True), WriteFailed, "written before"),
        (check(4, 0x44, 0), DeviceFailed, "hardware"),
        (check(6, 0x29, 1), PositionLost, "reset"),
        (check(6, 0x28, 0), PositionLost, "another tape"),
        (check(6, 0x2A, 3), DriveInUse, "reservation"),
        (Reply(Status.RESERVATION_CONFLICT), DriveInUse, "another host"),
        (Reply(Status.CHECK_CONDITION), DeviceFailed, "hardware"),
        (Reply(Status.CHECK_CONDITION, b"\x33"), DeviceFailed, "sense data"),
    ],
)
def test_writing_fails_for_a_reason(tmp_path: Path, answer: Reply, error: type[Exception], words: str) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, ""), (WRITE, answer))
    talk.drive.write_block(b"abcd")
    with pytest.raises(error, match=words):
        talk.drive.write_block(b"efgh")
    talk.script.is_over()


def test_what_is_broken_off_before_data_moved_is_sent_once_more(tmp_path: Path) -> None:
    aborted = "check 0b 47 00"
    talk = Talk.loaded(tmp_path, (WRITE, aborted), (WRITE, ""), (WRITE, aborted), (WRITE, aborted))
    talk.drive.write_block(b"abcd")
    with pytest.raises(DeviceFailed, match="cables"):
        talk.drive.write_block(b"abcd")
    moved = Reply(Status.CHECK_CONDITION, sense(0xB, 0x47, 0), 2)
    talk.script.add(at(1), (WRITE, moved))
    with pytest.raises(DeviceFailed, match="cables"):
        talk.drive.write_block(b"abcd")
    marks = "10 00 00 00 01 00"
    talk.script.add(at(1), (marks, aborted))
    with pytest.raises(DeviceFailed, match="cables"):
        talk.drive.write_filemarks(1, sync=True)
    talk.script.is_over()


def test_settings_that_another_host_changed_are_made_again(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, "check 06 2a 01"), MODES, PREVENT, (WRITE, ""))
    talk.drive.write_block(b"abcd")
    talk.script.is_over()


def test_a_deferred_note_that_is_no_error_only_repeats(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, check(1, 0x37, 0, deferred=True)), (WRITE, ""))
    assert not talk.drive.write_block(b"abcd")
    talk.script.is_over()


def test_filemarks_in_the_background_where_the_drive_can(tmp_path: Path) -> None:
    talk = Talk.loaded(
        tmp_path,
        ("10 01 00 00 01 00", "check 05 24 00"),
        at(0),
        ("10 00 00 00 01 00", "early"),
        ("10 00 00 00 00 00", ""),
    )
    talk.drive.write_filemarks(1, sync=False)
    talk.drive.write_filemarks(0, sync=True)
    talk.script.is_over()


def test_a_tape_whose_buffer_cannot_be_written_out_is_ejected_all_the_same(tmp_path: Path) -> None:
    talk = Talk.loaded(
        tmp_path,
        (WRITE, ""),
        ("10 00 00 00 00 00", "check 03 0c 00"),
        READY,
        NO_ALERTS,
        ALLOW,
        ("1b 00 00 00 00 00", ""),
    )
    talk.drive.write_block(b"abcd")
    with pytest.raises(WriteFailed):
        talk.drive.unload()
    talk.script.is_over()


def test_a_tape_on_its_way_out_is_not_held_again(tmp_path: Path) -> None:
    """The connection is made anew between letting the tape go and ejecting it: nobody prevents that any more."""
    unload = "1b 00 00 00 00 00"
    where = at(1)
    talk = Talk.loaded(
        tmp_path,
        (WRITE, ""),
        ("10 00 00 00 00 00", ""),
        READY,
        NO_ALERTS,
        ALLOW,
        (unload, "check 06 29 07"),
        where,
        MODES,
        (unload, ""),
    )
    talk.drive.write_block(b"abcd")
    talk.drive.unload()
    talk.script.is_over()


# -- after a reset ---------------------------------------------------------------------------------------------------


def test_after_a_reset_nothing_goes_until_the_tape_was_rewound(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (WRITE, ""), (WRITE, RESET))
    talk.drive.write_block(b"abcd")
    for call in (lambda: talk.drive.write_block(b"abcd"), talk.drive.position, talk.drive.seek_end):
        with pytest.raises(PositionLost, match="rewind"):
            call()
    talk.script.is_over()
    # It wakes up with its own ideas of blocks and buffering.
    fresh = "00 1e 00 00 00 00 00 08 60 00 00 00 00 00 00 00 " + PAGE_ON
    talk.script.add(READY, REWIND, (SENSE_10, fresh), ("55 10 00 00 00 00 00 00 10 00", ""), MODES, PREVENT, at(0))
    talk.drive.rewind()
    assert talk.drive.position().block == 0
    talk.script.is_over()


def test_a_reset_that_is_told_while_asking_for_the_status_counts(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (READY[0], RESET), READY, MODES)
    nothing = ("check 05 20 00",) * 3
    talk.script.add(
        ("8c 00 00 00 00 00 00 00 00 00 00 00 40 00 00 00", nothing[0]),
        ("4d 00 57 00 00 00 00 40 00 00", nothing[1]),
        ("4d 00 71 00 00 00 00 40 00 00", nothing[2]),
        at(0),
        ("4d 00 4c 00 00 00 00 40 00 00", UNKNOWN),
        ("4d 00 71 00 00 00 00 40 00 00", UNKNOWN),
    )
    status = talk.drive.status()
    assert (status.loaded, status.generation, status.medium_generation) == (True, 9, 9)
    assert status.capacity_bytes == 18 * 10**12
    assert 0 < status.remaining_bytes < status.capacity_bytes
    talk.script.is_over()
    with pytest.raises(PositionLost):
        talk.drive.write_block(b"abcd")


# -- reading ---------------------------------------------------------------------------------------------------------


def buffer(size: int) -> memoryview:
    return memoryview(bytearray(size))


def short(by: int, moved: int) -> Reply:
    return Reply(Status.CHECK_CONDITION, sense(0, 0, 0, flags=0x20, information=by), moved)


def test_lengths_are_suppressed_only_where_blocks_are_shorter(tmp_path: Path) -> None:
    plain, silent = "08 00 00 00 0a 00", "08 02 00 00 0a 00"
    talk = Talk.loaded(
        tmp_path,
        (plain, short(6, 4)),
        # The drive is now known to have blocks of 4.
        (silent, Reply(Status.GOOD, b"", 4)),
        # As many as asked for: the block may have been longer, so it is read again and told. That the drive had to try
        # twice does not change that.
        (silent, Reply(Status.CHECK_CONDITION, sense(1, 0x17, 1), 10)),
        ("11 00 ff ff ff 00", ""),
        (plain, short(-5, 10)),
        ("11 00 ff ff ff 00", ""),
    )
    assert [talk.drive.read_into(buffer(10)) for _ in range(2)] == [4, 4]
    with pytest.raises(ValueError, match="block 2 has 15 bytes"):
        talk.drive.read_into(buffer(10))
    talk.script.add(("08 00 00 00 0f 00", Reply(Status.GOOD, b"", 15)), at(3))
    talk.drive._reader._last_bytes = 15
    assert talk.drive.read_into(buffer(15)) == 15
    assert talk.drive.position().block == 3
    talk.script.is_over()


def test_a_filemark_near_the_end_is_a_filemark(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, ("08 00 00 00 0a 00", check(0, 0, 1, flags=0xC0, information=10)))
    assert talk.drive.read_into(buffer(10)) == 0


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (check(3, 0x11, 0), ReadFailed, "block 0: .*another copy"),
        (check(3, 0, 2, flags=0x40), ReadFailed, "physical end"),
        (check(8, 0, 5), EndOfData, "nothing behind"),
        (check(8, 0, 0, flags=0x40), EndOfData, "nothing behind"),
        (check(7, 0x74, 0), Undecryptable, "key"),
        (check(6, 0x29, 0), PositionLost, "reset"),
        (check(0, 0, 0, flags=0x20), DeviceFailed, "does not tell"),
    ],
)
def test_reading_fails_for_a_reason(tmp_path: Path, answer: Reply, error: type[Exception], words: str) -> None:
    talk = Talk.loaded(tmp_path, ("08 00 00 00 0a 00", answer))
    with pytest.raises(error, match=words):
        talk.drive.read_into(buffer(10))


# -- moving ----------------------------------------------------------------------------------------------------------

LOCATE_16 = "92 00 00 00 00 00 00 00 00 00 00 07 00 00 00 00"
LOCATE_10 = "2b 00 00 00 00 00 07 00 00 00"


def test_an_older_drive_locates_by_the_shorter_command(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (LOCATE_16, UNKNOWN), (LOCATE_10, ""))
    talk.drive.locate(BlockNo(7))
    talk.script.is_over()


def test_a_drive_that_cannot_locate_walks_over_filemarks(tmp_path: Path) -> None:
    """Block 7 behind two filemarks: 2 blocks, filemark, filemark, 3 blocks."""
    talk = Talk.loaded(
        tmp_path,
        (LOCATE_16, UNKNOWN),
        (LOCATE_10, UNKNOWN),
        REWIND,
        ("11 00 00 00 07 00", check(0, 0, 1, flags=0x80, information=5)),
        ("11 00 00 00 04 00", check(0, 0, 1, flags=0x80, information=4)),
        ("11 00 00 00 03 00", ""),
    )
    talk.drive.locate(BlockNo(7))
    talk.script.is_over()


def test_the_head_stands_where_nobody_knows(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, at(0, flags=0x04))
    with pytest.raises(PositionLost, match="does not know"):
        talk.drive.position()


def test_a_tape_that_an_earlier_process_left_is_gone_on_with(tmp_path: Path) -> None:
    talk = Talk(tmp_path, [*OPEN, (READY[0], RESET), READY, MODES, PREVENT, at(12, file=3)])
    position = talk.drive.position()
    assert (position.block, position.file) == (12, 3)
    talk.script.is_over()
