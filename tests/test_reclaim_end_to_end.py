"""Reclaiming by commands: what would be done, having it done by one drive and by two, a mover that dies on the way."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from tests.test_end_to_end import Installation, pytestmark, wait_until
from tests.test_pools_end_to_end import serve, tapes

__all__ = ["pytestmark"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    place = Installation(tmp_path)
    yield place
    place.close()


def filled(place: Installation, folder: Path) -> tuple[str, dict[str, bytes]]:
    """The first tape holds a set that lives and a larger one that has expired; return the first and its content.

    Another tape joins the pool afterwards: two drives would use both.
    """
    place.run("pool", "create", "work", "--no-scratch")
    place.run("pool", "assign", "work", "TP0001L9")
    for name, size in (("kept", 400_000), ("gone", 3_000_000)):
        (folder / name).mkdir()
        (folder / name / "file").write_bytes(os.urandom(size))
    kept = place.backup(folder / "kept", "--name", "kept", "--pool", "work")
    gone = place.backup(folder / "gone", "--name", "gone", "--pool", "work")
    place.run("expire", gone, "--apply")
    place.run("pool", "assign", "work", "TP0002L9")
    return kept, {"file": (folder / "kept/file").read_bytes()}


def on_tape(place: Installation, label: str) -> list[str]:
    """Sets that have anything there, expired ones as well."""
    return cast(list[str], tapes(place)[label]["sets"])


def check_kept(place: Installation, folder: Path, kept: str, content: dict[str, bytes]) -> None:
    """Nothing holds the first tape; what was on it is overwritten, and the set is restored from the second."""
    place.run("tape", "relabel", "TP0001L9", "--yes-it-is", "TP0001L9")
    place.run("restore", kept, "--to", folder / "back")
    found = folder / "back" / str(folder / "kept")[1:]
    assert {path.name: path.read_bytes() for path in found.iterdir()} == content
    assert on_tape(place, "TP0002L9") == [kept]


@pytest.mark.parametrize("drives", ["1", "2"])
def test_an_almost_empty_tape(place: Installation, tmp_path: Path, drives: str) -> None:
    serve(place, "--tapes", "3", "--tape-size", "64MiB", "--drives", drives)
    kept, content = filled(place, tmp_path)
    (told,) = json.loads(place.run("reclaim", "--pool", "work", "--below", "20%", "--json"))
    assert (told["tape"], told["onto"], told["tape_changes"], told["obstacle"]) == ("TP0001L9", "TP0002L9", 3, "")
    assert [each["set_id"] for each in told["sets"]] == [kept]
    assert 10 < told["percent"] < 14
    assert "No such tape" in place.run("reclaim", "--pool", "work", "--below", "5")
    assert kept in on_tape(place, "TP0001L9"), "nothing has changed"

    said = place.run("reclaim", "TP0001L9", "--apply", "--json")
    (done,) = json.loads(said)
    assert (done["task"], done["state"], done["reclaimed"]["sets"]) == ("reclaim", "done", 1)
    assert kept not in on_tape(place, "TP0001L9")
    refused = place.run("reclaim", "TP0001L9", "--apply", ok=False)
    assert "tape TP0001L9 is not reclaimed: nothing lives on it any more" in refused
    check_kept(place, tmp_path, kept, content)


@pytest.mark.log_warnings
def test_a_mover_that_dies_on_the_way(place: Installation, tmp_path: Path) -> None:
    """It is told, nothing is lost, and the same command goes on."""
    place.run("init", "--tapes", "3", "--tape-size", "64MiB")
    kept, content = filled(place, tmp_path)
    wait_until(lambda: not (place.home / "sidecar.sock").exists(), "the end of the sidecar")
    said = place.run("reclaim", "TP0001L9", "--apply", ok=False, env={"TAPEFS_CRASH_AT": "copy.commit.after"})
    assert "what was moved stays moved, the same command goes on" in said
    assert kept in on_tape(place, "TP0001L9")
    place.run("reclaim", "TP0001L9", "--apply")
    check_kept(place, tmp_path, kept, content)


def test_what_is_asked_for_wrongly(place: Installation) -> None:
    serve(place, "--tapes", "2", "--tape-size", "64MiB")
    for arguments, sentence in (
        ((), "name tapes, or give --pool"),
        (("TP0001L9", "--below", "5%"), "--below chooses among the tapes of a pool"),
        (("--pool", "default", "--below", "0"), "write for example 20%"),
        (("--pool", "nowhere"), "nowhere"),
        (("TP0009L9",), "TP0009L9"),
        (("TP0001L9", "--apply"), "tape TP0001L9 is not reclaimed: it is blank"),
    ):
        assert sentence in place.run("reclaim", *arguments, ok=False)
