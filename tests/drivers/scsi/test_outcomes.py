"""From sense data to errors, and the document that shows the table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from drivers import errors
from drivers.errors import DriveError, ReadFailed, WriteFailed
from drivers.scsi.outcomes import RULES, Again, Doing, as_table, error_of, outcome_of
from drivers.scsi.sense import Key, Sense

ROOT = Path(__file__).parents[3]


def of(codes: str, **more: bool) -> Sense:
    key, asc, ascq = (int(each, 16) for each in codes.split("/"))
    return replace(Sense(Key(key), asc, ascq), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("codes", "doing", "error"),
    [
        ("0/0/1", Doing.READ, None),
        ("0/0/2", Doing.WRITE, None),
        ("0/0/4", Doing.MOVE, None),
        ("0/0/7", Doing.WRITE, None),
        ("0/0/17", Doing.WRITE, None),
        ("1/0/17", Doing.WRITE, None),
        ("1/37/0", Doing.ASK, None),
        ("2/4/1", Doing.LOAD, errors.NotReady),
        ("2/3a/0", Doing.READ, errors.NotReady),
        ("2/30/3", Doing.LOAD, errors.NotReady),
        ("2/30/0", Doing.LOAD, errors.IncompatibleMedium),
        ("3/c/0", Doing.WRITE, WriteFailed),
        ("3/c/0", Doing.MOVE, WriteFailed),
        ("3/11/0", Doing.READ, ReadFailed),
        ("3/11/0", Doing.WRITE, WriteFailed),
        ("3/11/0", Doing.MOVE, ReadFailed),
        ("3/14/3", Doing.MOVE, ReadFailed),
        ("3/30/0", Doing.LOAD, errors.IncompatibleMedium),
        ("3/50/0", Doing.WRITE, WriteFailed),
        ("4/44/0", Doing.WRITE, errors.DeviceFailed),
        ("4/10/1", Doing.WRITE, errors.DeviceFailed),
        ("5/20/0", Doing.ASK, errors.NotSupported),
        ("5/24/0", Doing.ASK, errors.NotSupported),
        ("5/2c/0", Doing.ASK, errors.DeviceFailed),
        ("5/21/1", Doing.ROBOT, errors.NoSuchElement),
        ("5/3b/d", Doing.ROBOT, errors.SlotFull),
        ("5/3b/e", Doing.ROBOT, errors.SlotEmpty),
        ("5/53/2", Doing.ROBOT, errors.NotReady),
        ("6/28/0", Doing.WRITE, errors.PositionLost),
        ("6/28/1", Doing.ROBOT, None),
        ("6/29/0", Doing.READ, errors.PositionLost),
        ("6/29/7", Doing.READ, errors.PositionLost),
        ("6/2a/1", Doing.WRITE, None),
        ("6/2a/11", Doing.WRITE, errors.DeviceFailed),
        ("6/5a/1", Doing.WRITE, errors.PositionLost),
        ("7/27/0", Doing.WRITE, errors.WriteProtected),
        ("7/30/c", Doing.WRITE, errors.WriteProtected),
        ("7/74/0", Doing.READ, errors.Undecryptable),
        ("7/74/1", Doing.READ, errors.Undecryptable),
        ("7/74/2", Doing.READ, errors.NotEncrypted),
        ("7/74/3", Doing.READ, errors.WrongKey),
        ("7/74/4", Doing.READ, ReadFailed),
        ("8/0/5", Doing.READ, errors.EndOfData),
        ("b/47/0", Doing.WRITE, errors.DeviceFailed),
        ("d/0/2", Doing.WRITE, errors.EndOfMedium),
        ("e/1d/0", Doing.READ, errors.DeviceFailed),
        ("9/80/0", Doing.READ, errors.DeviceFailed),
    ],
)
def test_sense_becomes_an_error(codes: str, doing: Doing, error: type[DriveError] | None) -> None:
    raised = error_of(of(codes), doing, block=4711, device="IBM X")
    assert type(raised) is (error or type(None))
    if raised is not None:
        assert str(raised).endswith(f"[sense {of(codes).codes}]")
        assert "IBM X" in str(raised)
    if isinstance(raised, ReadFailed | WriteFailed):
        assert raised.block == 4711
        assert "4711" in str(raised)


@pytest.mark.parametrize("codes", ["3/c/0", "3/11/0", "4/44/0", "b/47/0", "7/27/0"])
def test_a_deferred_error_is_one_of_earlier_blocks(codes: str) -> None:
    raised = error_of(of(codes, deferred=True), Doing.MOVE, block=10, device="X")
    assert isinstance(raised, WriteFailed)
    assert "written before" in str(raised)


def test_every_sense_has_an_outcome() -> None:
    for key in Key:
        for asc in range(256):
            outcome = outcome_of(Sense(key, asc, 0x55))
            assert outcome.happened
            assert outcome.key in (key, Key.RESERVED)


def test_no_row_is_hidden_by_one_before_it() -> None:
    for row in RULES:
        probe = Sense(row.key, 0xEE if row.asc is None else row.asc, 0xEE if row.ascq is None else row.ascq)
        assert outcome_of(probe) is row


def test_no_row_sends_a_human_away_with_nothing() -> None:
    """What does help again, helps after something."""
    for row in RULES:
        if row.again in (Again.AFTERWARDS, Again.LATER):
            assert row.error is not None
            assert row.advice


def test_retryable_errors_are_those_that_time_or_hands_cure() -> None:
    for row in RULES:
        if row.error is not None and row.error.retryable:
            assert row.again in (Again.LATER, Again.AFTERWARDS), row.codes


def test_the_document_shows_the_table() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    shown = text.split("<!-- sense: begin, made by scripts/faults-table -->\n\n")[1].split("\n<!-- sense: end -->")[0]
    assert shown == as_table(), "run scripts/faults-table"
