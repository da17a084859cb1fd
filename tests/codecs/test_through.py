"""Every codec from source to tape and back: by other programs from the payload, by restore and by the mount."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from catalog.ids import FrameNo
from catalog.index.reader import IndexReader
from tapefs.codecs import CODECS, codec, codec_of_format
from tapefs.errors import UsageError
from tapefs.format.sevenzip import name_text
from tapefs.format.structures import read_header
from tapefs.format.texts import restore_commands
from tapefs.recall.stager import Stager
from tapefs.staging.stage import SegmentStage
from tests.backup.rig import Rig
from tests.backup.test_recall import Heard
from tests.backup.trees import entries, odd_tree, payloads, random_files, snapshot
from tests.test_end_to_end import Installation


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path, backup_settings="segment_bytes = 67108864")
    yield made
    made.close()


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    made = Installation(tmp_path)
    made.run("init", "--tapes", "2", "--tape-size", "256MiB")
    yield made
    made.close()


def _backup(rig: Rig, tree: Path, name: str, **fields: object) -> Path:
    """Back up with that codec and return the one payload."""
    rig.backup(tree, codec=name, level=CODECS[name].default_level, **fields)
    return payloads(rig)[-1]


def _restore_lines(header: Path) -> str:
    """Return the commands that the HEADER gives, from the one behind `mt fsf` to the TRAILER's."""
    lines = [line.strip() for line in header.read_text().splitlines() if line.startswith("  ")]
    assert [line.split()[0] for line in lines[:4]] == ["mt", "mt", "mt", "dd"]
    assert lines[-1].endswith("| zstd -dc")
    return "\n".join(["set -e", *lines[3:-1]])


def _as_7z_holds_it(tree: dict[bytes, tuple[object, ...]]) -> dict[bytes, tuple[object, ...]]:
    """Return what `snapshot` found without owners, times in 100 ns, names as UTF-16 holds them."""
    return {
        name_text(path).encode(): (mode, size, int(str(mtime_ns)) // 100, target, content)
        for path, (mode, _, _, size, mtime_ns, target, content) in tree.items()
    }


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
@pytest.mark.parametrize("name", list(CODECS))
def test_the_command_in_the_header_restores_the_payload(rig: Rig, tmp_path: Path, name: str, program: str) -> None:
    """The line on tape, with the tape's device replaced by the virtual cartridge's file, brings the tree back."""
    tree = odd_tree(tmp_path)
    random_files(tree / "more", 3, 3_000_000)
    payload = _backup(rig, tree, name)
    header = payload.parent / f"{int(payload.name) - 1:05}"
    out = tmp_path / "out"
    out.mkdir()
    command = _restore_lines(header).replace("/dev/nst0", str(payload))
    if program == "bsdtar" and CODECS[name].is_tar:
        command = f"{command.rpartition('|')[0]}| bsdtar --numeric-owner -xpf -"
    elif program == "bsdtar":
        command = f"bsdtar -xpf {payload}"
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=out, env=environment, umask=0, check=True, capture_output=True
    )
    found, expected = snapshot(Path(f"{out}{tree}")), snapshot(tree)
    if not CODECS[name].is_tar:
        found, expected = _as_7z_holds_it(found), _as_7z_holds_it(expected)
    assert found == expected
    assert read_header(header.read_bytes()).codec == CODECS[name].format


@pytest.mark.parametrize("name", list(CODECS))
def test_every_frame_is_staged_from_tape(rig: Rig, tmp_path: Path, name: str) -> None:
    """Small files, empty ones and one over many frames come back through the mover's way of reading."""
    tree = random_files(tmp_path / "tree", 30, 100_000)
    random_files(tree, 1, 13_000_001, seed=7)
    (tree / "empty").touch()
    (tree / "words").write_bytes(b"words " * 2_000_000)
    _backup(rig, tree, name)
    set_id = rig.ledger.backup_sets()[-1].set_id
    (segment,) = rig.ledger.segments(set_id)
    assert segment.codec == CODECS[name].format
    (copy,) = rig.ledger.copies(segment.segment_id)
    heard = Heard()
    stager = Stager(rig.home, rig.ledger, rig.drive, copy.volume_id, heard)
    # The last first, so that frames are seen to stand alone.
    for number in reversed(range(segment.frames)):
        stager.fetch(segment.segment_id, FrameNo(number), FrameNo(number))
    stager.close()
    assert not heard.failures
    stage = SegmentStage.open(rig.home.staging, segment.segment_id)
    assert stage is not None
    found = entries(IndexReader(rig.home.index(set_id)))
    for path in tree.iterdir():
        entry = found[bytes(path)[1:]]
        assert stage.read(entry.offset, entry.size) == path.read_bytes()
    stage.close()


@pytest.mark.parametrize("name", list(CODECS))
def test_levels_and_threads_reach_the_tape(rig: Rig, tmp_path: Path, name: str) -> None:
    """The smallest level takes less of the tape than the quickest; one that does not exist touches no tape."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "numbers").write_text("".join(f"{number * 7919 % 10007} " for number in range(300_000)))
    levels = CODECS[name].levels
    for level in sorted({levels[0], levels[-1]}):
        rig.backup(tree, codec=name, level=level, threads=1)
    stored = [each.stored_bytes for each in rig.ledger.backup_sets()]
    assert len(stored) == 1 or stored[0] > stored[1]
    first = rig.ledger.backup_sets()[0]
    assert (first.codec, first.level) == (name, levels[0])
    asked = rig.watcher.asked
    with pytest.raises(UsageError, match="level 99"):
        rig.backup(tree, codec=name, level=99)
    assert (rig.watcher.asked, len(rig.ledger.backup_sets())) == (asked, len(stored))


def test_the_drive_compresses_only_what_is_not_compressed(rig: Rig, tmp_path: Path) -> None:
    tree = odd_tree(tmp_path)
    for name in [*CODECS, *CODECS]:
        _backup(rig, tree, name)
        assert rig.drive.status().compresses is not CODECS[name].is_compressed


def test_codecs_share_a_tape(rig: Rig, tmp_path: Path) -> None:
    """Sets of all codecs lie one behind the other; a payload in one format is no torn structure to the next."""
    tree = odd_tree(tmp_path)
    for name in [*CODECS, *CODECS]:
        _backup(rig, tree, name)
    assert {each.tapes for each in rig.ledger.backup_sets()} == {rig.ledger.backup_sets()[0].tapes}
    for payload, name in zip(payloads(rig), [*CODECS, *CODECS], strict=True):
        command = f"{codec_of_format(codec(name).format).unpack_command or 'cat'} <{payload} | tar -tf -"
        if not CODECS[name].is_tar:
            command = f"7z l -slt {payload} | grep ^Path"
        done = subprocess.run(f"{command} | wc -l", shell=True, capture_output=True, check=True)
        assert int(done.stdout) > 30


def test_the_engine_of_the_settings_makes_the_members(tmp_path: Path) -> None:
    """With `gzip_engine = "pgzip"` members have pgzip's index field; they read as the others do."""
    rig = Rig(tmp_path, backup_settings='gzip_engine = "pgzip"')
    try:
        tree = odd_tree(tmp_path)
        payload = _backup(rig, tree, "pgzip")
        assert payload.read_bytes()[:4] == b"\x1f\x8b\x08\x04"
        subprocess.run(["gzip", "-t"], input=payload.read_bytes(), check=True)
    finally:
        rig.close()


@pytest.mark.fuse
@pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested")
@pytest.mark.parametrize("name", [name for name in CODECS if name != "zstd"])
def test_backup_mount_and_restore(installation: Installation, tmp_path: Path, name: str) -> None:
    """The commands: what went to tape comes back equal through the mount and by restore."""
    tree = odd_tree(tmp_path)
    random_files(tree / "files", 5, 1_500_000)
    installation.backup(tree, "--name", "odd", "--codec", name, "--threads", "2")
    assert installation.listing("jobs")[0]["threads"] == 2
    installation.serve()
    installation.run("evict", "--all")
    out = tmp_path / "out"
    latest = installation.mount_point / "jobs/odd/latest"
    subprocess.run(["cp", "-a", f"{latest}{tree}", str(out)], check=True)
    assert snapshot(out) == snapshot(tree)
    installation.run("evict", "--all")
    installation.run("restore", "odd", "--to", tmp_path / "restored")
    assert snapshot(Path(f"{tmp_path / 'restored'}{tree}")) == snapshot(tree)
    contents = next((installation.mount_point / "tapes").glob("*/CONTENTS.txt")).read_text()
    for line in restore_commands(256 * 1024, CODECS[name]):
        assert line in contents
