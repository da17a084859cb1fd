"""Copies that are fetched and read back while a drive says one bad thing, at loading, label, locate and read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from catalog.ids import FrameNo
from catalog.records import CopyState, SegmentCopy
from drivers.errors import DriveError
from tapefs.errors import TapeError
from tapefs.recall.stager import Stager
from tapefs.staging.stage import SegmentStage
from tapefs.tape.label import check_label
from tapefs.verify.copy import verify_copy
from tests.backup.test_recall import Heard
from tests.faults.sense_sweep import FAULTS, Fault, ScsiRig
from tests.faults.sweep import prepared
from tests.verify.conftest import Follower

_LOADING = ("load", "rewind", "set", "hold", "settings?")
WAYS = ("recall", "verify")


def part_of_reading(phase: str) -> str:
    """Return the part of a reading task that a command belongs to."""
    kind, _, where = phase.partition(" ")
    if kind in _LOADING or "before" in where:
        return "load, to read"
    if kind in ("locate", "space"):
        return "locate, to read"
    return "label, to read" if where.endswith("file 0") else "read"


class ReadingSweep:
    """One tape with one set, read again and again; the tape is loaded anew for each try."""

    def __init__(self, folder: Path) -> None:
        tree, self._home = prepared(folder)
        self.rig = ScsiRig.existing(self._home)
        set_id = self.rig.backup(tree)
        ledger = self.rig.ledger
        self._segments = ledger.segments(set_id)
        self._copies = [copy for each in self._segments for copy in ledger.copies(each.segment_id)]
        self._volume = ledger.volume(self._copies[0].volume_id)
        #: Plain bytes of each segment, as they were fetched without a fault.
        self._plain: list[bytes] = []
        self.cases: list[tuple[str, Fault, str]] = []

    def prepare(self) -> None:
        """Read without faults to learn bytes and phases, and list the cases."""
        for way in WAYS:
            # Each case begins where a clean try of its kind has ended.
            assert self._try(way) == "goes on"
            self.rig.way.phases.clear()
            assert self._try(way) == "goes on"
            phases = list(self.rig.way.phases)
            self.cases += [
                (way, fault, phase) for fault in FAULTS for phase in phases if phase.split(" ")[0] in fault.to.values()
            ]

    def results(self, numbers: range) -> Iterator[dict[str, object]]:
        """Try some of the cases; a result with `wrong` says what must not be."""
        last_way = ""
        for number in numbers:
            way, fault, phase = self.cases[number]
            if way != last_way:
                self._try(way)
                last_way = way
            result: dict[str, object] = {
                "fault": fault.name,
                "phase": phase,
                "way": way,
                "part": part_of_reading(phase),
            }
            before = self._states()
            self.rig.way.struck = False
            self.rig.way.arm(fault, phase)
            outcome = self._try(way)
            self.rig.way.disarm()
            result["struck"] = self.rig.way.struck
            result |= self._judge(outcome, fault, before)
            # The fault is over: everything is as it was.
            if self._try(way) != "goes on" or any(each.state is not CopyState.GOOD for each in self._states()):
                result["wrong"] = "the next try does not go well"
            yield result

    def _states(self) -> list[SegmentCopy]:
        return [copy for each in self._segments for copy in self.rig.ledger.copies(each.segment_id)]

    def _judge(self, outcome: str, fault: Fault, before: list[SegmentCopy]) -> dict[str, object]:
        """Return what came of it, and what is wrong with that."""
        if outcome in ("goes on", "frames lost", "damage"):
            # Only what says that a block cannot be read, or is not there, may cost bytes.
            is_wrong = outcome != "goes on" and fault.codes not in _MAY_COST and fault.codes[0] not in (0x3, 0x8)
            return {"outcome": outcome} | ({"wrong": "damage is made up"} if is_wrong else {})
        found: dict[str, object] = {"outcome": "fails", "error": outcome}
        if "[sense" not in outcome and outcome.partition(":")[0] not in _OF_THE_TAPE:
            found["wrong"] = "the failure does not name the sense data"
        # What was read before it was found good, and that may be known.
        if [each.state for each in self._states()] != [each.state for each in before]:
            found["wrong"] = "a failure of the drive changed what is known of a copy"
        return found

    def _try(self, way: str) -> str:
        """Load the tape, check its label and read; return an outcome, or what an error says."""
        drive = self.rig.drive
        try:
            drive.unload()
            drive.load()
            check_label(drive, self._volume)
            return self._recall() if way == "recall" else self._verify()
        except (DriveError, TapeError) as error:
            return f"{type(error).__name__}: {error}"

    def _verify(self) -> str:
        findings = [
            verify_copy(self.rig.home, self.rig.ledger, self.rig.drive, copy, Follower()) for copy in self._copies
        ]
        return "goes on" if all(each.is_good for each in findings) else "damage"

    def _recall(self) -> str:
        staging = self.rig.home.staging
        shutil.rmtree(staging)
        staging.mkdir()
        heard = Heard()
        stager = Stager(self.rig.home, self.rig.ledger, self.rig.drive, self._volume.volume_id, heard)
        try:
            # The last one first: ahead it is read over the gap, and back there is a locate.
            for each in reversed(self._segments):
                stager.fetch(each.segment_id, FrameNo(0), FrameNo(each.frames - 1))
        finally:
            stager.close()
            self._compare()
        return "frames lost" if heard.failures else "goes on"

    def _compare(self) -> None:
        """Every frame that is there is the one that was written. Raises AssertionError."""
        is_first = not self._plain
        for number, each in enumerate(self._segments):
            stage = SegmentStage.open(self.rig.home.staging, each.segment_id)
            if stage is None:
                continue
            if is_first:
                whole = stage.read(0, stage.plain_bytes)
                assert whole is not None
                self._plain.append(whole)
            for frame in range(each.frames):
                start, length = stage.extent_of(frame)
                got = stage.read(start, length)
                assert got is None or got == self._plain[number][start : start + length], (number, frame)
            stage.close()

    def close(self) -> None:
        """Let go of drive and ledger."""
        self.rig.close()


#: Failures that say what is on the tape, or that the position is lost, not what the drive said.
_OF_THE_TAPE = ("BadStructure", "WrongTape", "PositionLost")
#: A filemark where none is: what follows is missing.
_MAY_COST = ((0x0, 0x00, 0x01),)
