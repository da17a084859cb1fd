"""Reading through the mount: the right bytes whether they are staged or not, and waits that hurt nobody."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from catalog.ids import SegmentId
from tapefs.mount.readers import is_waiting_itself
from tapefs.staging.area import StagingArea
from tests.mount.conftest import ODD_NAME, Rig
from tests.mount.expect import fails_with
from tests.mount.mount_process import mounted
from tests.staging.content import as_of_an_earlier_boot, flip

pytestmark = pytest.mark.fuse

MAPPED = "import mmap; print(mmap.mmap(os.open(path, 0), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[0])"
#: Sooner than by any deadline of the mount's, on the busiest machine.
SOON_S = 30
ATTRIBUTES = {"state", "tape", "segment", "position", "sha256"}


@contextlib.contextmanager
def readers(
    paths: list[Path], program: str = "sys.stdout.buffer.write(open(path, 'rb').read())"
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that each read a file; whatever is left of them is killed."""
    code = f"import os, signal, sys, time\npath = sys.argv[1]\n{program}\n"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for path in paths
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.communicate(timeout=60)


def wait_until_waiting(rig: Rig, count: int = 1, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while len(rig.sidecar.waiters) < count:
        assert time.monotonic() < deadline, f"only {len(rig.sidecar.waiters)} reads wait"
        time.sleep(0.01)


def same(rig: Rig, name: bytes | str) -> bool:
    first, second = (
        Path(os.fsdecode(os.path.join(os.fsencode(top), os.fsencode(name)))) for top in (rig.source, rig.root)
    )
    return first.read_bytes() == second.read_bytes()


# -- staged ----------------------------------------------------------------------------------------------------------


def test_staged_files_read_right_and_ask_nobody(evicted: Rig) -> None:
    evicted.shelf.stage_all()
    for name in (b"text", b"empty", b"large.bin", b"medium.bin", b"hardlink", ODD_NAME, b"n" * 255, b"small/file-123"):
        assert same(evicted, name), name
    assert evicted.sidecar.waiters == []


@pytest.mark.parametrize("staged", [True, False])
def test_random_preads(evicted: Rig, staged: bool) -> None:
    if staged:
        evicted.shelf.stage_all()
    chance = random.Random(11)
    wanted = (evicted.source / "large.bin").read_bytes()
    with open(evicted.root / "large.bin", "rb", buffering=0) as file:
        for _ in range(300):
            offset, length = chance.randrange(len(wanted) + 1000), chance.choice([1, 100, 4096, 70_000, 400_000])
            assert os.pread(file.fileno(), length, offset) == wanted[offset : offset + length]
        assert os.pread(file.fileno(), 10, len(wanted) - 3) == wanted[-3:]
        assert os.pread(file.fileno(), 10, len(wanted)) == b""


@pytest.mark.parametrize("staged", [True, False])
def test_private_mapping(evicted: Rig, staged: bool) -> None:
    if staged:
        evicted.shelf.stage_all()
    program = (
        "import mmap\n"
        "file = open(path, 'rb')\n"
        "view = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)\n"
        "sys.stdout.buffer.write(view)"
    )
    with readers([evicted.root / "medium.bin"], program) as [process]:
        output, errors = process.communicate(timeout=60)
    assert output == (evicted.source / "medium.bin").read_bytes(), errors


@pytest.mark.parametrize("staged", [True, False])
def test_sendfile(evicted: Rig, tmp_path: Path, staged: bool) -> None:
    if staged:
        evicted.shelf.stage_all()
    with open(evicted.root / "large.bin", "rb") as source, open(tmp_path / "copy", "wb") as target:
        while os.sendfile(target.fileno(), source.fileno(), None, 1 << 20):
            pass
    assert (tmp_path / "copy").read_bytes() == (evicted.source / "large.bin").read_bytes()


def test_a_program_runs_from_the_mount(evicted: Rig, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/true").write_bytes(Path("/bin/true").read_bytes())
    (tmp_path / "bin/true").chmod(0o755)
    evicted.shelf.add_set(tmp_path / "bin", name="programs")
    time.sleep(0.05)
    program = evicted.mount.path / "jobs/programs/latest" / str(tmp_path).lstrip("/") / "bin/true"
    # Through `env`: until its child has called exec Python holds the interpreter lock; the sidecar is a thread of ours.
    assert subprocess.run(["env", str(program)], timeout=60).returncode == 0


def test_a_pinned_file_is_not_evicted(evicted: Rig) -> None:
    evicted.shelf.stage_all()
    with open(evicted.root / "medium.bin", "rb", buffering=0) as file:
        StagingArea(evicted.shelf.home.staging).evict_all()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == (evicted.source / "medium.bin").read_bytes()
        assert evicted.sidecar.waiters == []
    time.sleep(0.1)
    assert StagingArea(evicted.shelf.home.staging).evict_all() > 0


def test_what_was_staged_before_the_machine_was_started_asks_nobody(evicted: Rig, tmp_path: Path) -> None:
    """It is compared with its checksums when it is read; what does not fit them comes from tape."""
    evicted.shelf.stage_all()
    folder = evicted.shelf.home.staging
    damaged = evicted.segment_of(evicted.root / "text")
    assert damaged != evicted.segment_of(evicted.root / "medium.bin")
    as_of_an_earlier_boot(folder)
    flip(folder, SegmentId(damaged), (folder / f"{damaged}.plain").stat().st_size // 2)
    area = StagingArea(folder)
    assert area.adopt() > 1
    doubtful = area.census().doubtful
    # A mount of its own: the other one still has the files open, as nobody does after a start of the machine.
    with mounted(evicted.shelf.home.path, tmp_path / "mnt", tmp_path / "log") as mount:
        fresh = replace(evicted, mount=mount)
        assert same(fresh, "medium.bin")
        assert evicted.sidecar.waiters == []
        assert 0 < area.census().doubtful < doubtful
        assert same(fresh, "text")
        assert {waiter["segment"] for waiter in evicted.sidecar.waiters} == {damaged}


# -- cold ------------------------------------------------------------------------------------------------------------


def test_a_cold_read_waits_and_gets_the_bytes(evicted: Rig) -> None:
    evicted.sidecar.delay_s = 0.5
    started = time.monotonic()
    assert same(evicted, "medium.bin")
    assert 0.4 < time.monotonic() - started < SOON_S
    [waiter] = evicted.sidecar.waiters[:1]
    assert waiter["segment"] == evicted.segment_of(evicted.root / "medium.bin")
    assert waiter["uid"] == os.getuid()
    assert waiter["pid"] == os.getpid()
    assert waiter["path"] == os.path.realpath(evicted.root / "medium.bin")
    assert waiter["size_bytes"] == 200_000
    assert Path(sys.executable).resolve().name in waiter["commands"]  # type: ignore[operator]
    assert os.getgid() in waiter["gids"]  # type: ignore[operator]
    assert 3500 < float(str(waiter["deadline_s"])) <= 3600


def test_only_the_frames_of_the_read_are_asked_for(evicted: Rig) -> None:
    path = evicted.root / "medium.bin"
    with open(path, "rb", buffering=0) as file:
        assert os.pread(file.fileno(), 10, 0) == (evicted.source / "medium.bin").read_bytes()[:10]
    assert len(evicted.sidecar.waiters) == 1
    assert evicted.sidecar.waiters[0]["first"] == evicted.sidecar.waiters[0]["last"]


def test_everything_cold_reads_right(evicted: Rig) -> None:
    names = [b"small/" + name for name in sorted(os.listdir(os.fsencode(evicted.source / "small")))]
    for name in [b"text", b"hardlink", b"large.bin", ODD_NAME, b"n" * 255, *names]:
        assert same(evicted, name), name


def test_a_file_that_becomes_staged_while_it_is_open(evicted: Rig) -> None:
    wanted = (evicted.source / "large.bin").read_bytes()
    with open(evicted.root / "large.bin", "rb", buffering=0) as file:
        assert file.read(1000) == wanted[:1000]
        evicted.shelf.stage_all()
        asked = len(evicted.sidecar.waiters)
        assert file.read(500_000) == wanted[1000:501_000]
        assert len(evicted.sidecar.waiters) == asked
        StagingArea(evicted.shelf.home.staging).evict_all()
        rest = b"".join(iter(lambda: file.read(65536), b""))
        assert rest == wanted[501_000:]


def test_a_staging_folder_emptied_by_hand(evicted: Rig) -> None:
    wanted = (evicted.source / "large.bin").read_bytes()
    evicted.shelf.stage_all()
    with open(evicted.root / "text", "rb") as pinned, open(evicted.root / "large.bin", "rb", buffering=0) as file:
        StagingArea(evicted.shelf.home.staging).evict_all()
        for path in evicted.shelf.home.staging.iterdir():
            path.unlink()
        with open(evicted.root / "large.bin", "rb", buffering=0) as other:
            assert other.read(300_000) == wanted[:300_000]
        assert file.read(500_000) == wanted[:500_000]
        assert pinned.read() == b"hello\n"


def test_a_sidecar_that_forgets_to_tell(evicted: Rig) -> None:
    evicted.sidecar.silent = True
    started = time.monotonic()
    assert same(evicted, "text")
    assert time.monotonic() - started < SOON_S


def test_a_failed_recall_is_an_io_error(evicted: Rig) -> None:
    evicted.sidecar.failure = "drive"
    with fails_with(errno.EIO):
        (evicted.root / "text").read_bytes()
    assert any(each["event"] == "recall failed" for each in evicted.mount.events())
    evicted.sidecar.failure = None
    assert same(evicted, "text")


@pytest.mark.parametrize(("word", "number"), [("denied", "EPERM"), ("limit", "EDQUOT"), ("deferred", "EAGAIN")])
def test_a_refused_recall(evicted: Rig, word: str, number: str) -> None:
    evicted.sidecar.refusal = word
    # By hand: Python's files take EAGAIN for a read of nothing.
    descriptor = os.open(evicted.root / "text", os.O_RDONLY)
    with fails_with(getattr(errno, number)):
        os.read(descriptor, 100)
    os.close(descriptor)
    copy = subprocess.run(["cp", str(evicted.root / "text"), "/dev/null"], capture_output=True, text=True, timeout=60)
    assert copy.returncode == 1
    assert os.strerror(getattr(errno, number)) in copy.stderr
    evicted.sidecar.refusal = None
    assert same(evicted, "text")


def test_an_unreadable_file_is_an_io_error_and_not_recalled(evicted: Rig) -> None:
    with open(evicted.root / "unreadable", "rb") as file, fails_with(errno.EIO):
        file.read()
    assert evicted.sidecar.waiters == []
    assert os.getxattr(evicted.root / "unreadable", "user.tapefs.state") == b"offline"


def test_two_hundred_waiting_readers_stop_nobody(evicted: Rig) -> None:
    hot = evicted.root / "text"
    evicted.sidecar.delay_s = 0
    assert same(evicted, "text")
    evicted.sidecar.delay_s = None
    names = sorted(os.listdir(evicted.source / "small"))
    paths = [evicted.root / "small" / name for name in names]
    cold = [path for path in paths if os.getxattr(path, "user.tapefs.state") != b"online"][:200]
    before = len(evicted.sidecar.waiters)
    program = (
        "import threading\n"
        "def read(path):\n"
        "    with open(path, 'rb') as file: file.read()\n"
        "threads = [threading.Thread(target=read, args=(path,), daemon=True) for path in sys.argv[1].split(':')]\n"
        "[thread.start() for thread in threads]; time.sleep(60)"
    )
    with readers([Path(":".join(map(str, cold)))], program):
        wait_until_waiting(evicted, before + len(cold))
        took_s = []
        for _ in range(20):
            started = time.monotonic()
            with open(hot, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                assert file.read() == b"hello\n"
            os.listdir(evicted.root / "wide")
            os.stat(cold[0])
            took_s.append(time.monotonic() - started)
            time.sleep(0.01)
        assert os.getxattr(cold[0], "user.tapefs.state") == b"staging"
    # 20 ms of it is the listing of 2,500 names. Behind the waiting ones it would not end; a busy machine is slow, too.
    assert sorted(took_s)[10] < 2
    deadline = time.monotonic() + 60
    while len(evicted.sidecar.cancelled) < len(cold) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(evicted.sidecar.cancelled) >= len(cold)


#: Forks a reader for each of so many files of each kind; a reader ends with 0 if it got the bytes of the source.
MANY_READERS = """
import gc, mmap
source, counts = sys.argv[2], [int(count) for count in sys.argv[3:]]
def read(descriptor, size):
    return os.read(descriptor, size + 1)
def fault(descriptor, size):
    return mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)[:]
def populate(descriptor, size):
    return mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE, prot=mmap.PROT_READ)[:]
names = sorted(os.listdir(source))
at = {read: 0, fault: 0, populate: len(names) // 2}
children = []
gc.freeze()
for way, count in zip(at, counts):
    for name in names[at[way]:at[way] + count]:
        child = os.fork()
        if not child:
            with open(os.path.join(source, name), "rb") as file: wanted = file.read()
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY)
            got = way(descriptor, len(wanted))
            # A page that could not be had would have been a signal.
            os._exit(got != wanted)
        children.append(child)
print(sum(os.waitpid(child, 0)[1] == 0 for child in children), flush=True)
"""


def hot_and_listing_s(rig: Rig, hot: Path) -> float:
    """How long it takes to read a staged file past the page cache, and to list 300 names."""
    started = time.monotonic()
    with open(hot, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == b"hello\n"
    assert len(os.listdir(rig.root / "small")) == 300
    time_s = time.monotonic() - started
    time.sleep(0.01)
    return time_s


def test_five_hundred_readers_wait_and_stop_nobody(evicted: Rig) -> None:
    """By read, by page fault and by a mapping that is populated; hot files and listings answer as ever."""
    hot = evicted.root / "text"
    evicted.sidecar.delay_s = 0
    assert same(evicted, "text")
    evicted.sidecar.delay_s = None
    quiet_s = sorted(hot_and_listing_s(evicted, hot) for _ in range(60))
    before = len(evicted.sidecar.waiters)
    cold = [
        path for path in (evicted.root / "small").iterdir() if os.getxattr(path, "user.tapefs.state") == b"nearline"
    ]
    assert len(cold) > 250, "one frame was fetched with the hot file"
    counts = [250, 130, 120]
    folders = [str(top / "small") for top in (evicted.root, evicted.source)]
    program = subprocess.Popen(
        [sys.executable, "-ISc", f"import os, sys\npath = sys.argv[1]\n{MANY_READERS}", *folders, *map(str, counts)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until_waiting(evicted, before + sum(counts) - 3 * (300 - len(cold)), 120)
        times_s = sorted(hot_and_listing_s(evicted, hot) for _ in range(60))
        # Half of them take 3 ms, unless the machine is busy with something else; behind those who wait all would take
        # seconds.
        assert times_s[20] < max(0.5, 3 * quiet_s[20]), times_s
        evicted.shelf.stage_all()
        assert int(program.communicate(timeout=60)[0]) == sum(counts)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.wait(60)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_reader_ends(evicted: Rig, number: signal.Signals) -> None:
    evicted.sidecar.delay_s = None
    with readers([evicted.root / "text"]) as [process]:
        wait_until_waiting(evicted)
        time.sleep(0.1)
        started = time.monotonic()
        process.send_signal(number)
        process.wait(60)
        assert time.monotonic() - started < SOON_S
        assert process.returncode in (-number, 1)


def test_a_reader_that_did_not_open_the_file_itself_ends(evicted: Rig) -> None:
    evicted.sidecar.delay_s = None
    # The child inherits the open file, and its parent goes away.
    program = (
        "file = open(path, 'rb', buffering=0)\n"
        "if os.fork() == 0:\n"
        "    print(os.getpid(), flush=True)\n"
        "    file.read()\n"
        "os._exit(0)"
    )
    with readers([evicted.root / "text"], program) as [process]:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        wait_until_waiting(evicted)
        os.kill(child, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        state = Path(f"/proc/{child}/status")
        assert not state.exists() or "State:\tZ" in state.read_text()


def test_a_file_that_the_shell_has_opened(evicted: Rig) -> None:
    """`command < FILE`: whoever opened it may be another process, and the one that reads it is killed."""
    evicted.sidecar.delay_s = None
    shell = ["bash", "-c", 'exec 7< "$0"; (echo $BASHPID; exec cat <&7) & wait', str(evicted.root / "text")]
    with subprocess.Popen(shell, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        reader = int(process.stdout.readline())
        wait_until_waiting(evicted)
        assert evicted.sidecar.waiters[0]["pid"] == process.pid, "it is known by who opened it"
        started = time.monotonic()
        os.kill(reader, signal.SIGTERM)
        process.wait(60)
    assert time.monotonic() - started < SOON_S


def test_o_nonblock_waits_as_on_a_disk(evicted: Rig) -> None:
    evicted.sidecar.delay_s = 0.3
    descriptor = os.open(evicted.root / "text", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert os.read(descriptor, 100) == b"hello\n"
    finally:
        os.close(descriptor)


def test_a_command_is_known_when_it_reads_what_its_shell_opened(evicted: Rig) -> None:
    subprocess.run(["bash", "-c", 'cat < "$0" > /dev/null', str(evicted.root / "text")], check=True, timeout=60)
    assert "cat" in evicted.sidecar.waiters[0]["commands"]  # type: ignore[operator]


@pytest.mark.parametrize("program", ["open(path, 'rb').read()", MAPPED])
def test_who_reads_himself_is_told_from_who_opened_for_another(evicted: Rig, program: str) -> None:
    evicted.sidecar.delay_s = None
    threaded = (
        "import threading\n"
        "file = open(path, 'rb', buffering=0)\n"
        "threading.Thread(target=file.read, daemon=True).start()\n"
        "time.sleep(60)"
    )
    with readers([evicted.root / "text"], program) as [reader], readers([evicted.root / "text"], threaded) as [other]:
        wait_until_waiting(evicted, 2)
        time.sleep(0.2)
        assert is_waiting_itself(reader.pid)
        assert not is_waiting_itself(other.pid)
        assert not is_waiting_itself(2**22 + 1)


def test_opening_what_a_mapping_waits_for_waits_for_nothing(evicted: Rig) -> None:
    """The kernel must not be made to drop pages: it would wait for the one that is awaited, and could not be killed."""
    evicted.sidecar.delay_s = None
    path = evicted.root / "text"
    with readers([path], MAPPED):
        wait_until_waiting(evicted)
        with readers([path], "os.close(os.open(path, 0)); print('opened')") as [process]:
            assert process.communicate(timeout=60)[0] == b"opened\n"


@pytest.mark.parametrize("interrupts", [0, 1])
def test_a_caught_alarm_does_not_break_a_read(evicted: Rig, interrupts: int) -> None:
    """With SA_RESTART and without."""
    evicted.sidecar.delay_s = 1.2
    program = (
        "import ctypes\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda number: None)\n"
        "libc.signal(signal.SIGALRM, handler)\n"
        f"libc.siginterrupt(signal.SIGALRM, {interrupts})\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.1, 0.1)\n"
        "buffer = ctypes.create_string_buffer(100)\n"
        "fd = libc.open(path.encode(), 0)\n"
        "count = libc.read(fd, buffer, 100)\n"
        "print(count, ctypes.get_errno(), buffer.value)"
    )
    with readers([evicted.root / "text"], program) as [process]:
        output, errors = process.communicate(timeout=60)
    assert output == b"6 0 b'hello\\n'\n", errors


# -- attributes ------------------------------------------------------------------------------------------------------


def test_attributes_of_a_file(evicted: Rig) -> None:
    path = evicted.root / "text"
    assert os.listxattr(path) == [], "tools that copy attributes would copy the state along"
    names = [*(f"user.tapefs.{name}" for name in ATTRIBUTES), "user.status"]
    values = {name: os.getxattr(path, name).decode() for name in names}
    assert values["user.tapefs.state"] == "nearline"
    assert values["user.status"] == "NEARLINE"
    assert values["user.tapefs.tape"] == "TAP001L9"
    assert values["user.tapefs.segment"] in evicted.shelf.segments
    assert values["user.tapefs.sha256"] == hashlib.sha256(b"hello\n").hexdigest()
    assert all(part.partition("=")[2].isdigit() for part in values["user.tapefs.position"].split())
    assert evicted.sidecar.waiters == []
    path.read_bytes()
    assert os.getxattr(path, "user.tapefs.state") == b"online"
    assert os.getxattr(path, "user.status") == b"ONLINE_AND_NEARLINE"


def test_attributes_of_a_split_file(evicted: Rig) -> None:
    path = evicted.root / "large.bin"
    segments = os.getxattr(path, "user.tapefs.segment").decode().split(",")
    assert len(segments) == 4
    with fails_with(errno.ENODATA):
        os.getxattr(path, "user.tapefs.sha256")
    with open(path, "rb", buffering=0) as file:
        file.read(1)
    assert os.getxattr(path, "user.tapefs.state") == b"nearline"


def test_what_has_no_content_is_online(evicted: Rig) -> None:
    assert os.getxattr(evicted.root / "empty", "user.tapefs.state") == b"online"
    assert os.getxattr(evicted.root / "empty", "user.status") == b"ONLINE"
    for path in (evicted.root, evicted.mount.path / "README.txt"):
        assert os.listxattr(path) == []
        with fails_with(errno.ENODATA):
            os.getxattr(path, "user.tapefs.state")
