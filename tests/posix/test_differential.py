"""The mount answers as the source does; `scripts/compare-mount` asks far more often."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.posix import answers, content, names
from tests.posix.content import RandomReads
from tests.posix.differential import Effort, compare, make_source
from tests.test_end_to_end import Installation

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these files"),
]


def test_no_difference(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    installation = Installation(tmp_path)
    try:
        installation.run("init", "--tapes", "2", "--tape-size", "256MiB")
        installation.backup(source, "--name", "posix")
        installation.serve()
        installation.run("evict", "--all")
        root = installation.mount_point / "jobs/posix/latest" / source.relative_to("/")
        report = compare(installation, source, root, Effort())
        drive = installation.listing("drives")[0]
    finally:
        installation.close()
    assert {word: found for word, found in report.differences.items() if found} == {}
    assert report.reads.reads.total() == 3000
    assert report.names > 3000
    # A tenth of the bursts found nothing staged.
    assert drive["counters"]["bytes_read"] > 20_000_000  # type: ignore[index]


def test_differences_are_seen(tmp_path: Path) -> None:
    """The comparison that the other test rests on, of a tree with a copy in which something of each kind is wrong."""
    one, other = (os.fsencode(tmp_path / name) for name in ("one", "other"))
    make_small(Path(os.fsdecode(one)))
    shutil.copytree(one, other, symlinks=True)
    (tmp_path / "other/data").write_bytes(b"\0" * 50_000 + b"x" + b"\0" * 49_999)
    os.utime(tmp_path / "other/time", ns=(5, 5))
    os.setxattr(tmp_path / "other/attribute", "user.one", b"other")
    (tmp_path / "other/link").unlink()
    (tmp_path / "other/link").symlink_to("elsewhere")
    (tmp_path / "other/closed").chmod(0o600)
    (tmp_path / "other/gone").unlink()
    (tmp_path / "other/shared").unlink()
    (tmp_path / "other/shared").write_text("")
    (tmp_path / "other/programs/program").write_text("#!/bin/sh\necho other\n")
    found = "\n".join(names.of_names(one, other))
    for line in ("st_mtime_ns of b'time' is 5", "xattrs of b'attribute'", "b'link' points to b'elsewhere'",
                 "st_mode of b'closed'", "b'gone' is only in the source"):  # fmt: skip
        assert line in found
    assert [line for line in names.of_listings(one, other, 5, 1) if "not the names" in line]
    (tmp_path / "other/gone").touch()
    assert "all of b'data': byte 50000 is 120, not 0" in list(content.whole_files(one, other))
    reads = RandomReads(one, other, 1)
    for _ in range(50):
        reads.burst()
    assert any("b'data'" in line for line in reads.tally.differences)
    assert any("may be run of b'closed'" in line for line in answers.of_answers(one, other, 100, 1))
    assert len(list(answers.of_programs(one, other))) == 1


def make_small(folder: Path) -> None:
    folder.mkdir()
    for name in ("time", "attribute", "closed", "gone", "shared"):
        (folder / name).touch()
    (folder / "data").write_bytes(bytes(100_000))
    os.setxattr(folder / "attribute", "user.one", b"one")
    (folder / "link").symlink_to("target")
    (folder / "closed").chmod(0o700)
    (folder / "programs").mkdir()
    (folder / "programs/program").write_text("#!/bin/sh\necho one\n")
    (folder / "programs/program").chmod(0o755)
    os.link(folder / "shared", folder / "shared, too")
