"""A copy that is damaged or not there: mount and restore use another one by themselves.

Nothing is faked but the damage.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.interface import ElementKind
from drivers.registry import open_changer, open_drive
from drivers.virtual.library import add_from, take_out
from sidecar.recalls.recalling import INVENTORY_S
from tapefs.home import open_home
from tests.backup.trees import random_files, snapshot
from tests.test_end_to_end import Installation, wait_until
from tests.test_trust_end_to_end import flip

FILES = 24
FILE_BYTES = 1_000_000


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "3", "--tape-size", "256MiB")
    settings = made.home / "tapefs.toml"
    before = settings.read_text()
    assert "[backup]\n" in before
    settings.write_text(before.replace("[backup]\n", f"[backup]\nsegment_bytes = {2 * FILES * FILE_BYTES}\n"))
    yield made
    made.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return random_files(tmp_path / "tree", FILES, FILE_BYTES)


def archive(installation: Installation, tree: Path) -> str:
    """Archive the tree on two tapes; return the set."""
    return installation.backup(tree, "--name", "kept", "--type", "archive", "--copies", "2", "--keep-sources")


def copies(installation: Installation, set_id: str) -> list[dict[str, Any]]:
    """The two copies of the set's only segment."""
    (segment,) = json.loads(installation.run("show", set_id, "--json"))["segment_list"]
    first, second = segment["copies"]
    return [first, second]


def payload(installation: Installation, copy: dict[str, Any]) -> Path:
    return installation.home / "library" / "cartridges" / str(copy["tape"]) / f"{copy['header_file'] + 1:05}"


def test_frames_damaged_on_different_copies(installation: Installation, tree: Path, tmp_path: Path) -> None:
    """Each copy has lost something; together they hold all, and readers notice nothing."""
    set_id = archive(installation, tree)
    for number, copy in enumerate(copies(installation, set_id)):
        flip(payload(installation, copy), 2_000_000 + number * 12_000_000)
    installation.serve()
    installation.run("evict", "--all")
    shown = Path(f"{installation.mount_point}/jobs/kept/latest{tree}")
    assert snapshot(shown) == snapshot(tree)
    installation.run("evict", "--all")
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)


def test_a_frame_damaged_on_every_copy(installation: Installation, tree: Path, tmp_path: Path) -> None:
    """It costs its own files, which are named, with the tapes that were asked; everything else comes back."""
    set_id = archive(installation, tree)
    both = copies(installation, set_id)
    for copy in both:
        flip(payload(installation, copy), 2_000_000)
    told = installation.run("restore", set_id, "--to", tmp_path / "out", ok=False)
    restored = Path(f"{tmp_path / 'out'}{tree}")
    lost = [path.name for path in tree.iterdir() if not (restored / path.name).exists()]
    assert 0 < len(lost) < FILES / 2
    for path in tree.iterdir():
        if path.name not in lost:
            assert (restored / path.name).read_bytes() == path.read_bytes()
    assert all(name in told for name in lost)
    assert all(str(copy["tape"]) in told for copy in both), told
    assert f"{len(lost)} damaged, and not to be had from any tape here" in told, told
    # What it has met is known from now on, as if it had been read back.
    assert [copy["state"] for copy in copies(installation, set_id)] == ["damaged", "damaged"]
    report = json.loads(installation.run("report", set_id, "--json"))
    found = report["verification"]["damaged"]
    assert {each["tape"] for each in found} == {copy["tape"] for copy in both}
    assert all({Path(each["path"]).name for each in copy["lost"]} == set(lost) for copy in found)


def test_a_tape_that_is_not_there(installation: Installation, tree: Path, tmp_path: Path) -> None:
    """Without both, the tapes that would do are named; with one of them all is well."""
    sidecar = installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(installation.movers, "the mover")
    set_id = archive(installation, tree)
    first, second = (str(copy["tape"]) for copy in copies(installation, set_id))
    sidecar.terminate()
    sidecar.wait()
    carry_away(installation.home, [first, second], tmp_path)
    told = installation.run("restore", set_id, "--to", tmp_path / "nothing", ok=False)
    assert f"tape {first} or {second} is not in the library" in told, told
    assert f"{FILES} on tapes that are not here (put them in" in told, told
    assert "damaged" not in told, told
    add_from(open_home(installation.home).library, tmp_path / second)
    time.sleep(INVENTORY_S)  # So long the sidecar believes what it has seen; it was started by the restore, and stays.
    installation.run("restore", set_id, "--to", tmp_path / "out")
    assert snapshot(Path(f"{tmp_path / 'out'}{tree}")) == snapshot(tree)


def carry_away(path: Path, labels: list[str], target: Path) -> None:
    """Take cartridges out of a library that nobody uses."""
    home = open_home(path)
    library = home.settings.library.config(home.path, home.library)
    drive, changer = open_drive(library, 0), open_changer(library)
    drive.unload()
    drive.close()
    elements = changer.inventory()
    if elements[0].full:
        changer.unload(0, next(e.number for e in elements if e.kind is ElementKind.SLOT and not e.full))
    changer.close()
    for label in labels:
        take_out(home.library, label, target / label)


def test_readers_go_on_when_the_damage_is_found_in_the_middle(installation: Installation, tree: Path) -> None:
    """A verification tells what it found; readers are then sent to the other tape at once."""
    set_id = archive(installation, tree)
    first, second = copies(installation, set_id)
    flip(payload(installation, first), 2_000_000)
    installation.run("verify", str(first["tape"]), "--again", ok=False)
    installation.serve()
    installation.run("evict", "--all")
    shown = Path(f"{installation.mount_point}/jobs/kept/latest{tree}")
    assert snapshot(shown) == snapshot(tree)
    wait_until(lambda: _tape_in_drive(installation) == second["tape"], "the loading of the whole copy")


def _tape_in_drive(installation: Installation) -> object:
    return installation.listing("drives")[0]["tape"]
