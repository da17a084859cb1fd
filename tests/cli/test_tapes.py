"""`tapefs tape` and `tapefs inventory` with real sidecars and movers: what an operator types and reads."""

from __future__ import annotations

import json
import re

import pytest

from drivers.registry import open_changer, open_drive
from drivers.virtual.library import take_out
from tests.cli.test_job import done, refused, run
from tests.tape.foreign import FOREIGN, write


@pytest.fixture
def tree(home, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("content")
    return tmp_path / "tree"


def somebody_writes(home, slot: int, kind: str) -> None:
    """Put another program's tape into a slot."""
    changer, drive = open_changer(home.library_config), open_drive(home.library_config, 0)
    changer.load(slot, 0)
    drive.load()
    write(drive, FOREIGN[kind].make())
    drive.unload()
    changer.unload(0, slot)
    drive.close()
    changer.close()


def test_foreign_tapes_are_told_and_left_alone(home, tree):
    """The first tape is LTFS: nobody overwrites it before somebody says so, and the backup takes another."""
    somebody_writes(home, 0, "ltfs")
    assert "blank, by its barcode only" in done("inventory")
    told = done("tape", "identify", "--all")
    assert "TP0001L9: LTFS, called holiday videos" in told
    assert "NOT what the catalog expects" in told
    assert "TP0002L9: blank; LTO-9; loaded 1 time" in told
    assert "suspect: it is LTFS, called holiday videos" in done("inventory")
    assert done("tape", "identify", "--all") == told.splitlines()[0].replace("loaded 2 times", "loaded 3 times")
    done("backup", str(tree))
    tapes = {each["label"]: each for each in json.loads(done("tapes", "--json"))}
    assert [label for label, each in tapes.items() if each["sets"]] == ["TP0002L9"]
    assert "is not blank: it is LTFS" in refused("tape", "label", "TP0001L9")[1]
    code, said = refused("tape", "relabel", "TP0001L9", "--force")
    assert (code, "--yes-it-is 'holiday videos'" in said) == (2, True)
    assert "--force" in refused("tape", "erase", "TP0001L9", "--yes-it-is", "holiday videos")[1]
    done("tape", "relabel", "TP0001L9", "--yes-it-is", "holiday videos", "--force", "--name", "letters")
    shown = json.loads(done("tape", "show", "letters", "--json"))
    assert (shown["label"], shown["barcode"], shown["state"], shown["sets"]) == (
        "letters",
        "TP0001L9",
        "appendable",
        [],
    )


def test_live_sets_keep_their_tape(home, tree, tmp_path):
    first = done("backup", str(tree)).splitlines()[-1]
    shown = done("tape", "show", "TP0001L9")
    assert "newest complete set of its job; only here" in shown
    assert re.search(r"^Written +[0-9-]{10} [0-9:]{8}Z$", shown, re.M)
    explained = done("explain", "TP0001L9")
    assert "It is in drive0 of the library." in explained
    assert re.search(r", [0-9.]+ [KM]iB of [0-9.]+ [MG]iB used\.", explained)
    for words in (("erase", "--long", "--force"), ("relabel",)):
        said = refused("tape", words[0], "TP0001L9", *words[1:], "--yes-it-is", "TP0001L9")[1]
        assert first[:8] in said
        assert "it stays, because it is the newest complete set of its job" in said
    done("restore", first, "--to", str(tmp_path / "back"))
    assert (tmp_path / f"back{tree}/file").read_text() == "content"
    done("expire", first, "--apply")
    assert run("tape", "erase", "TP0001L9", "--yes-it-is", "TP0001L9")[0] == 0
    assert "blank" in done("tape", "identify", "TP0001L9")
    assert "blank" in done("tape", "show", "TP0001L9")


def test_a_renamed_tape_is_found_by_its_barcode(home, tree, tmp_path):
    """Backup and restore work with a tape whose name is not its barcode, and it goes by both."""
    done("tape", "label", "TP0001L9", "--generate")
    (name,) = [each["label"] for each in json.loads(done("tapes", "--json")) if each["label"].startswith("TP20")]
    set_id = done("backup", str(tree)).splitlines()[-1]
    assert "is named nothing" not in done("tape", "show", name)
    assert json.loads(done("sets", "--json"))[0]["tapes"] == [name]
    assert json.loads(done("drives", "--json"))[0]["tape"] == name
    done("tape", "identify", "TP0002L9")  # So that it has to be loaded again.
    done("evict", "--all")
    done("restore", set_id, "--to", str(tmp_path / "back"))
    assert (tmp_path / f"back{tree}/file").read_text() == "content"
    assert run("verify", name, "--again")[0] == run("verify", "TP0001L9", "--again")[0] == 0
    assert done("explain", "TP0001L9") == done("explain", name)
    assert run("import", name)[0] == run("import", "TP0001L9")[0] == 0


def test_the_library_is_changed_right_behind_another_command(home, tmp_path):
    """The sidecar that it had started lingers for a second; nobody has to know that."""
    done("tape", "label", "TP0001L9", "--generate")
    assert run("library", "export", "TP0002L9", str(tmp_path / "shelf"))[0] == 0
    assert (tmp_path / "shelf").is_dir()


def test_a_lost_tape(home, tree):
    """What is lost is told before and after; the next backup takes everything anew."""
    done("job", "create", str(tree), "--name", "docs", "--type", "incremental")
    set_id = done("job", "run", "docs").splitlines()[-1]
    assert "in the library" in refused("tape", "forget", "TP0001L9")[1]
    done("tape", "identify", "TP0002L9")
    take_out(home.library_config.folder, "TP0001L9", home.path / "gone")
    said = refused("tape", "forget", "TP0001L9")[1]
    assert set_id[:8] in said
    assert "it would be lost" in said
    identity = json.loads(done("tape", "show", "TP0001L9", "--json"))["volume_id"]
    assert set_id in done("tape", "forget", "TP0001L9", "--yes-it-is", identity)
    refused("tape", "show", "TP0001L9")
    second = done("job", "run", "docs").splitlines()[-1]
    types = {each["set_id"]: each["type"] for each in json.loads(done("sets", "--json"))}
    assert types[second] == "full"


def test_a_restore_whose_tape_is_elsewhere_does_not_say_that_it_is_damaged(home, tree, tmp_path):
    """A tape that was taken out is no reason to be afraid for what is on it."""
    done("pool", "create", "daily")
    assert run("pool", "assign", "daily", "TP0002L9")[2] == "1 tape is in pool daily now"
    set_id = done("backup", str(tree), "--pool", "daily").splitlines()[-1]
    done("tape", "identify", "TP0001L9")
    assert run("library", "export", "TP0002L9", str(tmp_path / "shelf"))[0] == 0
    code, _, err = run("restore", set_id, "--to", str(tmp_path / "back"))
    assert code == 1
    assert "1 on tapes that are not here (put them in: the lines name them); see" in err
    assert "TP0002L9 is not in the library" in err
