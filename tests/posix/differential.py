"""A tree, backed up and mounted, against itself: everything that can be asked without writing. Blocking."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tapefs.staging.area import StagingArea
from tests.compare.every_kind import every_kind
from tests.posix import answers, content, names
from tests.posix.content import BURST, RandomReads, Tally
from tests.test_end_to_end import Installation

#: So many bursts of random reads on what is staged by then; behind them everything is evicted again.
_BURSTS_WARM = 10


@dataclass
class Report:
    """What was compared and what differed, by the name of the comparison."""

    differences: dict[str, list[str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    reads: Tally = field(default_factory=Tally)
    names: int = 0

    @property
    def count(self) -> int:
        return sum(map(len, self.differences.values()))


def make_source(folder: Path) -> Path:
    """Make a tree of every kind of file, with programs and long directories."""
    source = every_kind(folder, sockets=False)
    (source / "programs").mkdir()
    shutil.copy("/bin/echo", source / "programs/binary")
    (source / "programs/script").write_text("#!/bin/sh\necho script $1\n")
    (source / "programs/script").chmod(0o755)
    chance = random.Random(3)
    for name, count in (("page", 120), ("long", 3000)):
        (source / name).mkdir()
        for number in range(count):
            path = source / name / f"{'n' * chance.randrange(200)}{number}"
            path.mkdir() if number % 50 == 7 else path.write_bytes(chance.randbytes(chance.randrange(3000)))
    return source


@dataclass(frozen=True)
class Effort:
    """How much is asked."""

    #: Random reads.
    reads: int = 3000
    #: From so many places each listing is gone on with.
    cookies: int = 4
    #: So many names are asked for all that fits their kind.
    names: int = 500
    seed: int = 1


def compare(installation: Installation, source: Path, root: Path, effort: Effort) -> Report:
    """Compare a source that lies still with the same tree in the mount, which may be cold; some parts need root."""
    report = Report()
    seed = effort.seed
    theirs, ours = os.fsencode(source), os.fsencode(root)
    report.names = len(names.all_names(theirs))
    steps: dict[str, Callable[[], Iterator[str]]] = {
        "names and attributes": lambda: names.of_names(theirs, ours),
        "listings": lambda: names.of_listings(theirs, ours, effort.cookies, seed),
        "listings after forgetting": lambda: names.of_forgotten(ours),
        "answers": lambda: answers.of_answers(theirs, ours, effort.names, seed),
        "programs": lambda: answers.of_programs(theirs, ours),
        "behind the end": lambda: _behind_ends(theirs, ours),
        "whole files": lambda: content.whole_files(theirs, ours),
        "random reads": lambda: _random_reads(installation, theirs, ours, effort, report),
    }
    for word, step in steps.items():
        begin_s = time.monotonic()
        report.differences[word] = list(step())
        report.seconds[word] = time.monotonic() - begin_s
    return report


def _behind_ends(source: bytes, root: bytes) -> Iterator[str]:
    for name in (b"names/none", b"names/\\", b"sparse/odd", b"sparse/all-hole", b"large/split"):
        if not os.path.exists(os.path.join(source, name)):
            continue
        wanted, found = (answers.behind_the_end(os.path.join(top, name)) for top in (source, root))
        if found != wanted:
            yield f"behind the end of {name!r}: {found}, not {wanted}"


def _random_reads(
    installation: Installation, source: bytes, root: bytes, effort: Effort, report: Report
) -> Iterator[str]:
    """Read at random, now cold and now staged: everything that is not open is evicted again and again."""
    random_reads = RandomReads(source, root, effort.seed)
    report.reads = random_reads.tally
    area = StagingArea(installation.home / "staging")
    for number in range(-(-effort.reads // BURST)):
        if number % _BURSTS_WARM == 0:
            area.evict_all()
        random_reads.burst()
    yield from random_reads.tally.differences
