"""itdt and one device: its commands as functions, every end checked. Blocking; one thread.

A command has failed when the exit code of the process, the code that itdt prints or its `Result:` says so.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from drivers.errors import BadAnswer, DeviceFailed, DriveError, NotReady
from drivers.itdt.answers import (
    Place,
    find_flag,
    find_number,
    parse_fields,
    parse_inventory,
    parse_sense_fields,
    parse_verdict,
)
from drivers.program import Ended, Program, Runner
from drivers.scsi.outcomes import Again, Doing, error_of, outcome_of

INSTALL = "get IBM's Tape Diagnostic Tool from IBM's Fix Central, and put `itdt` where PATH finds it"

#: Timeouts by command, in seconds; those of LTO-9 with room for a new cartridge's first load.
SHORT_S = 120.0
ROBOT_S = 900.0
MOVE_S = 3000.0
LOAD_S = 7920.0
DATA_S = 2400.0
ERASE_S = 75_000.0
#: IBM's sample asks so often, and waits so long in between, for an LTO-9 tape to become ready.
READY_TRIES, READY_PAUSE_S = 40, 60.0


class Itdt:
    """One device behind itdt."""

    def __init__(
        self, device: str, *, program: Runner | None = None, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """`device` as itdt takes it: /dev/IBMtape0, /dev/IBMchanger0, /dev/sg3, H1-B0-T1-L0."""
        self.device = device
        self._program = program if program is not None else Program("itdt", hint=INSTALL)
        self._sleep = sleep

    def run(self, *words: str, timeout_s: float = SHORT_S, doing: Doing = Doing.ASK, block: int = 0) -> str:
        """Run commands from left to right; return what they printed.

        Raises what the sense data mean that are printed, else DeviceFailed; TransportFailed when it hangs.
        """
        ended = self._program.run(["-f", self.device, *words], timeout_s)
        problem = _problem(ended)
        if problem is not None:
            raise self._error(ended, problem, words, doing, block)
        return ended.output

    def _error(self, ended: Ended, problem: str, words: Sequence[str], doing: Doing, block: int) -> DriveError:
        sense = parse_sense_fields(ended.text)
        error = error_of(sense, doing, block=block, device=self.device) if sense is not None else None
        if error is not None:
            return error
        return DeviceFailed(f"`itdt -f {self.device} {' '.join(words)}` {problem}: {ended.shown}")

    # -- any device --------------------------------------------------------------------------------------------------

    def inquiry(self) -> dict[str, str]:
        """Return vendor, product and serial number, as far as they are printed, by name in small letters."""
        return parse_fields(self.run("inquiry"))

    def scan(self) -> object:
        """Return all devices that itdt finds on this host, as it has them in JSON. Raises BadAnswer."""
        return _json(self._scan(), "scanj")

    def _scan(self) -> str:
        ended = self._program.run(["scanj"], ROBOT_S)
        problem = _problem(ended)
        if problem is not None:
            raise DeviceFailed(f"`itdt scanj` {problem}: {ended.shown}")
        return ended.output

    def is_ready(self) -> bool:
        """Does the device say that it is ready?"""
        try:
            self.run("tur")
        except NotReady:
            return False
        return True

    def wait_ready(self, waits: Callable[[], None] = lambda: None) -> None:
        """Ask until it is ready, as IBM's sample does: a new LTO-9 tape takes up to two hours. Raises DriveError.

        `waits` is called before each pause.
        """
        for left in reversed(range(READY_TRIES)):
            ended = self._program.run(["-f", self.device, "tur"], SHORT_S)
            problem = _problem(ended)
            if problem is None:
                return
            sense = parse_sense_fields(ended.text)
            again = outcome_of(sense).again if sense is not None else Again.NO
            if left == 0 or again not in (Again.LATER, Again.BY_ITSELF):
                raise self._error(ended, problem, ["tur"], Doing.LOAD, 0)
            if again is Again.LATER:
                waits()
                self._sleep(READY_PAUSE_S)

    # -- drives ------------------------------------------------------------------------------------------------------

    def load(self) -> None:
        """Thread the cartridge."""
        self.run("load", timeout_s=LOAD_S, doing=Doing.LOAD)

    def unload(self) -> None:
        """Rewind, unthread and eject."""
        self.run("unload", timeout_s=MOVE_S, doing=Doing.MOVE)

    def move_head(self, *words: str) -> None:
        """Move the tape: rewind, setpos N, fsf N, seod."""
        self.run(*words, timeout_s=MOVE_S, doing=Doing.MOVE)

    def erase(self, *, short: bool = True) -> None:
        """Erase from the head on: `short` writes an end of data only, else all of the tape is written over."""
        self.run("erase", *(["-short"] if short else []), timeout_s=MOVE_S if short else ERASE_S, doing=Doing.WRITE)

    def write_filemarks(self, count: int, block: int) -> None:
        """Write filemarks; what was sent before is on the medium then."""
        self.run("weof", str(count), timeout_s=DATA_S, doing=Doing.WRITE, block=block)

    def sync(self, block: int) -> None:
        """Wait until all that was sent is on the medium."""
        self.run("sync", timeout_s=DATA_S, doing=Doing.WRITE, block=block)

    def position(self) -> tuple[int, bool | None]:
        """Return the logical block, and whether the head is behind early warning; None when that is not told."""
        fields = parse_fields(self.run("qrypos", timeout_s=DATA_S, doing=Doing.MOVE))
        block = find_number(
            fields,
            "logical object number",
            "logical block position",
            "logical position",
            "current position",
            "tape position",
            "block id",
        )
        if block is None:
            raise BadAnswer(f"itdt qrypos of {self.device} told no block: {' '.join(fields) or 'it printed no fields'}")
        return block, find_flag(fields, "early warning", "end of tape", "eot")

    def write_raw(self, source: Path, block: int) -> None:
        """Write a file as one block."""
        self.run("write", "-raw", "-s", str(source), timeout_s=DATA_S, doing=Doing.WRITE, block=block)

    def read_one(self, target: Path, block: int) -> None:
        """Read one block into a file; it stays empty at a filemark."""
        self.run("read", "-d", str(target), "-c", "1", timeout_s=DATA_S, doing=Doing.READ, block=block)

    def parameters(self) -> dict[str, str]:
        """Return what the drive is set to."""
        return parse_fields(self.run("getparms"))

    def set_parameter(self, name: str, value: str) -> None:
        """Set one of them."""
        self.run("setparm", name, value)

    def read_attribute(self, attribute: int) -> bytes:
        """Return the value of an attribute of the cartridge's memory. Raises DriveError."""
        with tempfile.TemporaryDirectory(prefix="tapefs-itdt-") as folder:
            target = Path(folder) / "attribute"
            self.run("readattr", "-p", "0", "-a", f"{attribute:04x}", "-d", str(target))
            try:
                data = target.read_bytes()
            except OSError as error:
                raise BadAnswer(f"itdt readattr {attribute:04x} of {self.device} left no file") from error
        return _without_header(attribute, data)

    # -- changers ----------------------------------------------------------------------------------------------------

    def inventory(self) -> list[Place]:
        """Return all elements. Raises BadAnswer when there is none."""
        places = parse_inventory(self.run("inventory", timeout_s=ROBOT_S))
        if not places:
            raise BadAnswer(f"itdt inventory of {self.device} told of no element")
        return places

    def move(self, source: int, target: int) -> None:
        """Move a cartridge from address to address."""
        self.run("move", str(source), str(target), timeout_s=ROBOT_S, doing=Doing.ROBOT)


def _problem(ended: Ended) -> str | None:
    """Say how a command failed, None when all that tells says that it did not."""
    verdict = parse_verdict(ended.text)
    if ended.code != 0:
        return f"ended with exit code {ended.code}"
    if verdict.code not in (0, None):
        return f"says that it exits with code {verdict.code}"
    if verdict.result not in ("PASSED", None):
        return f"says {verdict.result}"
    if verdict.code is None and verdict.result is None:
        return "says neither `Result:` nor `Exit with code:`"
    return None


def _json(text: str, what: str) -> object:
    begin = min((at for at in (text.find("{"), text.find("[")) if at >= 0), default=len(text))
    end = max(text.rfind("}"), text.rfind("]")) + 1
    try:
        return msgspec.json.decode(text[begin:end].encode())
    except msgspec.DecodeError as error:
        raise BadAnswer(f"itdt {what} printed no JSON: {error}") from error


def _without_header(attribute: int, data: bytes) -> bytes:
    """Take off the five bytes that stand before a value in READ ATTRIBUTE, if they were written, too."""
    is_whole = len(data) >= 5 and data[:2] == attribute.to_bytes(2, "big")
    return data[5:] if is_whole and int.from_bytes(data[3:5], "big") == len(data) - 5 else data


def addresses_of(places: Sequence[Place], kind: str) -> list[Place]:
    """Return the elements of a kind in the order of their addresses."""
    return sorted((each for each in places if each.kind == kind), key=lambda each: each.address)
