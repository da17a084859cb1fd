"""Several processes on one ledger, and processes that are killed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from catalog.crash import known_points
from catalog.errors import Conflict
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import NOW, volume_of
from tests.catalog.ledger_steps import STEPS
from tests.catalog.lmdb_tools import dump, run, spawn

CLAIM = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import volume_of
with LmdbLedger.open(Path(sys.argv[1])) as ledger:
    input()
    for _ in range(100):
        print(ledger.claim_volume(volume_of("T1").volume_id))
"""

READ = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
with LmdbLedger.open(Path(sys.argv[1]), readonly=True) as ledger:
    print(len(ledger.volumes()), flush=True)
    for _ in sys.stdin:
        print(len(ledger.volumes()), flush=True)
"""

ACKNOWLEDGE = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.builders import volume_of
ledger = LmdbLedger.open(Path(sys.argv[1]))
while True:
    print(ledger.claim_volume(volume_of("T1").volume_id), flush=True)
"""


def test_two_processes_write_at_the_same_time(folder: Path, ledger: LmdbLedger) -> None:
    """No number is given out twice, and none is lost."""
    ledger.add_volume(volume_of("T1"))
    children = [spawn(CLAIM, folder) for _ in range(2)]
    outputs = [child.communicate("go\n" * 1, timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert sorted(int(line) for output in outputs for line in output.split()) == list(range(1, 201))
    assert ledger.volume_by_label("T1").claim == 200


def test_a_reader_in_another_process_sees_commits(folder: Path, ledger: LmdbLedger) -> None:
    with spawn(READ, folder) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "0\n"
        for count in (1, 2):
            ledger.add_volume(volume_of(f"T{count}"))
            child.stdin.write("again\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{count}\n"
        child.stdin.close()
        assert child.wait(timeout=60) == 0


def test_what_was_acknowledged_survives_a_kill(folder: Path, ledger: LmdbLedger) -> None:
    """Killed at any moment: no acknowledged commit is lost, at most one more is there, and others go on at once."""
    ledger.add_volume(volume_of("T1"))
    for number in range(5):
        with spawn(ACKNOWLEDGE, folder) as child:
            assert child.stdout is not None
            acknowledged = [child.stdout.readline()]
            time.sleep(0.003 * number)
            child.kill()
            acknowledged += child.stdout.readlines()
        last = int([line for line in acknowledged if line.endswith("\n")][-1])
        assert last <= ledger.volume_by_label("T1").claim <= last + 1
        assert ledger.verify() == []
        assert ledger.claim_volume(volume_of("T1").volume_id) >= last + 1


# -- crash points ----------------------------------------------------------------------------------------------------

STEP = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
from tests.catalog.ledger_steps import STEPS
with LmdbLedger.open(Path(sys.argv[1])) as ledger:
    STEPS[int(sys.argv[2])][1](ledger)
"""

CREATE = """
import sys
from pathlib import Path
from catalog.lmdb_ledger import LmdbLedger
LmdbLedger.create(Path(sys.argv[1]), 1)
"""


def test_the_steps_pass_every_crash_point() -> None:
    operations = {name.split(".")[1] for name in known_points() if name.startswith("ledger.")}
    assert {name for name, _ in STEPS} | {"create", "index_jobs", "index_damage", "index_sets"} == operations


FIRST_OF_EACH = {name: number for number, (name, _) in reversed(list(enumerate(STEPS)))}


@pytest.mark.parametrize("name", FIRST_OF_EACH)
def test_killed_before_or_after_a_commit(folder: Path, ledger: LmdbLedger, name: str) -> None:
    """Before: nothing has happened. After: all has. Never anything between, and doing it again leads to the same."""
    number = FIRST_OF_EACH[name]
    for _, act in STEPS[:number]:
        act(ledger)
    ledger.close()
    done, before, after = (folder.parent / copy for copy in ("done", "before", "after"))
    for copy in (done, before, after):
        shutil.copytree(folder, copy)
    with LmdbLedger.open(done) as undisturbed:
        STEPS[number][1](undisturbed)
    assert dump(done) != dump(folder), "the step changes something"

    children = [
        spawn(STEP, killed, number, TAPEFS_CRASH_AT=f"ledger.{name}.{killed.name}") for killed in (before, after)
    ]
    for child in children:
        child.communicate(timeout=60)
    assert [child.returncode for child in children] == [-9, -9]
    assert dump(before) == dump(folder)
    assert dump(after) == dump(done)
    with LmdbLedger.open(before) as again:
        STEPS[number][1](again)
        assert again.verify() == []
    assert dump(before) == dump(done)
    with LmdbLedger.open(after) as repeated:
        if name == "claim_volume":
            assert STEPS[number][1](repeated) == 2, "the claim that was taken is nobody's"
        elif name == "queue_job":
            with pytest.raises(Conflict):
                STEPS[number][1](repeated)
        else:
            STEPS[number][1](repeated)
    assert (dump(after) == dump(done)) == (name != "claim_volume")


@pytest.mark.parametrize(("point", "exists"), [("before", False), ("after", True)])
def test_killed_while_creating(folder: Path, point: str, exists: bool) -> None:
    """There is no half ledger; what is left beside it does not stop the next creation."""
    assert run(CREATE, folder, TAPEFS_CRASH_AT=f"ledger.create.{point}")[0] == -9
    assert folder.exists() == exists
    with (LmdbLedger.open if exists else lambda path: LmdbLedger.create(path, NOW))(folder) as ledger:
        assert ledger.verify() == []
        assert ledger.volumes() == []
        assert len(ledger.installation().installation_id) == 36
