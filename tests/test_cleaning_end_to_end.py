"""Drives that ask to be cleaned, as a person sees it: by the virtual library, and over iSCSI. Nothing is faked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catalog.lmdb_ledger import LmdbLedger
from drivers.virtual.condition import CLEANINGS, read_alerts, write_alerts
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.memory import read_memory, write_memory
from tapefs.client.transport import Transport
from tests.backup.trees import random_files
from tests.drivers.tgt import need_libiscsi
from tests.test_end_to_end import Installation, wait_until

CLEAN_NOW, CLEAN_SOON = 20, 21
FIRST, SECOND = "CLNU01L1", "CLNU02L1"


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "2", "--tape-size", "64MiB")
    yield made
    made.close()


def set_policy(installation: Installation, policy: str) -> None:
    config = installation.home / "tapefs.toml"
    text = config.read_text()
    assert "[library]\n" in text
    config.write_text(text.replace("[library]\n", f'[library]\ncleaning = "{policy}"\n', 1))


def add_cartridge(installation: Installation, barcode: str, *, uses: int = 0) -> None:
    installation.run("library", "add", "--tape-size", "16MiB", "--barcode", barcode)
    folder = cartridge_folder(installation.home / "library", barcode)
    memory = read_memory(folder)
    for _ in range(uses):
        memory = memory.loaded_by("another drive")
    write_memory(folder, memory, sync=False)


def drives(installation: Installation) -> dict[str, Any]:
    return {str(each["name"]): each for each in installation.listing("drives")}


def cartridge(installation: Installation, barcode: str) -> dict[str, Any]:
    shown = json.loads(installation.run("tape", "show", barcode, "--json"))
    assert isinstance(shown, dict)
    return shown


def test_a_drive_that_must_be_cleaned_is_before_it_writes(installation: Installation, tmp_path: Path) -> None:
    """A cartridge that is used up is found out, the next one cleans and goes back, then the tape is written."""
    set_policy(installation, "auto")
    add_cartridge(installation, FIRST, uses=CLEANINGS)
    add_cartridge(installation, SECOND)
    library = installation.home / "library"
    write_alerts(library, 0, [CLEAN_NOW])
    source = random_files(tmp_path / "source", 3, 10_000)
    installation.backup(source, "--name", "docs")
    assert not read_alerts(library, 0)
    with LmdbLedger.open(installation.home / "ledger", readonly=True) as ledger:
        (cleaning,) = ledger.mountings(SECOND)
        (written,) = ledger.mountings("TP0001L9")
        assert ledger.life(FIRST).is_used_up
        assert not ledger.mountings(FIRST)
    assert 0 < cleaning.unloaded_at_ns <= written.loaded_at_ns
    assert (cleaning.drive, written.alerts) == ("drive0", ())
    view = cartridge(installation, SECOND)
    assert (view["cleanings"], view["uses"][0]["drive"]) == (1, "drive0")
    assert view["place"].startswith("slot ")
    assert drives(installation)["drive0"]["cleaned_with"] == SECOND
    said = installation.run("drives")
    assert f"with {SECOND} (1 of 50 cleanings used by now)" in said
    assert "to be cleaned" not in said
    assert "it cleans no more" in installation.run("tape", "show", FIRST)


def test_without_a_cartridge_the_operator_hears_which_are_used_up(installation: Installation, tmp_path: Path) -> None:
    """No backup stands still for it: the only drive writes all the same."""
    set_policy(installation, "auto")
    add_cartridge(installation, FIRST, uses=CLEANINGS)
    write_alerts(installation.home / "library", 0, [CLEAN_NOW])
    source = random_files(tmp_path / "source", 3, 10_000)
    installation.backup(source, "--name", "docs")
    said = installation.run("prompts")
    assert "drive0 asks to be cleaned at once" in said
    assert f"({FIRST}: it is used up)" in said
    refused = installation.run("tape", "clean", "drive0", ok=False)
    assert f"{FIRST}: it is used up" in refused
    assert "put another one in" in refused


def test_an_operator_is_asked_and_has_it_done(installation: Installation) -> None:
    add_cartridge(installation, FIRST)
    write_alerts(installation.home / "library", 0, [CLEAN_SOON])
    said = installation.run("prompts")
    assert "drive0 asks to be cleaned soon: `tapefs tape clean drive0`" in said
    assert "`tapefs tape clean drive0`" in installation.run("drives")
    installation.run("tape", "clean", "drive0", "--with", SECOND, ok=False)
    installation.run("tape", "clean", "drive7", ok=False)
    installation.run("tape", "clean", "drive0")
    assert "Nothing is to be done" in installation.run("prompts")
    assert not read_alerts(installation.home / "library", 0)
    assert cartridge(installation, FIRST)["cleanings"] == 1
    installation.run("tape", "show", "CLN999", ok=False)


def test_over_http_a_cleaning_is_followed_to_its_end(installation: Installation) -> None:
    add_cartridge(installation, FIRST)
    installation.start("serve", "--listen", "127.0.0.1:0")
    wait_until(lambda: installation.is_served() and installation.movers(), "the sidecar")
    api = Transport(installation.home / "sidecar.sock")

    def ask(method: str, path: str, body: object = None) -> Any:
        return json.loads(api.request(method, f"/api/v1/{path}", body))

    begun = ask("POST", "drives/drive0/clean", {"cartridge": FIRST})
    wait_until(lambda: ask("GET", f"cleanings/{begun['number']}")["state"] == "done", "the end of the cleaning")
    overview = ask("GET", "cleaning")
    assert overview["policy"] == "ask"
    assert overview["drives"] == [{"drive": "drive0", "is_wanted": False, "is_urgent": False, "todo": ""}]
    (only,) = overview["cartridges"]
    assert (only["barcode"], only["cleanings"], only["most_cleanings"]) == (FIRST, 1, 50)
    assert [task["state"] for task in overview["tasks"]] == ["done"]


def test_over_iscsi_a_drive_is_cleaned_before_it_writes(tmp_path: Path) -> None:
    """The drive says 30/03 while it cleans, ejects the cartridge by itself, and refuses one that is used up."""
    need_libiscsi()
    (tmp_path / "vtl").mkdir()
    vtl, user = Installation(tmp_path / "vtl"), Installation(tmp_path)
    vtl.run("init", "--tapes", "2", "--tape-size", "64MiB", "--motion", "scaled:60")
    add_cartridge(vtl, FIRST, uses=CLEANINGS)
    add_cartridge(vtl, SECOND)
    write_alerts(vtl.home / "library", 0, [CLEAN_NOW])
    source = random_files(tmp_path / "source", 3, 10_000)
    command = [sys.executable, "-m", "tapefs", "--home", str(vtl.home), "vtl", "--listen", "127.0.0.1:0"]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
            assert served.stdout is not None
            unit = next(line.strip() for line in served.stdout if line.startswith("  iscsi://")).rpartition("/")[0]
            user.run("init", "--driver", "iscsi", "--changer", f"{unit}/0", "--drive", f"{unit}/1")
            set_policy(user, "auto")
            user.backup(source, "--name", "docs")
            inventory = json.loads(user.run("inventory", "--json"))
            served.terminate()
        with LmdbLedger.open(user.home / "ledger", readonly=True) as ledger:
            (cleaning,) = ledger.mountings(SECOND)
            (written,) = ledger.mountings("TP0001L9")
            assert ledger.life(FIRST).is_used_up
        assert 0 < cleaning.unloaded_at_ns <= written.loaded_at_ns
        assert not read_alerts(vtl.home / "library", 0)
        kinds = {each["barcode"]: each["kind"] for each in inventory["places"] if each["full"]}
        assert (kinds[FIRST], kinds[SECOND]) == ("slot", "slot")
    finally:
        user.close()
        vtl.close()
