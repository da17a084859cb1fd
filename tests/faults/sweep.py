"""Small backups in which one writing call fails: `python -m tests.faults.sweep FOLDER KIND FIRST STEP MOST`.

The library of `tests.faults.nth_call` must be preloaded.

For at most MOST numbers from FIRST on, in steps, until a run is clean: a fresh state folder, a backup whose call of
that number fails, a look at what is there, then another run without faults (every other one resumes, if there is what
to resume). A JSON line for each; `wrong` says what must not be.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
import traceback
from pathlib import Path

from catalog.errors import CatalogError
from catalog.records import Job, JobState, SetState
from drivers.errors import DriveError
from sidecar.jobs.going_on import finish
from tapefs.errors import TapefsError
from tapefs.mover.kinds import kind_of
from tapefs.sets.finish import finish_all
from tests.backup.rig import Rig
from tests.backup.trees import extract, random_files, snapshot
from tests.faults.nth_call import NthCall

#: A backup of two segments on one tape, several frames each.
SETTINGS = "segment_bytes = 1048576\nframe_bytes = 65536\nthreads = 1"


def prepared(folder: Path) -> tuple[Path, Path]:
    """Make a source and a state folder to copy."""
    tree = random_files(folder / "tree", 6, 250_000)
    (tree / "deep").mkdir()
    (tree / "deep" / "link").symlink_to("../file-00000")
    rig = Rig(folder, tapes=2, tape_bytes=32 * 1024**2, backup_settings=SETTINGS)
    rig.close()
    return tree, folder / "home"


class Sweep:
    """Backups in which something fails, and what comes afterwards."""

    #: What brings home, ledger and drive.
    rig_type: type[Rig] = Rig

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tree, self._fresh = prepared(folder)
        self._expected = snapshot(self._tree)
        #: What was backed up before the sweep began.
        self._before: list[tuple[Path, object]] = []

    @property
    def _sets_before(self) -> int:
        return len(self._before)

    def back_up_before(self) -> None:
        """Have the fresh state folder hold a set already, on the tape that will be used."""
        tree = random_files(self._folder / "before", 3, 200_000, seed=5)
        rig = self.rig_type.existing(self._fresh)
        rig.backup(tree, name="before")
        rig.close()
        self._before.append((tree, snapshot(tree)))

    def arm(self, rig: Rig, number: int) -> None:
        """The fault of that number strikes from now on."""
        raise NotImplementedError

    def disarm(self, rig: Rig) -> dict[str, object]:
        """No more faults; return what happened."""
        raise NotImplementedError

    def run(self, number: int) -> dict[str, object]:
        """Have one thing fail; return what came of it."""
        home = self._folder / "now"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._fresh, home)
        result: dict[str, object] = {"number": number}
        try:
            result |= self._broken_run(home, number)
            result["then"] = self._next_run(home, resume=number % 2 == 0)
        except Exception:
            result["wrong"] = traceback.format_exc()
        return result

    def _broken_run(self, home: Path, number: int) -> dict[str, object]:
        rig = self.rig_type.existing(home)
        job = rig.queued(self._tree)
        error: Exception | None = None
        self.arm(rig, number)
        try:
            rig.run(job)
        except (TapefsError, CatalogError, DriveError) as expected:
            error = expected
        except OSError as expected:
            if kind_of(expected) == "internal":
                raise
            error = expected
        finally:
            happened = self.disarm(rig)
            rig.close()
        if error is not None and not str(error):
            raise AssertionError("it failed without a word")
        return happened | {"error": "" if error is None else f"{type(error).__name__}: {error}"}

    def _next_run(self, home: Path, *, resume: bool) -> str:
        """Do what a restart does, check what was acknowledged, run again; return what was done."""
        rig = self.rig_type.existing(home)
        try:
            assert rig.ledger.verify() == []
            job = max(rig.ledger.jobs(), key=lambda each: each.number)
            is_done = job.state is JobState.COMPLETED
            if job.state is JobState.RUNNING or job.state is JobState.QUEUED:
                finish(rig.home, rig.ledger, job.number, JobState.FAILED, "interrupted", time.time_ns())
            finish_all(rig.home, rig.ledger, time.time_ns())
            job = rig.ledger.job(job.number)
            if job.state is JobState.COMPLETED:
                self._check(rig, home, job)
                return "was done" if is_done else "was finished"
            return self._run_again(rig, job, home, resume=resume)
        finally:
            rig.close()

    def _run_again(self, rig: Rig, job: Job, home: Path, *, resume: bool) -> str:
        failed = [each for each in rig.ledger.backup_sets() if each.state is SetState.FAILED]
        goes_on = resume and bool(failed) and job.set_id is not None
        rig.run(rig.ledger.queue_job(job.number, time.time_ns(), resume=goes_on))
        for volume in rig.ledger.volumes():
            assert not rig.ledger.intents(volume.volume_id)
        self._check(rig, home, job)
        return "went on" if goes_on else "ran anew"

    def _check(self, rig: Rig, home: Path, job: Job) -> None:
        """What is reported done is on tape and equal, also what was done before."""
        done = [each for each in rig.ledger.backup_sets() if each.state is SetState.COMPLETE]
        (complete,) = [each for each in done if each.job_number == job.number]
        assert len(done) == 1 + self._sets_before
        assert rig.ledger.job(complete.job_number).state is JobState.COMPLETED
        assert rig.home.index(complete.set_id).exists()
        out = home.with_name("out")
        shutil.rmtree(out, ignore_errors=True)
        extract(rig, out)
        assert snapshot(Path(f"{out}{self._tree}")) == self._expected
        for tree, expected in self._before:
            assert snapshot(Path(f"{out}{tree}")) == expected


class CallSweep(Sweep):
    """One kind of fault of the operating system's calls."""

    def __init__(self, folder: Path, kind: str) -> None:
        super().__init__(folder)
        self._kind = kind
        self._calls = NthCall()

    def arm(self, rig: Rig, number: int) -> None:
        self._calls.arm(rig.home.path, number, self._kind)

    def disarm(self, rig: Rig) -> dict[str, object]:
        seen, struck = self._calls.disarm()
        return {"kind": self._kind, "seen": seen, "struck": struck}


def main() -> None:
    folder, kind, first, step, most = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6])
    sweep = CallSweep(folder, kind)
    number = first
    for _ in range(most):
        result = sweep.run(number)
        print(json.dumps(result), flush=True)
        if not result.get("struck") and "wrong" not in result:
            return
        number += step


if __name__ == "__main__":
    main()
