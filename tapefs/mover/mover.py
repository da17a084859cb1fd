"""The mover's main loop: one command after the other on one drive. Everything here runs in the main thread."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import TypeVar, cast

import structlog

from catalog.errors import NotFound
from catalog.ids import FrameNo, SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from drivers.errors import DeviceGone, DriveError, NotReady
from drivers.interface import Drive, DriveStatus, RecommendsOrder, TellsProgress
from tapefs.along.second import copy_along
from tapefs.backup.run import run_backup
from tapefs.backup.segment import SetContext
from tapefs.codecs import codec
from tapefs.errors import NotNow
from tapefs.home import Home
from tapefs.keys.driving import can_encrypt, take_key_at_last
from tapefs.keys.policy import TapeKeys
from tapefs.mover.backup import PostWatcher
from tapefs.mover.drive_file import write_drive_file
from tapefs.mover.history import RecordingDrive
from tapefs.mover.importing import import_taf
from tapefs.mover.inflow import PostInflow
from tapefs.mover.kinds import kind_of
from tapefs.mover.lengthy import LengthyWork
from tapefs.mover.messages import (
    Backup,
    Clean,
    CopyAlong,
    Done,
    DriveState,
    Failed,
    FinishSets,
    FramesArrived,
    FramesFailed,
    Identify,
    ImportTaf,
    Load,
    Look,
    Ready,
    Recall,
    Reclaim,
    ReclaimedTape,
    Recommend,
    SeenTape,
    Tend,
    Unload,
    Verified,
    Verify,
)
from tapefs.mover.post import Post, SidecarGone
from tapefs.mover.tending import identify_tape, tend_tape
from tapefs.mover.verifying import PostVerifyWatcher
from tapefs.recall.locates import LocateLog, learn
from tapefs.recall.stager import Loss, Stager
from tapefs.reclaim.run import reclaim_tape
from tapefs.sets.finish import finish_all
from tapefs.standing_back import coming_forward
from tapefs.tape.again import or_once_more
from tapefs.tape.label import check_label, name_for_people
from tapefs.verify.copy import verify_copy

Work = (
    Load
    | Unload
    | Look
    | Backup
    | CopyAlong
    | FinishSets
    | Recall
    | Recommend
    | Verify
    | Identify
    | Tend
    | Reclaim
    | ImportTaf
    | Clean
)

#: What a tape is used for, by the command, as its history has it.
_PURPOSES: dict[type, str] = {
    Backup: "backup",
    CopyAlong: "copy",
    Recall: "recall",
    Verify: "verify",
    Identify: "identify",
    Reclaim: "reclaim",
    ImportTaf: "import",
}

T = TypeVar("T")

log = structlog.get_logger(__name__)

#: While it reads on, the mover stops when the staging folder has less than this left on its disk.
_LEAST_FREE_BYTES = 256 * 1024**2


class Mover:
    """One drive and the socket to the sidecar."""

    def __init__(self, home: Home, ledger: Ledger, drive: Drive, name: str, post: Post) -> None:
        self._home = home
        self._ledger = ledger
        #: The drive as it is, for what drives can besides; all else goes through the one that records.
        self._inside = drive
        self._drive = RecordingDrive(drive, name, ledger)
        self._name = name
        self._post = post
        self._stager: Stager | None = None
        #: Purpose of the newest backup or copy: between its tapes the drive may recall.
        self._writing = ""
        #: It can be given keys; asked once, because that is a matter of the drive.
        self._encrypts = False
        self._lengthy = LengthyWork(self._say)
        if isinstance(drive, TellsProgress):
            drive.watch(self._lengthy.hear)
        self._work: dict[type, Callable[..., Done]] = {
            Load: self._load,
            Unload: self._unload,
            Look: self._look,
            Backup: self._backup,
            CopyAlong: self._copy_along,
            FinishSets: self._finish_sets,
            Recall: self._recall,
            Recommend: self._recommend,
            Verify: self._verify,
            Identify: self._identify,
            Tend: self._tend,
            Reclaim: self._reclaim,
            ImportTaf: self._import_taf,
            Clean: self._clean,
        }

    def run(self) -> None:
        """Serve until the sidecar is gone. Raises DeviceGone when the drive is: then it is opened anew, or fails to be.

        So a drive that cannot be reached takes no more work, until it can.
        """
        status = self._drive.status()
        self._drive.ask()
        self._encrypts = self._may_be_given_keys()
        try:
            self._post.send(
                Ready(
                    drive=self._name,
                    loaded=status.loaded,
                    barcode=status.barcode,
                    generation=status.generation,
                    wants_cleaning=self._drive.wants_cleaning,
                    must_be_cleaned=self._drive.must_be_cleaned,
                )
            )
            self._tell_rest()
            while True:
                self._serve(cast(Work, self._post.take(*self._work)))
        except SidecarGone:
            log.info("the sidecar is gone, the mover ends", drive=self._name)
        finally:
            self._forget_stager()
            self._drive.note()

    def _take_key(self) -> None:
        """Keys do not stay in a drive that rests; between recalls that wait already it would only stop the tape."""
        if self._stager is None:
            take_key_at_last(self._drive)
        elif self._post.is_idle():
            try:
                self._stager.rest()
            except DriveError as error:
                log.warning("the key may still be in the drive", drive=self._name, error=str(error))

    def _may_be_given_keys(self) -> bool:
        try:
            return can_encrypt(self._drive)
        except DeviceGone:
            raise
        except DriveError as error:
            log.warning("the drive does not tell whether it encrypts", drive=self._name, error=str(error))
            return False

    def _serve(self, command: Work) -> None:
        purpose = command.task if isinstance(command, Tend) else _PURPOSES.get(type(command), "")
        if purpose:
            self._drive.is_used_for(purpose)
        if isinstance(command, Backup | CopyAlong | Reclaim):
            self._writing = purpose
        is_long = isinstance(command, Backup | CopyAlong | Reclaim | Verify)
        try:
            done = self._work[type(command)](command)
        except SidecarGone:
            raise
        except Exception as error:  # the process boundary: the sidecar decides what comes next
            kind = kind_of(error)
            if kind == "internal":
                log.exception("a command failed unexpectedly", command=type(command).__name__)
            self._forget_stager()
            take_key_at_last(self._drive)
            gone = self._tell_rest()
            self._post.send(Failed(id=command.id, kind=kind, message=str(error) or type(error).__name__))
            if gone is not None:
                raise gone from error
            return
        self._take_key()
        if is_long:
            self._drive.look()
        self._tell_rest()
        self._post.send(done)

    # -- commands ----------------------------------------------------------------------------------------------------

    def _load(self, command: Load) -> Done:
        self._forget_stager()
        volume = self._ledger.volume(command.volume_id)
        self._tell("locating")
        self._lengthy.expect(volume.label)
        self._drive.expect(volume.code)
        self._drive.is_used_for("")
        self._drive.load()
        check_label(self._drive, volume)
        return Done(id=command.id)

    def _unload(self, command: Unload) -> Done:
        self._forget_stager()
        generation = self._drive.status().medium_generation
        self._drive.unload()
        if generation is not None:
            self._learn(generation)
        return Done(id=command.id)

    def _learn(self, generation: int) -> None:
        """Learn from the locates of the tape that has gone; for better plans, so that nothing fails for it."""
        try:
            learned = learn(self._home.drives, self._name, generation)
        except OSError as error:
            log.warning("nothing could be learnt from the locates", drive=self._name, error=str(error))
            return
        if learned is not None:
            log.info("motion learnt", drive=self._name, used=learned.used, error_s=round(learned.error_s, 2))

    def _look(self, command: Look) -> Done:
        status = self._drive.status()
        seen = SeenTape(status.loaded or status.barcode is not None, status.loaded, status.barcode)
        if command.volume_id is None:
            return Done(id=command.id, seen=seen)
        self._forget_stager()
        volume = self._ledger.volume(command.volume_id)
        self._drive.expect("")
        try:
            self._drive.load()
        except NotReady:
            return Done(id=command.id, seen=SeenTape(full=False, threaded=False, name=None))
        name = name_for_people(self._drive, self._ledger, volume)
        return Done(id=command.id, seen=SeenTape(full=True, threaded=True, name=name))

    def _backup(self, command: Backup) -> Done:
        self._forget_stager()
        job = self._ledger.job(command.job)
        pool = job.pool or self._home.settings.backup.pool
        watcher = PostWatcher(self._post, self._drive, command.id, pool, self._serve_meanwhile, self._expect)
        self._tell("writing")
        inflow = None if command.stream is None else PostInflow(self._post, command.id, command.stream)
        set_id = run_backup(self._home, self._ledger, self._drive, job, watcher, inflow)
        return Done(id=command.id, set_id=set_id)

    def _copy_along(self, command: CopyAlong) -> Done:
        self._forget_stager()
        home, backup_set = self._home, self._ledger.backup_set(command.task.set_id)
        pool = command.task.pool or backup_set.pool or home.settings.backup.pool
        watcher = PostWatcher(self._post, self._drive, command.id, pool, self._serve_meanwhile, self._expect)
        the_codec = codec(backup_set.codec, home.settings.backup.gzip_engine)
        self._tell("writing")
        context = SetContext(home, self._ledger, backup_set, socket.gethostname(), the_codec)
        copy_along(context, self._drive, watcher, command.task)
        return Done(id=command.id)

    def _expect(self, volume_id: VolumeId) -> None:
        """The backup is about to load that tape."""
        self._drive.expect(self._ledger.volume(volume_id).code)
        self._drive.is_used_for(self._writing)

    def _serve_meanwhile(self, command: Load | Look | Recall | Recommend | Unload) -> None:
        """Do something for others while a backup has left its drive; the drive is as free as between two commands."""
        with coming_forward():
            self._serve(command)

    def _finish_sets(self, command: FinishSets) -> Done:
        finish_all(self._home, self._ledger, time.time_ns())
        return Done(id=command.id)

    def _recall(self, command: Recall) -> Done:
        self._tell("reading")
        volume = self._ledger.volume(command.volume_id)
        or_once_more(self._drive, volume, lambda: self._fetch(command), self._forget_stager)
        return Done(id=command.id)

    def _fetch(self, command: Recall) -> None:
        if self._stager is None:
            announcer = _Announcer(self._post)
            locates = LocateLog(self._home.drives, self._name, self._drive)
            self._stager = Stager(
                self._home, self._ledger, self._drive, command.volume_id, announcer, locates, self._may_be_to_blame
            )
        for wish in command.frames:
            self._post.check_cancelled(command.id)
            self._stager.fetch(wish.segment_id, wish.first, wish.last)
        self._stager.read_on(self._may_read_on, command.read_on_bytes)

    def _may_be_to_blame(self) -> bool:
        """Does the drive ask to be cleaned? What it cannot read then, another may read well."""
        self._drive.look()
        return self._drive.wants_cleaning or self._drive.must_be_cleaned

    def _recommend(self, command: Recommend) -> Done:
        """Ask the drive for its order; a better order is worth no failure, so that an error is only noted."""
        if not isinstance(self._inside, RecommendsOrder):
            return Done(id=command.id)
        try:
            order = self._inside.recommended_order(command.extents)
        except DriveError as error:
            log.warning("the drive recommends no order", drive=self._name, error=str(error))
            # Where the head stands now is the drive's to say.
            self._forget_stager()
            return Done(id=command.id)
        return Done(id=command.id, order=tuple(order or ()))

    def _verify(self, command: Verify) -> Done:
        self._forget_stager()
        self._tell("reading")
        copies = self._ledger.copies(command.segment_id)
        copy = next((copy for copy in copies if copy.volume_id == command.volume_id), None)
        if copy is None:
            raise NotFound(f"segment {command.segment_id} is not on this tape")
        watcher = PostVerifyWatcher(self._post, command.id)
        finding = or_once_more(
            self._drive,
            self._ledger.volume(command.volume_id),
            lambda: verify_copy(self._home, self._ledger, self._drive, copy, watcher),
        )
        self._post.send(
            Verified(
                id=command.id,
                segment_id=copy.segment_id,
                volume_id=copy.volume_id,
                problems=finding.problems,
                files=finding.files,
            )
        )
        return Done(id=command.id)

    def _identify(self, command: Identify) -> Done:
        self._forget_stager()
        self._tell("reading")
        self._drive.expect(self._ledger.volume(command.volume_id).code)
        return identify_tape(self._drive, self._ledger, command, time.time_ns())

    def _tend(self, command: Tend) -> Done:
        self._forget_stager()
        self._tell("writing")
        self._drive.expect(self._ledger.volume(command.volume_id).code)
        return tend_tape(self._drive, self._ledger, command, time.time_ns(), TapeKeys(self._home, drive=self._drive))

    def _reclaim(self, command: Reclaim) -> Done:
        self._forget_stager()
        pool = self._ledger.volume(command.volume_id).pool

        def watcher_of(set_id: SetId) -> PostWatcher:
            watcher = watchers.get(set_id)
            if watcher is None:
                watcher = PostWatcher(
                    self._post, self._drive, command.id, pool, self._serve_meanwhile, self._expect, set_id
                )
                watchers[set_id] = watcher
            return watcher

        watchers: dict[SetId, PostWatcher] = {}
        self._tell("writing")
        done = reclaim_tape(self._home, self._ledger, self._drive, command.volume_id, watcher_of)
        return Done(id=command.id, reclaimed=ReclaimedTape(done.sets, done.segments, done.payload_bytes))

    def _import_taf(self, command: ImportTaf) -> Done:
        self._forget_stager()
        self._tell("reading")
        self._drive.expect(self._ledger.volume(command.volume_id).code)
        return import_taf(self._home, self._ledger, self._drive, self._post, command)

    def _clean(self, command: Clean) -> Done:
        self._forget_stager()
        self._tell("cleaning")
        try:
            self._drive.clean(command.code)
        except NotReady as error:
            # Nothing has come of it; that is no fault of the drive.
            raise NotNow(str(error)) from error
        return Done(id=command.id)

    def _may_read_on(self) -> bool:
        return self._post.is_idle() and _free_bytes(self._home) > _LEAST_FREE_BYTES

    # -- states ------------------------------------------------------------------------------------------------------

    def _forget_stager(self) -> None:
        if self._stager is not None:
            self._stager.close()
            self._stager = None
            take_key_at_last(self._drive)

    def _tell_rest(self) -> DeviceGone | None:
        """Tell the state between two commands; return that the drive cannot be reached any more, if that is so."""
        try:
            self._tell("loaded" if self._drive.status().loaded else "empty")
        except DriveError as error:
            log.error("the drive does not answer", drive=self._name, error=str(error))
            self._post.send(DriveState(state="failed", barcode=None))
            return error if isinstance(error, DeviceGone) else None
        return None

    def _tell(self, state: str) -> None:
        status = self._drive.status()
        self._lengthy.told(state, status)
        self._say(state, status)

    def _say(self, state: str, status: DriveStatus, note: str = "") -> None:
        wanted = self._drive.wants_cleaning
        try:
            write_drive_file(
                self._home.drives, self._name, state, status, note, wants_cleaning=wanted, encrypts=self._encrypts
            )
        except OSError as error:
            # It is for people to look at: a full disk must not end the mover, whose answer says what failed.
            log.warning("the drive's state is not in its file", drive=self._name, error=str(error))
        self._post.send(
            DriveState(
                state=state,
                barcode=status.barcode,
                note=note,
                wants_cleaning=wanted,
                must_be_cleaned=self._drive.must_be_cleaned,
            )
        )


class _Announcer:
    """Implements `tapefs.recall.stager.Listener` over the socket."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def arrived(self, segment_id: SegmentId, first: FrameNo, last: FrameNo) -> None:
        self._post.send(FramesArrived(segment_id=segment_id, first=first, last=last))

    def failed(self, segment_id: SegmentId, first: FrameNo, last: FrameNo, message: str, error: Loss) -> None:
        self._post.send(FramesFailed(segment_id=segment_id, first=first, last=last, message=message, error=error.value))


def _free_bytes(home: Home) -> int:
    status = os.statvfs(home.staging)
    return status.f_bavail * status.f_frsize
