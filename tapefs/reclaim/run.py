"""All live sets of one tape are copied to others of its pool, read back there, and leave it. Mover's main thread.

As many payloads as the disk takes are read in one go, of whatever sets; then they are written, then the new tape is put
in anew and read back, and only then the ledger forgets where they lay before. So the tapes are changed three times for
each filling of the disk, with one drive, and whatever interrupts it leaves every set with at least the copies it had.
The same again goes on with what is left.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import structlog

from catalog.crash import crash_point
from catalog.errors import Conflict
from catalog.ids import SegmentId, SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, IndexCopy, Segment, SegmentCopy, SetState, VolumeState
from drivers.errors import ReadFailed
from drivers.interface import BlockNo, Drive
from tapefs.backup.copying import copy_off
from tapefs.backup.payloads_on_disk import Spooled, has_room, read_payload
from tapefs.backup.segment import SetContext
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.codecs import codec
from tapefs.errors import BadStructure, KeyMissing, NotNow, TapeError
from tapefs.home import Home
from tapefs.keys.driving import give_key
from tapefs.keys.reading import open_file
from tapefs.rebuild.trailers import IndexReading
from tapefs.reclaim.candidates import named, not_onto, places_of, require_movable
from tapefs.retention.living import called
from tapefs.retention.pools import Pools
from tapefs.tape.again import load_known, or_once_more
from tapefs.tape.blocks import BlockReader
from tapefs.verify.copy import verify_copy

log = structlog.get_logger(__name__)

_begun = crash_point("reclaim.begin.after")
_after_verify = crash_point("reclaim.verify.after")
_after_leave = crash_point("reclaim.leave.after")

#: Runs of tapes that a set is tried on.
_ATTEMPTS = 3
_PROGRESS_EVERY_S = 0.25

WatcherOf = Callable[[SetId], Watcher]


@dataclass(slots=True)
class Reclaimed:
    """What became of the sets of a tape."""

    sets: int = 0
    segments: int = 0
    payload_bytes: int = 0
    #: By set: why it is still there.
    kept: dict[SetId, str] = field(default_factory=dict)


def reclaim_tape(home: Home, ledger: Ledger, drive: Drive, volume_id: VolumeId, watcher_of: WatcherOf) -> Reclaimed:
    """Have all that lives on a tape on others, and nothing on it.

    `watcher_of` gives who puts tapes in for a set: which one may depend on the set's job. Raises NotNow when the tape
    may not be reclaimed, or something stays on it; NoTape, Cancelled, StorageFailed when the disk has no room, drive
    and catalog errors. What was moved stays moved.
    """
    volume = ledger.volume(volume_id)
    require_movable(ledger, volume)
    if volume.state is VolumeState.APPENDABLE:
        # Else a job would go on with it.
        ledger.mark_volume(volume_id, VolumeState.FULL)
    _begun()
    run = _Run(home, ledger, drive, volume_id, watcher_of)
    try:
        run.work()
    finally:
        run.close()
    staying = [each for each in ledger.live_sets(volume_id) if each.set_id not in run.done.kept]
    reasons = list(run.done.kept.values())
    if staying:
        reasons.append(named(staying))
    if reasons:
        counts = f"{run.done.sets} sets left tape {volume.label}, {len(run.done.kept) + len(staying)} stay"
        raise NotNow(f"{counts}: {'; '.join(reasons)}")
    log.info("tape reclaimed", tape=volume.label, sets=run.done.sets, bytes=run.done.payload_bytes)
    return run.done


class _Run:
    """The reclaiming of one tape."""

    def __init__(self, home: Home, ledger: Ledger, drive: Drive, volume_id: VolumeId, watcher_of: WatcherOf) -> None:
        self._home = home
        self._ledger = ledger
        self._drive = drive
        self._volume_id = volume_id
        self._label = ledger.volume(volume_id).label
        self._watcher_of = watcher_of
        self._shelf: dict[SegmentId, Spooled] = {}
        self._attempts: dict[SetId, int] = {}
        #: Bytes read and written, told as progress.
        self._moved_bytes = 0
        self._told_at_s = 0.0
        self.done = Reclaimed()

    def work(self) -> None:
        """Move set after set until none is left that can be moved."""
        while left := self._left():
            batch = self._fill_shelf(left)
            copied = [each for each in batch if self._copy(each)]
            self.close()
            self._read_back(copied)
            _after_verify()
            for each in copied:
                self._have_leave(each)

    def close(self) -> None:
        """Give the disk its room back."""
        while self._shelf:
            self._shelf.popitem()[1].file.close()

    def _left(self) -> list[BackupSet]:
        live = self._ledger.live_sets(self._volume_id)
        return [each for each in live if each.state is SetState.COMPLETE and each.set_id not in self.done.kept]

    # -- from the tape to disk ---------------------------------------------------------------------------------------

    def _fill_shelf(self, left: Sequence[BackupSet]) -> list[BackupSet]:
        """Read as much as the disk takes; return the sets of which all is there, or else the first.

        What cannot be read is left to the copying, which knows of other copies.
        """
        wanted = self._in_tape_order(left)
        if wanted:
            self._put_in(left[0])
        for segment, copy in wanted:
            if not has_room(self._home, segment):
                break
            watcher = self._watcher_of(segment.set_id)
            if self._shelf and watcher.is_drive_wanted():
                break
            try:
                self._read(segment, copy, watcher)
            except (BadStructure, ReadFailed) as error:
                log.warning("what is to be copied cannot be read", tape=self._label, error=str(error))
        there = [each for each in left if all(place.segment_id in self._shelf for place in self._lacking(each))]
        return there or list(left[:1])

    def _in_tape_order(self, left: Sequence[BackupSet]) -> list[tuple[Segment, SegmentCopy]]:
        places = [copy for each in left for copy in self._lacking(each) if copy.state is CopyState.GOOD]
        places.sort(key=lambda copy: copy.header_block)
        return [(self._ledger.segment(copy.segment_id), copy) for copy in places]

    def _lacking(self, backup_set: BackupSet) -> list[SegmentCopy]:
        """Return what of the set lies on the tape and was not copied off it yet."""
        places = places_of(self._ledger, backup_set, self._volume_id)
        return [place for place in places if not any(map(_is_good, self._replacing(place.segment_id)))]

    def _replacing(self, segment_id: SegmentId) -> list[SegmentCopy]:
        """Return the copies that may take the place of the one on the tape."""
        copies = (copy for copy in self._ledger.copies(segment_id) if copy.replaces == self._volume_id)
        return [copy for copy in copies if self._ledger.volume(copy.volume_id).state is not VolumeState.SUSPECT]

    def _put_in(self, backup_set: BackupSet) -> None:
        self._watcher_of(backup_set.set_id).this_volume(self._volume_id)
        volume = self._ledger.volume(self._volume_id)
        or_once_more(self._drive, volume, partial(load_known, self._drive, volume))
        give_key(self._home, self._drive, volume)
        if self._drive.status().worm:
            raise NotNow(f"tape {self._label} is not reclaimed: the drive finds that it is WORM")

    def _read(self, segment: Segment, copy: SegmentCopy, watcher: Watcher) -> None:
        look = partial(self._look_around, self._ledger.backup_set(segment.set_id), watcher, "copy", self._label)
        read = partial(read_payload, self._home, self._drive, segment, copy, look)
        volume = self._ledger.volume(self._volume_id)
        self._shelf[segment.segment_id] = or_once_more(self._drive, volume, read)
        self._moved_bytes += segment.stored_bytes

    # -- from disk to other tapes ------------------------------------------------------------------------------------

    def _copy(self, backup_set: BackupSet) -> bool:
        """Have copies that take the place of those on the tape; False when that cannot be."""
        the_codec = codec(backup_set.codec, self._home.settings.backup.gzip_engine)
        now = self._ledger.backup_set(backup_set.set_id)
        context = SetContext(self._home, self._ledger, now, socket.gethostname(), the_codec)
        pool = Pools.of(self._home, self._ledger).get(self._ledger.volume(self._volume_id).pool)
        exclude = not_onto(self._ledger, pool, self._ledger.volume(self._volume_id))
        with self._keeps(backup_set):
            watcher = self._watcher_of(backup_set.set_id)
            copy_off(context, self._drive, watcher, self._volume_id, exclude, self._shelf)
            return True
        return False

    @contextmanager
    def _keeps(self, backup_set: BackupSet) -> Iterator[None]:
        """What is wrong with one set keeps that one on the tape, and no other."""
        set_id = backup_set.set_id
        try:
            yield
        except (BadStructure, TapeError, ReadFailed, Conflict, OSError) as error:
            if self._ledger.backup_set(set_id).state is SetState.EXPIRED:
                # Its trailers are gone, and nobody wants them.
                log.info("the set has expired meanwhile", set=set_id)
                return
            if isinstance(error, OSError):
                raise
            log.warning("a set stays on its tape", set=set_id, tape=self._label, error=str(error))
            self.done.kept[set_id] = f"{called(backup_set)}: {error}"

    # -- and read back -----------------------------------------------------------------------------------------------

    def _read_back(self, copied: Sequence[BackupSet]) -> None:
        """Read what was written back from tapes that were put in anew, each once."""
        tapes: dict[VolumeId, list[tuple[BackupSet, SegmentCopy]]] = {}
        indexes: dict[VolumeId, list[IndexCopy]] = {}
        for each in copied:
            for place in places_of(self._ledger, each, self._volume_id):
                for copy in self._replacing(place.segment_id):
                    if _is_good(copy) and not copy.verified_at_ns:
                        tapes.setdefault(copy.volume_id, []).append((each, copy))
            for index in self._ledger.index_copies(each.set_id):
                if index.replaces == self._volume_id:
                    tapes.setdefault(index.volume_id, [])
                    indexes.setdefault(index.volume_id, []).append(index)
        for volume_id, places in tapes.items():
            self._read_back_tape(volume_id, places, indexes.get(volume_id, []), copied)

    def _read_back_tape(
        self,
        volume_id: VolumeId,
        places: list[tuple[BackupSet, SegmentCopy]],
        indexes: list[IndexCopy],
        copied: Sequence[BackupSet],
    ) -> None:
        volume = self._ledger.volume(volume_id)
        self._watcher_of(copied[0].set_id).this_volume(volume_id)
        or_once_more(self._drive, volume, partial(load_known, self._drive, volume))
        give_key(self._home, self._drive, volume)
        for each, copy in sorted(places, key=lambda place: place[1].header_block):
            follower = _Follower(
                partial(self._look_around, each, self._watcher_of(each.set_id), "verify", volume.label)
            )
            work = partial(verify_copy, self._home, self._ledger, self._drive, copy, follower)
            or_once_more(self._drive, volume, work)
            self._moved_bytes += self._ledger.segment(copy.segment_id).stored_bytes
        of_set = {each.set_id: each for each in copied}
        for index in sorted(indexes, key=lambda index: index.block):
            with self._keeps(of_set[index.set_id]):
                or_once_more(self._drive, volume, partial(self._read_index, index, volume.block_size))

    def _read_index(self, index: IndexCopy, block_size: int) -> None:
        """Raises BadStructure when it is not a whole SET INDEX, drive errors."""
        self._drive.locate(BlockNo(index.block))
        reading = IndexReading(self._home, takes_trailers=False)
        try:
            reading.read(open_file(self._home, BlockReader(self._drive, block_size).rest_of_file()))
        except KeyMissing as error:
            log.info("the index cannot be read back without its key", index=index.index_id, reason=str(error))
            return
        if reading.head is None or reading.head.index != index.index_id:
            raise BadStructure(f"its new index at tape file {index.file} is not what was written")

    def _have_leave(self, backup_set: BackupSet) -> None:
        """Have the ledger forget what the set has on the tape, if all of it was found good elsewhere."""
        set_id = backup_set.set_id
        if set_id in self.done.kept or self._ledger.backup_set(set_id).state is not SetState.COMPLETE:
            return
        places = places_of(self._ledger, backup_set, self._volume_id)
        if self._lacking(backup_set):
            attempts = self._attempts[set_id] = self._attempts.get(set_id, 0) + 1
            if attempts >= _ATTEMPTS:
                self.done.kept[set_id] = (
                    f"{called(backup_set)}: its new copy was damaged {attempts} times, clean the drive"
                )
            return
        with self._keeps(backup_set):
            self._ledger.leave_volume(set_id, self._volume_id, time.time_ns())
            self.done.sets += 1
            self.done.segments += len(places)
            self.done.payload_bytes += sum(self._ledger.segment(each.segment_id).stored_bytes for each in places)
        _after_leave()

    # -- on the way --------------------------------------------------------------------------------------------------

    def _look_around(self, backup_set: BackupSet, watcher: Watcher, stage: str, tape: str) -> None:
        watcher.check_cancelled()
        now_s = time.monotonic()
        if now_s - self._told_at_s < _PROGRESS_EVERY_S:
            return
        self._told_at_s = now_s
        watcher.progress(
            BackupProgress(
                set_id=backup_set.set_id,
                stage=stage,
                tape=tape,
                path=b"",
                files=backup_set.files,
                bytes=backup_set.bytes,
                stored_bytes=self._moved_bytes,
            )
        )


class _Follower:
    """Implements `tapefs.verify.copy.VerifyWatcher`."""

    def __init__(self, look_around: Callable[[], None]) -> None:
        self._look_around = look_around

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None:
        """Told for every frame."""
        self._look_around()

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None:
        """Nothing is lost: the copy it was made from is there."""
        log.warning("a new copy is damaged", volume=copy.volume_id, segment=copy.segment_id)

    def check_cancelled(self) -> None:
        """Pass it on."""
        self._look_around()


def _is_good(copy: SegmentCopy) -> bool:
    return copy.state is CopyState.GOOD
