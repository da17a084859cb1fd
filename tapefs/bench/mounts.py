"""`find -printf %s` over mounted archives, ours and others', beside the local tree; and small files. Blocking."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from tapefs.bench.backup import made_set
from tapefs.bench.rivals import RIVALS, Archive, drop_caches, made, mounted_rival
from tapefs.bench.stand import Result, Stand, mounted, out_of, ratio_of, tapefs, timed, warm_memory
from tapefs.bench.trees import Tree
from tapefs.bench.usage import Spent, processor_s, spent
from tapefs.home import Home

FASTER_THAN_OTHERS = 4.0
SLOWER_THAN_LOCAL = 3.0
SMALL_FILES = 5000
#: More than the pages and inodes of a turn take.
_LEARNT_BYTES = 512 * 1024**2
_OURS = "tapefs"
_LOCAL = "local"

#: Mounts something; yields where the root of the archived file system is, and the process id of the mount, 0 if none.
Mount = Callable[[], AbstractContextManager[tuple[Path, int]]]
#: What each turn took, by name.
Turns = Mapping[str, list[Spent]]


def run(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Measure names, then small files."""
    return [*run_names(stand, tree, runs), *run_small(stand, runs)]


def run_names(stand: Stand, tree: Tree, runs: int) -> list[Result]:
    """Walk all of them in turns: each time a new mount, of which the kernel knows nothing; then once more."""
    print(f"mounts: {tree}")
    home = stand.new_home("mounts")
    made_set(home, tree)
    mounts = _mounts(stand, home, tree.sources)
    cold: dict[str, list[Spent]] = {name: [] for name in mounts}
    warm: dict[str, list[Spent]] = {name: [] for name in mounts}
    _check_names(mounts, tree.sources)
    if not drop_caches():
        print("  the kernel's caches cannot be dropped, only root may: what is cold is not quite")
    for _ in range(runs):
        for name, mount in mounts.items():
            with mount() as (root, pid):
                command = _find(_below(root, tree.sources))
                _forget_all()
                cold[name].append(_spent(command, pid))
                warm[name].append(_spent(command, pid))
            print(f"  {name}: {cold[name][-1]}, again {warm[name][-1]}", flush=True)
    names = _count(tree.sources)
    return [
        *_against_all(f"find -printf %s of {names:,} names, caches dropped", _wall_s(cold), has_goals=True),
        *_against_all("the same again", _wall_s(warm), has_goals=False),
        *_against_all("processor time of walker and mount, caches dropped", _cpu_s(cold), has_goals=False),
        *_against_all("processor time, again", _cpu_s(warm), has_goals=False),
    ]


def _forget_all() -> None:
    """Have the kernel forget what it knows, but have memory for what it is to learn."""
    drop_caches()
    warm_memory(_LEARNT_BYTES)


def _spent(command: Sequence[str], pid: int) -> Spent:
    """Run it; the processor time of the mount counts, too."""
    return spent(command, partial(processor_s, pid) if pid else float)


def _wall_s(turns: Turns) -> dict[str, list[float]]:
    return {name: [each.wall_s for each in taken] for name, taken in turns.items()}


def _cpu_s(turns: Turns) -> dict[str, list[float]]:
    return {name: [each.cpu_s for each in taken] for name, taken in turns.items()}


def _against_all(what: str, seconds: Mapping[str, list[float]], *, has_goals: bool) -> list[Result]:
    """Return a line for each of the others, the best first, and one for the local tree."""
    others = sorted((name for name in seconds if name not in (_OURS, _LOCAL)), key=lambda name: median(seconds[name]))
    results = []
    for name in others:
        ratio = ratio_of(seconds[name], seconds[_OURS])
        is_judged = has_goals and name == others[0]
        goal = f"≥ {FASTER_THAN_OTHERS:.0f} times as fast" if is_judged else ""
        results.append(_result(what, seconds, name, ratio, goal, ratio >= FASTER_THAN_OTHERS if is_judged else None))
        what = "the same"
    ratio = ratio_of(seconds[_OURS], seconds[_LOCAL])
    goal = f"≤ {SLOWER_THAN_LOCAL:.0f} times its time" if has_goals else ""
    is_reached = ratio <= SLOWER_THAN_LOCAL if has_goals else None
    return [*results, _result(f"{what}, local", seconds, _LOCAL, ratio, goal, is_reached)]


def _result(
    what: str, seconds: Mapping[str, list[float]], other: str, ratio: float, goal: str, is_reached: bool | None
) -> Result:
    ours, theirs = f"{median(seconds[_OURS]):.2f} s", f"{median(seconds[other]):.2f} s"
    return Result(what, ours, other, theirs, ratio, goal, is_reached)


def run_small(stand: Stand, runs: int) -> list[Result]:
    """Read small files that are staged."""
    source = make_small_files(stand.folder / "small")
    home = stand.new_home("small-files")
    set_id = out_of(tapefs(home, "backup", "--name", "bench", source))
    timed(tapefs(home, "stage", set_id))
    rivals = [rival for rival in RIVALS if rival.name == "squashfuse_ll"]
    folder = stand.folder / "small-rivals"
    folder.mkdir()
    mounts = _mounts_of(stand, home, made(rivals, folder, [source]))
    turns: dict[str, list[Spent]] = {name: [] for name in mounts}
    for _ in range(runs):
        for name, mount in mounts.items():
            with mount() as (root, pid):
                _forget_all()
                turns[name].append(_spent(_read_all(_below(root, [source])[0]), pid))
            print(f"  {name}: {turns[name][-1]} for {SMALL_FILES:,} small files", flush=True)
    what = f"reading {SMALL_FILES:,} small staged files"
    return [
        *_small_results(what, _wall_s(turns), has_goals=True),
        *_small_results(f"processor time of {what}", _cpu_s(turns), has_goals=False),
    ]


def _small_results(what: str, seconds: Mapping[str, list[float]], *, has_goals: bool) -> list[Result]:
    results = []
    for name in seconds:
        if name != _OURS:
            ratio = ratio_of(seconds[_OURS], seconds[name])
            is_judged = has_goals and name != _LOCAL
            results.append(
                _result(what, seconds, name, ratio, "< 1" if is_judged else "", ratio < 1 if is_judged else None)
            )
    return results


def make_small_files(folder: Path) -> Path:
    """Make files of 0.5 to 16 KB, fifty in a directory."""
    chance = random.Random(1)  # noqa: S311
    for number in range(SMALL_FILES):
        path = folder / f"{number // 50:03}" / f"file-{number:05}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(512, 16_384)))
    return folder


def _mounts(stand: Stand, home: Home, sources: Sequence[Path]) -> dict[str, Mount]:
    folder = stand.folder / "rivals"
    folder.mkdir()
    return _mounts_of(stand, home, made(RIVALS, folder, sources))


def _mounts_of(stand: Stand, home: Home, archives: Sequence[Archive]) -> dict[str, Mount]:
    """Return what is compared, by name, in the order of the turns."""

    @contextmanager
    def local() -> Iterator[tuple[Path, int]]:
        yield Path("/"), 0

    @contextmanager
    def ours() -> Iterator[tuple[Path, int]]:
        folder = stand.folder / "mnt"
        with mounted(tapefs(home, "mount", folder), folder) as pid:
            # As whoever changes into the folder: through the link each path costs one more request.
            yield (folder / "jobs/bench/latest").resolve(), pid

    def theirs(archive: Archive) -> Mount:
        return lambda: mounted_rival(archive, stand.folder / "mnt-rival")

    return {_LOCAL: local, _OURS: ours, **{archive.name: theirs(archive) for archive in archives}}


def _below(root: Path, sources: Sequence[Path]) -> list[Path]:
    return [root / source.relative_to("/") for source in sources]


def _find(folders: Sequence[Path]) -> list[str]:
    return ["find", *map(str, folders), "-xdev", "-printf", "%s\\n"]


def _read_all(folder: Path) -> list[str]:
    return ["find", str(folder), "-type", "f", "-exec", "cat", "{}", "+"]


def _count(folders: Sequence[Path]) -> int:
    return subprocess.run(_find(folders), stdout=subprocess.PIPE, check=True).stdout.count(b"\n")


def _check_names(mounts: Mapping[str, Mount], sources: Sequence[Path]) -> None:
    """Say who has not all the names. Raises RuntimeError if it is us."""
    wanted = _count(sources)
    for name, mount in mounts.items():
        with mount() as (root, _):
            found = _count(_below(root, sources))
        if found != wanted:
            print(f"  {name} shows {found:,} names, not {wanted:,}")
            if name == _OURS:
                raise RuntimeError("the mounted set has not the names of the local tree")
