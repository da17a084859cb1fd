"""ScsiDrive erasing word for word: drives that do it their way, and that take hours."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import NotReady, NotSupported, PositionLost, WriteFailed
from tests.drivers.scsi.script import sense
from tests.drivers.scsi.test_drive import READY, RESET, REWIND, UNKNOWN, Exchange, Talk, at

SHORT, LONG, LONG_AT_ONCE = "19 00 00 00 00 00", "19 01 00 00 00 00", "19 03 00 00 00 00"
SHORT_16 = "93 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
ASK = "03 00 00 00 fc 00"
QUIET: Exchange = (ASK, sense(0, 0, 0).hex())


def busy(done: float, *, key: int = 0, asc: int = 0x00, ascq: int = 0x18) -> Exchange:
    """What a drive that is erasing answers to REQUEST SENSE."""
    data = bytearray(sense(key, asc, ascq))
    data[15] = 0x80
    data[16:18] = int(done * 65536).to_bytes(2, "big")
    return (ASK, data.hex())


def test_a_short_erase_is_waited_for(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (SHORT, ""), at(0))
    talk.drive.erase(long=False)
    talk.script.is_over()
    assert talk.script.timeouts_s[-2] == 74_341


def test_a_drive_that_knows_only_the_long_command(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (SHORT, UNKNOWN), (SHORT_16, ""), at(0))
    talk.drive.erase(long=False)
    talk.script.is_over()


def test_a_drive_that_cannot_erase_says_so(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (SHORT, UNKNOWN), (SHORT_16, UNKNOWN))
    with pytest.raises(NotSupported, match="erasing"):
        talk.drive.erase(long=False)
    talk.script.is_over()


def test_a_long_erase_tells_how_far_it_is(tmp_path: Path) -> None:
    polls = [busy(number / 100) for number in range(100)]
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), *polls, QUIET, READY, at(0))
    talk.drive.erase(long=True)
    talk.script.is_over()
    assert "erasing the tape for 1 min, 31% done" in talk.told[0]
    # Every ten minutes, not at every question.
    assert 3 <= len(talk.told) <= 6


@pytest.mark.parametrize("codes", [(2, 0x04, 0x07), (2, 0x04, 0x01), (0, 0x00, 0x16)])
def test_other_words_for_being_busy(tmp_path: Path, codes: tuple[int, int, int]) -> None:
    key, asc, ascq = codes
    working = busy(0.5, key=key, asc=asc, ascq=ascq)
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), working, working, QUIET, READY, at(0))
    talk.drive.erase(long=True)
    talk.script.is_over()


def test_a_drive_that_does_not_answer_at_once_is_waited_for(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, "check 05 24 00"), (LONG, ""), QUIET, READY, at(0))
    talk.drive.erase(long=True)
    talk.script.is_over()
    assert max(talk.script.timeouts_s) == 74_341


def test_where_the_head_went_it_comes_back_from(tmp_path: Path) -> None:
    back = ("92 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00", "")
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), QUIET, READY, at(7), back)
    talk.drive.erase(long=True)
    talk.script.is_over()


def test_an_erase_that_fails_on_its_way_is_told(tmp_path: Path) -> None:
    failed = (ASK, sense(3, 0x0C, 0x00, deferred=True).hex())
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), busy(0.3), failed)
    with pytest.raises(WriteFailed, match="03/0C/00"):
        talk.drive.erase(long=True)
    talk.script.is_over()


def test_a_failure_that_waits_for_the_next_command_is_told(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), busy(0.3), QUIET, (READY[0], "check 03 0c 00"))
    with pytest.raises(WriteFailed, match="erasing"):
        talk.drive.erase(long=True)


def test_a_reset_on_the_way_is_no_success(tmp_path: Path) -> None:
    """The drive was switched off and on: it erases no more, and asks nothing of anybody."""
    reset = (ASK, sense(6, 0x29, 0x01).hex())
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), busy(0.3), reset, QUIET, READY)
    with pytest.raises(PositionLost, match="reset"):
        talk.drive.erase(long=True)
    talk.script.is_over()


def test_an_attention_at_another_command_is_no_success(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), (ASK, RESET), QUIET, READY)
    with pytest.raises(PositionLost):
        talk.drive.erase(long=True)


def test_an_erase_that_never_ends_is_no_hang(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (LONG_AT_ONCE, ""), *[busy(0.5)] * 3000)
    with pytest.raises(NotReady, match="has been erasing"):
        talk.drive.erase(long=True)


def test_a_refused_erase_leaves_the_place_known(tmp_path: Path) -> None:
    talk = Talk.loaded(tmp_path, (SHORT, "check 07 30 0c"), REWIND)
    with pytest.raises(Exception, match="written once"):
        talk.drive.erase(long=False)
    talk.drive.rewind()
    talk.script.is_over()
