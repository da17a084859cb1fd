"""A stand-in for IBM's itdt over a virtual library, in the shape that IBM's guide gives its output.

Fields with dots, `Result:`, `Code:`, `Exit with code:`; the fields of `inventory` are those of IBM's
sample scripts. What the real program prints for `qrypos`, `getparms` and failures is not documented by lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from drivers.errors import (
    DriveError,
    EndOfData,
    EndOfMedium,
    NotReady,
    SlotEmpty,
    SlotFull,
    WriteProtected,
)
from drivers.interface import BlockNo, ElementKind
from drivers.program import Ended
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.drive import VirtualDrive

MIB = 1024 * 1024
#: Sense key, code and qualifier of errors.
SENSES: dict[type[DriveError], tuple[int, int]] = {
    EndOfData: (0x8, 0x0005),
    EndOfMedium: (0xD, 0x0002),
    WriteProtected: (0x7, 0x2700),
    NotReady: (0x2, 0x3A00),
    SlotEmpty: (0x5, 0x3B0E),
    SlotFull: (0x5, 0x3B0D),
}


def ended(lines: Sequence[str], *, result: str = "PASSED", code: int = 0, status: int | None = None) -> Ended:
    """Return what itdt leaves behind."""
    ends = [f"Result: {result}", f"Code: {'OK' if code == 0 else 'ERROR'}", f"Exit with code: {code}"]
    return Ended(code if status is None else status, "\n".join([*lines, "", *ends]) + "\n", "")


def line(name: str, value: object) -> str:
    """Return a field as itdt prints it."""
    return f"  {name} {'.' * (31 - len(name))} {value}"


def failed(sense: tuple[int, int] | None) -> Ended:
    """Return the end of a command that has failed."""
    lines = ["Command FAILED"]
    if sense is not None:
        lines += [line("Sense Key", f"{sense[0]:X}"), line("ASC/ASCQ", f"{sense[1]:04X}")]
    return ended(lines, result="FAILED", code=1)


@dataclass
class DriveStandIn:
    """A drive; implements `drivers.program.Runner`. Keeps the head's place between calls, as a drive does."""

    folder: Path
    name: str = "itdt"
    #: Does `qrypos` tell of early warning?
    tells_warning: bool = True
    #: What `tur` says next, before it says what is so.
    ready: list[Ended] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    _drive: VirtualDrive | None = None
    _warns: bool = False

    @property
    def drive(self) -> VirtualDrive:
        if self._drive is None:
            self._drive = VirtualDrive(self.folder, 0)
        return self._drive

    def let_go(self) -> None:
        """Let others have the virtual drive."""
        if self._drive is not None:
            self._drive.close()
            self._drive = None

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        assert timeout_s > 0
        self.calls.append(list(arguments))
        assert list(arguments[:2]) == ["-f", "/dev/IBMtape0"], arguments
        word, words = arguments[2], list(arguments[3:])
        try:
            return ended(list(getattr(self, f"_{word}")(words)))
        except DriveError as error:
            return failed(next((sense for kind, sense in SENSES.items() if isinstance(error, kind)), None))
        except Refused as refused:
            return refused.ended

    def _inquiry(self, words: list[str]) -> Iterator[str]:
        yield line("Vendor ID", "IBM")
        yield line("Product ID", "ULT3580-TD9")
        yield line("Serial Number", "10WT000001")

    def _tur(self, words: list[str]) -> Iterator[str]:
        if self.ready:
            raise Refused(self.ready.pop(0))
        self.drive.position()
        yield "Test Unit Ready Command PASSED"

    def _load(self, words: list[str]) -> Iterator[str]:
        self.drive.load()
        yield "Load Command PASSED"

    def _unload(self, words: list[str]) -> Iterator[str]:
        self.drive.unload()
        yield "Unload Command PASSED"

    def _rewind(self, words: list[str]) -> Iterator[str]:
        self.drive.rewind()
        yield "Rewind Command PASSED"

    def _setpos(self, words: list[str]) -> Iterator[str]:
        self.drive.locate(BlockNo(int(words[0])))
        yield "Set Position Command PASSED"

    def _fsf(self, words: list[str]) -> Iterator[str]:
        self.drive.space_filemarks(int(words[0]))
        yield "Forward Space File Command PASSED"

    def _seod(self, words: list[str]) -> Iterator[str]:
        self.drive.seek_end()
        yield "Space to End of Data Command PASSED"

    def _qrypos(self, words: list[str]) -> Iterator[str]:
        yield line("Logical Object Number", self.drive.position().block)
        if self.tells_warning:
            yield line("Early Warning", "Yes" if self.drive.status().remaining_bytes == 0 else "No")

    def _weof(self, words: list[str]) -> Iterator[str]:
        self.drive.write_filemarks(int(words[0]), sync=True)
        yield "Write File Mark Command PASSED"

    def _sync(self, words: list[str]) -> Iterator[str]:
        self.drive.write_filemarks(0, sync=True)
        yield "Synchronize Buffers Command PASSED"

    def _erase(self, words: list[str]) -> Iterator[str]:
        assert words in ([], ["-short"])
        self.drive.erase(long=not words)
        yield "Erase Command PASSED"

    def _write(self, words: list[str]) -> Iterator[str]:
        data = Path(words[words.index("-s") + 1]).read_bytes()
        blocks = [data] if "-raw" in words else [data[at : at + 65536] for at in range(0, len(data), 65536)]
        for block in blocks:
            self.drive.write_block(block)
        yield f"{len(blocks)} blocks written"

    def _read(self, words: list[str]) -> Iterator[str]:
        target = Path(words[words.index("-d") + 1])
        buffer = memoryview(bytearray(2 * MIB))
        length = self.drive.read_into(buffer)
        target.write_bytes(buffer[:length])
        yield f"{min(1, length)} blocks read"

    def _getparms(self, words: list[str]) -> Iterator[str]:
        status = self.drive.status()
        yield line("Compression", "Yes" if status.compresses else "No")
        yield line("Write Protect", "Yes" if status.write_protected else "No")

    def _setparm(self, words: list[str]) -> Iterator[str]:
        assert words[0] == "compression"
        self.drive.load(compress=words[1] == "1")
        yield "Set Parameter Command PASSED"

    def _readattr(self, words: list[str]) -> Iterator[str]:
        status = self.drive.status()
        values = {
            "0000": (status.remaining_bytes // MIB).to_bytes(8, "big"),
            "0001": (status.capacity_bytes // MIB).to_bytes(8, "big"),
            "0003": (status.medium_loads or 0).to_bytes(8, "big"),
            "0220": (status.counters.bytes_written // MIB).to_bytes(8, "big"),
            "0221": (status.counters.bytes_read // MIB).to_bytes(8, "big"),
            "0400": b"TAPEFS  ",
            "0401": b"stand-in".ljust(32),
            "0405": b"\x60",
            "0406": b"20240229",
            "0806": (status.barcode or "").ljust(32).encode(),
        }
        number = words[words.index("-a") + 1]
        value = values[number]
        # With the header that READ ATTRIBUTE has before each.
        header = int(number, 16).to_bytes(2, "big") + b"\x80" + len(value).to_bytes(2, "big")
        Path(words[words.index("-d") + 1]).write_bytes(header + value)
        yield "Read Attribute Command PASSED"


class Refused(Exception):
    """The command ends so."""

    def __init__(self, end: Ended) -> None:
        super().__init__()
        self.ended = end


@dataclass
class ChangerStandIn:
    """A changer; implements `drivers.program.Runner`. Slots begin at 1001, drives at 257."""

    folder: Path
    name: str = "itdt"

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        assert list(arguments[:2]) == ["-f", "/dev/IBMchanger0"], arguments
        robot = VirtualChanger(self.folder)
        if arguments[2] == "inventory":
            return ended(list(self._inventory(robot)))
        assert arguments[2] == "move"
        try:
            _between(int(arguments[3]), int(arguments[4]))(robot)
        except NotReady:
            return failed((0x5, 0x5302))
        return ended(["Move Medium Command PASSED"])

    def _inventory(self, robot: VirtualChanger) -> Iterator[str]:
        yield "Robot Address 1"
        yield line("Robot State", "Normal")
        yield line("Media Present", "No")
        for each in robot.inventory():
            is_drive = each.kind is ElementKind.DRIVE
            yield (
                f"Drive Address {257 + each.number}"
                if is_drive
                else f"Slot Address ................... {1001 + each.number}"
            )
            yield line("Drive State" if is_drive else "Slot State", "Normal")
            yield line("ASC/ASCQ", "0000")
            yield line("Media Present", "Yes" if each.full else "No")
            yield line("Robot Access Allowed", "Yes")
            yield line("Source Element Address Valid", "No")
            yield line("Media Inverted", "No")
            yield line("Volume Tag", each.barcode or "")


def _between(source: int, target: int) -> Callable[[VirtualChanger], None]:
    if target < 1000:
        return lambda robot: robot.load(source - 1001, target - 257)
    if source < 1000:
        return lambda robot: robot.unload(source - 257, target - 1001)
    return lambda robot: robot.transfer(source - 1001, target - 1001)
