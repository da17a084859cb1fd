"""A mount's beginning and end: it refuses what cannot work, and leaves nothing behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tapefs.errors import HomeError, UsageError
from tapefs.mount import mount_point
from tapefs.mount.readers import is_waiting_itself
from tests.mount.expect import fails_with
from tests.mount.fake_sidecar import FakeSidecar
from tests.mount.mount_process import mounted
from tests.vfs.shelf import Shelf


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_text("content")
    return tmp_path / "source"


@pytest.fixture
def shelf(tmp_path: Path, source: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "home", "[recall]\ndeadline_s = 0.7\n")
    shelf.add_set(source)
    yield shelf
    shelf.close()


def file_in(mount: Path, source: Path) -> Path:
    return mount / "jobs/docs/latest" / str(source).lstrip("/") / "file"


@pytest.mark.fuse
def test_a_recall_that_takes_too_long(shelf: Shelf, source: Path, tmp_path: Path) -> None:
    sidecar = FakeSidecar(shelf, delay_s=None).start()
    try:
        with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
            started = time.monotonic()
            with fails_with(errno.ETIMEDOUT):
                file_in(mount.path, source).read_bytes()
            assert 0.6 < time.monotonic() - started < 30
            assert sidecar.cancelled == []
    finally:
        sidecar.stop()


@pytest.mark.fuse
def test_without_a_sidecar(shelf: Shelf, source: Path, tmp_path: Path) -> None:
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        path = file_in(mount.path, source)
        assert os.getxattr(path, "user.tapefs.state") == b"offline"
        with fails_with(errno.EIO):
            path.read_bytes()
        # It comes later: the mount finds it, and readers get their bytes.
        sidecar = FakeSidecar(shelf).start()
        try:
            deadline = time.monotonic() + 60
            while os.getxattr(path, "user.tapefs.state") != b"nearline":
                assert time.monotonic() < deadline
                time.sleep(0.05)
            # On a busy machine 0.7 s are too short for the first ones.
            while not read_in_time(path):
                assert time.monotonic() < deadline
        finally:
            sidecar.stop()


def read_in_time(path: Path) -> bool:
    """Tell whether it could be read before the mount gave up waiting for the tape; then with what it has."""
    try:
        assert path.read_text() == "content"
    except TimeoutError:
        return False
    return True


@pytest.mark.fuse
def test_a_sidecar_that_is_started_again_is_asked_again(shelf: Shelf, source: Path, tmp_path: Path) -> None:
    (shelf.home.path / "tapefs.toml").write_text("format = 1\n")
    first = FakeSidecar(shelf, delay_s=None).start()
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        reader = subprocess.Popen(["cat", str(file_in(mount.path, source))], stdout=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while not first.waiters and time.monotonic() < deadline:
                time.sleep(0.02)
            first.stop()
            second = FakeSidecar(shelf).start()
            try:
                assert reader.communicate(timeout=60)[0] == b"content"
                assert [each["id"] for each in second.waiters] == [each["id"] for each in first.waiters]
            finally:
                second.stop()
        finally:
            reader.kill()
            reader.wait(60)


def wait_until_read_from(pid: int) -> None:
    """Until a process waits in a read, as far as /proc shows it."""
    deadline = time.monotonic() + 60
    while not is_waiting_itself(pid):
        assert time.monotonic() < deadline, "it does not read"
        time.sleep(0.02)
    time.sleep(0.3)  # It may have been opening the file.


@pytest.mark.fuse
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_files_open_and_reads_waiting(
    shelf: Shelf, source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    (shelf.home.path / "tapefs.toml").write_text("format = 1\n")
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        reader = subprocess.Popen(["cat", str(file_in(mount.path, source))], stderr=subprocess.PIPE)
        (mount.path / "README.txt").read_text()
        with open(mount.path / "README.txt", "rb"), open(file_in(mount.path, source), "rb"):
            wait_until_read_from(reader.pid)
            started = time.monotonic()
            mount.process.send_signal(number)
            assert mount.process.wait(60) == 0
            assert time.monotonic() - started < 30
            assert not mount.is_mounted()
            assert os.listdir(mount.path) == []
        errors = reader.communicate(timeout=60)[1]
        assert reader.returncode == 1
        assert b"Input/output error" in errors


@pytest.mark.fuse
def test_it_ends_when_it_is_unmounted(shelf: Shelf, tmp_path: Path) -> None:
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        subprocess.run(["umount", str(mount.path)], check=True)
        assert mount.process.wait(60) == 0


@pytest.mark.fuse
def test_what_a_killed_mount_left_is_taken_away(shelf: Shelf, tmp_path: Path) -> None:
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as killed:
        file = os.open(killed.path / "README.txt", os.O_RDONLY)
        killed.process.kill()
        killed.process.wait(60)
        with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
            os.listdir(killed.path)
        with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log2") as mount:
            assert "jobs" in os.listdir(mount.path)
            assert any("was killed" in str(each["event"]) for each in mount.events())
        with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
            os.close(file)


@pytest.mark.fuse
def test_a_place_that_is_taken_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        with pytest.raises(UsageError, match="already"):
            mount_point.prepare(mount.path)


@pytest.mark.fuse
def test_the_kernel_lets_many_page_reads_through(shelf: Shelf, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may set the kernel's limits")
    with mounted(shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        found = mount_point.find_mount(mount.path)
        assert found is not None
        limit = Path(f"/sys/fs/fuse/connections/{found.minor}/max_background")
        assert int(limit.read_text()) >= 1000
        assert int(Path(f"/sys/class/bdi/0:{found.minor}/read_ahead_kb").read_text()) == 4096
        assert not [each for each in mount.events() if each["level"] == "warning"]


def test_places_that_cannot_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not mount_point.DEVICE.exists():
        monkeypatch.setattr(mount_point, "DEVICE", Path("/dev/null"))
    with pytest.raises(UsageError, match="mkdir"):
        mount_point.prepare(tmp_path / "missing")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a directory"):
        mount_point.prepare(tmp_path / "file")
    (tmp_path / "dir").mkdir()
    assert mount_point.prepare(tmp_path / "dir") == tmp_path / "dir"
    monkeypatch.setattr(mount_point, "DEVICE", tmp_path / "fuse")
    with pytest.raises(HomeError, match="modprobe fuse"):
        mount_point.prepare(tmp_path / "dir")


def test_a_mount_point_that_is_not_empty_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if not mount_point.DEVICE.exists():
        monkeypatch.setattr(mount_point, "DEVICE", Path("/dev/null"))
    (tmp_path / "empty").mkdir()
    mount_point.prepare(tmp_path / "empty")
    assert caplog.messages == []
    mount_point.prepare(tmp_path)
    assert "is not empty" in caplog.text


def test_a_mount_without_protection_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mountinfo(options: str) -> None:
        line = f"36 27 0:53 / {str(tmp_path).replace(' ', chr(92) + '040')} {options} - fuse.tapefs tapefs rw\n"
        monkeypatch.setattr(mount_point, "_mountinfo", lambda: line)

    mountinfo("ro,nosuid,nodev,relatime")
    assert mount_point.verify(tmp_path).minor == 53
    for options in ("rw,nosuid,nodev", "ro,nodev", "ro,nosuid"):
        mountinfo(options)
        with pytest.raises(HomeError, match="without"):
            mount_point.verify(tmp_path)


def test_mountinfo_with_an_odd_path() -> None:
    text = r"36 27 0:53 / /a\040b\134c ro,nosuid shared:5 - fuse.tapefs tapefs rw"
    [found] = mount_point.parse_mountinfo(text)
    assert (found.minor, found.path, found.type) == (53, Path("/a b\\c"), "fuse.tapefs")


def test_pyfuse3_is_imported_in_one_module_only() -> None:
    code = "import sys, tapefs.mount.content, tapefs.mount.recalls, tapefs.vfs.tree; print('pyfuse3' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert output.stdout == "False\n", output.stderr
