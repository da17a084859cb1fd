"""Which signals end a wait."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from pathlib import Path

import pytest

from catalog.errors import Damaged, NotFound, StorageFailed
from drivers.errors import DeviceFailed
from tapefs.errors import (
    BadStructure,
    NoSuchThing,
    NotNow,
    RecallDeferred,
    RecallDenied,
    RecallFailed,
    RecallOverLimit,
    RecallTimedOut,
    SourceError,
    TapefsError,
    Unreachable,
)
from tapefs.mount import readers, who
from tapefs.mount.errnos import ReaderGone, errno_of

S = signal.Signals


def status(
    *,
    own: tuple[S, ...] = (),
    shared: tuple[S, ...] = (),
    blocked: tuple[S, ...] = (),
    ignored: tuple[S, ...] = (),
    caught: tuple[S, ...] = (),
    state: str = "D (disk sleep)",
) -> str:
    masks = [sum(1 << (each - 1) for each in signals) for signals in (own, shared, blocked, ignored, caught)]
    lines = [
        f"{name}:\t{mask:016x}"
        for name, mask in zip(("SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"), masks, strict=True)
    ]
    return "\n".join(["Name:\tcat", f"State:\t{state}", *lines, "CapInh:\t0000000000000000"])


REQUESTS = (S.SIGHUP, S.SIGINT, S.SIGQUIT, S.SIGTERM)
NEVER = (S.SIGCHLD, S.SIGCONT, S.SIGTSTP, S.SIGTTIN, S.SIGTTOU, S.SIGSTOP, S.SIGURG, S.SIGWINCH)
OTHERS = (S.SIGALRM, S.SIGUSR1, S.SIGUSR2, S.SIGPROF, S.SIGPIPE, S.SIGSEGV, S.SIGRTMIN)


def test_kill_always_ends() -> None:
    assert readers.is_ending(status(own=(S.SIGKILL,)))
    assert readers.is_ending(status(shared=(S.SIGKILL,), blocked=REQUESTS))


@pytest.mark.parametrize("number", REQUESTS)
def test_a_request_ends_unless_it_is_blocked_or_ignored(number: S) -> None:
    assert readers.is_ending(status(shared=(number,)))
    assert readers.is_ending(status(own=(number,), caught=(number,)))
    assert not readers.is_ending(status(shared=(number,), blocked=(number,)))
    assert not readers.is_ending(status(shared=(number,), ignored=(number,)))


@pytest.mark.parametrize("number", OTHERS)
def test_other_fatal_signals_end_only_without_a_handler(number: S) -> None:
    assert readers.is_ending(status(shared=(number,)))
    assert not readers.is_ending(status(shared=(number,), caught=(number,)))
    assert not readers.is_ending(status(shared=(number,), blocked=(number,)))


@pytest.mark.parametrize("number", NEVER)
def test_signals_that_never_end(number: S) -> None:
    assert not readers.is_ending(status(own=(number,), shared=(number,)))


def test_only_who_sleeps_in_the_kernel_is_ending() -> None:
    assert not readers.is_ending(status(own=(S.SIGKILL,), state="R (running)"))
    assert not readers.is_ending("State:\tD (disk sleep)\n")
    assert not readers.is_ending("")
    assert not readers.is_ending(status())


def test_threads() -> None:
    assert readers.is_thread_ending(os.getpid()) is False
    assert readers.is_thread_ending(2**22 + 1) is None
    assert os.getpid() in {int(path.rsplit("/", 1)[1]) for path in readers._threads()}
    with open(__file__, "rb") as file:
        assert os.fstat(file.fileno()).st_ino in set(readers._open_inodes("/proc/self"))
    assert isinstance(readers.inodes_of_ending(), frozenset)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (NoSuchThing("x"), "ENOENT"),
        (NotFound("x"), "ENOENT"),
        (NotNow("x"), "EBUSY"),
        (ReaderGone("x"), "EINTR"),
        (RecallTimedOut("x"), "ETIMEDOUT"),
        (RecallFailed("x"), "EIO"),
        (RecallDenied("x"), "EPERM"),
        (RecallOverLimit("x"), "EDQUOT"),
        (RecallDeferred("x"), "EAGAIN"),
        (Unreachable("x"), "EIO"),
        (SourceError("x"), "EIO"),
        (BadStructure("x"), "EIO"),
        (TapefsError("x"), "EIO"),
        (Damaged("x", "y"), "EIO"),
        (StorageFailed("x", retryable=False), "EIO"),
        (DeviceFailed("x"), "EIO"),
        (OSError(24, "x"), "EMFILE"),
        (OSError(28, "x"), "EIO"),
        (MemoryError(), "ENOMEM"),
    ],
)
def test_errnos(error: Exception, name: str) -> None:
    assert errno_of(error) == getattr(errno, name)


def test_a_defect_has_no_errno() -> None:
    assert errno_of(ZeroDivisionError()) is None
    assert errno_of(KeyError("x")) is None


def test_who_reads(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with path.open("rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        seen = who.look_at(threading.get_native_id(), inode)
    assert seen.pid == os.getpid()
    assert seen.path == str(path)
    assert seen.commands[0] == Path(sys.executable).resolve().name
    assert set(os.getgroups()) == set(seen.gids)
    assert who.look_at(os.getpid(), inode).path == "", "it is closed"


def test_who_reads_in_a_thread_of_another_name() -> None:
    found: list[who.Seen] = []

    def read() -> None:
        Path("/proc/thread-self/comm").write_text("pool-extract")
        found.append(who.look_at(threading.get_native_id(), 1))

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert found[0].pid == os.getpid()
    assert "pool-extract" in found[0].commands


def test_who_cannot_be_seen() -> None:
    assert who.look_at(0, 1) == who.look_at(2**22 + 1, 1) == who.Seen()
