"""A mover that moves no tape: it speaks the protocol, writes the ledger as a real one does, and misbehaves on request.

What a backup does is told by the job's name (see `_Fake.backup`). HOME/fake.json may hold `bad` (segment -> frames that
cannot be read), `die` (segments whose recall ends the process), `slow_s` (pause before each frame), `recommend` (the
order that the drive recommends, whatever it is asked) and `die_recommending`. HOME/DRIVE-fails holds the names of
commands that this drive fails, HOME/DRIVE-gone keeps its mover from starting, HOME/first-fails those that fail once,
whichever drive is told first. Every command is noted in HOME/fake.log as `NAME JSON`;
HOME/backup.pid tells who had the newest backup.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import cast

from tapefs.starting import import_without_rich, imports

with imports():
    import_without_rich("structlog")
    import msgspec

    from catalog.errors import CatalogError
    from catalog.ids import VolumeId
    from catalog.index.model import FrameRow
    from catalog.ledger import Ledger
    from catalog.lmdb_ledger import LmdbLedger
    from catalog.records import CopyState
    from drivers.registry import open_drive
    from tapefs.errors import Cancelled, TapefsError
    from tapefs.home import Home, open_home
    from tapefs.keys.policy import TapeKeys
    from tapefs.mover.kinds import kind_of
    from tapefs.mover.messages import (
        Backup,
        Done,
        DriveState,
        Failed,
        FinishSets,
        FrameRange,
        FramesArrived,
        FramesFailed,
        Identify,
        Load,
        LostFile,
        NeedVolume,
        NoVolume,
        Progress,
        Ready,
        Recall,
        Recommend,
        Tend,
        Trouble,
        Unload,
        Verified,
        Verify,
        VerifyProgress,
        VolumeReady,
    )
    from tapefs.mover.post import Post, SidecarGone
    from tapefs.mover.tending import identify_tape, tend_tape
    from tapefs.staging.area import StagingArea
    from tapefs.staging.stage import SegmentStage
    from tests.sidecar import seeds

TROUBLES = 120


class _Refused(Exception):
    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Fake:
    def __init__(self, home: Home, ledger: Ledger, name: str, number: int, post: Post) -> None:
        self.home, self.ledger, self.name, self.post = home, ledger, name, post
        # The real virtual drive threads and ejects, so that the changer's rules hold.
        self.drive = open_drive(home.library_config, number)
        file = home.path / "fake.json"
        self.script = json.loads(file.read_text()) if file.exists() else {}

    def run(self) -> None:
        self.post.send(Ready(drive=self.name, loaded=self.drive.status().loaded, barcode=self.drive.status().barcode))
        while True:
            command = self.post.take(Load, Unload, Backup, FinishSets, Recall, Recommend, Verify, Identify, Tend)
            self._note(command)
            try:
                answer = self._serve(command)
            except (_Refused, Cancelled) as error:
                kind = getattr(error, "kind", "cancelled")
                answer = Failed(id=command.id, kind=kind, message=str(error))
            self._tell_state()
            self.post.send(answer)

    def _note(self, command: msgspec.Struct) -> None:
        with (self.home.path / "fake.log").open("a") as log:
            log.write(f"{type(command).__name__} {msgspec.json.encode(command).decode()}\n")

    def _tell_state(self) -> None:
        status = self.drive.status()
        self.post.send(DriveState(state="loaded" if status.loaded else "empty", barcode=status.barcode))

    def _fail(self, command: msgspec.Struct) -> None:
        name = type(command).__name__
        always, once = self.home.path / f"{self.name}-fails", self.home.path / "first-fails"
        if always.exists() and name in always.read_text().split():
            raise _Refused("drive_failed", f"{self.name}: it has a hardware fault")
        if once.exists() and name in once.read_text().split():
            with suppress(FileNotFoundError):  # The other one was faster.
                once.rename(self.home.path / "first-failed")
                raise _Refused("drive_failed", f"{self.name}: it has a hardware fault")

    def _serve(
        self, command: Load | Unload | Backup | FinishSets | Recall | Recommend | Verify | Identify | Tend
    ) -> Done | Failed:
        if not isinstance(command, Backup):
            self._fail(command)
        if isinstance(command, Load):
            if self.script.get("bad_tape") == self.ledger.volume(command.volume_id).label:
                raise _Refused("wrong_tape", "the label is of another tape")
            self.drive.load()
        elif isinstance(command, Unload):
            self.drive.unload()
        elif isinstance(command, Identify | Tend):
            return self._tend(command)
        elif isinstance(command, FinishSets):
            seeds.complete_all(self.ledger, time.time_ns())
        elif isinstance(command, Recall):
            self._recall(command)
        elif isinstance(command, Recommend):
            if self.script.get("die_recommending"):
                os._exit(9)
            return Done(id=command.id, order=tuple(self.script.get("recommend", ())))
        elif isinstance(command, Verify):
            self._verify(command)
        else:
            return self._backup(command)
        return Done(id=command.id)

    def _tend(self, command: Identify | Tend) -> Done:
        """As a real one, but with `slow_s` it takes its time, and with `die_tending` it dies with the tape blank.

        HOME/slow_erase: a drive that erases makes HOME/erasing, and waits until the former is gone.
        """
        time.sleep(self.script.get("slow_s", 0))
        if self.script.get("die_tending"):
            os._exit(9)
        self.drive.load()
        if isinstance(command, Identify):
            return identify_tape(self.drive, self.ledger, command, time.time_ns())
        erase = self.drive.erase

        def erase_slowly(*, long: bool) -> None:
            (self.home.path / "erasing").touch()
            while (self.home.path / "slow_erase").exists():
                time.sleep(0.01)
            erase(long=long)

        self.drive.erase = erase_slowly  # type: ignore[method-assign]
        try:
            return tend_tape(self.drive, self.ledger, command, time.time_ns(), TapeKeys(self.home))
        except (TapefsError, CatalogError) as error:
            raise _Refused(kind_of(error), str(error)) from error

    def _recall(self, command: Recall) -> None:
        for frames in command.frames:
            if frames.segment_id in self.script.get("die", []):
                os._exit(9)
            for frame in range(frames.first, frames.last + 1):
                self.post.check_cancelled(command.id)
                time.sleep(self.script.get("slow_s", 0))
                self._fetch(frames, frame)

    def _verify(self, command: Verify) -> None:
        """HOME/slow_verify: until it is gone or the command cancelled; `damaged`: segments that are."""
        place = {"id": command.id, "segment_id": command.segment_id, "volume_id": command.volume_id}
        self.post.send(VerifyProgress(**place, payload_bytes=1))
        while (self.home.path / "slow_verify").exists():
            self.post.check_cancelled(command.id)
            time.sleep(0.01)
        if command.segment_id in self.script.get("die", []):
            os._exit(9)
        is_damaged = command.segment_id in self.script.get("damaged", [])
        if is_damaged:
            self.post.send(LostFile(**place, path=b"/srv/\xff"))
        state = CopyState.DAMAGED if is_damaged else CopyState.GOOD
        self.ledger.mark_copy(command.segment_id, command.volume_id, state, time.time_ns())
        self.post.send(Verified(**place, problems=["a frame"] * is_damaged, files=int(is_damaged)))

    def _fetch(self, frames: FrameRange, frame: int) -> None:
        segment = self.ledger.segment(frames.segment_id)
        place = {"segment_id": frames.segment_id, "first": frame, "last": frame}
        if frame in self.script.get("bad", {}).get(frames.segment_id, []):
            self.post.send(FramesFailed(**place, message=f"frame {frame} is unreadable"))
            return
        size = seeds.FRAME_BYTES
        rows = [FrameRow(n * size, size, n * size, size, bytes(16)) for n in range(segment.frames)]
        if os.path.exists(self.home.path / "full") and StagingArea(self.home.staging).used_bytes() >= 2 * size:
            raise _Refused("no_space", "no space left on device")
        stage = SegmentStage.create(self.home.staging, segment.segment_id, rows)
        stage.publish(frame, bytes([frame]) * size)
        stage.close()
        self.post.send(FramesArrived(**place))

    def _backup(self, command: Backup) -> Done:
        """`fail`: refused; `die`: the process ends; `seal`: it ends with the set SEALED; `hang`: until cancelled."""
        (self.home.path / "backup.pid").write_text(str(os.getpid()))
        job = self.ledger.job(command.job)
        if job.name == "lie":
            return Done(id=command.id)
        if job.resume and job.set_id is not None:
            backup_set = self.ledger.resume_set(job.set_id, time.time_ns())
        else:
            backup_set = seeds.begin(self.ledger, job, time.time_ns())
        self.post.send(
            Progress(
                id=command.id,
                set_id=backup_set.set_id,
                stage="write",
                files=3,
                bytes=3000,
                stored_bytes=1000,
                path="/srv/a",
                tape="",
            )
        )
        for number in range(TROUBLES):
            self.post.send(Trouble(id=command.id, path=f"/srv/{number}", reason="it vanished"))
        self._fail(command)
        if job.name == "fail":
            raise _Refused("source", "/srv is gone: mount it")
        if job.name == "die":
            os._exit(9)
        if job.name.startswith("want "):
            self._want(command, self.ledger.volume_by_label(job.name.removeprefix("want ")).volume_id)
        if job.name == "hang":
            self.post.wait_cancelled_or(command.id, VolumeReady)
        seeds.write(self.ledger, backup_set, self._volume(command), time.time_ns())
        if job.name == "seal":
            os._exit(9)
        self.ledger.complete_set(backup_set.set_id, time.time_ns())
        return Done(id=command.id, set_id=backup_set.set_id)

    def _want(self, command: Backup, volume_id: VolumeId) -> None:
        """Wait for HOME/go, eject, ask for this very tape and load it."""
        while not (self.home.path / "go").exists():
            self.post.check_cancelled(command.id)
            time.sleep(0.01)
        self.drive.unload()
        self.post.send(NeedVolume(id=command.id, pool="", exclude=[], ejected=True, volume_id=volume_id))
        answer = self.post.wait_cancelled_or(command.id, VolumeReady, NoVolume)
        if isinstance(answer, NoVolume):
            raise _Refused("no_volume", answer.reason)
        assert answer.volume_id == volume_id
        assert not self.drive.status().loaded
        self.drive.load()
        assert self.drive.status().barcode == self.ledger.volume(volume_id).label

    def _volume(self, command: Backup):  # type: ignore[no-untyped-def]
        is_loaded = self.drive.status().loaded
        self.post.send(NeedVolume(id=command.id, pool="default", exclude=[], ejected=not is_loaded))
        while True:
            answer = self.post.wait_cancelled_or(command.id, VolumeReady, NoVolume, Unload)
            self._note(answer)
            if isinstance(answer, NoVolume):
                raise _Refused("no_volume", answer.reason)
            if isinstance(answer, Unload):
                self.drive.unload()
                self.post.send(Done(id=answer.id))
                continue
            volume = self.ledger.volume(cast(VolumeReady, answer).volume_id)
            self.drive.load()
            assert self.drive.status().barcode == volume.label
            return volume.volume_id


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--drive", required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--fd", type=int, required=True)
    arguments = parser.parse_args()
    home = open_home(arguments.home)
    if (home.path / "no-drive").exists() or (home.path / f"{arguments.drive}-gone").exists():
        sys.exit("the drive is broken")
    with socket.socket(fileno=arguments.fd) as connection, LmdbLedger.open(home.ledger) as ledger:
        with suppress(SidecarGone):
            _Fake(home, ledger, arguments.drive, arguments.number, Post(connection)).run()


if __name__ == "__main__":
    main()
