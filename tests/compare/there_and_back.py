"""A folder that exists goes to tape by the commands and comes back three ways; each is compared with the source.

Used by `scripts/compare` for whole systems, and by a test for a small folder. Blocking.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.compare.look import Difference, Tree, compare, look, same_blocks
from tests.compare.ways_back import GNU_TAR, extract, join_parts, payloads
from tests.test_end_to_end import Installation

TAPE_SIZE = "256GiB"
_DAY_S = 86400.0
#: What `cat` does not give to a file that it puts together.
_LOST_BY_JOINING = ("mode", "owner", "mtime_ns", "xattrs", "names", "data")


@dataclass(frozen=True)
class Archived:
    """Folders that are on tape, with nothing staged, and a mount of it."""

    installation: Installation
    sources: tuple[Path, ...]
    before: dict[Path, Tree]
    set_id: str
    payloads: tuple[Path, ...]


@dataclass(frozen=True)
class Outcome:
    """What one way back gave."""

    way: str
    seconds: float
    names: int
    #: What must not be.
    wrong: list[Difference]
    #: What `docs/format.md` says of this way: parts joined by hand, links between segments.
    explained: list[Difference]

    def count(self, what: str) -> int:
        """Return how many names have a wrong `what`."""
        return sum(each.what == what for each in self.wrong)


Way = Callable[[Archived, Path], tuple[list[Difference], list[Difference]]]


def archive(installation: Installation, sources: Iterable[Path], segment_bytes: int = 0) -> Archived:
    """Look at the sources, back them up and mount the archive. The caller closes the installation."""
    sources = tuple(sources)
    before = {source: look(source) for source in sources}
    installation.run("init", "--tapes", "4", "--tape-size", TAPE_SIZE)
    toml = installation.home / "tapefs.toml"
    toml.write_text(toml.read_text().replace("[backup]\n", f"[backup]\nsegment_bytes = {segment_bytes}\n"))
    set_id = installation.backup(*sources, "--name", "compare")
    installation.serve()
    installation.run("evict", "--all")
    return Archived(installation, sources, before, set_id, tuple(payloads(installation.home / "library")))


def by_restore(archived: Archived, scratch: Path) -> tuple[list[Difference], list[Difference]]:
    """Restore by the command, everything from tape."""
    archived.installation.run("evict", "--all")
    archived.installation.run("restore", archived.set_id, "--to", scratch)
    return compared(archived, scratch), []


def by_mount(archived: Archived, _: Path) -> tuple[list[Difference], list[Difference]]:
    """Read everything in the mount, from tape; FUSE cannot tell where holes are, only how many blocks there are not."""
    archived.installation.run("evict", "--all")
    top = archived.installation.mount_point / "jobs/compare/latest"
    found = [each for each in compared(archived, top) if each.what != "data"]
    for source in archived.sources:
        found += _blocks_compared(top, source, archived.before[source])
    return found, []


def by_tar(archived: Archived, scratch: Path) -> tuple[list[Difference], list[Difference]]:
    """Unpack the payloads with GNU tar, one behind the other, and join parts with cat."""
    extract(archived.payloads, scratch, GNU_TAR)
    joined = join_parts(scratch)
    changed = {os.fsencode(path) for path in joined}, {os.fsencode(path.parent) for path in joined}
    wrong: list[Difference] = []
    explained: list[Difference] = []
    for each in compared(archived, scratch):
        is_explained = _is_explained(each, os.fsencode(scratch), *changed, segments=len(archived.payloads))
        (explained if is_explained else wrong).append(each)
    return wrong, explained


def _is_explained(each: Difference, top: bytes, joined: set[bytes], folders: set[bytes], *, segments: int) -> bool:
    path = top + each.path
    if path in joined:
        return each.what in _LOST_BY_JOINING
    if path in folders:
        return each.what == "mtime_ns"
    # A link that stays in its segment is one: what is there must be part of what should be.
    return each.what == "names" and segments > 1 and each.is_so < each.should  # type: ignore[operator]


WAYS: dict[str, Way] = {"tapefs restore": by_restore, "mount": by_mount, "GNU tar": by_tar}


def compared(archived: Archived, top: Path) -> list[Difference]:
    """Compare what is below `top`, under the whole paths of the sources; differences have these paths."""
    found = []
    for source in archived.sources:
        # Sockets are not backed up.
        should = {path: seen for path, seen in archived.before[source].items() if seen.kind != "s"}
        back = Path(f"{top}{source}")
        for each in compare(look(back) if back.is_dir() else {}, should):
            found.append(each._replace(path=_whole(source, each.path)))
    return found


def _blocks_compared(top: Path, source: Path, before: Tree) -> Iterable[Difference]:
    for path, seen in before.items():
        whole = _whole(source, path)
        if seen.kind == "-" and os.path.lexists(os.fsencode(top) + whole):
            shown, was = os.lstat(os.fsencode(top) + whole), os.lstat(whole)
            if not same_blocks(shown, was):
                yield Difference(whole, "data", f"{shown.st_blocks} blocks", f"{was.st_blocks} blocks")


def _whole(source: Path, path: bytes) -> bytes:
    return os.fsencode(source) if path == b"." else os.path.join(os.fsencode(source), path)


def bring_back(archived: Archived, folder: Path, ways: dict[str, Way] = WAYS) -> list[Outcome]:
    """Bring everything back all ways, each in a folder of its own that is removed again."""
    outcomes = []
    for number, (title, way) in enumerate(ways.items()):
        scratch = folder / f"back{number}"
        begin_s = time.monotonic()
        wrong, explained = way(archived, scratch)
        seconds = time.monotonic() - begin_s
        names = sum(map(len, archived.before.values()))
        outcomes.append(Outcome(title, seconds, names, wrong, explained))
        if scratch.exists():
            shutil.rmtree(scratch)
    return outcomes


def changed_meanwhile(archived: Archived) -> set[bytes]:
    """Look at the sources again: what somebody else has changed since proves nothing."""
    changed: set[bytes] = set()
    for source in archived.sources:
        changed.update(_whole(source, each.path) for each in compare(look(source), archived.before[source]))
    return changed


def without(outcomes: Iterable[Outcome], changed: set[bytes]) -> list[Outcome]:
    """Return the outcomes without what is said of these paths."""
    return [
        Outcome(
            each.way,
            each.seconds,
            each.names,
            [one for one in each.wrong if one.path not in changed],
            [one for one in each.explained if one.path not in changed],
        )
        for each in outcomes
    ]


def kinds(trees: Iterable[Tree]) -> Counter[str]:
    """Count the names of each kind."""
    return Counter(seen.kind for tree in trees for seen in tree.values())
