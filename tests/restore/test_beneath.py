"""Going down to directories, with `openat2` and without: neither ever leaves the folder or follows a link."""

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapefs.restore import beneath
from tapefs.restore.beneath import BadName, Beneath


@pytest.fixture(params=["openat2", "step by step"])
def opener(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Beneath]:
    (tmp_path / "outside/below").mkdir(parents=True)
    (tmp_path / "inside/a/b/c").mkdir(parents=True)
    if request.param == "step by step":
        monkeypatch.setattr(beneath, "_is_openat2_possible", lambda root: False)
    made = Beneath(os.open(tmp_path / "inside", os.O_RDONLY))
    assert made._has_openat2 == (request.param == "openat2")
    yield made
    made.close()


def test_the_kernel_here_has_openat2(tmp_path):
    """Else the tests of it prove nothing."""
    root = os.open(tmp_path, os.O_RDONLY)
    assert beneath._is_openat2_possible(root)
    os.close(root)


def is_at(fd: int, path: Path) -> bool:
    return os.path.samestat(os.fstat(fd), path.stat())


def test_directories_are_found_and_kept(opener, tmp_path):
    assert is_at(opener.directory(b""), tmp_path / "inside")
    assert is_at(opener.directory(b"a/b/c"), tmp_path / "inside/a/b/c")
    assert opener.directory(b"a/b/c") == opener.directory(b"a/b/c")
    fd, name = opener.above(b"a/b/new")
    assert is_at(fd, tmp_path / "inside/a/b")
    assert name == b"new"
    assert not os.get_inheritable(opener.directory(b"a"))


@pytest.mark.parametrize(
    "path",
    [
        b"..",
        b"../outside",
        b"a/../../outside",
        b"a/../a",
        b".",
        b"a/./b",
        b"/",
        b"/etc",
        b"a//b",
        b"a/",
        b"a\0",
        b"a/\0",
    ],
)
def test_what_is_no_way_down(opener, path):
    with pytest.raises(BadName):
        opener.directory(path)


@pytest.mark.parametrize("points_to", ["../outside", "/", "a", ".", "..", "a/b", "/proc/self/cwd", "/proc/self/fd/0"])
@pytest.mark.parametrize("way", ["link", "link/below", "a/link", "a/link/below"])
def test_links_are_never_followed(opener, tmp_path, points_to, way):
    """Wherever they point, also if that is inside."""
    link = tmp_path / "inside" / way.removesuffix("/below")
    link.symlink_to(points_to)
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        opener.directory(way.encode())
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        opener.enter(way.encode())


def test_a_directory_that_was_open_and_is_now_a_link(opener, tmp_path):
    """What is open stays what it was; what is not is refused."""
    before = tmp_path / "inside/a"
    assert is_at(opener.directory(b"a"), before)
    before.rename(tmp_path / "inside/old")
    before.symlink_to("../outside")
    assert is_at(opener.directory(b"a"), tmp_path / "inside/old")
    with pytest.raises(OSError, match=r"symbolic links|Not a directory"):
        opener.enter(b"a")
    assert is_at(opener.directory(b"a/b"), tmp_path / "inside/old/b")


def test_ways_longer_than_the_system_takes(opener, tmp_path):
    fd = os.open(tmp_path / "inside", os.O_RDONLY)
    names = [b"n" * 200] * 60 + [b"m"] * 3000
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    try:
        assert os.path.samestat(os.fstat(opener.directory(b"/".join(names))), os.fstat(fd))
    finally:
        os.close(fd)
        # pytest's own way of removing it cannot go so deep.
        subprocess.run(["rm", "-rf", tmp_path / "inside"], check=True)


def test_only_so_many_stay_open(opener, tmp_path):
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        (tmp_path / f"inside/{number}/x").mkdir(parents=True)
        opener.directory(b"%d/x" % number)
    assert len(os.listdir("/proc/self/fd")) <= before + beneath._KEPT_OPEN + 1


@pytest.mark.parametrize("busy_times", [5, 10_000])
def test_renames_all_around_are_waited_for(tmp_path, monkeypatch, busy_times):
    """EAGAIN means "try again"; for ever would be a way to hang a restore."""
    real, calls = beneath._openat2, []

    def busy(fd: int, path: bytes) -> int:
        calls.append(path)
        if path == b"." or len(calls) > busy_times:
            return real(fd, path)
        ctypes.set_errno(errno.EAGAIN)
        return -1

    monkeypatch.setattr(beneath, "_openat2", busy)
    (tmp_path / "a").mkdir()
    opener = Beneath(os.open(tmp_path, os.O_RDONLY))
    try:
        if busy_times == 5:
            assert is_at(opener.directory(b"a"), tmp_path / "a")
        else:
            with pytest.raises(BlockingIOError):
                opener.directory(b"a")
    finally:
        opener.close()


WITHOUT = """
import os, struct, sys
from pathlib import Path
from tapefs.restore import beneath
fd = os.open(sys.argv[1], os.O_RDONLY)
assert not beneath._is_openat2_possible(fd)
opener = beneath.Beneath(fd)
assert os.path.samestat(os.fstat(opener.directory(b"a/b")), os.stat(sys.argv[1] + "/a/b"))
"""


def test_where_openat2_is_forbidden(tmp_path):
    """Container runtimes answer EPERM: then it goes on without. strace plays the runtime."""
    (tmp_path / "a/b").mkdir(parents=True)
    command = ["strace", "-f", "-qq", "-e", "trace=openat2", "-e", "inject=openat2:error=EPERM", sys.executable]
    done = subprocess.run(
        [*command, "-c", WITHOUT, tmp_path], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "INJECTED" in done.stderr
