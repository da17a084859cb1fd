"""The mover's loop in a thread of this process, with the test as its sidecar."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from catalog.ids import FrameNo
from catalog.records import SetState, VolumeState
from drivers.errors import DeviceFailed
from drivers.virtual.faults import FaultyDrive, Reset
from tapefs.errors import BadStructure
from tapefs.mover import mover as mover_module
from tapefs.mover import post
from tapefs.mover.messages import Done, Failed, FrameRange, Recall, Recommend, Report, Unload, Verify
from tapefs.mover.mover import Mover
from tapefs.mover.post import Post
from tapefs.mover.wire import PREFIX_BYTES, decode, encode, length_of
from tapefs.sets import finish
from tapefs.staging.area import StagingArea
from tests.backup.rig import Rig
from tests.backup.trees import random_files


@contextmanager
def serving(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, threading.Thread]]:
    """Yield the sidecar's end of the socket pair and the thread of a mover."""
    # The process outlives this mover.
    monkeypatch.setattr(post, "_GRACE_S", 10_000.0)
    ours, theirs = socket.socketpair()
    ours.settimeout(60)
    with ours, theirs:
        thread = threading.Thread(target=Mover(rig.home, rig.ledger, rig.drive, "drive0", Post(theirs)).run)
        thread.start()
        try:
            yield ours, thread
        finally:
            ours.close()
            thread.join(60)
        assert not thread.is_alive()


def answer(ours: socket.socket) -> Report:
    """Return the next Done or Failed."""
    while True:
        length = length_of(ours.recv(PREFIX_BYTES, socket.MSG_WAITALL))
        report: Report = decode(ours.recv(length, socket.MSG_WAITALL), Report)  # type: ignore[arg-type]
        if isinstance(report, Done | Failed):
            return report


@pytest.mark.log_warnings
def test_a_state_file_that_cannot_be_written(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is for people to look at: commands are done and answered all the same."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mover_module, "write_drive_file", refuse)
    with serving(rig, monkeypatch) as (ours, _):
        ours.sendall(encode(Unload(id=7)))
        assert answer(ours) == Done(id=7)


@pytest.mark.log_warnings
def test_the_order_of_the_drive_is_told_and_its_errors_fail_nothing(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    extents = [(1, 5), (6, 9), (20, 20)]
    answers: list[list[int] | DeviceFailed | None] = [[2, 0, 1], None, DeviceFailed("no"), [1, 0, 2]]
    told: list[list[tuple[int, int]]] = []

    class Knowing(type(rig.drive)):  # type: ignore[misc]
        def recommended_order(self, extents: list[tuple[int, int]]) -> list[int] | None:
            told.append(extents)
            found = answers[len(told) - 1]
            if isinstance(found, DeviceFailed):
                raise found
            return found

    with serving(rig, monkeypatch) as (ours, _):
        # The virtual drive knows none.
        ours.sendall(encode(Recommend(id=1, extents=extents)))
        assert answer(ours) == Done(id=1)
        rig.drive.__class__ = Knowing
        for number, order in enumerate([(2, 0, 1), (), (), (1, 0, 2)], start=2):
            ours.sendall(encode(Recommend(id=number, extents=extents)))
            assert answer(ours) == Done(id=number, order=order)
    assert told == [extents] * 4


@pytest.mark.log_warnings
def test_a_drive_that_was_reset_reads_on(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tape is checked, and what was asked is read and read back all the same; twice in a row is an error."""
    set_id = rig.backup(random_files(tmp_path_factory.mktemp("tree"), 5, 2_000_000))
    segment = rig.ledger.segments(set_id)[0]
    (copy,) = rig.ledger.copies(segment.segment_id)
    frames = [FrameRange(segment_id=segment.segment_id, first=FrameNo(0), last=FrameNo(segment.frames - 1))]
    within = copy.payload_block + 5
    whole = Recall(id=1, volume_id=copy.volume_id, frames=frames, read_on_bytes=0)
    for times, command, outcome in (
        (1, whole, Done),
        (1, Verify(id=1, segment_id=segment.segment_id, volume_id=copy.volume_id), Done),
        (2, whole, Failed),
    ):
        StagingArea(rig.home.staging).evict_all()
        drive, rig.drive = rig.drive, FaultyDrive(rig.drive, [Reset(block=within) for _ in range(times)])  # type: ignore[arg-type]
        with serving(rig, monkeypatch) as (ours, _):
            ours.sendall(encode(command))
            assert isinstance(answer(ours), outcome)
        rig.drive = drive
        rig.drive.load()
    assert rig.ledger.volume(copy.volume_id).state is VolumeState.APPENDABLE


@pytest.mark.log_warnings
def test_a_message_that_is_none_ends_the_mover(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would wait for ever for what it can no longer understand."""
    with serving(rig, monkeypatch) as (ours, thread):
        ours.sendall(b"\0\0\0\3???")
        thread.join(60)
        assert not thread.is_alive()


def test_a_set_that_cannot_be_finished_does_not_hold_up_others(
    rig: Rig, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sealed set has lost its trailer: the one behind it becomes complete, and the error is told."""
    tree = random_files(tmp_path_factory.mktemp("tree"), 3, 1000)

    def refuse(*_: object, **__: object) -> None:
        raise BadStructure("not now")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "build_index", refuse)
        for _ in range(2):
            with pytest.raises(BadStructure):
                rig.backup(tree)
    first, second = rig.ledger.backup_sets()
    assert (first.state, second.state) == (SetState.SEALED, SetState.SEALED)
    (segment,) = rig.ledger.segments(first.set_id)
    rig.home.trailer(segment.segment_id).unlink()
    with pytest.raises(Exception, match="is missing"):
        finish.finish_all(rig.home, rig.ledger, 1)
    assert [each.state for each in rig.ledger.backup_sets()] == [SetState.SEALED, SetState.COMPLETE]
