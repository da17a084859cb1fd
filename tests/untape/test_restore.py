"""What was backed up comes back without the product, attribute by attribute."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tapefs.backup import base
from tests.backup.rig import Rig, rigs
from tests.backup.trees import random_files
from tests.compare.every_kind import every_kind
from tests.compare.look import Tree, differences, look
from tests.compare.test_generated import SEGMENT_BYTES, TREES
from tests.compare.test_generated_chains import RUNS, Editor
from tests.untape.runs import SCRIPT, Talk, cartridges, untape

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make every kind of file")


@pytest.fixture
def make_rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    yield from rigs(tmp_path)


def below(target: Path, source: Path) -> Path:
    return Path(f"{target}{source}")


@needs_root
@pytest.mark.parametrize(
    ("codec", "segment_bytes"), [("zstd", 1 << 30), ("zstd", 3 << 20), ("pgzip", 3 << 20), ("tar", 3 << 20)]
)
def test_every_kind_of_file(make_rig: Callable[..., Rig], tmp_path: Path, codec: str, segment_bytes: int) -> None:
    """In one segment, and in many with files split and hardlinks between them."""
    tree = every_kind(tmp_path / "tree", sockets=True)
    rig = make_rig(tape_bytes=512 * 1024**2, backup_settings=f"segment_bytes = {segment_bytes}")
    set_id = rig.backup(tree, codec=codec, level=0 if codec == "tar" else 1)
    (tree / "socket").unlink()
    assert (len(rig.ledger.segments(set_id)) > 4) == (segment_bytes < 1 << 30)
    done = untape("restore", set_id, *cartridges(rig), "--special", "--to", tmp_path / "out")
    assert (done.code, done.told.count("\n")) == (0, 1), done.told
    before = look(tree)
    # The time of the folder is another since the socket went.
    found = [line for line in differences(look(below(tmp_path / "out", tree)), before) if "b'.': mtime_ns" not in line]
    assert found == []
    assert untape("check", *cartridges(rig)).code == 0


@needs_root
def test_every_kind_of_file_in_7z(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """All but holes, which the format does not keep."""
    tree = every_kind(tmp_path / "tree")
    for name in ("sparse/far", "large/split-sparse"):
        # Their holes would be zeros to write.
        (tree / name).unlink()
    rig = make_rig(tape_bytes=512 * 1024**2, backup_settings="segment_bytes = 6291456")
    set_id = rig.backup(tree, codec="py7zr", level=0)
    assert untape("restore", set_id, *cartridges(rig), "--special", "--to", tmp_path / "out").code == 0
    assert differences(look(below(tmp_path / "out", tree)), look(tree), ignore=("data",)) == []


@needs_root
def test_what_could_harm_needs_a_word(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Without --special no set-id bits, capabilities and devices; all else is the same."""
    tree = every_kind(tmp_path / "tree")
    rig = make_rig(tape_bytes=512 * 1024**2)
    done = untape("restore", rig.backup(tree), *cartridges(rig), "--to", tmp_path / "out")
    assert done.code == 0, done.told
    for word in ("set-id bits were left off", "security.*", "device nodes"):
        assert word in done.told
    is_so, should = look(below(tmp_path / "out", tree)), look(tree)
    for path, seen in should.items():
        if seen.kind in "bc":
            assert path not in is_so
            continue
        mode = seen.mode if seen.kind == "d" else seen.mode & 0o1777
        xattrs = {name: value for name, value in seen.xattrs.items() if not name.startswith("security.")}
        assert (is_so[path].mode, is_so[path].xattrs) == (mode, xattrs), path
        assert is_so[path].sha256 == seen.sha256
    assert differences(is_so, should, ignore=("mode", "xattrs", "missing")) == []


def test_paths(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """Only what was asked for, with the directories above; what is not there is told."""
    tree = random_files(tmp_path / "tree" / "a" / "b", 5, 1000).parent.parent
    (tree / "a/other").write_text("other")
    (tree / "c").mkdir()
    rig = make_rig()
    set_id = rig.backup(tree)
    wishes = [tree / "a/b/file-00002", tree / "c", tree / "nothing"]
    done = untape("restore", set_id, *cartridges(rig), "--to", tmp_path / "out", *wishes)
    assert done.code == 1
    assert f"{tree}/nothing: there is nothing of that name" in done.told
    assert sorted(look(below(tmp_path / "out", tree))) == [b".", b"a", b"a/b", b"a/b/file-00002", b"c"]
    assert (below(tmp_path / "out", tree) / "a").stat().st_mtime_ns == (tree / "a").stat().st_mtime_ns
    # Once more: what exists is left alone.
    again = untape("restore", set_id, *cartridges(rig), "--to", tmp_path / "out", tree / "a/b/file-00002")
    assert again.code == 1
    assert "exists and was left alone" in again.told


@needs_root
@settings(
    max_examples=int(os.environ.get("TAPEFS_GENERATED_CHAINS", "8")),
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(tree=TREES, runs=RUNS, is_trusted=st.booleans())
def test_each_set_of_a_chain(tree: dict, runs: list, is_trusted: bool) -> None:
    """Trees that change in ways nobody thought of; each set gives the tree of its time.

    TAPEFS_GENERATED_CHAINS=300 makes a long run of it.
    """
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        if is_trusted:
            patch.setattr(base, "FRESH_NS", 0)
        source = Path(name) / "source"
        editor = Editor(source)
        editor.make(tree)
        settings_text = f"segment_bytes = {SEGMENT_BYTES}"
        with closing(Rig(Path(name), tapes=4, tape_bytes=128 << 20, backup_settings=settings_text)) as rig:
            job = rig.queued(source)
            then: list[tuple[str, Tree]] = [(rig.run(job), look(source))]
            for kind, checksum, edits in runs:
                for edit in edits:
                    editor.do(edit)
                then.append((rig.again(job, type=kind, checksum=checksum), look(source)))
            for set_id, should in then:
                done = untape("restore", set_id, *cartridges(rig), "--special", "--to", Path(name) / "out")
                assert (done.code, done.told.count("\n")) == (0, 1), done.told
                # Zeros and holes: a backup looks for holes where st_blocks tells of some.
                assert differences(look(below(Path(name) / "out", source)), should, ignore=("data",)) == []
                shutil.rmtree(Path(name) / "out")


def test_two_tapes(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    """A set that goes on on another tape: with both, with one, and with one drive whose tapes are changed."""
    tree = random_files(tmp_path / "tree", 60, 500_000)
    rig = make_rig(tapes=3, tape_bytes=24 * 1024**2)
    set_id = rig.backup(tree)
    first, second = cartridges(rig)
    should = look(tree)
    assert untape("restore", set_id, second, first, "--to", tmp_path / "both").code == 0
    assert differences(look(below(tmp_path / "both", tree)), should) == []
    # Without the first: what is on the second, and the label of the other.
    done = untape("restore", set_id, second, "--to", tmp_path / "one")
    assert done.code == 1
    assert f"(tape: {first.name})" in done.told
    found = look(below(tmp_path / "one", tree))
    lost = [path for path in should if path not in found]
    assert 0 < len(lost) < 60
    assert all(f"lost: {tree}/{os.fsdecode(path)}: it is in a segment that is missing" in done.told for path in lost)
    # Without the second nobody knows how the set ends.
    done = untape("restore", set_id, first, "--to", tmp_path / "begin")
    assert done.code == 1
    assert f"missing: the end of set {set_id}" in done.told


@pytest.mark.parametrize("answer", ["the right tapes", "no"])
def test_tapes_are_asked_for(make_rig: Callable[..., Rig], tmp_path: Path, answer: str) -> None:
    """One drive, and somebody who puts a wrong tape in first; or who has no other."""
    tree = random_files(tmp_path / "tree", 60, 500_000)
    rig = make_rig(tapes=3, tape_bytes=24 * 1024**2)
    set_id = rig.backup(tree)
    first, second = cartridges(rig)
    # Reading ends with the second tape in; the first is asked for again by its label.
    hands = [first, second, first] if answer == "the right tapes" else [first, None]
    drive = tmp_path / "drive"
    drive.symlink_to(first)
    with Talk("restore", set_id, drive, "--ask", "--to", tmp_path / "out") as talk:
        for tape in hands:
            told = talk.until(b"do without: ")
            if tape is not None:
                drive.unlink()
                drive.symlink_to(tape)
            talk.answer("" if tape is not None else "n")
        told += talk.until(b"")
    if answer == "no":
        assert (talk.code, f"missing: the end of set {set_id}" in told) == (1, True)
        return
    assert f"Put tape {first.name} into {drive}" in told
    assert talk.code == 0
    assert differences(look(below(tmp_path / "out", tree)), look(tree)) == []


@pytest.mark.parametrize("shape", ["files only", "other names"])
def test_dumped_tape_files(make_rig: Callable[..., Rig], tmp_path: Path, shape: str) -> None:
    """What `dd` has read, under any names that sort."""
    tree = random_files(tmp_path / "tree", 5, 1000)
    rig = make_rig()
    set_id = rig.backup(tree)
    (cartridge,) = cartridges(rig)
    dump = tmp_path / "dump"
    dump.mkdir()
    for path in sorted(cartridge.glob("?????")):
        shutil.copy(path, dump / (path.name if shape == "files only" else f"tape-{path.name}.bin"))
    assert untape("restore", set_id[:8], dump, "--to", tmp_path / "out").code == 0
    assert differences(look(below(tmp_path / "out", tree)), look(tree)) == []


def test_listings(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    tree = random_files(tmp_path / "tree", 2, 1000)
    (tree / "bad\x1b[2Jname").symlink_to("target\n")
    rig = make_rig()
    job = rig.queued(tree)
    full = rig.run(job)
    (tree / "new").write_text("new")
    later = rig.again(job, type="incremental")
    (cartridge,) = cartridges(rig)
    listed = untape("list", cartridge)
    kinds = [line.split()[1] for line in listed.out.splitlines()[1:]]
    assert kinds == ["LABEL", "SET", *["HEADER", "PAYLOAD", "TRAILER", "SET"] * 2]
    assert (listed.code, untape("check", cartridge).code) == (0, 0)
    sets = untape("sets", cartridge)
    assert sets.code == 0
    assert [line.split()[0] for line in sets.out.splitlines() if not line.startswith(" ")] == [full, later]
    assert f"builds on {full}" in sets.out
    files = untape("files", later, cartridge)
    assert files.code == 0
    assert f"{tree}/bad\\x1b[2Jname -> target\\n" in files.out
    assert f" {tree}/file-00001\n" in files.out
    assert [line for line in files.out.splitlines() if line.startswith("-rw") and line.endswith(f" 3 {tree}/new")] == []
    assert f"{tree}/new\n" not in untape("files", full, cartridge).out
    assert untape("files", "ffff", cartridge).code == 2


def test_without_zstd(make_rig: Callable[..., Rig], tmp_path: Path) -> None:
    rig = make_rig()
    rig.backup(random_files(tmp_path / "tree", 2, 1000))
    command = [sys.executable, "-I", "-S", SCRIPT, "sets", *cartridges(rig)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert "the program zstd is needed" in done.stderr
