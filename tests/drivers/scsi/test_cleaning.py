"""ScsiDrive has itself cleaned, word for word: what drives answer while they do it and when it has failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import CleaningUsedUp, DeviceFailed, IncompatibleMedium
from tests.drivers.scsi.test_drive import OPEN, Exchange, Talk

#: The cartridge is out by then; the whole page is asked for.
ALERTS = "4d 00 52 00 00 00 00 40 00 00"
TEST = "00 00 00 00 00 00"
CLEANING: Exchange = (TEST, "check 02 30 03")
BECOMING_READY: Exchange = (TEST, "check 02 04 01")
EMPTY: Exchange = (TEST, "check 02 3a 00")
QUIET: Exchange = (ALERTS, "12 00 00 0c 00 00 03 08 00 00 00 00 00 00 00 00")


def flagged(number: int) -> Exchange:
    bits = 1 << (64 - number)
    return (ALERTS, f"12 00 00 0c 00 00 03 08 {bits.to_bytes(8, 'big').hex(' ')}")


def talk_of(folder: Path, *exchanges: Exchange) -> Talk:
    talk = Talk(folder, [*OPEN])
    talk.script.add(*exchanges)
    return talk


def test_it_is_waited_for_until_the_cartridge_is_out(tmp_path: Path) -> None:
    talk = talk_of(tmp_path, (TEST, "check 06 28 00"), BECOMING_READY, *[CLEANING] * 80, EMPTY, QUIET)
    talk.drive.clean()
    talk.script.is_over()
    assert 160 <= talk.script.clock.at_s < 200


@pytest.mark.parametrize(
    ("exchanges", "error", "said"),
    [
        ([CLEANING, (TEST, "check 03 30 07")], CleaningUsedUp, "used up or not for this drive"),
        ([CLEANING, EMPTY, flagged(22)], CleaningUsedUp, "TapeAlert 22"),
        ([CLEANING, EMPTY, flagged(23)], IncompatibleMedium, "TapeAlert 23"),
        ([CLEANING, (TEST, "")], IncompatibleMedium, "with data"),
        ([CLEANING] * 452, DeviceFailed, "look at its panel"),
        ([CLEANING, (TEST, "check 04 44 00")], DeviceFailed, "04/44/00"),
    ],
)
def test_what_goes_wrong(tmp_path: Path, exchanges: list[Exchange], error: type[Exception], said: str) -> None:
    talk = talk_of(tmp_path, *exchanges)
    with pytest.raises(error, match=said):
        talk.drive.clean()
