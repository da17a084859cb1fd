"""Looking around moves no tape: whatever reads names and attributes only leaves drive and staging as they were."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compare.every_kind import every_kind
from tests.test_end_to_end import Installation

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="/dev/fuse is missing: no mount can be tested"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make these files"),
]

#: Names and blocks of the staging files, and the drives as they are listed.
State = tuple[list[tuple[str, int]], list[dict[str, object]]]

#: What an indexer does that keeps names, sizes and attributes, but does not read.
_INDEXER = """
import os, sys
for folder, folders, files in os.walk(sys.argv[1]):
    for name in files + folders:
        path = os.path.join(folder, name)
        os.lstat(path), os.access(path, os.R_OK)
        for attribute in os.listxattr(path, follow_symlinks=False):
            os.getxattr(path, attribute, follow_symlinks=False)
        if os.path.isfile(path) and not os.path.islink(path):
            for attribute in ("state", "tape", "segment", "position", "sha256"):
                try:
                    os.getxattr(path, "user.tapefs." + attribute)
                except OSError:
                    pass
            os.close(os.open(path, os.O_RDONLY))
"""
#: In the folder of the set; the first word tells which. Those that copy names have the place to copy to as `{}`.
LOOKS = {
    "find": "find . -printf '%p %s %m %l %i %n %b %T@\\n'",
    "find with tests": "find . -newer . -o -size +1M -o -perm /111 -o -empty -o -samefile alone",
    "ls": "ls -laR --color=always --time-style=full-iso .",
    "ls with contexts": "ls -laRZ .",
    "du": "du -a --apparent-size .; du -s .; du -sl .",
    "stat": "find . -print0 | xargs -0 stat",
    "getfattr": "getfattr -R -h -d -m - .",
    "getfacl": "getfacl -R -n -p .",
    "getcap": "getcap -r .",
    "rsync": "rsync -naHAX --delete . {}/",
    "rsync of the source": "rsync -naHAXi --delete . source/",
    "tar to nowhere": "tar -cf /dev/null .",
    "cp of attributes": "cp -a --attributes-only . {}/",
    "cp of links": "cp -as $PWD/. {}/links",
    "python": "python3 -c 'import pathlib; print(sum(p.lstat().st_size for p in pathlib.Path().rglob(\"*\")))'",
    "shell": 'shopt -s globstar; for f in **; do test -r "$f" -a -s "$f"; done',
    "df": "df -T . ; df -i .; stat -f .",
    "realpath": "find . -print0 | xargs -0 realpath",
}


@dataclass
class Cold:
    """An archive of which nothing is staged."""

    installation: Installation
    source: Path
    #: The source in the mount.
    root: Path
    #: Of drives and staging, before anybody looked.
    before: State


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cold]:
    folder = tmp_path_factory.mktemp("looking")
    source = every_kind(folder / "source")
    installation = Installation(folder)
    try:
        installation.run("init", "--tapes", "2", "--tape-size", "256MiB")
        installation.backup(source, "--name", "looks")
        installation.serve()
        installation.run("evict", "--all")
        root = installation.mount_point / "jobs/looks/latest" / source.relative_to("/")
        yield Cold(installation, source, root, state(installation))
    finally:
        installation.close()


def state(installation: Installation) -> State:
    """What a recall changes: the counters of the drives, and what the staging folder holds."""
    staging = sorted((path.name, path.stat().st_blocks) for path in (installation.home / "staging").rglob("*"))
    return staging, installation.listing("drives")


def run(command: str, folder: Path, target: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["bash", "-c", command.replace("{}", str(target))], cwd=folder, capture_output=True)


@pytest.mark.parametrize("word", LOOKS)
def test_looking_moves_nothing(cold: Cold, tmp_path: Path, word: str) -> None:
    command = LOOKS[word].replace(" source/", f" {cold.source}/")
    found = run(command, cold.root, tmp_path)
    (tmp_path / "again").mkdir()
    # Some names cannot be copied or followed: here as there.
    wanted = run(command, cold.source, tmp_path / "again")
    assert found.returncode == wanted.returncode, found.stderr
    assert len(found.stdout) > 0 or not wanted.stdout
    assert state(cold.installation) == cold.before


def test_an_indexer_moves_nothing(cold: Cold) -> None:
    subprocess.run(["python3", "-c", _INDEXER, str(cold.root)], check=True)
    assert state(cold.installation) == cold.before


def test_reading_moves_something(cold: Cold) -> None:
    """The state that the other tests compare does change with a recall."""
    assert (cold.root / "alone").read_bytes() == (cold.source / "alone").read_bytes()
    staging, drives = state(cold.installation)
    assert staging != cold.before[0]
    assert drives != cold.before[1]
