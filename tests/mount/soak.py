"""Reads through two mounts while an evictor works every 2 ms and whatever there is is killed: no byte may be wrong.

`scripts/soak MINUTES` runs it as long as you like and prints the figures; a test runs it for seconds. What a killed
mount or a killed sidecar does to the reads of that moment (ENOTCONN, EIO and the like) is counted and is no error; at
the end, when everything lives, every file must be read right, and `tapefs staging check` must find nothing.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from multiprocessing import get_context
from multiprocessing.context import SpawnProcess
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from tapefs.staging.area import StagingArea
from tapefs.staging.check import check_staging
from tapefs.staging.stage import SegmentStage
from tests.mount.world import World, world

SPAWN = get_context("spawn")
FILES, FILE_BYTES = 24, 3_000_000
#: A quarter of the set.
STAGING = "limit_bytes = 12_000_000"
READERS = 4
#: A read that takes longer hangs: readers wait 30 s for tape.
HANGING_S = 60.0
#: What a reader may be told when the mount, or what it waits for, was just killed.
EXCUSED = frozenset(
    {errno.ENOTCONN, errno.EIO, errno.ENOENT, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ESTALE, errno.EHOSTUNREACH}
)


def read_for_ever(source: Path, trees: list[Path], seed: int, seconds: float, results: Queue[Any]) -> None:
    """Read pieces of files in every way and compare; report counts, and what was wrong."""
    chance = random.Random(seed)
    counts: Counter[str] = Counter()
    slowest_s = 0.0
    end_s = time.monotonic() + seconds
    names = sorted(os.listdir(source))
    while time.monotonic() < end_s:
        name, tree = chance.choice(names), chance.choice(trees)
        began_s = time.monotonic()
        try:
            counts["wrong" if _differs(source / name, tree / name, chance) else "right"] += 1
        except OSError as error:
            kind = "excused" if error.errno in EXCUSED else "unexcused"
            counts[f"{kind} {errno.errorcode.get(error.errno or 0, '?')}"] += 1
            time.sleep(0.05)
        slowest_s = max(slowest_s, time.monotonic() - began_s)
    results.put((counts, slowest_s))


def _differs(expected: Path, path: Path, chance: random.Random) -> bool:
    content = expected.read_bytes()
    way = chance.randrange(4)
    with path.open("rb", buffering=0) as file:
        if way == 0:
            pieces = []
            while piece := file.read(1 << 20):
                pieces.append(piece)
            return b"".join(pieces) != content
        if way == 1:
            # Not by mmap: the page fault that meets a killed mount is a SIGBUS, which ends the reader.
            at, copy = chance.randrange(len(content)), os.memfd_create("copy")
            try:
                while at < len(content) and (sent := os.sendfile(copy, file.fileno(), at, len(content))):
                    at += sent
                copied = os.fstat(copy).st_size
                return os.pread(copy, copied, 0) != content[len(content) - copied :] or at != len(content)
            finally:
                os.close(copy)
        for _ in range(8):
            at, length = chance.randrange(len(content)), chance.choice((100, 4096, 65_536, 300_000))
            if os.pread(file.fileno(), length, at) != content[at : at + length]:
                return True
    return False


def evict_for_ever(folder: Path, seed: int) -> None:
    """Drop a random frame or a few every 2 ms, until killed."""
    chance = random.Random(seed)
    area = StagingArea(folder)
    while True:
        for segment_id in area.segments():
            stage = SegmentStage.open(folder, segment_id)
            if stage is None:
                continue
            for _ in range(50):
                first = chance.randrange(stage.frame_count)
                stage.evict(range(first, min(stage.frame_count, first + chance.choice((1, 1, 3)))))
                time.sleep(0.002)
            stage.close()
        time.sleep(0.002)


class Chaos:
    """Kills what there is, at random moments, and starts it again."""

    def __init__(self, at: World, trees: list[str], seed: int) -> None:
        self._at = at
        self._trees = trees
        self._chance = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self._evictor = self._new_evictor()

    def _new_evictor(self) -> SpawnProcess:
        process = SPAWN.Process(target=evict_for_ever, args=(self._at.home.staging, self._chance.randrange(1000)))
        process.start()
        return process

    def strike(self) -> None:
        """Kill one thing."""
        what = self._chance.choices(("mover", "evictor", "mount", "sidecar"), (4, 4, 2, 1))[0]
        if what == "mover":
            if not self._at.kill_mover():
                return
        elif what == "evictor":
            self.stop()
            self._evictor = self._new_evictor()
        elif what == "mount":
            name = self._chance.choice(self._trees)
            self._at.kill_mount(name)
            self._at.mount(name)
        else:
            self._at.kill_sidecar()
            self._at.start_sidecar()
        self.kills[what] += 1

    def stop(self) -> None:
        """Kill the evictor."""
        self._evictor.kill()
        self._evictor.join()
        self._evictor.close()


def soak(folder: Path, seconds: float, *, pause_s: float, seed: int = 1) -> dict[str, Any]:
    """Run it; return the figures. Raises AssertionError when anything is wrong."""
    with world(folder, files=FILES, file_bytes=FILE_BYTES, staging=STAGING) as at:
        names = ["one", "two"]
        trees = [at.mount(name) for name in names]
        results: Queue[Any] = SPAWN.Queue()
        readers = [
            SPAWN.Process(target=read_for_ever, args=(at.source, trees, seed + number, seconds, results))
            for number in range(READERS)
        ]
        for reader in readers:
            reader.start()
        chaos = Chaos(at, names, seed)
        end_s = time.monotonic() + seconds
        chance = random.Random(seed)
        try:
            while (left_s := end_s - time.monotonic()) > 0:
                time.sleep(min(left_s, chance.uniform(0, 2 * pause_s)))
                chaos.strike()
            reported = [results.get(timeout=HANGING_S + START_UP_S) for _ in readers]
        finally:
            chaos.stop()
            for reader in readers:
                reader.join(1)
                reader.kill()
                reader.join()
        counts: Counter[str] = sum((each for each, _ in reported), Counter())
        slowest_s = max(each for _, each in reported)
        wrong = [name for name in sorted(os.listdir(at.source)) for tree in trees if not _same(at.source, tree, name)]
        findings = check_staging(at.home.staging, repair=False)
        figures = {
            "seconds": seconds,
            "reads": dict(sorted(counts.items())),
            "kills": dict(sorted(chaos.kills.items())),
            "slowest_s": round(slowest_s, 1),
            "wrong_afterwards": wrong,
            "staged_frames_checked": findings.frames,
            "staged_frames_wrong": len(findings.wrong),
        }
        assert not counts["wrong"], figures
        assert not wrong, figures
        assert findings.is_clean, figures
        assert not [kind for kind in counts if kind.startswith("unexcused")], figures
        assert slowest_s < HANGING_S, figures
        return figures


START_UP_S = 30.0


def _same(source: Path, tree: Path, name: str) -> bool:
    return (tree / name).read_bytes() == (source / name).read_bytes()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(soak(Path(scratch), 60 * float(sys.argv[1]), pause_s=2.0), indent=2))
