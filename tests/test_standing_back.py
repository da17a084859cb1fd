"""Threads that stand back, and those that must not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tapefs import standing_back
from tapefs.backup.frames import Workers
from tapefs.backup.scan import Walk
from tapefs.backup.stream import TapeStream
from tests.backup.rig import Rig

#: Makes a thread that stands back, tries whether the process may come forward again, and looks for both kinds of block.
PROBE = """
import os, sys
if len(sys.argv) > 1:
    import resource
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.setuid(65534)
from tapefs.standing_back import come_forward, coming_forward, may_come_forward, nice_value, stand_back, standing_back
own = nice_value()
with standing_back(7):
    inside = nice_value() - own
    with coming_forward():
        forward = nice_value() - own
print(may_come_forward(), inside, forward, nice_value() - own)
stand_back(30)
come_forward()
print(nice_value())
"""


def probe(*arguments: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may come forward again for certain")
def test_who_may_come_forward_stands_back_for_a_while() -> None:
    assert probe() == ["True 7 0 0", str(os.getpriority(os.PRIO_PROCESS, 0))]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_who_may_not_stands_back_for_good_or_not_at_all(tmp_path: Path) -> None:
    """A main thread that has other work later must not stay behind."""
    assert probe("nobody") == ["False 0 0 0", "19"]


def test_a_thread_stands_back_alone() -> None:
    before, found = standing_back.nice_value(), []

    def work() -> None:
        standing_back.stand_back(5)
        found.append(standing_back.nice_value())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [min(before + 5, 19)]
    assert standing_back.nice_value() == before


def test_what_feeds_the_drive_does_not_stand_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What compresses does, with the sums; the writer, begun by an intake that may stand back, does not."""
    own = standing_back.nice_value()
    seen: dict[str, set[int]] = {}

    def noting(kind: type, name: str, label: str) -> None:
        original: Callable[..., object] = getattr(kind, name)

        def noted(*arguments: object, **named: object) -> object:
            seen.setdefault(label, set()).add(standing_back.nice_value() - own)
            return original(*arguments, **named)

        monkeypatch.setattr(kind, name, noted)

    noting(Workers, "_begin", "compress")
    noting(Workers, "_done", "compress")
    noting(TapeStream, "_write", "writer")
    noting(Walk, "leave", "intake")
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}").write_bytes(os.urandom(200_000))
    rig = Rig(tmp_path / "rig", backup_settings="segment_bytes = 1048576\nframe_bytes = 65536\nniceness = 6")
    rig.backup(folder)
    assert seen["compress"] == {6}
    assert seen["writer"] == {0}
    assert seen["intake"] == ({6} if standing_back.may_come_forward() else {0})
    assert standing_back.nice_value() == own
