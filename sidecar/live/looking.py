"""Looks once a second how far everything is, while somebody listens, and tells what has changed.

One trio run. Looking instead of being told bounds what goes out: of each source at most one event a second, however
fast a mover reports. When nobody listens nothing is looked at.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

import structlog
import trio

from catalog.errors import CatalogError, NotFound
from catalog.ids import JobNumber
from catalog.ledger import Ledger
from catalog.notice_records import Facts
from catalog.recovery_records import Recovery
from drivers.registry import drive_name
from sidecar.drives.drive import DriveTask
from sidecar.jobs.queue import Jobs, Run
from sidecar.live.hub import Live
from sidecar.recalls.desk import Choice
from sidecar.recalls.recalling import Recalls
from sidecar.restores.restoring import Restorations
from sidecar.tapes.library import Library
from sidecar.tapes.tasks import TapeTask, TapeTasks
from sidecar.verifications.outcome import TaskState
from sidecar.verifications.queue import Verifications, VerifyRun
from tapefs.errors import TapefsError

LOOK_S = 1.0
#: Speeds are of so long.
PACE_S = 15.0
#: Readers that wait which are told of one by one.
MOST_READERS = 200

_Key = tuple[str, str]

log = structlog.get_logger(__name__)


class Pace:
    """How fast something goes."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def facts(self, now_s: float, done_bytes: int, total_bytes: int | None) -> Facts:
        """Return speed, and share and time to come where the whole is known."""
        if self._marks and done_bytes < self._marks[-1][1]:
            self._marks.clear()  # It has begun anew.
        self._marks.append((now_s, done_bytes))
        while self._marks[0][0] < now_s - PACE_S:
            self._marks.popleft()
        spent_s, moved = now_s - self._marks[0][0], done_bytes - self._marks[0][1]
        speed = round(moved / spent_s) if spent_s else 0
        left = None if total_bytes is None else max(total_bytes - done_bytes, 0)
        return {
            "bytes_per_s": speed,
            "percent": round(min(100 * done_bytes / total_bytes, 100), 1) if total_bytes else None,
            "eta_s": round(left / speed) if left is not None and speed else None,
        }


class Looking:
    """Looks, and tells."""

    def __init__(
        self,
        live: Live,
        ledger: Ledger,
        library: Library,
        jobs: Jobs,
        recalls: Recalls,
        drives: Sequence[DriveTask],
        verifications: Verifications,
        tape_tasks: TapeTasks,
        restorations: Restorations,
    ) -> None:
        self._live = live
        self._ledger = ledger
        self._library = library
        self._jobs = jobs
        self._recalls = recalls
        self._drives = drives
        self._verifications = verifications
        self._tape_tasks = tape_tasks
        self._restorations = restorations
        self._told: dict[_Key, Facts] = {}
        self._paces: dict[_Key, Pace] = {}

    async def run(self) -> None:
        """Look for ever."""
        while True:
            if not self._live.is_followed:
                self._told.clear()
                self._live.clear()
                await self._live.wait_followed()
            try:
                self.look()
            except (CatalogError, TapefsError) as error:  # A record that has gone between two looks, too.
                log.error("how far things are cannot be found out", error=str(error))
            await trio.sleep(LOOK_S)

    def look(self) -> None:
        """Tell what has changed since the last look."""
        now = dict(self._now())
        for key, facts in now.items():
            if self._told.get(key) != facts:
                self._live.tell(*key, facts)
        for key in self._told.keys() - now.keys():
            self._live.tell(*key, self._last(key), is_over=True)
            self._paces.pop(key, None)
        if self._told != now:
            self._live.show()
        self._told = now

    def _now(self) -> Iterator[tuple[_Key, Facts]]:
        yield from self._of_drives()
        yield from self._of_prompts()
        for run in self._jobs.running():
            yield ("job.progress", str(run.job)), self._of_job(run)
        for verification in self._verifications.runs():
            if verification.is_open:
                yield ("verify.progress", str(verification.number)), self._of_verification(verification)
        for task in self._tape_tasks.tasks():
            if task.is_open:
                yield ("tape-task.progress", str(task.number)), self._of_task(task)
        for each in self._restorations.all():
            if not each.state.is_over:
                yield ("restore.progress", each.recovery_id), self._of_restore(each)
        yield from self._of_readers()

    def _last(self, key: _Key) -> Facts:
        """Return what is told of something that has ended; a record that has gone says nothing more."""
        facts, number = self._told[key], key[1]
        if key[0] == "job.progress":
            try:
                view = self._jobs.view(JobNumber(int(number)))
            except NotFound:
                return facts
            facts = self._of_job(view.run) if view.run is not None else facts
            return facts | {"state": view.job.state.value, "error": view.job.error or None}
        if key[0] == "verify.progress":
            found = [run for run in self._verifications.runs() if str(run.number) == number]
            return self._of_verification(found[0]) if found else facts
        if key[0] == "tape-task.progress":
            tasks = [task for task in self._tape_tasks.tasks() if str(task.number) == number]
            return self._of_task(tasks[0]) if tasks else facts
        if key[0] == "restore.progress":
            return self._of_restore(self._restorations.find(number))
        return facts

    # -- one source each ---------------------------------------------------------------------------------------------

    def _of_drives(self) -> Iterator[tuple[_Key, Facts]]:
        for drive in self._drives:
            facts: Facts = {"state": drive.state, "tape": drive.tape, "note": drive.note or None}
            yield ("drive.state", drive.name), facts | {"failure": drive.health.sentence() or None}

    def _of_prompts(self) -> Iterator[tuple[_Key, Facts]]:
        human = self._library.human
        for prompt in [] if human is None else human.desk.open():
            text = prompt.text + self._library.whence(prompt.put_in)
            facts: Facts = {"drive": drive_name(prompt.drive), "put_in": prompt.put_in, "take_out": prompt.take_out}
            yield ("prompt.open", str(prompt.number)), facts | {"text": text}

    def _of_job(self, run: Run) -> Facts:
        job, now = self._ledger.job(run.job), run.progress
        facts: Facts = {
            "job": job.number,
            "name": job.name,
            "state": job.state.value,
            "drive": run.mover.drive if run.mover is not None else None,
            "is_pausing": run.is_pausing,
            "troubles": run.trouble_count,
        }
        if now is None:
            return facts
        total = run.earlier.bytes if run.earlier is not None else None
        facts |= {
            "stage": now.stage,
            "files": now.files,
            "bytes": now.bytes,
            "stored_bytes": now.stored_bytes,
            "verified_bytes": now.verified_bytes,
            "path": now.path,
            "tape": now.tape or None,
            "expected_bytes": total,
        }
        return facts | self._pace(("job.progress", str(run.job)), now.bytes, total)

    def _of_verification(self, run: VerifyRun) -> Facts:
        by_state = [task.state.value for task in run.tasks]
        at_hand = next((task for task in run.tasks if task.state is TaskState.RUNNING), None)
        done, total = sum(task.done_bytes for task in run.tasks), sum(task.payload_bytes for task in run.tasks)
        facts: Facts = {
            "run": run.number,
            "state": run.state,
            "copies": len(run.tasks),
            "bytes": done,
            "of_bytes": total,
        }
        facts |= {state.value: by_state.count(state.value) for state in TaskState}
        facts["tape"] = at_hand.tape if at_hand is not None else None
        return facts | self._pace(("verify.progress", str(run.number)), done, total)

    def _of_task(self, task: TapeTask) -> Facts:
        facts: Facts = {
            "task": task.number,
            "kind": task.kind,
            "tape": task.tape,
            "state": task.state.value,
            "error": task.error or None,
        }
        if task.progress is not None:
            done = task.progress.bytes
            facts |= {"stage": task.progress.stage, "bytes": done, "stored_bytes": task.progress.stored_bytes}
            facts |= self._pace(("tape-task.progress", str(task.number)), done, None)
        return facts

    def _of_restore(self, restore: Recovery) -> Facts:
        facts: Facts = {"id": restore.recovery_id, "set_id": restore.set_id, "state": restore.state.value}
        facts |= {"files": restore.files, "expected_files": restore.files_total, "error": restore.error or None}
        facts |= {"bytes": restore.bytes, "expected_bytes": restore.bytes_total}
        return facts | self._pace(("restore.progress", restore.recovery_id), restore.bytes, restore.bytes_total or None)

    def _of_readers(self) -> Iterator[tuple[_Key, Facts]]:
        asked = [frames for drive in self._drives for frames in drive.asked()]
        for entry in islice(self._recalls.waiting(Choice(), asked), MOST_READERS):
            # Without what changes with every look: times are told as the moment since when, and as they are planned.
            facts: Facts = {
                "id": entry.id,
                "state": entry.state,
                "uid": entry.uid,
                "command": entry.command,
                "path": entry.path,
                "size_bytes": entry.size_bytes,
                "bytes": entry.bytes,
                "began_at": entry.began_at,
                "tape": entry.tape,
                "ahead": entry.ahead,
                "eta_s": None if entry.eta_s is None else round(entry.eta_s),
            }
            yield ("recall.progress", str(entry.id)), facts

    # -- how far -----------------------------------------------------------------------------------------------------

    def _pace(self, key: _Key, done_bytes: int, total_bytes: int | None) -> Facts:
        return self._paces.setdefault(key, Pace()).facts(trio.current_time(), done_bytes, total_bytes)
