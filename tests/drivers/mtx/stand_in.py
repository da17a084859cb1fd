"""A stand-in for mtx 1.3.12 over a virtual library: takes its arguments, prints its lines, ends with its codes.

The lines are those of Debian's program (`strings /usr/sbin/mtx` shows their patterns).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drivers.errors import NotReady
from drivers.interface import Element, ElementKind
from drivers.program import Ended
from drivers.virtual.changer import VirtualChanger

HELD = """Unloading drive {drive} into Storage Element {slot}...mtx: Request Sense: Long Report=yes
mtx: Request Sense: Valid Residual=no
mtx: Request Sense: Error Code=70 (Current)
mtx: Request Sense: Sense Key=Illegal Request
mtx: Request Sense: FileMark=no
mtx: Request Sense: EOM=no
mtx: Request Sense: ILI=no
mtx: Request Sense: Additional Sense Code = 53
mtx: Request Sense: Additional Sense Qualifier = 02
mtx: Request Sense: BPV=no
mtx: Request Sense: Error in CDB=no
mtx: Request Sense: SKSV=no
MOVE MEDIUM from Element Address 256 to 4096 Failed
"""


@dataclass
class StandIn:
    """Implements `drivers.program.Runner`."""

    folder: Path
    name: str = "mtx"

    def run(self, arguments: Sequence[str], timeout_s: float) -> Ended:
        assert list(arguments[:2]) == ["-f", "/dev/sg3"]
        assert timeout_s > 0
        word, numbers = arguments[2], [int(each) for each in arguments[3:]]
        changer = VirtualChanger(self.folder)
        if word == "status":
            return Ended(0, status(changer.inventory()), "")
        if word == "load":
            changer.load(numbers[0] - 1, numbers[1])
            return Ended(0, f"Loading media from Storage Element {numbers[0]} into drive {numbers[1]}...done\n", "")
        if word == "transfer":
            changer.transfer(numbers[0] - 1, numbers[1] - 1)
            return Ended(0, "", "")
        assert word == "unload", word
        try:
            changer.unload(numbers[1], numbers[0] - 1)
        except NotReady:
            return Ended(1, "", HELD.format(drive=numbers[1], slot=numbers[0]))
        return Ended(0, f"Unloading drive {numbers[1]} into Storage Element {numbers[0]}...done\n", "")


def status(elements: list[Element]) -> str:
    """Return what `mtx status` prints of a library without import/export elements."""
    drives = [each for each in elements if each.kind is ElementKind.DRIVE]
    slots = [each for each in elements if each.kind is ElementKind.SLOT]
    lines = [f"  Storage Changer /dev/sg3:{len(drives)} Drives, {len(slots)} Slots ( 0 Import/Export )"]
    for each in drives:
        full = f"Full (Unknown Storage Element Loaded):VolumeTag = {each.barcode or '':<32}"
        lines.append(f"Data Transfer Element {each.number}:{full if each.full else 'Empty'}")
    for each in slots:
        full = f"Full :VolumeTag={each.barcode or '':<32}"
        lines.append(f"      Storage Element {each.number + 1}:{full if each.full else 'Empty'}")
    return "\n".join(lines) + "\n"
