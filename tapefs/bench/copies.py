"""What a second copy costs: one written at the same time by another drive, one made from tape afterwards. Blocking.

Virtual drives that only account for time, files in TMPDIR; incompressible content and a tree of source files. What is
measured is the processors and the memory, of which two movers have no more than one.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median

from tapefs.bench.stand import TAPE_BYTES, Result, Stand, tapefs, timed
from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home

_FILES, _FILE_BYTES = 24, 40_000_000
_TEXT_FILES, _LINES = 12, 600_000
_RUNS = 3
_GOAL = 1.15


def run(stand: Stand) -> list[Result]:
    """Measure turn by turn, and compare medians."""
    trees = {"incompressible": _noise(stand.folder / "noise"), "text": _text(stand.folder / "text")}
    return [result for name, tree in trees.items() for result in _compare(stand, name, tree)]


def _compare(stand: Stand, name: str, tree: Path) -> list[Result]:
    ways = {"one": (2, False), "at once": (2, True), "afterwards": (1, True)}
    took_s: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(_RUNS):
        for way, (drives, copies) in ways.items():
            home = _home(stand.folder / f"{name}-{way.replace(' ', '-')}-{turn}", drives)
            options = ("--copy-pool", "vault") if copies else ()
            took_s[way].append(timed(tapefs(home, "backup", tree, "--name", "bench", *options)))
    seconds = {way: median(each) for way, each in took_s.items()}
    print(f"copies: {name}: " + ", ".join(f"{way} {each:.1f} s" for way, each in seconds.items()))
    ratio = seconds["at once"] / seconds["one"]
    later = seconds["afterwards"] / seconds["one"]
    what = f"two copies at once, {name}"
    return [
        Result(what, _s(seconds["at once"]), "one copy", _s(seconds["one"]), ratio, f"≤ {_GOAL}", ratio <= _GOAL),
        Result(
            f"two one after the other, {name}",
            _s(seconds["afterwards"]),
            "one copy",
            _s(seconds["one"]),
            later,
            "",
            None,
        ),
    ]


def _s(seconds: float) -> str:
    return f"{seconds:.1f} s"


def _home(path: Path, drives: int) -> Home:
    create_home(NewHome(path=path, tapes=2, tape_bytes=TAPE_BYTES, drives=drives), time.time_ns())
    home = open_home(path)
    timed(tapefs(home, "pool", "create", "vault"))
    timed(tapefs(home, "pool", "assign", "vault", "TP0002L9"))
    return home


def _noise(folder: Path) -> Path:
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"{number:02}").write_bytes(os.urandom(_FILE_BYTES))
    return folder


def _text(folder: Path) -> Path:
    folder.mkdir()
    for number in range(_TEXT_FILES):
        lines = (f"{number} {line} {line * 2654435761 % 2**32:08x} the quick brown fox\n" for line in range(_LINES))
        (folder / f"{number:02}").write_text("".join(lines))
    return folder
