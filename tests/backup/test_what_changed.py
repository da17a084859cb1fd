"""What other programs do to a tree, each thing by itself: the next incremental set has it, and nothing else."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from catalog.errors import Conflict, Damaged
from catalog.ids import DirectoryNo, SetId
from catalog.index.model import Directory
from catalog.index.reader import IndexReader
from catalog.records import Job, JobState, SetState
from drivers.virtual.library import take_out
from sidecar.jobs.going_on import finish
from tapefs.backup import base
from tapefs.format.lines import read_lines
from tapefs.format.records import DirectoryEntered, DirectoryLeft, DirectoryPart, Member, TrailerLine
from tapefs.retention.expire import remove_leftovers
from tests.backup.rig import Rig
from tests.compare.look import differences, look
from tests.compare.of_set import NOT_SHOWN, look_at_set, wrong_content

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do all of this to a file")


@dataclass
class Said:
    """What the trailers of a set say of a tree, by path below it; the tree itself is `.`."""

    folders: set[str] = field(default_factory=set)
    #: Names with a line; those whose content the set has.
    files: set[str] = field(default_factory=set)
    stored: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)


def said(rig: Rig, set_id: SetId, tree: Path) -> Said:
    """Read the trailers of a set."""
    found = Said()
    paths: dict[int, str] = {}

    def below(number: int, name: str = "") -> str | None:
        path = f"{paths[number]}/{name}".rstrip("/")
        return os.path.relpath(path, tree) if f"{path}/".startswith(f"{tree}/") else None

    for segment in rig.ledger.segments(set_id):
        with rig.home.trailer(segment.segment_id).open("rb") as file:
            for line in read_lines(file, TrailerLine):
                if isinstance(line, DirectoryEntered):
                    paths[line.n] = "" if line.n == line.p else f"{paths[line.p]}/{line.name}"
                    found.folders |= {below(line.n)} - {None}
                elif isinstance(line, Member):
                    found.files |= {below(line.d, line.name)} - {None}
                    found.stored |= {below(line.d, line.name)} - {None} if line.sha256 else set()
                elif isinstance(line, DirectoryLeft | DirectoryPart):
                    found.removed |= {below(line.n, name) for name in line.removed} - {None}
    return found


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is so fresh that only its content could tell: what is seen here is seen by times and attributes."""
    monkeypatch.setattr(base, "FRESH_NS", 0)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    script = """
        mkdir -p d/sub other/deep/er
        for name in d/a d/b d/c d/sub/s other/x other/deep/y other/deep/er/z; do head -c 3000 /dev/urandom >$name; done
        ln -s a d/link; mkfifo d/fifo; mknod d/device c 7 7; setfattr -n user.old -v 1 d/c; setfacl -m u:9:r d/c
        touch -d 2020-01-02T03:04:05.678901234 d/a d
    """
    tree.mkdir()
    subprocess.run(["bash", "-ec", script], cwd=tree, check=True)
    return tree


#: What is run in the tree; files with a line, those with content, names that are gone, folders with a line.
CASES = {
    "nothing": (":", "", "", "", ""),
    "read": ("cat d/a d/b d/sub/s; ls -lR; sync; cp -r d ../copy; tar c . | cat", "", "", "", ""),
    "size": ("echo x >>d/a", "d/a", "d/a", "", ". d"),
    "shorter, old mtime": ("touch -r d/a ../t; truncate -s 1 d/a; touch -r ../t d/a", "d/a", "d/a", "", ". d"),
    "mtime": ("touch -d 2001-01-01 d/a", "d/a", "d/a", "", ". d"),
    "mtime by 1 ns": ("touch -d 2020-01-02T03:04:05.678901235 d/a", "d/a", "d/a", "", ". d"),
    "content, old size and mtime": (
        "touch -r d/a ../t; printf x | dd of=d/a conv=notrunc status=none; touch -r ../t d/a", "d/a", "d/a", "", ". d"
    ),
    "ctime alone": ("chmod 600 d/a; chmod 644 d/a", "d/a", "d/a", "", ". d"),
    "inode": ("cp -p d/a d/new; mv d/new d/a", "d/a", "d/a", "", ". d"),
    "sed -i": ("sed -i s/x/y/ d/a", "d/a", "d/a", "", ". d"),
    "mode": ("chmod 4711 d/a", "d/a", "d/a", "", ". d"),
    "owner": ("chown 1234 d/a", "d/a", "d/a", "", ". d"),
    "group": ("chgrp 1234 d/a", "d/a", "d/a", "", ". d"),
    "owner of a link": ("chown -h 1234 d/link", "d/link", "", "", ". d"),
    "xattr": ("setfattr -n user.new -v 1 d/a", "d/a", "d/a", "", ". d"),
    "xattr, another value": ("setfattr -n user.old -v 2 d/c", "d/c", "d/c", "", ". d"),
    "xattr gone": ("setfattr -x user.old d/c", "d/c", "d/c", "", ". d"),
    "xattr of a device": ("setfattr -n trusted.t -v 1 d/device", "d/device", "", "", ". d"),
    "ACL": ("setfacl -m u:1234:rw d/a", "d/a", "d/a", "", ". d"),
    "ACL, same mode": ("setfacl -m u:9:- d/c", "d/c", "d/c", "", ". d"),
    "ACL gone": ("setfacl -b d/c", "d/c", "d/c", "", ". d"),
    "capability": (
        "setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 d/a", "d/a", "d/a", "", ". d"
    ),
    "a second name": ("ln d/a other/second", "d/a other/second", "d/a", "", ". d other"),
    "another target": ("ln -sfn b d/link", "d/link", "", "", ". d"),
    "another device": ("rm d/device; mknod d/device c 7 8", "d/device", "", "", ". d"),
    "another kind": ("rm d/a; mkfifo d/a", "d/a", "", "", ". d"),
    "a folder in place of a file": ("rm d/a; mkdir d/a", "", "", "d/a", ". d d/a"),
    "a file in place of a folder": ("rm -r d/sub; echo >d/sub", "d/sub", "d/sub", "", ". d"),
    "deleted": ("rm d/a", "", "", "d/a", ". d"),
    "folder deleted": ("rm -r other/deep", "", "", "", ". other"),
    "renamed": ("mv d/a d/A", "d/A", "d/A", "d/a", ". d"),
    "moved": ("mv d/a other/deep", "other/deep/a", "other/deep/a", "d/a", ". d other other/deep"),
    "exchanged": ("mv d/a d/t; mv d/b d/a; mv d/t d/b", "d/a d/b", "d/a d/b", "", ". d"),
    "folder renamed": (
        "mv other/deep other/deeper", "other/deeper/y other/deeper/er/z", "other/deeper/y other/deeper/er/z", "",
        ". other other/deeper other/deeper/er",
    ),
    "new": (
        "echo >other/deep/er/new", "other/deep/er/new", "other/deep/er/new", "", ". other other/deep other/deep/er"
    ),
    "mode of a folder": ("chmod 700 other/deep", "", "", "", ". other other/deep"),
    "owner of a folder": ("chown 1234 other/deep", "", "", "", ". other other/deep"),
    "time of a folder": ("touch -d 2001-01-01 other/deep", "", "", "", ". other other/deep"),
    "xattr of a folder": ("setfattr -n user.new -v 1 other/deep", "", "", "", ". other other/deep"),
    "ACL of a folder": ("setfacl -m u:1234:rx other/deep", "", "", "", ". other other/deep"),
    "default ACL": ("setfacl -d -m u:1234:rx other/deep", "", "", "", ". other other/deep"),
    "a name made and removed": ("touch d/t; rm d/t; touch -d 2020-01-02T03:04:05.678901234 d", "", "", "", ". d"),
}  # fmt: skip


def run(rig: Rig, job: Job, tree: Path, script: str, **changes: object) -> SetId:
    """Do something to the tree, then make an incremental set, which must show it."""
    subprocess.run(["bash", "-ec", script], cwd=tree, check=True, stdout=subprocess.DEVNULL)
    before = look(tree)
    set_id = rig.again(job, type="incremental", **changes)
    shown, checks = look_at_set(rig, set_id, tree)
    assert differences(shown, before, ignore=NOT_SHOWN) == []
    assert wrong_content(checks, tree) == []
    return set_id


@pytest.mark.parametrize("case", CASES)
def test_it_is_noticed_and_nothing_else_is(rig: Rig, tree: Path, case: str) -> None:
    script, files, stored, removed, folders = CASES[case]
    job = rig.queued(tree)
    full = rig.run(job)
    before = look_at_set(rig, full, tree)
    second = run(rig, job, tree, script)
    wanted = Said(*(set(each.split()) for each in (folders, files, stored, removed)))
    assert said(rig, second, tree) == wanted
    assert look_at_set(rig, full, tree) == before
    assert said(rig, run(rig, job, tree, ":"), tree) == Said()


def test_with_checksums_content_alone_is_stored(rig: Rig, tree: Path) -> None:
    """Times and attributes that change make lines, not content; content that changes under old times is found."""
    job = rig.queued(tree)
    rig.run(job)
    script = "touch d/a; setfacl -m u:7:rw d/b; setfattr -x user.old d/c; chown 77 other/x; sed -i s/a/a/ other/deep/y"
    restated = {"d/a", "d/b", "d/c", "other/x", "other/deep/y"}
    second = run(rig, job, tree, script, checksum=True)
    assert (said(rig, second, tree).files, said(rig, second, tree).stored) == (restated, set())
    script = (
        "touch -r other/x ../t; printf x | dd of=other/x conv=notrunc status=none; touch -r ../t other/x; mv d/a d/A"
    )
    third = run(rig, job, tree, script, checksum=True)
    assert said(rig, third, tree).stored == {"other/x", "d/A"}
    assert said(rig, third, tree).removed == {"d/a"}
    assert said(rig, run(rig, job, tree, ":", checksum=True), tree) == Said()


def _end(reader: IndexReader) -> int:
    """Return the number behind the last entry."""
    folders = reader.directories_from(DirectoryNo(0), reader.directories_end)
    return max(
        max(each.files_first + each.files_count, each.directories_first + each.directories_count) for each in folders
    )


def test_what_has_not_changed_is_shared_with_the_base(rig: Rig, tree: Path) -> None:
    """The new index has the listings of changed folders only; all others are the base's own."""
    for number in range(200):
        (tree / f"other/deep/{number}").write_bytes(b"")
    job = rig.queued(tree)
    full = rig.run(job)
    second = run(rig, job, tree, "echo more >>d/a")
    with IndexReader(rig.home.index(full)) as old, IndexReader(rig.home.index(second)) as new:
        for path in ("other", "other/deep", "other/deep/er", "d/sub"):
            before, after = (_folder(reader, tree / path) for reader in (old, new))
            assert before == after
            assert new.has_run(after.files_first, after.files_count)
            assert after.files_first < _end(old)
        changed = _folder(new, tree / "d")
        assert changed.files_first >= _end(old)
        # `d`, the tree, and what lies above it; not the 200.
        assert _end(new) - _end(old) < 50


def _folder(reader: IndexReader, path: Path) -> Directory:
    found = reader.directory(DirectoryNo(0))
    for name in os.fsencode(path).split(b"/")[1:]:
        hit = reader.lookup(found, name)
        assert hit is not None
        found = reader.directory(DirectoryNo(hit[1].offset))
    return found


def test_the_base_needs_no_tape(tmp_path: Path, rig: Rig, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tape with the base is on a shelf: the index on disk is all that is compared with."""
    job = rig.queued(tree)
    full = rig.run(job)
    (label,) = rig.ledger.backup_set(full).tapes
    shelf = tmp_path / "shelf"
    rig.watcher.put_in("TP0002L9")
    take_out(rig.home.library, label, shelf)
    real, gone = rig.watcher.next_volume, rig.ledger.volume_by_label(label).volume_id
    next_volume = lambda exclude, *, ejected, pool: real([*exclude, gone], ejected=ejected, pool=pool)  # noqa: E731
    monkeypatch.setattr(rig.watcher, "next_volume", next_volume)
    second = run(rig, job, tree, "echo more >>d/a; mv d/b d/B")
    assert rig.ledger.backup_set(second).parent_id == full
    assert set(rig.ledger.backup_set(second).tapes).isdisjoint(rig.ledger.backup_set(full).tapes)
    assert said(rig, second, tree).stored == {"d/a", "d/B"}


def test_an_expired_set_is_not_built_on(rig: Rig, tree: Path) -> None:
    """The next one builds on the newest that is left, and has all that changed since; with none left it is full."""
    job = rig.queued(tree)
    full = rig.run(job)
    second = run(rig, job, tree, "echo more >>d/a; rm d/b")
    rig.ledger.expire_set(second, time.time_ns())
    remove_leftovers(rig.home, rig.ledger)
    third = run(rig, job, tree, "echo more >>other/x")
    assert rig.ledger.backup_set(third).parent_id == full
    assert said(rig, third, tree).stored == {"d/a", "other/x"}
    assert said(rig, third, tree).removed == {"d/b"}
    with pytest.raises(Conflict):
        rig.ledger.expire_set(full, time.time_ns())
    for set_id in (third, full):
        rig.ledger.expire_set(set_id, time.time_ns())
    remove_leftovers(rig.home, rig.ledger)
    fourth = run(rig, job, tree, ":")
    assert (rig.ledger.backup_set(fourth).type, rig.ledger.backup_set(fourth).parent_id) == ("full", None)


def test_damage_of_the_base_found_on_the_way(rig: Rig, tree: Path) -> None:
    """Nothing is shown that stands on it; a full set is the way out, and the next one builds on that."""
    job = rig.queued(tree)
    full = rig.run(job)
    index = rig.home.index(full)
    index.write_bytes(index.read_bytes().replace(b"device", b"devicE"))
    with pytest.raises(Damaged, match=rf"{full}.*--type full"):
        run(rig, job, tree, "echo more >>d/a")
    failed = rig.ledger.backup_sets()[-1]
    assert failed.state is SetState.FAILED
    assert "--type full" in failed.error
    finish(rig.home, rig.ledger, job.number, JobState.FAILED, failed.error, time.time_ns())
    again = rig.again(job, type="full")
    assert rig.ledger.backup_set(run(rig, job, tree, "rm d/a")).parent_id == again
