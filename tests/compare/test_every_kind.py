"""Every kind of file, backed up by the commands and brought back all ways: each must give what was there."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compare.every_kind import every_kind
from tests.compare.look import Tree, differences, look, same_blocks
from tests.compare.ways_back import BSDTAR, GNU_TAR, extract, join_parts, payloads
from tests.test_end_to_end import Installation

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make every kind of file"),
]

#: FUSE has no way to ask for holes.
MOUNT_LACKS = ("data",)


@dataclass
class Archived:
    """A tree that is on tape, mounted, with nothing staged."""

    installation: Installation
    source: Path
    before: Tree
    set_id: str

    @property
    def mounted(self) -> Path:
        return Path(f"{self.installation.mount_point}/jobs/kinds/latest{self.source}")

    def payloads(self) -> list[Path]:
        return payloads(self.installation.home / "library")

    def below(self, target: Path) -> Path:
        return Path(f"{target}{self.source}")


@pytest.fixture(scope="module", params=[0, 3 * 1024**2], ids=["one segment", "many segments"])
def archived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archived]:
    folder = tmp_path_factory.mktemp("kinds")
    source = every_kind(folder / "source")
    installation = Installation(folder)
    try:
        installation.run("init", "--tapes", "4", "--tape-size", "16GiB")
        toml = installation.home / "tapefs.toml"
        toml.write_text(toml.read_text().replace("[backup]\n", f"[backup]\nsegment_bytes = {request.param}\n"))
        set_id = installation.backup(source, "--name", "kinds")
        installation.serve()
        installation.run("evict", "--all")
        made = Archived(installation, source, look(source), set_id)
        assert (len(made.payloads()) > 4) == bool(request.param)
        yield made
    finally:
        installation.close()


def is_one_segment(archived: Archived) -> bool:
    return len(archived.payloads()) == 1


def test_the_mount_shows_it(archived):
    assert differences(look(archived.mounted), archived.before, ignore=MOUNT_LACKS) == []
    for path, seen in archived.before.items():
        if seen.kind == "-":
            shown = os.lstat(os.path.join(os.fsencode(archived.mounted), path))
            was = os.lstat(os.path.join(os.fsencode(archived.source), path))
            assert same_blocks(shown, was), (path, shown.st_blocks, was.st_blocks)


@pytest.mark.parametrize(
    "command",
    [
        "cp -a {source} {target}",
        "mkdir {target} && tar -C {source} --xattrs --xattrs-include='*' --acls --format=pax -cf - . | "
        "tar -C {target} --xattrs --xattrs-include='*' --acls --numeric-owner --warning=no-timestamp -xpf -",
        "rsync -aHAX --numeric-ids {source}/ {target}/",
    ],
    ids=["cp", "tar", "rsync"],
)
def test_copies_from_the_mount(archived, tmp_path, command):
    archived.installation.run("evict", "--all")
    line = command.format(source=archived.mounted, target=tmp_path / "copy")
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True)
    found = differences(look(tmp_path / "copy"), archived.before, ignore=MOUNT_LACKS)
    # GNU tar never writes fifos as links.
    assert [line for line in found if not (command.startswith("mkdir") and "/fifo': names" in line)] == []


def test_the_restore_command(archived, tmp_path):
    archived.installation.run("evict", "--all")
    archived.installation.run("restore", archived.set_id, "--to", tmp_path / "out", "--log", tmp_path / "log")
    out = archived.below(tmp_path / "out")
    assert differences(look(out), archived.before) == []
    assert (tmp_path / "log").read_text() == ""
    # Others judge it, too; rsync compares all but holes.
    command = ["rsync", "-aHAXSn", "--checksum", "--delete", "-i", f"{archived.source}/", f"{out}/"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b""
    told = [
        subprocess.run(["getfacl", "-Rnp", "."], cwd=top, capture_output=True, check=True).stdout
        for top in (archived.source, out)
    ]
    assert told[0] == told[1]
    assert subprocess.run(["diff", "-rq", archived.source / "names", out / "names"]).returncode == 0
    for above in archived.source.parents[:-1]:
        status, was = Path(f"{tmp_path}/out{above}").stat(), above.stat()
        assert (status.st_mode, status.st_uid, status.st_gid) == (was.st_mode, was.st_uid, was.st_gid)


def test_gnu_tar_on_the_payloads(archived, tmp_path):
    out = archived.below(extract(archived.payloads(), tmp_path / "out", GNU_TAR))
    if is_one_segment(archived):
        assert differences(look(out), archived.before) == []
        return
    join_parts(out)
    assert [line for line in differences(look(out), archived.before) if not _is_explained(line)] == []


def test_bsdtar_on_the_payloads(archived, tmp_path):
    if not is_one_segment(archived):
        pytest.skip("bsdtar sets no times of directories that it finds there, and puts sparse parts nowhere")
    out = archived.below(extract(archived.payloads(), tmp_path / "out", BSDTAR))
    found = differences(look(out), archived.before)
    # It cannot tell fractions of seconds before 1970.
    assert [line for line in found if not re.search(r"mtime_ns is -999999999, should be -1000000001$", line)] == []


#: What the description of the format names: parts that are joined by hand have lost what a file has but for content,
#: and links between segments are copies.
_EXPLAINED = (
    r"^b'large'?/?(split|split-again|split-sparse)?': (mode|owner|mtime_ns|xattrs|names|data) ",
    r": names is ",
)


def _is_explained(line: str) -> bool:
    return any(re.search(pattern, line) for pattern in _EXPLAINED)


def test_a_part_by_the_restore_command(archived, tmp_path):
    """The first name of what is linked is not chosen; the chosen names are one file, whole."""
    chosen = [archived.source / name for name in ("links-b", "zz-fourth", "large/split-again")]
    archived.installation.run("restore", "kinds", *chosen, "--to", tmp_path / "out")
    out = look(archived.below(tmp_path / "out"))

    def keep(path: bytes) -> bool:
        return path.startswith(b"links-b") or path in (b"zz-fourth", b"large/split-again")

    assert differences(out, archived.before, keep=keep) == []
    assert out[b"zz-fourth"].names == {b"zz-fourth", b"links-b/third"}
    assert set(out) == {*filter(keep, archived.before), b".", b"large"}
