"""Trees that nobody thought of: generated, backed up and restored, and compared attribute by attribute."""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.backup.rig import Rig
from tests.compare.look import differences, look
from tests.compare.ways_back import bring_back

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make every kind of file")

SEGMENT_BYTES = 2 * 1024**2
BLOCK = 4096

#: Any bytes that a name can have; short ones collide, long ones are at the limit.
NAMES = st.one_of(
    st.sampled_from([b"a", b"b", b"A", b"a.tapefs-part-0000", b"-", b"\n", b"\xc3\xa9", b"\xff", b"n" * 255]),
    st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"0")),
).filter(lambda name: name not in (b".", b".."))
#: Around what matters: nothing, tar blocks, pages, the pieces that files are read in, frames and segments.
SIZES = st.one_of(
    st.builds(
        lambda border, more: max(0, border + more),
        st.sampled_from([0, 512, BLOCK, 65536, 1 << 20, SEGMENT_BYTES, 2 * SEGMENT_BYTES]),
        st.integers(-3, 3),
    ),
    st.integers(0, 10_000),
)
#: Alternately data and hole, in blocks.
RUNS = st.lists(st.integers(1, 300), max_size=8)
XATTRS = st.dictionaries(
    st.builds(
        lambda space, name: space + name.replace(b"\0", b"0"),
        st.sampled_from([b"user.", b"trusted.", b"security.x"]),
        st.binary(min_size=1, max_size=30),
    ),
    st.binary(max_size=200),
    max_size=3,
)
ATTRIBUTES = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "owner": st.tuples(st.integers(0, (1 << 32) - 2), st.integers(0, (1 << 32) - 2)),
        # What ext4 can hold: 1901 to 2446.
        "mtime_ns": st.integers(-(1 << 31) * 10**9, 15 * 10**18),
        "xattrs": XATTRS,
    }
)
LEAVES = st.one_of(
    st.tuples(st.just("file"), ATTRIBUTES, SIZES),
    st.tuples(st.just("sparse"), ATTRIBUTES, st.tuples(RUNS, st.integers(0, 5000))),
    st.tuples(st.just("symlink"), ATTRIBUTES, st.binary(min_size=1, max_size=300).filter(lambda to: b"\0" not in to)),
    st.tuples(st.just("fifo"), ATTRIBUTES, st.none()),
    st.tuples(st.just("device"), ATTRIBUTES, st.tuples(st.integers(0, 4095), st.integers(0, (1 << 20) - 1))),
    # Another name of something that was made before, if there is any.
    st.tuples(st.just("link"), st.none(), st.integers(0, 1000)),
)
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5),
    lambda inner: st.dictionaries(
        NAMES, st.one_of(LEAVES, st.tuples(st.just("directory"), ATTRIBUTES, inner)), max_size=5
    ),
    max_leaves=20,
)


class Maker:
    """Makes a generated tree."""

    def __init__(self, seed: int = 1) -> None:
        self._chance = random.Random(seed)
        self._made: list[bytes] = []

    def make(self, folder: bytes, tree: dict) -> None:
        for name, (kind, attributes, what) in tree.items():
            path = os.path.join(folder, name)
            if kind == "link":
                if self._made:
                    os.link(self._made[what % len(self._made)], path, follow_symlinks=False)
                continue
            getattr(self, f"_{kind}")(path, what)
            self.apply(kind, path, attributes)
            if kind != "directory":
                self._made.append(path)

    def _file(self, path: bytes, size: int) -> None:
        with open(path, "wb") as file:
            file.write(self._chance.randbytes(size))

    def _sparse(self, path: bytes, what: tuple[list[int], int]) -> None:
        runs, tail = what
        with open(path, "wb") as file:
            # A backup looks for holes where st_blocks tells of some, and that counts the blocks of attributes, too.
            at, is_data = 4 * BLOCK, True
            for blocks in runs:
                if is_data:
                    os.pwrite(file.fileno(), self._chance.randbytes(blocks * BLOCK), at)
                at, is_data = at + blocks * BLOCK, not is_data
            file.truncate(at + tail)

    def _symlink(self, path: bytes, target: bytes) -> None:
        os.symlink(target, path)

    def _fifo(self, path: bytes, _: None) -> None:
        os.mkfifo(path)

    def _device(self, path: bytes, rdev: tuple[int, int]) -> None:
        os.mknod(path, 0o020600, os.makedev(*rdev))

    def _directory(self, path: bytes, tree: dict) -> None:
        os.mkdir(path)
        self.make(path, tree)

    def apply(self, kind: str, path: bytes, attributes: dict) -> None:
        os.chown(path, *attributes["owner"], follow_symlinks=False)
        for name, value in attributes["xattrs"].items():
            if kind in ("file", "sparse", "directory") or not name.startswith(b"user."):
                os.setxattr(path, name, value, follow_symlinks=False)
        if kind != "symlink":
            os.chmod(path, attributes["mode"])
        os.utime(path, ns=(1, attributes["mtime_ns"]), follow_symlinks=False)


@settings(
    max_examples=int(os.environ.get("TAPEFS_GENERATED_TREES", "40")),
    deadline=None,
    # All but explaining: each example takes a backup and a restore, and a small tree says enough.
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tree=TREES)
def test_what_was_there_comes_back(tree):
    """TAPEFS_GENERATED_TREES=1000 makes a long run of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "source"
        source.mkdir()
        Maker().make(bytes(source), tree)
        before = look(source)
        rig = Rig(folder, tapes=2, tape_bytes=128 * 1024**2, backup_settings=f"segment_bytes = {SEGMENT_BYTES}")
        try:
            set_id = rig.backup(source)
            assert rig.watcher.troubles == []
            report = bring_back(rig, set_id, folder / "out")
        finally:
            rig.close()
        assert (report.troubles, report.refusals) == ((), ())
        assert report.is_complete
        assert differences(look(Path(f"{folder}/out{source}")), before) == []
