"""No call blocks the event loop: all calls that only look, on a ledger with many jobs and sets, each step measured."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from tapefs.bench.made_catalog import fill_ledger, set_id_of
from tapefs.client.transport import SocketConnection
from tapefs.home import Home
from tests.sidecar.rig import make_home, running

JOBS, SETS, TAPES = 20_000, 10_000, 200
#: A step of a task takes no longer, in processor time: 10 to 15 ms on a quiet machine, twice that on a busy one.
LONGEST_S = 0.05


def test_no_call_that_looks_blocks_the_loop(tmp_path: Path) -> None:
    home = make_home(tmp_path / "home")
    fill_ledger(home, jobs=JOBS, sets=SETS, tapes=TAPES, segments=1)
    steps = tmp_path / "steps"
    (home.path / "steps.json").write_text(json.dumps({"path": str(steps), "longest_s": LONGEST_S}))
    with running(home, listen=True) as rig:
        steps.unlink(missing_ok=True)  # The start reads much, and nobody waits for it yet.
        asked = targets(rig.unix("GET", "/openapi.json").body)
        tape = rig.unix("GET", "/api/v1/tapes?limit=1").body[0]["label"]
        asked += [f"/api/v1/explain/{tape}", f"/api/v1/tapes/{tape}", "/api/v1/pools/default"]
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
        target = path.replace("{number}", "500").replace("{task_id}", "500").replace("{set_id}", set_id_of(500))
        is_stream = path in ("/api/v1/events", "/api/v1/arrivals")
        if "get" in methods and not is_stream and "{" not in target and "/docs" not in path:
            found.append(target)
    return [*found, "/api/v1/jobs?limit=1000&offset=10000", "/api/v1/jobs?state=failed&limit=50"]
