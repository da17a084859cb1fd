"""The tapes of a running backup: getting one, knowing its room, leaving it with a SET INDEX. Intake thread."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from catalog.crash import crash_point
from catalog.ids import VolumeId
from catalog.records import SetTotals, VolumeState
from drivers.errors import (
    DiskFull,
    DriveError,
    EndOfMedium,
    IncompatibleMedium,
    PositionLost,
    ReadFailed,
    WriteFailed,
    WriteProtected,
)
from drivers.interface import BlockNo, Drive
from tapefs.backup.segment import CommittedSegment, SetContext
from tapefs.backup.set_index import write_set_index
from tapefs.errors import KeyUnfit, NoTape, NotNow, TapeError
from tapefs.keys.policy import Seal, TapeKeys
from tapefs.settings.backup import BackupSettings
from tapefs.tape.anew import begin_anew
from tapefs.tape.append import OpenTape, open_for_append

log = structlog.get_logger(__name__)

_before_way = crash_point("backup.give_way.before")
_after_way = crash_point("backup.give_way.after")

#: What a segment takes on tape at most for each plain byte: 1 % if nothing can be compressed, and its trailer and the
#: SET INDEX, which repeats it (about 80 bytes for a member of at least 1,536).
STORED_PER_PLAIN = 1.16
_LARGEST_SEGMENT_BYTES = 32 * 1024**3
_SEGMENTS_ON_A_TAPE = 50
_SMALLEST_SEGMENT_BYTES = 4 * 1024**2
_RESERVE_BYTES = 1024**2
#: A drive that is reset over and over has a fault that going on does not cure.
_MOST_RESETS = 3
#: Tape files on a tape that nothing but labels has been written to.
_LABEL_FILES = 2


class VolumeSource(Protocol):
    """Who puts tapes into the drive."""

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        """Wait until another tape is in the drive, not yet threaded. Raises NoTape, Cancelled.

        `pool` is one that copies go to; empty for the pool of the job.
        """
        ...

    def begins_anew(self, volume_id: VolumeId) -> bool:
        """Is this tape, which `next_volume` returned, to be relabelled first, all that it holds having expired?"""
        ...

    def this_volume(self, volume_id: VolumeId) -> None:
        """Eject the tape in the drive and wait until this one was put in, not yet threaded: to be read.

        It is put in anew even if it is the one in the drive. Raises NoTape, Cancelled, drive errors.
        """
        ...

    def give_way(self, volume_id: VolumeId) -> None:
        """Eject the tape in the drive, let others use the drive, and wait until this tape was put in again.

        Raises NoTape, Cancelled, drive errors.
        """
        ...


@dataclass(slots=True)
class TapeSession:
    """The tape at hand and those before it."""

    context: SetContext
    drive: Drive
    source: VolumeSource
    settings: BackupSettings
    #: Whose tapes; empty: those of the job's pool.
    pool: str = ""
    tape: OpenTape | None = None
    #: Bytes to the early warning when the drive was last asked, less what was handed over since.
    room_bytes: float = 0.0
    #: Plain bytes that a segment may hold because of where it is collected before it goes to tape.
    spool_bytes: int = sys.maxsize
    #: All segments of the set so far, and those that no SET INDEX repeats yet.
    segments: list[CommittedSegment] = field(default_factory=list)
    unindexed: list[CommittedSegment] = field(default_factory=list)
    #: How the original is encrypted of what is copied; None: it is as the settings say.
    wanted: Seal | None = None
    #: Tells of tapes that other copies of the set lie on, which this one must not go to.
    foreign: Callable[[], Collection[VolumeId]] = tuple
    _tried: list[VolumeId] = field(default_factory=list)
    #: By their old ids, the new ones of tapes that this run has begun anew.
    _renewed: dict[VolumeId, VolumeId] = field(default_factory=dict)
    #: Resets of the drive that came one after the other without a segment between, and where.
    _resets: int = 0
    _reset_at: tuple[VolumeId, int] | None = None

    def at_hand(self) -> OpenTape:
        """Return the tape in the drive."""
        if self.tape is None:
            raise AssertionError("no tape has been opened")
        return self.tape

    def open_next(self) -> OpenTape:
        """Get a tape and stand at its end. Tapes that cannot be used are marked SUSPECT and passed over.

        Those that only this drive cannot use are passed over as they are, and those to begin anew that still live.

        Raises NoTape, Cancelled, and drive errors that another tape would not help.
        """
        while True:
            loaded = self.drive.status().loaded
            exclude = [*self._tried, *(each for each in self.foreign() if each not in self._tried)]
            volume_id = self.source.next_volume(exclude, ejected=not loaded, pool=self.pool)
            self._tried.append(volume_id)
            try:
                return self._stand_at_end_of(volume_id)
            except DiskFull:
                raise
            except (IncompatibleMedium, KeyUnfit, NotNow) as error:
                self._pass_over(volume_id, str(error))
                continue
            except (TapeError, WriteProtected, WriteFailed, ReadFailed, EndOfMedium) as error:
                self._set_aside(volume_id, str(error))
                continue

    def give_way(self) -> OpenTape:
        """Leave the drive to others for a while, then stand at the end of the tape at hand again.

        If it cannot be had or used any more, go on with another. Nothing may be under way. Raises as `open_next`.
        """
        volume, self.tape = self.at_hand().volume, None
        log.info("the backup leaves its tape: somebody reads, or it is to pause", tape=volume.label)
        _before_way()
        try:
            self.source.give_way(volume.volume_id)
            _after_way()
            return self._stand_at_end_of(volume.volume_id)
        except DiskFull:
            raise
        except (NoTape, KeyUnfit) as error:
            log.warning("the tape does not come back after recalls, another is used", error=str(error))
        except (TapeError, WriteProtected, WriteFailed, ReadFailed, EndOfMedium) as error:
            self._set_aside(volume.volume_id, str(error))
        return self.open_next()

    def stand_again(self, trouble: PositionLost) -> OpenTape:
        """After a reset of the drive: check the tape's label, and stand where its committed data ends.

        What was not committed is lost and must be written again. A tape that cannot be used any more is left for
        another. The same segment can be lost so only a few times. Raises as `open_next`, and `trouble`.
        """
        volume, self.tape = self.at_hand().volume, None
        at = (volume.volume_id, len(self.segments))
        self._resets = self._resets + 1 if at == self._reset_at else 1
        self._reset_at = at
        if self._resets > _MOST_RESETS:
            raise trouble
        log.warning("the drive was reset, the tape is checked and gone on with", tape=volume.label, error=str(trouble))
        try:
            return self._stand_at_end_of(volume.volume_id)
        except DiskFull:
            raise
        except (TapeError, WriteProtected, WriteFailed, ReadFailed, EndOfMedium) as error:
            self._set_aside(volume.volume_id, str(error))
        return self.open_next()

    def reopen(self, volume_id: VolumeId) -> OpenTape:
        """Stand at the end of a tape again that was taken out of the drive for another. Raises as `open_next`."""
        self.source.this_volume(volume_id)
        return self._stand_at_end_of(volume_id)

    def _stand_at_end_of(self, volume_id: VolumeId) -> OpenTape:
        """Load the tape in the drive and stand at its end; once more if the drive is reset meanwhile."""
        try:
            self.tape = self._open(volume_id)
        except PositionLost as error:
            log.warning("the drive was reset, the tape is loaded again", volume=volume_id, error=str(error))
            self.tape = self._open(volume_id)
        self.look_at_room()
        return self.tape

    def _open(self, volume_id: VolumeId) -> OpenTape:
        # What is compressed already would only grow in a drive that tries again.
        self.drive.load(compress=not self.context.codec.is_compressed)
        keys = TapeKeys(self.context.home, self.wanted, self.drive)
        if self.source.begins_anew(volume_id) and volume_id not in self._renewed:
            new_id = begin_anew(self.drive, self.context.ledger, volume_id, time.time_ns(), keys)
            self._renewed[volume_id] = new_id
            self._tried.append(new_id)
        return open_for_append(self.drive, self.context.ledger, self._now(volume_id), time.time_ns(), keys)

    def _now(self, volume_id: VolumeId) -> VolumeId:
        """Return the id that a tape has since this run began it anew."""
        return self._renewed.get(volume_id, volume_id)

    def look_at_room(self) -> None:
        """Ask the drive; only while the intake thread owns it."""
        waiting = sum(segment.trailer_bytes for segment in self.unindexed)
        self.room_bytes = self.drive.status().remaining_bytes - 1.1 * waiting - _RESERVE_BYTES

    def full_segment_bytes(self) -> int:
        """Plain bytes of a segment where there is plenty of room."""
        capacity_bytes = self.at_hand().volume.capacity_bytes
        if self.settings.segment_bytes:
            return min(self.settings.segment_bytes, capacity_bytes // 3, self.spool_bytes)
        share = capacity_bytes // _SEGMENTS_ON_A_TAPE
        return min(max(_SMALLEST_SEGMENT_BYTES, min(_LARGEST_SEGMENT_BYTES, share)), self.spool_bytes)

    def room_for_segment(self) -> int:
        """Plain bytes that the next segment may hold by what is known now; 0 when another tape is better."""
        room = int(self.room_bytes / STORED_PER_PLAIN)
        full = self.full_segment_bytes()
        return min(room, full) if room >= full // 4 else 0

    def require_more_than_labels(self) -> None:
        """Raise NoTape when the tape at hand holds nothing and yet lacks the room: others of its size would as well."""
        tape = self.at_hand()
        if tape.end.file <= _LABEL_FILES:
            raise NoTape(
                f"tape {tape.volume.label} is empty, but its {tape.volume.capacity_bytes} bytes are too few for a "
                "segment with its trailer and index: add larger tapes"
            )

    def leave(self, totals: SetTotals, trouble: BaseException | None) -> None:
        """Be done with the tape at hand: SET INDEX, FULL (or SUSPECT after a failed write), eject."""
        tape, self.tape = self.at_hand(), None
        ledger, volume_id = self.context.ledger, tape.volume.volume_id
        if isinstance(trouble, WriteFailed):
            self._set_aside(volume_id, str(trouble))
            return
        try:
            if trouble is not None:
                # The lost segment began where the committed data ends; the index takes its place.
                self.drive.locate(BlockNo(tape.end.block))
            if self.unindexed:
                write_set_index(self.context, self.drive, tape, self.segments, self.unindexed, totals, final=False)
                self.unindexed.clear()
        except DiskFull:
            raise
        except (EndOfMedium, WriteFailed, PositionLost) as error:
            log.warning("no set index at the end of the tape", tape=tape.volume.label, error=str(error))
        ledger.mark_volume(volume_id, VolumeState.FULL)
        self.drive.unload()

    def _pass_over(self, volume_id: VolumeId, reason: str) -> None:
        log.warning("tape passed over", volume=volume_id, reason=reason)
        self.drive.unload()

    def _set_aside(self, volume_id: VolumeId, reason: str) -> None:
        log.warning("tape set aside", volume=volume_id, reason=reason)
        self.context.ledger.mark_volume(self._now(volume_id), VolumeState.SUSPECT, reason)
        try:
            self.drive.unload()
        except DriveError as error:
            log.warning("the tape set aside does not come out", error=str(error))
            raise
