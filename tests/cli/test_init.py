"""`tapefs init` makes a whole state folder or nothing."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import tomllib
from pathlib import Path

import pytest

from catalog.crash import VARIABLE
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import VolumeState
from drivers.config import IscsiConfig, LibraryConfig
from tapefs.home import open_home
from tests.forking.client import run


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_defaults(tapefs, home_path):
    outcome = tapefs("init")
    assert outcome.code == 0
    assert "8 blank tapes of 2.0 GiB and 1 LTO9 drive" in outcome.out
    assert "backup DIR" in outcome.out.splitlines()[-1]
    home = open_home(home_path)
    assert home.settings.library.generation == 9
    assert home.settings.library.motion == "account"
    assert mode_of(home_path) == 0o700
    assert mode_of(home.token) == 0o600
    assert len(bytes.fromhex(home.token.read_text())) == 32
    assert sorted(os.listdir(home_path.parent)) == [home_path.name]


def test_options(tapefs, home_path):
    arguments = "init --tapes 3 --tape-size 100MB --drives 2 --generation lto7 --motion scaled:100"
    assert tapefs(*arguments.split()).code == 0
    settings = tomllib.loads((home_path / "tapefs.toml").read_text())
    assert settings["library"] == {"driver": "virtual", "drives": 2, "generation": 7, "motion": "scaled:100"}
    tapes = json.loads(tapefs("tapes", "--json").out)
    assert [tape["capacity_bytes"] for tape in tapes] == [100_000_000] * 3
    assert {tape["generation"] for tape in tapes} == {7}
    assert [drive["name"] for drive in json.loads(tapefs("drives", "--json").out)] == ["drive0", "drive1"]


def test_the_tapes_are_blank_and_known(home):
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        volumes = ledger.volumes()
        installation = ledger.installation()
    assert len(volumes) == 3
    assert {volume.state for volume in volumes} == {VolumeState.BLANK}
    assert {volume.installation_id for volume in volumes} == {installation.installation_id}
    assert len({volume.volume_id for volume in volumes}) == 3


def test_every_token_and_installation_is_new(tapefs, tmp_path):
    for name in ("a", "b"):
        assert tapefs("--home", str(tmp_path / name), "init", "--tape-size", "16MiB").code == 0
    assert (tmp_path / "a/token").read_text() != (tmp_path / "b/token").read_text()


def test_commented_settings_are_the_defaults(home):
    """What tapefs.toml shows behind `#` must be what happens without it."""
    text = (home.path / "tapefs.toml").read_text()
    shown = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    uncommented = home.path.parent / "shown"
    uncommented.mkdir()
    (uncommented / "tapefs.toml").write_text(shown)
    assert open_home(uncommented).settings == home.settings


def test_an_existing_state_folder_is_left_alone(tapefs, home):
    before = home.token.read_bytes()
    assert "is a state folder already" in tapefs("init").one_line()
    assert home.token.read_bytes() == before


def test_what_is_in_the_way_is_left_alone(tapefs, home_path):
    home_path.mkdir()
    (home_path / "thesis.txt").write_text("years of work")
    outcome = tapefs("init")
    assert outcome.code == 1
    assert "is not empty" in outcome.one_line()
    assert os.listdir(home_path) == ["thesis.txt"]
    assert sorted(os.listdir(home_path.parent)) == [home_path.name]


def test_a_file_in_the_way(tapefs, home_path):
    home_path.write_text("")
    assert "is no folder" in tapefs("init").one_line()


def test_an_empty_folder_is_used(tapefs, home_path):
    home_path.mkdir(mode=0o755)
    assert tapefs("init").code == 0
    assert mode_of(home_path) == 0o700


def test_a_symbolic_link_is_followed(tapefs, home_path, tmp_path):
    home_path.symlink_to(tmp_path / "elsewhere/deep")
    assert tapefs("init").code == 0
    assert (tmp_path / "elsewhere/deep/tapefs.toml").exists()
    assert tapefs("sets").code == 0


@pytest.mark.parametrize("point", ["init.rename.before", "init.rename.after"])
def test_killed_in_between(tapefs, home_path, point):
    """A crash leaves no half state folder, and the next try removes what it did leave."""
    killed = run("-m", "tapefs", "init", env=os.environ | {VARIABLE: point})
    assert killed.returncode == -9
    assert home_path.exists() == point.endswith("after")
    if not home_path.exists():
        assert tapefs("init").code == 0
    assert tapefs("sets").code == 0
    assert sorted(os.listdir(home_path.parent)) == [home_path.name]


def test_two_at_once(tapefs, home_path):
    draft = home_path.with_name(".state.init")
    draft.mkdir()
    descriptor = os.open(draft, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert "another `tapefs init`" in tapefs("init").one_line()
        assert draft.exists()
    finally:
        os.close(descriptor)


def test_a_place_without_permission(tapefs, tmp_path):
    assert "/proc" in tapefs("--home", "/proc/tapefs", "init").one_line()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('drives = ["/dev/nst0"]', "the virtual library has a number of drives"),
        ('changer = "/dev/sg0"', "no changer to be named"),
        ('drives = ["a", "a"]', "a drive is named twice"),
        ("drives = []", "drives: must not be empty"),
        ("drives = 0", "drives: must be at least 1, and is 0"),
    ],
)
def test_a_library_that_cannot_be_is_explained(tapefs, home_path, settings, reason):
    assert tapefs("init").code == 0
    path = home_path / "tapefs.toml"
    path.write_text(path.read_text().replace("drives = 1", settings))
    outcome = tapefs("drives")
    assert outcome.code != 0
    assert reason in outcome.err


DRIVE = "iscsi://vtl.example/iqn.2026-11.test:lib/1"
CHANGER = "iscsi://vtl.example/iqn.2026-11.test:lib/0"


def test_a_state_folder_for_a_real_library(tapefs, home_path, tmp_path, monkeypatch):
    """Its settings say how drives and changer are reached; its tapes are not known yet, and no device was asked."""
    monkeypatch.chdir(tmp_path)
    arguments = f"init --driver iscsi --drive {DRIVE} --changer {CHANGER} --generation lto8"
    login = "--chap-user me --chap-secret-file secret --chap-target-user lib --chap-target-secret-file /etc/lib"
    outcome = tapefs(*arguments.split(), *login.split())
    assert outcome.code == 0, outcome.err
    assert "for a library with 1 LTO8 drive." in outcome.out
    home = open_home(home_path)
    assert home.library_config == LibraryConfig(
        driver="iscsi",
        folder=home.library,
        drives=(DRIVE,),
        changer=CHANGER,
        iscsi=IscsiConfig(
            user="me", secret_file=tmp_path / "secret", target_user="lib", target_secret_file=Path("/etc/lib")
        ),
    )
    assert json.loads(tapefs("tapes", "--json").out) == []
    assert [drive["name"] for drive in json.loads(tapefs("drives", "--json").out)] == ["drive0"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (f"--driver iscsi --changer {CHANGER}", "needs `drives = ["),
        (f"--driver iscsi --drive {DRIVE}", 'needs `changer = "iscsi://'),
        (f"--driver iscsi --drive /dev/nst0 --changer {CHANGER}", "is no address of a drive"),
        (f"--driver iscsi --drive {CHANGER} --changer {CHANGER}", "is named twice"),
        (f"--driver iscsi --drive {DRIVE} --drive {DRIVE} --changer {CHANGER}", "is named twice"),
        (f"--driver iscsi --drive iscsi://me%x@h/iqn.2026-11.a:b/1 --changer {CHANGER}", "no password into the URL"),
        (f"--driver iscsi --drive {DRIVE} --changer {CHANGER} --chap-secret-file x", "without `user`"),
        (f"--driver iscsi --drive {DRIVE} --changer {CHANGER} --tapes 3", "--tapes is not for a real library"),
        (f"--changer {CHANGER}", "--changer is not for a virtual library"),
    ],
)
def test_a_real_library_that_cannot_be_is_explained(tapefs, home_path, arguments, reason):
    outcome = tapefs("init", *arguments.split())
    assert outcome.code == 2
    assert reason in outcome.one_line()
    assert not home_path.exists()
