"""The comparison itself, judged by foreign tools: what it calls equal is equal, every single difference is found."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compare.every_kind import every_kind
from tests.compare.look import Tree, differences, look, same_blocks

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make every kind of file")


def rsync(one: Path, other: Path) -> str:
    """Return what rsync would change; nothing: they are equal."""
    command = ["rsync", "-aHAXSn", "--checksum", "--delete", "-i", f"{one}/", f"{other}/"]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout


def diff(one: Path, other: Path) -> int:
    return subprocess.run(["diff", "-rq", "--no-dereference", one, other], capture_output=True).returncode


def acls(top: Path) -> bytes:
    return subprocess.run(["getfacl", "-Rnp", "."], cwd=top, capture_output=True, check=True).stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_kind(tmp_path_factory.mktemp("compare") / "source")


@pytest.fixture(scope="module")
def before(source: Path) -> Tree:
    return look(source)


@pytest.fixture
def copy(source: Path, tmp_path: Path) -> Path:
    subprocess.run(["cp", "-a", source, tmp_path / "copy"], check=True)
    return tmp_path / "copy"


def test_a_copy_is_equal(source, before, copy):
    assert differences(look(copy), before) == []
    assert rsync(source, copy) == ""
    assert acls(copy) == acls(source)
    # diff reads what a fifo or a device says: only where there are none.
    assert diff(source / "names", copy / "names") == diff(source / "large", copy / "large") == 0


def keep_times(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """Change something about a path so that its time does not tell."""

    def changed(path: Path) -> None:
        times = path.lstat().st_mtime_ns
        above = path.parent.stat().st_mtime_ns
        change(path)
        os.utime(path, ns=(1, times), follow_symlinks=False)
        os.utime(path.parent, ns=(1, above))

    return changed


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5_000_000)
        byte = file.read(1)[0]
        file.seek(5_000_000)
        file.write(bytes([byte ^ 1]))


def _unlink_from_others(path: Path) -> None:
    other = path.with_name("other")
    subprocess.run(["cp", "-a", path, other], check=True)
    other.rename(path)


def _fill_hole(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(6 * 1_048_576)
        file.write(bytes(65536))


def _make_hole(path: Path) -> None:
    subprocess.run(["fallocate", "-p", "-o", "65536", "-l", "65536", path], check=True)


def _replace_device(path: Path) -> None:
    status = path.stat()
    path.unlink()
    os.mknod(path, status.st_mode, os.makedev(1, 5))
    os.chown(path, status.st_uid, status.st_gid)
    path.chmod(status.st_mode & 0o7777)


def _replace_link(path: Path) -> None:
    status = path.lstat()
    path.unlink()
    path.symlink_to("elsewhere")
    os.lchown(path, status.st_uid, status.st_gid)


def _command(*words: str) -> Callable[[Path], object]:
    return lambda path: subprocess.run([*words, path], check=True)


CHANGES = {
    "content": ("large/split", "sha256", _flip),
    "size": ("names/level-00-xxxxxxxxxxxxxxxxxxxx/new", "not expected", lambda path: path.write_bytes(b"1")),
    "missing": ("names/none", "missing", None),
    "mode": ("modes/file-0755", "mode", lambda path: path.chmod(0o754)),
    "set-id": ("modes/file-4755", "mode", lambda path: path.chmod(0o755)),
    "owner": ("modes/file-0444", "owner", lambda path: os.chown(path, 1234, 4322)),
    "owner of a link": ("specials/dangling", "owner", lambda path: os.lchown(path, 777, 889)),
    "device": ("specials/null", "rdev", _replace_device),
    "target": ("specials/dangling", "target", _replace_link),
    "hardlink": ("links-a/second", "names", _unlink_from_others),
    "xattr": ("attributes/file", "xattrs", _command("setfattr", "-n", "user.text", "-v", "tex!")),
    "xattr gone": ("attributes/many", "xattrs", _command("setfattr", "-x", "user.007")),
    "trusted": ("attributes/directory", "xattrs", _command("setfattr", "-x", "trusted.hidden")),
    "capability": ("attributes/capable", "xattrs", _command("setcap", "-r")),
    "acl": ("attributes/acl", "xattrs", _command("setfacl", "-m", "u:1234:r--")),
    "default acl": ("attributes/directory", "xattrs", _command("setfacl", "-k")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_found_and_rsync_agrees(source, before, copy, name):
    path, word, change = CHANGES[name]
    if change is None:
        (copy / path).unlink()
    elif (copy / path).is_symlink() or (copy / path).exists():
        keep_times(change)(copy / path)
    else:
        change(copy / path)
    found = [line for line in differences(look(copy), before) if repr(os.fsencode(path))[1:-1] in line]
    assert any(word in line for line in found)
    assert rsync(source, copy) != ""


def test_a_nanosecond_is_found(source, before, copy):
    os.utime(copy / "names/none", ns=(1, (source / "names/none").stat().st_mtime_ns + 1))
    (line,) = differences(look(copy), before)
    assert "mtime_ns" in line


@pytest.mark.parametrize(
    ("path", "change"), [("sparse/odd", _fill_hole), ("sparse/zeros", _make_hole)], ids=["filled", "made"]
)
def test_holes_are_found_though_the_content_is_the_same(source, before, copy, path, change):
    """rsync cannot see that, st_blocks can."""
    keep_times(change)(copy / path)
    (line,) = differences(look(copy), before)
    assert "data is" in line
    assert rsync(source, copy) == ""
    assert (copy / path).stat().st_blocks != (source / path).stat().st_blocks


def test_notes_of_the_file_system_are_no_content(tmp_path):
    """A file in many pieces has a block more once it is on the disk; one of data less is still seen."""
    path = tmp_path / "pieces"
    with path.open("wb") as file:
        for at in range(0, 1024 * 1024, 16384):
            os.pwrite(file.fileno(), b"x" * 4096, at)
        before = os.fstat(file.fileno())
        os.fsync(file.fileno())
        after = os.fstat(file.fileno())
    assert same_blocks(before, after)
    less = os.stat_result((*after[:10],), {"st_blocks": after.st_blocks - 24})
    assert not same_blocks(less, after)
    assert not same_blocks(os.stat_result((*after[:10],), {"st_blocks": after.st_blocks + 8}), after)
