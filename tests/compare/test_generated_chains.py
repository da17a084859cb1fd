"""Trees that change in ways nobody thought of: each set of a chain is the tree as it was then, and comes back so."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from catalog.ids import SetId
from catalog.records import Job
from tapefs.backup import base
from tests.backup.rig import Rig
from tests.compare.look import Tree, differences, look
from tests.compare.of_set import NOT_SHOWN, Checks, look_at_set, wrong_content
from tests.compare.test_generated import ATTRIBUTES, LEAVES, NAMES, SEGMENT_BYTES, TREES, Maker
from tests.compare.ways_back import bring_back

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make every kind of file")

#: Which of the names, or of the folders, that are there.
WHICH = st.integers(0, 1000)
EDITS = st.one_of(
    st.tuples(st.just("make"), WHICH, st.tuples(NAMES, LEAVES.filter(lambda leaf: leaf[0] != "link"))),
    st.tuples(st.just("make"), WHICH, st.tuples(NAMES, st.tuples(st.just("directory"), ATTRIBUTES, TREES))),
    st.tuples(st.just("link"), WHICH, st.tuples(WHICH, NAMES)),
    st.tuples(st.just("move"), WHICH, st.tuples(WHICH, NAMES)),
    st.tuples(st.just("swap"), WHICH, WHICH),
    st.tuples(st.just("remove"), WHICH, st.none()),
    st.tuples(st.just("write"), WHICH, st.tuples(st.integers(0, 20_000), st.binary(min_size=1, max_size=20))),
    st.tuples(st.just("rewrite"), WHICH, st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("cut"), WHICH, st.integers(0, 20_000)),
    st.tuples(st.just("attributes"), WHICH, ATTRIBUTES),
    st.tuples(st.just("acl"), WHICH, st.integers(0, 60_000)),
)
#: How a set is made, and what has happened before it; a tree in which nothing has happened is one, too.
RUNS = st.lists(
    st.tuples(st.sampled_from(["incremental"] * 3 + ["differential"]), st.booleans(), st.lists(EDITS, max_size=4)),
    min_size=1,
    max_size=4,
)


class Editor:
    """Does generated things to a tree; what cannot be done with what is there is left."""

    def __init__(self, top: Path) -> None:
        self._top = os.fsencode(top)
        self._made = 0

    def make(self, tree: dict) -> None:
        os.mkdir(self._top)
        self._maker().make(self._top, tree)

    def _maker(self) -> Maker:
        """Return one that knows no file to link to, as it may be gone by now, and makes other content than before."""
        self._made += 1
        return Maker(self._made)

    def do(self, edit: tuple) -> None:
        what, which, how = edit
        getattr(self, f"_{what}")(which, how)

    def _paths(self) -> list[bytes]:
        walked = os.walk(self._top)
        return sorted(os.path.join(folder, name) for folder, folders, files in walked for name in folders + files)

    def _one(self, which: int, kinds: str = "") -> bytes | None:
        """Return one of the names below the top, of one of these kinds."""
        paths = [path for path in self._paths() if not kinds or stat.filemode(os.lstat(path).st_mode)[0] in kinds]
        return paths[which % len(paths)] if paths else None

    def _any(self, which: int) -> bytes:
        """Return a name that has attributes, or the top."""
        paths = [self._top, *(path for path in self._paths() if not os.path.islink(path))]
        return paths[which % len(paths)]

    def _free(self, which: int, name: bytes) -> bytes:
        """Return a path in a folder; what was there is gone."""
        folders = sorted(folder for folder, _, _ in os.walk(self._top))
        path = os.path.join(folders[which % len(folders)], name)
        _remove(path)
        return path

    def _make(self, which: int, how: tuple) -> None:
        path = self._free(which, how[0])
        self._maker().make(os.path.dirname(path), {how[0]: how[1]})

    def _link(self, which: int, to: tuple[int, bytes]) -> None:
        self._place(self._one(which, "-lcbp"), to, lambda path, free: os.link(path, free, follow_symlinks=False))

    def _move(self, which: int, to: tuple[int, bytes]) -> None:
        self._place(self._one(which), to, os.rename)

    def _place(self, path: bytes | None, to: tuple[int, bytes], do: Callable[[bytes, bytes], None]) -> None:
        if path is None:
            return
        with tempfile.TemporaryDirectory(dir=os.fsdecode(os.path.dirname(self._top))) as aside:
            # What is in the way goes first, and may be a folder with `path` in it.
            do(path, os.path.join(os.fsencode(aside), b"it"))
            os.rename(os.path.join(os.fsencode(aside), b"it"), self._free(*to))

    def _swap(self, which: int, other: int) -> None:
        one, two = self._one(which), self._one(other)
        if one and two and not (two + b"/").startswith(one + b"/") and not (one + b"/").startswith(two + b"/"):
            aside = self._top + b"-aside"
            os.rename(one, aside)
            os.rename(two, one)
            os.rename(aside, two)

    def _remove(self, which: int, _: None) -> None:
        if path := self._one(which):
            _remove(path)

    def _write(self, which: int, how: tuple[int, bytes]) -> None:
        if path := self._one(which, "-"):
            with open(path, "r+b") as file:
                os.pwrite(file.fileno(), how[1], how[0])

    def _rewrite(self, which: int, data: bytes) -> None:
        """Size and mtime are as they were."""
        if path := self._one(which, "-"):
            status = os.stat(path)
            with open(path, "r+b") as file:
                os.pwrite(file.fileno(), data[: status.st_size], 0)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _cut(self, which: int, size: int) -> None:
        if path := self._one(which, "-"):
            os.truncate(path, size)

    def _attributes(self, which: int, attributes: dict) -> None:
        path = self._any(which)
        for name in os.listxattr(path):
            os.removexattr(path, name)
        self._maker().apply("device" if stat.filemode(os.lstat(path).st_mode)[0] in "cbp" else "file", path, attributes)

    def _acl(self, which: int, user: int) -> None:
        subprocess.run(["setfacl", "-m", f"u:{user}:r", self._any(which)], check=True)


def _remove(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


class Chain:
    """Sets of one job, and what the tree was at the time of each."""

    def __init__(self, rig: Rig, top: Path) -> None:
        self.rig, self._top = rig, top
        self._job: Job | None = None
        self._then: dict[SetId, tuple[Tree, Checks]] = {}

    def add(self, kind: str, *, checksum: bool) -> SetId:
        """Make a set of the tree as it is, and compare the two."""
        before = look(self._top)
        if self._job is None:
            self._job = self.rig.queued(self._top)
            set_id = self.rig.run(self._job)
        else:
            set_id = self.rig.again(self._job, type=kind, checksum=checksum)
        assert self.rig.watcher.troubles == []
        tree, checks = look_at_set(self.rig, set_id, self._top)
        assert differences(tree, before, ignore=NOT_SHOWN) == []
        assert wrong_content(checks, self._top) == []
        self._then[set_id] = tree, checks
        return set_id

    def check(self) -> None:
        """Does each set still show the tree of its time?"""
        for set_id, then in self._then.items():
            assert look_at_set(self.rig, set_id, self._top) == then


@settings(
    max_examples=int(os.environ.get("TAPEFS_GENERATED_CHAINS", "15")),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tree=TREES, runs=RUNS, is_trusted=st.booleans())
def test_each_set_of_a_chain_is_the_tree_of_its_time(tree, runs, is_trusted):
    """What was changed just before it was read is not trusted, here all or nothing: then content decides.

    TAPEFS_GENERATED_CHAINS=300 makes a long run of it.
    """
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        if is_trusted:
            patch.setattr(base, "FRESH_NS", 0)
        folder = Path(name)
        source = folder / "source"
        editor = Editor(source)
        editor.make(tree)
        options = f"segment_bytes = {SEGMENT_BYTES}"
        with closing(Rig(folder, tapes=4, tape_bytes=128 * 1024**2, backup_settings=options)) as rig:
            chain = Chain(rig, source)
            last = chain.add("full", checksum=False)
            for kind, checksum, edits in runs:
                for edit in edits:
                    editor.do(edit)
                last = chain.add(kind, checksum=checksum)
            chain.check()
            report = bring_back(rig, last, folder / "out")
        assert (report.troubles, report.refusals) == ((), ())
        assert report.is_complete
        is_so, should = look(Path(f"{folder}/out{source}")), look(source)
        assert differences(is_so, should, ignore=("data",)) == []
        assert (
            differences(is_so, should, keep=lambda path: _tells_of_holes(os.path.join(os.fsencode(source), path))) == []
        )


def _tells_of_holes(path: bytes) -> bool:
    """A backup looks for holes where st_blocks tells of some, and that counts the blocks of attributes, too."""
    status = os.lstat(path)
    return status.st_blocks * 512 < status.st_size
