"""A backup's way to the sidecar: progress, troubles, and tapes. Main thread of the mover."""

from __future__ import annotations

import os
from collections.abc import Callable

from catalog.ids import SetId, VolumeId
from drivers.interface import Drive
from tapefs.along.companions import CopyOffer
from tapefs.backup.watcher import BackupProgress
from tapefs.errors import NoTape
from tapefs.mover.messages import (
    CopiesComing,
    CopiesOffered,
    Done,
    Load,
    Look,
    NeedVolume,
    NoVolume,
    Progress,
    Recall,
    Recommend,
    Trouble,
    Unload,
    VolumeReady,
)
from tapefs.mover.post import Post


class PostWatcher:
    """Implements `tapefs.backup.watcher.Watcher` over the socket."""

    def __init__(
        self,
        post: Post,
        drive: Drive,
        command_id: int,
        pool: str,
        serve: Callable[[Load | Look | Recall | Recommend | Unload], None],
        expect: Callable[[VolumeId], None],
        set_id: SetId | None = None,
    ) -> None:
        """`serve` does and answers what comes while the backup has given way; `expect` hears which tape it loads.

        `set_id`: the set that is copied, where no job runs.
        """
        self._serve = serve
        self._expect = expect
        self._set_id = set_id
        self._post = post
        self._drive = drive
        self._id = command_id
        self._pool = pool
        #: Of the tapes that were offered, those to be begun anew.
        self._anew: set[VolumeId] = set()

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        """Ask for a tape; while waiting, eject when told to. Raises NoTape, Cancelled, drive errors."""
        return self._ask(
            NeedVolume(
                id=self._id, pool=pool or self._pool, exclude=list(exclude), ejected=ejected, set_id=self._set_id
            )
        )

    def begins_anew(self, volume_id: VolumeId) -> bool:
        """Did the sidecar say so?"""
        return volume_id in self._anew

    def this_volume(self, volume_id: VolumeId) -> None:
        """Eject, and ask for this very tape. Raises NoTape, Cancelled, drive errors."""
        self._drive.unload()
        found = self._ask(NeedVolume(id=self._id, pool=self._pool, exclude=[], ejected=True, volume_id=volume_id))
        if found != volume_id:
            raise AssertionError(f"the sidecar put in {found}, not {volume_id}")

    def is_drive_wanted(self) -> bool:
        """Does the sidecar want the drive for recalls?"""
        return self._post.is_to_give_way(self._id)

    def give_way(self, volume_id: VolumeId) -> None:
        """Eject, do what recalls the sidecar has, and take this tape back. Raises NoTape, Cancelled, drive errors."""
        self._post.gives_way(self._id)
        self._drive.unload()
        need = NeedVolume(id=self._id, pool=self._pool, exclude=[], ejected=True, volume_id=volume_id, gave_way=True)
        self._post.send(need)
        while True:
            answer = self._post.wait_cancelled_or(
                self._id, VolumeReady, NoVolume, Load, Look, Recall, Recommend, Unload
            )
            if isinstance(answer, VolumeReady):
                self._expect(answer.volume_id)
                return
            if isinstance(answer, NoVolume):
                raise NoTape(answer.reason)
            if isinstance(answer, Load | Look | Recall | Recommend | Unload):
                self._serve(answer)

    def _ask(self, need: NeedVolume) -> VolumeId:
        self._post.send(need)
        while True:
            answer = self._post.wait_cancelled_or(self._id, VolumeReady, NoVolume, Look, Unload)
            if isinstance(answer, VolumeReady):
                if answer.anew:
                    self._anew.add(answer.volume_id)
                self._expect(answer.volume_id)
                return answer.volume_id
            if isinstance(answer, NoVolume):
                raise NoTape(answer.reason)
            if isinstance(answer, Look):
                self._serve(answer)
            elif isinstance(answer, Unload):
                self._drive.unload()
                self._post.send(Done(id=answer.id))

    def offer_copies(self, offer: CopyOffer) -> None:
        """Pass it on."""
        self._post.send(CopiesOffered(id=self._id, set_id=offer.set_id, address=offer.address, pools=list(offer.pools)))

    def copies_coming(self) -> int:
        """Wait for the sidecar's word. Raises Cancelled, SidecarGone."""
        while True:
            answer = self._post.wait_cancelled_or(self._id, CopiesComing)
            if answer.target == self._id:  # Else a run did not wait that has failed.
                return answer.count

    def progress(self, progress: BackupProgress) -> None:
        """Pass it on."""
        self._post.send(
            Progress(
                id=self._id,
                set_id=progress.set_id,
                stage=progress.stage,
                files=progress.files,
                bytes=progress.bytes,
                stored_bytes=progress.stored_bytes,
                verified_bytes=progress.verified_bytes,
                path=_shown(progress.path),
                tape=progress.tape,
            )
        )

    def trouble(self, path: bytes, reason: str) -> None:
        """Pass it on."""
        self._post.send(Trouble(id=self._id, path=_shown(path), reason=reason))

    def check_cancelled(self) -> None:
        """Raise Cancelled or SidecarGone."""
        self._post.check_cancelled(self._id)


def _shown(path: bytes) -> str:
    """Return a path as text that any encoder takes; what is not UTF-8 is escaped."""
    return os.fsdecode(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
