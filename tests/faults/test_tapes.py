"""Whatever is wrong with a tape: the table "Faults of tapes" in docs/faults.md, row by row.

What rebuilding a catalog makes of each is in tests/rebuild/test_damaged.py.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from catalog.ids import BlockNo, SetId
from catalog.records import SegmentCopy, VolumeState
from tapefs import setup_home
from tapefs.settings.backup import BackupSettings
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.compare.look import differences, look
from tests.compare.ways_back import bring_back
from tests.untape.runs import cartridges, untape
from tests.verify.conftest import SMALL, Bench

DOCS = Path(__file__).parents[2] / "docs/faults.md"
FIRST = "TP0001L9"


class Tape(NamedTuple):
    """A set of two segments on one tape, which is not in the drive."""

    bench: Bench
    tree: Path
    set_id: SetId
    copies: list[SegmentCopy]

    def file(self, number: int) -> Path:
        return self.bench.rig.home.library / "cartridges" / FIRST / f"{number:05}"

    def cut(self, block: int) -> None:
        """Take away everything from a block on."""
        drive = self.bench.rig.drive
        self.bench.rig.watcher.put_in(FIRST)
        drive.load()
        drive.locate(BlockNo(block))
        drive.erase(long=False)
        drive.unload()

    def swap(self, one: Path, other: Path) -> None:
        content = one.read_bytes(), other.read_bytes()
        # Else the drive would notice, not us.
        assert len(content[0]) == len(content[1])
        one.write_bytes(content[1])
        other.write_bytes(content[0])


@pytest.fixture
def tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tape]:
    monkeypatch.setattr(setup_home, "BackupSettings", lambda: BackupSettings(block_size=4096))
    tree = random_files(tmp_path / "tree", 60, 100_000)
    rig = Rig(tmp_path, tapes=2, backup_settings=SMALL)
    bench = Bench(rig)
    set_id = rig.backup(tree)
    copies = bench.copies(set_id)
    assert len(copies) == 2
    rig.drive.unload()
    yield Tape(bench, tree, set_id, copies)
    rig.close()


class Outcome(NamedTuple):
    """What a fault costs, and who says so."""

    do: Callable[[Tape], None]
    #: Of the problems that reading back tells of each copy, how they begin.
    verify: tuple[list[str], list[str]]
    #: How many files do not come back, at least and at most.
    lost: tuple[int, int] = (0, 0)
    #: Is the tape set aside by the next backup, which then uses another one?
    aside: bool = False
    #: Does `untape.py check` tell it?
    checked: bool = True
    #: How many names `untape.py restore` does not bring back, at least and at most, where that is not as above.
    untape_lost: tuple[int, int] | None = None


def flipped(number: Callable[[Tape], int], place: int) -> Callable[[Tape], None]:
    def flip(tape: Tape) -> None:
        content = bytearray(tape.file(number(tape)).read_bytes())
        content[place] ^= 0x40
        tape.file(number(tape)).write_bytes(content)

    return flip


def foreign(tape: Tape) -> None:
    """As long as the label was, so that nothing else changes."""
    tape.file(0).write_bytes(b"VOL1TAPE01".ljust(tape.file(0).stat().st_size))


FAULTS = {
    "a flipped bit in a PAYLOAD": Outcome(
        flipped(lambda tape: tape.copies[1].header_file + 1, 300_000), ([], ["PAYLOAD"]), (1, 3)
    ),
    "a damaged HEADER": Outcome(flipped(lambda tape: tape.copies[1].header_file, 200), ([], ["HEADER"])),
    "a damaged TRAILER": Outcome(flipped(lambda tape: tape.copies[1].header_file + 2, 200), ([], ["TRAILER"])),
    "a damaged SET INDEX": Outcome(flipped(lambda tape: tape.copies[1].header_file + 3, 200), ([], [])),
    "a damaged LABEL": Outcome(flipped(lambda tape: 0, 200), ([], []), aside=True),
    "a foreign label": Outcome(foreign, ([], []), aside=True),
    "a missing SET INDEX": Outcome(
        lambda tape: tape.cut(tape.copies[1].end_block), ([], []), aside=True, checked=False
    ),
    "a missing TRAILER": Outcome(
        lambda tape: tape.cut(tape.copies[1].trailer_block),
        ([], ["TRAILER"]),
        aside=True,
        untape_lost=(18, 22),
    ),
    "a cut end": Outcome(
        lambda tape: tape.cut(tape.copies[1].payload_block + 20), ([], ["PAYLOAD", "TRAILER"]), (18, 22), aside=True
    ),
    "a wrong sequence": Outcome(
        lambda tape: tape.swap(*(tape.file(copy.header_file) for copy in tape.copies)), (["HEADER"], ["HEADER"])
    ),
}


@pytest.mark.log_warnings
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_tape(tape: Tape, tmp_path: Path, name: str) -> None:
    """Reading back finds it, a restore gives what is there and names what is not, and the next backup works."""
    expected, rig = FAULTS[name], tape.bench.rig
    expected.do(tape)
    rig.watcher.put_in(FIRST)
    rig.drive.load()
    found = tuple([each.partition(":")[0] for each in tape.bench.verify(copy).problems] for copy in tape.copies)
    assert found == expected.verify
    report = bring_back(rig, tape.set_id, tmp_path / "out")
    least, most = expected.lost
    assert least <= len(report.troubles) <= most
    assert report.is_complete == (most == 0)
    lost = {each.path for each in report.troubles}
    assert wrong(tape.tree, tmp_path / "out") == lost
    done = untape("restore", tape.set_id, *cartridges(rig), "--to", tmp_path / "untaped")
    least, most = expected.untape_lost or expected.lost
    assert least <= len(wrong(tape.tree, tmp_path / "untaped")) <= most, done.told
    assert (done.code == 1) or most == 0
    checked = untape("check", *cartridges(rig))
    assert (checked.code != 0) is expected.checked, checked.told
    (tape.tree / "new").write_text("new")
    later = rig.ledger.backup_set(rig.backup(tape.tree, name="later"))
    states = {volume.label: volume.state for volume in rig.ledger.volumes()}
    assert states[FIRST] is (VolumeState.SUSPECT if expected.aside else VolumeState.APPENDABLE)
    assert later.tapes == (("TP0002L9",) if expected.aside else (FIRST,))


def wrong(tree: Path, out: Path) -> set[bytes]:
    """Return the paths of files that did not come back as they were."""
    back = Path(f"{out}{tree}")
    said = differences(look(back), look(tree), ignore=("names",))
    names = {line.split("'")[1] for line in said}
    return {bytes(tree)[1:] + b"/" + name.encode() for name in names}


@pytest.mark.log_warnings
def test_a_duplicate(tape: Tape) -> None:
    """A copy of a tape under another barcode is not taken for that one, and not written to."""
    rig = tape.bench.rig
    other = rig.home.library / "cartridges/TP0002L9"
    shutil.rmtree(other)
    shutil.copytree(tape.file(0).parent, other)
    for name in ("state.json", "memory.json"):
        if (other / name).exists():
            (other / name).write_text((other / name).read_text().replace(FIRST, other.name))
    before = {path.name: path.read_bytes() for path in other.glob("?????")}
    first = rig.ledger.volume_by_label(FIRST)
    rig.ledger.mark_volume(first.volume_id, VolumeState.SUSPECT)
    with pytest.raises(Exception, match="no tape with room is left"):
        rig.backup(tape.tree, name="later")
    assert rig.ledger.volume_by_label(other.name).state is VolumeState.SUSPECT
    assert {path.name: path.read_bytes() for path in other.glob("?????")} == before
    # For who reads both without a catalog they are one tape.
    sets = untape("sets", tape.file(0).parent, other)
    assert (sets.code, sets.out.count("segments: 2 here, 0 missing")) == (0, 1)


def test_every_fault_is_in_the_table() -> None:
    table = DOCS.read_text().split("## Faults of tapes\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| \*\*(.+?)\*\*", table, re.MULTILINE)
    assert set(FAULTS) <= set(rows), json.dumps(rows)
