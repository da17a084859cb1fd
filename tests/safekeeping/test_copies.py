"""Copies of the catalog: whole, consistent while others write, and nothing of a bad one is taken."""

from __future__ import annotations

import fcntl
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner

from catalog.ids import SetId
from catalog.lmdb_ledger import LmdbLedger
from catalog.task_records import TaskFamily, TaskState
from tapefs.check.finding import Scene
from tapefs.check.run import CHECKS, run_checks
from tapefs.cli import group
from tapefs.errors import CatalogInDoubt, HomeError, NotNow
from tapefs.home import open_home
from tapefs.keys.identity import Identity
from tapefs.keys.store import KeyStore
from tapefs.safekeeping import pack
from tapefs.safekeeping.pack import back_up_catalog
from tapefs.safekeeping.unpack import bring_catalog_back, read_manifest
from tapefs.setup_home import NewHome, create_home
from tests.backup.rig import Rig
from tests.backup.trees import random_files
from tests.catalog.contract_tasks import task_of
from tests.forking.client import run

NOW_NS = 1_750_000_000 * 10**9


@pytest.fixture
def copy(rig: Rig, made: list[SetId], tmp_path: Path) -> Path:
    back_up_catalog(rig.home, rig.ledger, tmp_path / "copy.tar.zst", NOW_NS)
    return tmp_path / "copy.tar.zst"


def catalog_of(path: Path) -> dict[str, object]:
    """What a state folder shows, and that it is sound."""
    home = open_home(path)
    with LmdbLedger.open(home.ledger) as ledger:
        assert list(run_checks(Scene(home, ledger), tuple(CHECKS), repair=False)) == []
        sets = ledger.backup_sets()
        return {
            "sets": sets,
            "jobs": ledger.jobs(),
            "volumes": ledger.volumes(),
            "segments": [ledger.segments(each.set_id) for each in sets],
            "indexes": {each.name: each.read_bytes() for each in home.indexes.iterdir()},
            "trailers": {each.name: each.read_bytes() for each in home.trailers.iterdir()},
        }


def test_there_and_back(rig: Rig, copy: Path, tmp_path: Path) -> None:
    before = catalog_of(rig.home.path)
    manifest = bring_catalog_back(tmp_path / "new", copy, NOW_NS)
    assert manifest.sets == 2
    assert catalog_of(tmp_path / "new") == before
    assert (tmp_path / "new" / "token").stat().st_mode & 0o777 == 0o600
    assert sorted(each.name for each in (tmp_path / "new").iterdir() if each.name.startswith((".", "replaced"))) == []


def test_a_key_of_the_copy_is_kept_beside_another_of_its_name(rig: Rig, made: list[SetId], tmp_path: Path) -> None:
    """The home was made anew, with a key of the same name, before the copy was brought back."""
    old = KeyStore(rig.home.keys).add("main", Identity.new().recipient, b"")
    back_up_catalog(rig.home, rig.ledger, tmp_path / "copy.tar.zst", NOW_NS)
    create_home(NewHome(path=tmp_path / "new", tapes=1, tape_bytes=64 * 1024**2), NOW_NS)
    store = KeyStore(tmp_path / "new/keys")
    new = store.add("main", Identity.new().recipient, b"")
    bring_catalog_back(tmp_path / "new", tmp_path / "copy.tar.zst", NOW_NS)
    assert store.find("main") == new
    found = store.of_fingerprint(old.fingerprint)
    assert found is not None
    assert found.title == "main-restored.1"


def test_no_tape_is_erased_because_of_an_old_copy(rig: Rig, made: list[SetId], tmp_path: Path) -> None:
    task = rig.ledger.add_task(task_of("erase"))
    back_up_catalog(rig.home, rig.ledger, tmp_path / "copy.tar.zst", NOW_NS)
    bring_catalog_back(tmp_path / "new", tmp_path / "copy.tar.zst", NOW_NS)
    with LmdbLedger.open(tmp_path / "new/ledger") as ledger:
        [kept] = ledger.tasks(TaskFamily.TAPE)
        assert (kept.number, kept.state, kept.error_kind) == (task.number, TaskState.INTERRUPTED, "restored")
        assert "ask again" in kept.error


def test_plain_programs_read_it(copy: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["tar", "--zstd", "-tf", copy], capture_output=True, text=True, check=True).stdout
    names = listed.split()
    assert names[0] == "ledger/data.mdb"
    assert names[-1] == "MANIFEST.json"
    assert sum(name.startswith("index/") and name.endswith(".lmdb") for name in names) == 2


def test_what_came_later_is_set_aside(rig: Rig, made: list[SetId], copy: Path, tmp_path: Path) -> None:
    """The catalog goes back in time; what it had since is moved, and settings stay as they are now."""
    before = catalog_of(rig.home.path)
    rig.backup(random_files(tmp_path / "later", 3, 100), name="later")
    after = catalog_of(rig.home.path)
    rig.close()
    settings = rig.home.path / "tapefs.toml"
    settings.write_text(settings.read_text() + "\n# mine\n")
    bring_catalog_back(rig.home.path, copy, NOW_NS)
    assert catalog_of(rig.home.path) == before
    assert settings.read_text().endswith("# mine\n")
    replaced = rig.home.path / "replaced-20250615T150640Z"
    with LmdbLedger.open(replaced / "ledger", readonly=True) as ledger:
        assert ledger.backup_sets() == after["sets"]


def test_sets_that_expire_meanwhile(
    rig: Rig, made: list[SetId], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was copied is one state of the catalog, never a mixture."""
    add = pack._Packer.add
    gone: list[SetId] = []

    def expiring(self: object, name: str, path: Path) -> None:
        if name == f"index/{made[1]}.lmdb" and not gone:
            rig.ledger.expire_set(made[1], NOW_NS)
            path.unlink()
            gone.append(made[1])
        add(self, name, path)  # type: ignore[arg-type]

    monkeypatch.setattr(pack._Packer, "add", expiring)
    manifest = back_up_catalog(rig.home, rig.ledger, tmp_path / "copy", NOW_NS)
    assert gone
    assert (manifest.sets, manifest.without_index) == (1, ())
    bring_catalog_back(tmp_path / "new", tmp_path / "copy", NOW_NS)
    assert len(catalog_of(tmp_path / "new")["indexes"]) == 2  # type: ignore[arg-type] - an index and its names


def test_a_lost_index_is_told(rig: Rig, made: list[SetId], tmp_path: Path) -> None:
    rig.home.index(made[0]).unlink()
    manifest = back_up_catalog(rig.home, rig.ledger, tmp_path / "copy", NOW_NS)
    assert manifest.without_index == (made[0],)


def test_one_at_a_time(rig: Rig, made: list[SetId], tmp_path: Path) -> None:
    with pack._copied_ledger(rig.home), pytest.raises(NotNow):
        back_up_catalog(rig.home, rig.ledger, tmp_path / "copy", NOW_NS)
    assert list(tmp_path.glob("*copy*")) == []
    back_up_catalog(rig.home, rig.ledger, tmp_path / "copy", NOW_NS)


def refuses(copy: Path) -> bool:
    """Is it not whole? Then nothing was changed, and that is said."""
    try:
        read_manifest(copy)
    except CatalogInDoubt as error:
        return "nothing was changed" in str(error)
    return False


def test_every_flipped_byte_is_noticed(copy: Path, tmp_path: Path) -> None:
    """But for bits of zstd's headers on which no content depends: with these the same comes back."""
    whole, harmless = copy.read_bytes(), 0
    bring_catalog_back(tmp_path / "as-it-was", copy, NOW_NS)
    before = catalog_of(tmp_path / "as-it-was")
    for at in range(7, len(whole), max(1, len(whole) // 60)):
        data = bytearray(whole)
        data[at] ^= 0x10
        copy.write_bytes(data)
        if refuses(copy):
            continue
        harmless += 1
        bring_catalog_back(tmp_path / f"with-{at}", copy, NOW_NS)
        assert catalog_of(tmp_path / f"with-{at}") == before
    assert harmless < 3
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 100):
        copy.write_bytes(whole[:length])
        with pytest.raises(CatalogInDoubt):
            bring_catalog_back(tmp_path / "new", copy, NOW_NS)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "index/../../evil", "library/x", "ledger/data.mdb", "sidecar.sock"]
)
def test_names_that_lead_elsewhere(copy: Path, tmp_path: Path, name: str) -> None:
    """A member more, before the manifest."""
    plain = zstandard.ZstdDecompressor().stream_reader(copy.read_bytes()).read()
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(plain)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            if member.name == "MANIFEST.json":
                evil = tarfile.TarInfo(name)
                evil.size = 4
                new.addfile(evil, io.BytesIO(b"evil"))
            new.addfile(member, old.extractfile(member))
    copy.write_bytes(zstandard.compress(out.getvalue()))
    with pytest.raises(CatalogInDoubt, match="has no place in it"):
        bring_catalog_back(tmp_path / "new", copy, NOW_NS)
    assert not (tmp_path / "evil").exists()


def test_only_into_a_state_folder_or_an_empty_one(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(HomeError, match="neither empty nor a state folder"):
        bring_catalog_back(tmp_path / "other", copy, NOW_NS)
    with pytest.raises(HomeError, match="no folder"):
        bring_catalog_back(tmp_path / "other" / "file", copy, NOW_NS)


_CHILD = """
import sys
from pathlib import Path
from tapefs.safekeeping.unpack import bring_catalog_back
bring_catalog_back(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
"""


@pytest.mark.parametrize("point", ["place.before", "old.after", "place.after"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_killed_while_it_is_put_in_place(rig: Rig, copy: Path, tmp_path: Path, point: str, nth: int) -> None:
    """There is the old catalog, or none; the same command brings the copy back."""
    before = catalog_of(rig.home.path)
    rig.close()
    environment = {**os.environ, "TAPEFS_CRASH_AT": f"safekeeping.{point}:{nth}"}
    command = ["-c", _CHILD, rig.home.path, copy]
    killed = run(*command, NOW_NS, env=environment)
    assert killed.returncode < 0
    if rig.home.ledger.exists():
        LmdbLedger.open(rig.home.ledger, readonly=True).close()
    assert run(*command, NOW_NS + 10**9).returncode == 0
    assert catalog_of(rig.home.path) == before


def test_two_copies_to_tape_do_not_remove_each_others_file(rig: Rig, made: list[SetId]) -> None:
    """What one is about to write lies in a folder that the other empties at its beginning."""
    rig.home.copies.mkdir()
    (rig.home.copies / "catalog-20261120T201103Z.tar.zst").write_text("is being read")
    folder = os.open(rig.home.copies, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        told = CliRunner().invoke(group, ["--home", str(rig.home.path), "catalog", "backup", "--to-tape"])
    finally:
        os.close(folder)
    assert isinstance(told.exception, NotNow)
    assert "on its way to tape already" in str(told.exception)
    assert os.listdir(rig.home.copies) == ["catalog-20261120T201103Z.tar.zst"]
