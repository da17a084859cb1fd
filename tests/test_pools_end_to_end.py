"""Pools by commands: a tape that is begun anew, a set that is copied, a tape in a vault, and what is said of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_end_to_end import Installation, pytestmark, wait_until

__all__ = ["pytestmark"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    place = Installation(tmp_path)
    yield place
    place.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_bytes(os.urandom(300_000))
    return tmp_path / "tree"


def serve(place: Installation, *options: str) -> None:
    """A sidecar that stays, so that each command is quick."""
    place.run("init", *options)
    place.start("serve", "--listen", "127.0.0.1:0")
    wait_until((place.home / "sidecar.sock").exists, "the sidecar")


def tapes(place: Installation) -> dict[str, dict[str, object]]:
    return {str(each["label"]): each for each in place.listing("tapes")}


def next_tape(place: Installation, pool: str) -> str | None:
    found = json.loads(place.run("pool", "show", pool, "--json"))["next"]
    return None if found is None else str(found)


def test_a_tape_is_overwritten_when_all_has_expired_and_the_pool_says_so(place: Installation, tree: Path) -> None:
    """The only tape of a pool in which every run begins another one."""
    serve(place, "--tapes", "2", "--tape-size", "64MiB")
    place.run("pool", "create", "daily", "--allocation", "run", "--reuse-grace-days", "0")
    place.run("pool", "assign", "daily", "TP0001L9")
    first = place.backup(tree, "--name", "docs", "--pool", "daily", "--retention-days", "1")
    before = tapes(place)["TP0001L9"]["uuid"]
    assert "no tape with room is left in pool daily" in place.run("backup", tree, "--pool", "daily", ok=False)
    said = place.run("explain", "TP0001L9")
    assert f"It is not overwritten: it holds set {first[:8]} (docs), which lives." in said
    assert "Pool daily has no tape that could be written now." in said

    place.run("expire", first, "--apply")
    place.run("expire", "--failed", "--apply")
    assert "pool daily does not reuse tapes by itself" in place.run("explain", "TP0001L9")
    assert next_tape(place, "daily") is None
    place.run("pool", "edit", "daily", "--reuse")
    assert "Pool daily writes TP0001L9 next by relabelling it" in place.run("explain", "TP0001L9")
    assert next_tape(place, "daily") == "TP0001L9"

    second = place.backup(tree, "--name", "docs", "--pool", "daily", "--verify")
    after = tapes(place)["TP0001L9"]
    assert after["uuid"] != before
    assert after["sets"] == [second]
    assert tapes(place)["TP0002L9"]["state"] == "blank", "another pool's was left alone"
    back = place.folder / "back"
    place.run("restore", second, "--to", back)
    assert (back / str(tree)[1:] / "file").read_bytes() == (tree / "file").read_bytes()


def test_copies_scratch_and_vaults(place: Installation, tree: Path) -> None:
    serve(place, "--tapes", "3", "--tape-size", "64MiB")
    place.run("pool", "create", "scratch", "--description", "to be taken")
    place.run("pool", "assign", "scratch", "TP0001L9", "TP0002L9")
    place.run(
        "pool", "create", "offsite", "--retention", "6 tape-months", "--vault", "Berlin", "--vault-after-days", "1"
    )
    place.run("pool", "create", "daily", "--retention", "30d", "--copy-pool", "offsite")
    set_id = place.backup(tree, "--name", "docs", "--pool", "daily")
    found = tapes(place)
    assert [found[label]["pool"] for label in sorted(found)] == ["daily", "offsite", "default"]
    assert place.listing("jobs")[0]["retention_days"] == "pool"
    said = place.run("explain", "docs")
    assert f"Set {set_id[:8]} (docs, full" in said
    assert "It lies on TP0001L9 (pool daily), TP0002L9 (pool offsite)." in said
    assert "By the rule of pool offsite (6 tape-months) it is kept until" in said

    assert place.listing("vault", "list") == []
    place.run("tape", "move", "TP0002L9", "Berlin")
    (vaulted,) = place.listing("vault", "list")
    assert (vaulted["tape"], vaulted["location"], vaulted["is_due"]) == ("TP0002L9", "Berlin", False)
    assert place.listing("vault", "list", "--due") == []
    assert next_tape(place, "offsite") is None, "what lies in a vault is not written"
    wait_until(
        lambda: str(json.loads(place.run("tape", "show", "TP0002L9", "--json"))["place"]).startswith("slot"), "its slot"
    )
    error = place.run("backup", tree, "--name", "docs", "--pool", "daily", ok=False)
    assert "the copy in pool offsite could not be made" in error
    assert "TP0002L9, which has room and lies in Berlin" in error
    place.run("tape", "move", "TP0002L9", "library")
    place.run("job", "resume", "docs")
    assert place.listing("jobs")[0]["state"] == "completed"
    assert len(tapes(place)["TP0002L9"]["sets"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("pool", "create", "a/b"), "printable characters without a slash"),
        (("pool", "create", "default"), "there is a pool default already"),
        (("pool", "create", "a", "--retention", "6 weeks"), "is no retention"),
        (("pool", "delete", "default"), "the one of the settings"),
        (("pool", "assign", "default", "TP9999L9"), "no tape TP9999L9"),
        (("backup", "/etc/hostname", "--pool", "nope"), "there is no pool 'nope'"),
        (("backup", "/etc/hostname", "--retention-days", "-3"), "no number of days"),
        (("explain", "nothing"), "nothing"),
    ],
)
def test_what_is_refused(home_with_sidecar: Installation, arguments: tuple[str, ...], said: str) -> None:
    error = home_with_sidecar.run(*arguments, ok=False)
    assert said in error
    assert error.startswith("tapefs: ")
    assert error.count("\n") == 1
    assert [each["name"] for each in json.loads(home_with_sidecar.run("pool", "list", "--json"))] == ["default"]


@pytest.fixture(scope="module")
def home_with_sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    place = Installation(tmp_path_factory.mktemp("refusals"))
    serve(place, "--tapes", "1")
    yield place
    place.close()
