"""The tree of the mount without a mount: the same names, and who may see them."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.ids import SetId
from catalog.lmdb_ledger import LmdbLedger
from sidecar.bell import Bell
from sidecar.http.callers import Caller, Role
from sidecar.http.statuses import Forbidden
from sidecar.recalls.arrivals import Arrivals
from sidecar.recalls.recalling import Recalls
from sidecar.recalls.walks import Walks
from sidecar.view.files import Files, Item
from tapefs.errors import NoSuchThing, UsageError
from tapefs.vfs.residency import State
from tests.backup.rig import Rig

ADMIN = Caller("anna", Role.ADMIN)
VIEWER = Caller("vera", Role.VIEWER)
DAEMON = Caller("dora", Role.VIEWER, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path, SetId]]:
    folder = tmp_path_factory.mktemp("files")
    tree = folder / "tree"
    (tree / "open").mkdir(parents=True)
    (tree / "closed").mkdir(mode=0o700)
    (tree / "closed" / "for-all").write_bytes(b"behind a door")
    (tree / "open" / "mine").write_bytes(b"of root")
    (tree / "open" / "mine").chmod(0o600)
    (tree / "open" / "yours").write_bytes(b"of everybody")
    (tree / "open" / "named").write_bytes(b"of daemon by name")
    (tree / "open" / "named").chmod(0o640)
    subprocess.run(["setfacl", "-m", "u:daemon:r", str(tree / "open" / "named")], check=True)
    (tree / "open" / b"\xff.txt".decode(errors="surrogateescape")).write_bytes(b"no UTF-8")
    (tree / "link").symlink_to("open/yours")
    os.mkfifo(tree / "pipe")
    rig = Rig(folder)
    yield rig, tree, rig.backup(tree, name="home")
    rig.close()


@pytest.fixture
def files(made: tuple[Rig, Path, SetId]) -> Iterator[Files]:
    home = made[0].home
    with LmdbLedger.open(home.ledger, readonly=True) as ledger:
        arrivals = Arrivals()
        recalls = Recalls(home, ledger, None, arrivals, Bell(), Walks(1))  # type: ignore[arg-type]
        yield Files(home, ledger, recalls, arrivals)


def at(tree: Path, name: str = "") -> bytes:
    return os.fsencode(f"jobs/home/latest{tree}/{name}")


def test_everything_has_the_attributes_of_its_source(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    for path in (tree, *tree.rglob("*")):
        item, status = files.find(at(tree, os.fspath(path.relative_to(tree))), ADMIN), path.lstat()
        assert (item.mode, item.uid, item.mtime_ns) == (status.st_mode, status.st_uid, status.st_mtime_ns)
        assert item.is_directory or item.size_bytes == status.st_size or stat.S_ISLNK(item.mode)
        assert item.set_id == made[2]
    assert files.find(at(tree, "link"), ADMIN).target == b"open/yours"


def test_folders_list_what_they_hold_from_any_position(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    folder = files.find(at(tree, "open"), ADMIN)
    listed = list(files.children(folder, ADMIN))
    assert [item.name for _, item in listed] == sorted(os.listdir(os.fsencode(tree / "open")))
    for number, (position, _) in enumerate(listed, 1):
        assert [item.name for _, item in files.children(folder, ADMIN, position)] == [
            item.name for _, item in listed[number:]
        ]
    assert {item.name for _, item in files.children(files.find(b"", ADMIN), ADMIN)} == {
        b"README.txt", b"jobs", b"sets", b"tapes",
    }  # fmt: skip


@pytest.mark.parametrize("start", ["jobs/home/latest", "sets/{set}"])
def test_links_of_the_top_are_followed(files: Files, made: tuple[Rig, Path, SetId], start: str) -> None:
    item = files.find(f"/{start}/".format(set=made[2]).encode(), ADMIN)
    assert item.is_directory
    assert item.set_id == made[2]
    assert item.path.decode() == start.format(set=made[2])


def test_what_is_not_there(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    for path in (b"nothing", at(tree, "nothing"), at(tree, "link/x"), at(tree, "open/mine/x"), b"README.txt/x"):
        with pytest.raises(NoSuchThing):
            files.find(path, ADMIN)
    for path in (b"jobs/../sets", b"jobs/\0"):
        with pytest.raises(UsageError):
            files.find(path, ADMIN)


def test_doors_stay_closed(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    with pytest.raises(Forbidden, match="may not enter"):
        files.find(at(tree, "closed/for-all"), DAEMON)
    with pytest.raises(Forbidden, match="may not read"):
        list(files.children(files.find(at(tree, "closed"), ADMIN), DAEMON))
    with pytest.raises(Forbidden):
        files.find(b"tapes/x", VIEWER)
    assert files.find(at(tree, "closed/for-all"), VIEWER).size_bytes == 13


def openable(files: Files, item: Item, caller: Caller) -> bool:
    try:
        files.open(item, caller).release()
    except Forbidden:
        return False
    return True


async def test_contents_are_for_whom_the_source_let_in(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    reader = Caller("fts", None, scopes=frozenset({f"storage.read:/{at(tree, 'open').decode()}"}))
    table = {"mine": (True, False, False, True), "yours": (True, False, True, True), "named": (True, False, True, True)}
    for name, expected in table.items():
        item = files.find(at(tree, f"open/{name}"), ADMIN)
        assert tuple(openable(files, item, caller) for caller in (ADMIN, VIEWER, DAEMON, reader)) == expected, name
    assert not openable(files, files.find(at(tree, "closed/for-all"), ADMIN), reader)
    for name in ("open", "link", "pipe"):
        with pytest.raises(UsageError):
            files.open(files.find(at(tree, name), ADMIN), ADMIN)


@pytest.mark.parametrize("uid", [None, 1])
async def test_a_scope_is_for_what_is_below_it(files: Files, made: tuple[Rig, Path, SetId], uid: int | None) -> None:
    """Whoever the token stands for: neither contents nor names of others, but the folders on the way."""
    tree = made[1]
    reader = Caller("fts", None, uid, frozenset({f"storage.read:/{at(tree, 'closed').decode()}"}))
    assert openable(files, files.find(at(tree, "closed/for-all"), reader), reader)
    assert not openable(files, files.find(at(tree, "open/yours"), ADMIN), reader)
    for path in (at(tree, "open/yours"), at(tree, "open"), at(tree, "nothing"), b"sets", b"jobs/home/latest/etc"):
        with pytest.raises(Forbidden, match="no scope"):
            files.find(path, reader)
    for path, names in ((b"", [b"jobs"]), (b"jobs", [b"home"]), (at(tree), [b"closed"])):
        assert [item.name for _, item in files.children(files.find(path, reader), reader)] == names
    with pytest.raises(Forbidden):
        list(files.children(files.find(at(tree, "open"), ADMIN), reader))
    with pytest.raises(Forbidden):
        files.require_readable(files.find(at(tree), reader), reader)


async def test_where_contents_are(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    item = files.find(at(tree, "open/yours"), ADMIN)
    assert files.state(item) is State.NEARLINE
    assert files.is_on_tape(item)
    assert len(files.frames(item)) == 1
    assert (files.attribute(item, "user.tapefs.tape") or "").startswith("TP")
    folder = files.find(at(tree), ADMIN)
    assert files.state(folder) is State.ONLINE
    assert not files.is_on_tape(folder)


def test_tags_differ(files: Files, made: tuple[Rig, Path, SetId]) -> None:
    tree = made[1]
    names = ["open/mine", "open/yours", "open", "link"]
    assert len({files.find(at(tree, name), ADMIN).tag for name in names}) == len(names)


async def test_texts_of_the_top_are_read(files: Files) -> None:
    item = files.find(b"README.txt", VIEWER)
    opened = files.open(item, ADMIN)
    assert len(await opened.read(0, 1 << 20)) == item.size_bytes > 0
    opened.release()
