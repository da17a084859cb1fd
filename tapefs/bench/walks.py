"""Walks over a cold set, `cp -r`, `tar c` and `rsync -a`, on the clock of a virtual LTO-9 drive. Blocking.

What counts is the drive's time for reading, locating and back-hitches against the time that streaming the frames of the
tree would take; threading and rewinding are the same whatever comes after. Segments are small, so that a set of some
hundred MB has several: one full set, and a chain of incremental ones with edits all over and a renamed folder.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from drivers.virtual.motion import motion_of
from tapefs.bench.stand import Result, Stand, mounted, out_of, tapefs, timed
from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home
from tapefs.staging.trees import FrameRuns, add_tree
from tapefs.vfs.archive import Archive

GOAL = 0.9
#: Beyond one for every segment.
MORE_LOCATES = 2
SEGMENT_BYTES = 32 * 1024**2
FRAME_BYTES = 1024**2
GENERATION = 9
_TAPE_BYTES = 16 * 1024**3
_FOLDERS, _FILES, _LEAST_BYTES, _MOST_BYTES = 24, 40, 1_000, 500_000
_RUNS = 5
_SEED = 4


@dataclass(frozen=True, slots=True)
class Cold:
    """What a walk over a tree needs from tape."""

    segments: int
    frames: int
    #: As stored.
    bytes: int

    @property
    def streaming_s(self) -> float:
        """How long the drive takes to stream it."""
        return motion_of(GENERATION).read_s(self.bytes)


@dataclass(frozen=True, slots=True)
class Walked:
    """What the drive did meanwhile."""

    locates: int
    bytes_read: int
    #: Reading, locating and back-hitches.
    busy_s: float
    #: By the clock on the wall.
    wall_s: float

    @property
    def rate_share(self) -> float:
        """Return at which share of its streaming rate the drive has read."""
        return motion_of(GENERATION).read_s(self.bytes_read) / self.busy_s

    def share(self, cold: Cold) -> float:
        """Return which share of its time streaming only what was needed would have taken: what lies between is read
        over where that is quicker than a locate.
        """
        return cold.streaming_s / self.busy_s


def copying(source: Path, target: Path) -> list[str]:
    """Return the command line of `cp -r`."""
    return ["cp", "-r", str(source), str(target)]


def packing(source: Path, target: Path) -> list[str]:
    """Return that of `tar c`; to a pipe, for GNU tar reads nothing when it writes to /dev/null."""
    return ["bash", "-c", 'tar -C "$1" -c . | cat >"$2"', "bash", str(source), str(target)]


def syncing(source: Path, target: Path) -> list[str]:
    """Return that of `rsync -a`."""
    return ["rsync", "-a", f"{source}/", str(target)]


Walker = Callable[[Path, Path], list[str]]
WALKERS: dict[str, Walker] = {"cp -r": copying, "tar c": packing, "rsync -a": syncing}


def run(stand: Stand) -> list[Result]:
    """Measure every walker on a full set and on the newest of a chain."""
    tree = make_tree(stand.folder / "tree")
    home = small_home(stand.folder / "walks")
    sets = {"full": back_up(home, tree, "full")}
    for number in range(1, _RUNS):
        change_tree(tree, number)
        sets["incremental"] = back_up(home, tree, "incremental")
    results = []
    for kind, set_id in sets.items():
        cold = needs(home, set_id, tree)
        print(f"walks: {kind}, {cold.bytes / 1e6:.0f} MB in {cold.segments} segments")
        for name, walker in WALKERS.items():
            walked = walk(home, set_id, tree, walker)
            print(f"  {name:<8}  {walked.locates:>3} locates  {walked.busy_s:7.2f} s of {cold.streaming_s:.2f} s")
            results += _results(f"{name}, {kind} set of {cold.segments} segments", walked, cold)
    return results


def _results(what: str, walked: Walked, cold: Cold) -> list[Result]:
    share, most = walked.rate_share, cold.segments + MORE_LOCATES
    rate, streaming = walked.bytes_read / 1e6 / walked.busy_s, cold.bytes / 1e6 / cold.streaming_s
    useful = walked.share(cold)
    return [
        Result(
            what, f"{rate:.0f} MB/s", "LTO-9 streaming", f"{streaming:.0f} MB/s", share, f"≥ {GOAL}", share >= GOAL
        ),
        Result("the same, only what was needed counted", f"{rate * useful / share:.0f} MB/s", "", "", useful, "", None),
        Result("locates of that", str(walked.locates), "", "", None, f"≤ {most}", walked.locates <= most),
    ]  # fmt: skip


# -- what is walked ----------------------------------------------------------------------------------------------------


def small_home(folder: Path, segment_bytes: int = SEGMENT_BYTES, frame_bytes: int = FRAME_BYTES) -> Home:
    """Make a state folder with small segments and frames."""
    create_home(NewHome(path=folder, tapes=4, tape_bytes=_TAPE_BYTES), time.time_ns())
    settings = folder / "tapefs.toml"
    text = settings.read_text()
    sizes = f"[backup]\nframe_bytes = {frame_bytes}\nsegment_bytes = {segment_bytes}\n"
    settings.write_text(text.replace("[backup]\n", sizes))
    return open_home(folder)


def make_tree(folder: Path, files: int = _FILES, most_bytes: int = _MOST_BYTES) -> Path:
    """Make folders within folders with files that do not compress."""
    chance = random.Random(_SEED)  # noqa: S311
    for number in range(_FOLDERS):
        place = folder / f"{number % 6:02}" / f"part-{number:02}"
        place.mkdir(parents=True)
        for file in range(files):
            (place / f"{file:04}.dat").write_bytes(chance.randbytes(chance.randrange(_LEAST_BYTES, most_bytes)))
    return folder


def change_tree(folder: Path, number: int) -> None:
    """Write a twentieth of the files anew, remove a few, rename a folder."""
    chance = random.Random(_SEED + number)  # noqa: S311
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in chance.sample(paths, len(paths) // 20):
        path.write_bytes(chance.randbytes(chance.randrange(_LEAST_BYTES, _MOST_BYTES)))
    for path in chance.sample(paths, len(paths) // 100):
        path.unlink()
    moved = sorted(folder.iterdir())[number]
    moved.rename(moved.with_name(f"renamed-{number}"))


def back_up(home: Home, tree: Path, kind: str) -> str:
    """Back the tree up; return the set's id."""
    return out_of(tapefs(home, "backup", "--name", "walks", "--type", kind, tree))


def needs(home: Home, set_id: str, tree: Path) -> Cold:
    """Return what a walk over the tree in a set needs from tape, if nothing is staged."""
    runs, stored, frames = FrameRuns(), 0, 0
    with closing(LmdbLedger.open(home.ledger, readonly=True)) as ledger, closing(Archive(home, ledger)) as archive:
        reader = archive.index(archive.find_set(set_id).set_id)
        add_tree(runs, archive, reader, archive.resolve(reader, bytes(tree)))
        spans = runs.spans()
        for span in spans:
            set_of = archive.index(ledger.segment(span.segment).set_id)
            number = next(each.number for each in set_of.segments() if each.segment_id == span.segment)
            stored += sum(
                each.row.stored_bytes for each in set_of.frames(number) if span.first <= each.number <= span.last
            )
            frames += span.last + 1 - span.first
    return Cold(len({span.segment for span in spans}), frames, stored)


# -- walking -----------------------------------------------------------------------------------------------------------


def walk(home: Home, set_id: str, tree: Path, way: Walker) -> Walked:
    """Evict everything, walk the tree in a set with a command, and return what the drive did for it."""
    with serving(home) as mount:
        source = mount / "sets" / set_id / str(tree).lstrip("/")
        before, begin = counters(home), time.perf_counter()
        target = home.path.parent / "walked"
        subprocess.run(way(source, target), check=True)
        wall_s = time.perf_counter() - begin
        after = counters(home)
    subprocess.run(["rm", "-rf", str(target)], check=True)
    return difference(before, after, wall_s)


@contextmanager
def serving(home: Home) -> Iterator[Path]:
    """Yield where the archive is mounted, with nothing staged and the sidecar running."""
    timed(tapefs(home, "evict", "--all"))
    mount = home.path.parent / "mnt"
    with mounted(tapefs(home, "serve", "--listen", "127.0.0.1:0", "--mount", mount), mount):
        yield mount


def counters(home: Home) -> dict[str, float]:
    """Return the sums of all drives' counters, as `tapefs drives --json` has them, when no drive is at work."""
    while True:
        listed = json.loads(subprocess.run(tapefs(home, "drives", "--json"), check=True, capture_output=True).stdout)
        if all(drive["state"] in ("loaded", "empty") for drive in listed):
            break
        time.sleep(0.2)
    found = {"locates": 0.0, "bytes_read": 0.0, "busy_s": 0.0}
    for drive in listed:
        counted = drive["counters"]
        found["locates"] += counted["locates"]
        found["bytes_read"] += counted["bytes_read"]
        found["busy_s"] += sum(float(counted["seconds"].get(kind, 0.0)) for kind in ("read", "locate", "backhitch"))
    return found


def difference(before: dict[str, float], after: dict[str, float], wall_s: float) -> Walked:
    """Return what was done between two looks at the counters."""
    locates, read, busy_s = (after[key] - before[key] for key in ("locates", "bytes_read", "busy_s"))
    return Walked(int(locates), int(read), busy_s, wall_s)
