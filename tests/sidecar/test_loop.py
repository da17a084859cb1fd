"""No call blocks the event loop: all calls that only look, on a ledger with many jobs and sets, each step measured."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

from catalog.ids import JobId, JobNumber, SetId, SetNumber
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Adoption, BackupSet, Job, JobState, SetState
from tapefs.client.transport import SocketConnection
from tapefs.home import Home
from tests.sidecar.rig import make_home, running

JOBS, SETS = 20_000, 10_000
#: A step of a task takes no longer, in processor time: 10 to 15 ms on a quiet machine, twice that on a busy one.
LONGEST_S = 0.05


def fill(home: Home, jobs: int = JOBS, sets: int = SETS) -> None:
    """Have the ledger know many jobs that have ended, and sets of theirs."""
    now = time.time_ns()
    states = (JobState.COMPLETED, JobState.FAILED, JobState.PENDING)
    many = tuple(
        Job(
            number=JobNumber(number),
            job_id=JobId(uuid_of(1, number)),
            name=f"job{number % 97}",
            sources=(b"/srv/data",),
            state=states[number % 3],
            created_at_ns=now - number,
        )
        for number in range(1, jobs + 1)
    )
    their = tuple(
        BackupSet(
            set_id=SetId(uuid_of(2, number)),
            number=SetNumber(number),
            job_id=many[number].job_id,
            job_number=many[number].number,
            name=many[number].name,
            type="full",
            codec="zstd",
            level=3,
            sources=(b"/srv/data",),
            state=SetState.COMPLETE,
            finished_at_ns=now - number * 10**9,
            started_at_ns=now - number * 10**9,
        )
        for number in range(1, sets + 1)
    )
    with LmdbLedger.open(home.ledger) as ledger:
        ledger.adopt(Adoption(jobs=many, sets=their), now)


def uuid_of(kind: int, number: int) -> str:
    return str(UUID(int=(kind << 100) | (4 << 76) | (8 << 60) | number))


def test_no_call_that_looks_blocks_the_loop(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    fill(home)
    steps = tmp_path / "steps"
    (home.path / "steps.json").write_text(json.dumps({"path": str(steps), "longest_s": LONGEST_S}))
    with running(home, listen=True) as rig:
        steps.unlink(missing_ok=True)  # The start reads much, and nobody waits for it yet.
        asked = targets(rig.unix("GET", "/openapi.json").body)
        assert len(asked) > 50
        slow: dict[str, str] = {}
        for target in asked:
            # What a call does it does every time; what a busy machine or a collection of garbage adds it does not.
            if all(is_slow(home, target, steps) for _ in range(5)):
                slow[target] = "five times"
        assert slow == {}


def is_slow(home: Home, target: str, steps: Path) -> bool:
    """Ask; tell whether a step took long meanwhile."""
    steps.unlink(missing_ok=True)
    status = ask(home, target)
    assert status < 500 or status in (501, 503), (target, status)
    return steps.exists()


def ask(home: Home, target: str) -> int:
    with closing(SocketConnection(home.socket, 60)) as connection:
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def targets(document: Any) -> list[str]:
    """All calls that only look, with the numbers of a job or set where they want one."""
    found = []
    for path, methods in document["paths"].items():
        target = path.replace("{number}", "500").replace("{task_id}", "500").replace("{set_id}", uuid_of(2, 500))
        is_stream = path in ("/api/v1/events", "/api/v1/arrivals")
        if "get" in methods and not is_stream and "{" not in target and "/docs" not in path:
            found.append(target)
    return [*found, "/api/v1/jobs?limit=1000&offset=10000", "/api/v1/jobs?state=failed&limit=50"]
