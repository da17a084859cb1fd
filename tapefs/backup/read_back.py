"""The last step of a job that is to be verified: its set is complete and is read back. Mover's main thread."""

from __future__ import annotations

import socket
import time

import structlog

from catalog.errors import CatalogError
from catalog.ids import SetId, VolumeId
from catalog.ledger import Ledger
from catalog.records import BackupSet, CopyState, Job, JobState, Segment, SegmentCopy
from drivers.errors import DriveError
from drivers.interface import Drive
from tapefs.backup.afterwards import remove_sources, replace_earlier
from tapefs.backup.copying import make_copies
from tapefs.backup.segment import SetContext
from tapefs.backup.watcher import BackupProgress, Watcher
from tapefs.codecs import codec
from tapefs.errors import Cancelled, NotVerified, SetDamaged, TapefsError
from tapefs.home import Home
from tapefs.retention.policy import ARCHIVE, MIRROR
from tapefs.verify.whole_set import SetFinding, verify_set

_PROGRESS_EVERY_S = 0.25
#: Runs of tapes that a further copy is tried on.
_ATTEMPTS = 3

log = structlog.get_logger(__name__)


def read_back(home: Home, ledger: Ledger, drive: Drive, job: Job, set_id: SetId, watcher: Watcher) -> None:
    """Read the COMPLETE set back and make the job COMPLETED.

    Raises SetDamaged when something of it is not as it was written, NotVerified when it could not be read, Cancelled.
    The set stays COMPLETE in all cases.
    """
    backup_set = ledger.backup_set(set_id)
    if backup_set.type == ARCHIVE:
        for wanted in range(1, job.copies + 1):
            _have_copies(home, ledger, drive, job, backup_set, watcher, wanted)
        if not job.keep_sources:
            remove_sources(home, ledger, job, backup_set, watcher)
    else:
        finding = _verify(home, ledger, drive, job, set_id, watcher)
        if not finding.is_good:
            raise SetDamaged(f"{_sentence(home, ledger, set_id, finding)}; run it again")
    if backup_set.type == MIRROR:
        replace_earlier(home, ledger, backup_set, watcher)
    ledger.finish_job(job.number, JobState.COMPLETED, "", time.time_ns())


def _have_copies(
    home: Home, ledger: Ledger, drive: Drive, job: Job, backup_set: BackupSet, watcher: Watcher, wanted: int
) -> None:
    """Have so many copies on tape that were read back whole. One that is damaged is made again on another tape.

    Raises SetDamaged when a segment has no whole copy left, or tape after tape is damaged; NotVerified, Cancelled.
    """
    segments = ledger.segments(backup_set.set_id)
    for _ in range(_ATTEMPTS):
        if wanted > 1:
            _copy(home, ledger, drive, job, backup_set, watcher, wanted)
        finding = _verify(home, ledger, drive, job, backup_set.set_id, watcher)
        whole = min((_whole(ledger, segment) for segment in segments), default=wanted)
        if whole >= wanted:
            return
        if not whole:
            way_out = "no other copy is whole; nothing was removed: run the job again, it makes a new set"
            raise SetDamaged(f"{_sentence(home, ledger, backup_set.set_id, finding)}; {way_out}")
        log.warning("a copy is damaged and is made again", set=backup_set.set_id, copy=wanted)
    way_out = f"nothing was removed: clean the drive, and `tapefs job resume {job.number}` tries again with other tapes"
    raise SetDamaged(f"{_sentence(home, ledger, backup_set.set_id, finding)}; {way_out}")


def _whole(ledger: Ledger, segment: Segment) -> int:
    """Return from how many tapes the segment is not known to be lost."""
    return sum(copy.state is CopyState.GOOD for copy in ledger.copies(segment.segment_id))


def _copy(
    home: Home, ledger: Ledger, drive: Drive, job: Job, backup_set: BackupSet, watcher: Watcher, wanted: int
) -> None:
    """Have so many copies on tape. Raises NotVerified, Cancelled."""
    the_codec = codec(backup_set.codec, home.settings.backup.gzip_engine)
    context = SetContext(home, ledger, backup_set, socket.gethostname(), the_codec)
    try:
        make_copies(context, drive, watcher, wanted)
    except Cancelled as error:
        raise Cancelled(f"{error} while copy {wanted} was made; nothing was removed") from error
    except (TapefsError, DriveError, CatalogError, OSError) as error:
        raise NotVerified(
            f"its set is complete on tape, but copy {wanted} of {job.copies} could not be made: {error}; "
            f"nothing was removed, `tapefs job resume {job.number}` tries again"
        ) from error


def _verify(home: Home, ledger: Ledger, drive: Drive, job: Job, set_id: SetId, watcher: Watcher) -> SetFinding:
    """Read back what was not yet. Raises NotVerified, Cancelled."""
    try:
        return verify_set(home, ledger, drive, set_id, _Follower(ledger, ledger.backup_set(set_id), watcher))
    except Cancelled as error:
        raise Cancelled(f"{error} while its set, which is complete on tape, was read back") from error
    except (TapefsError, DriveError, CatalogError) as error:
        raise NotVerified(
            f"its set is complete on tape, but could not be read back: {error}; "
            f"`tapefs job resume {job.number}` tries again"
        ) from error


def _sentence(home: Home, ledger: Ledger, set_id: SetId, finding: SetFinding) -> str:
    tapes = sorted({ledger.volume(copy.volume_id).label for copy in finding.damaged})
    return (
        f"its set is complete on tape, but {len(finding.damaged)} of {finding.copies} segments are damaged there "
        f"(tape {', '.join(tapes)}): `tapefs report {set_id}` names the files that are lost"
    )


class _Follower:
    """Implements `tapefs.verify.whole_set.SetVerifyWatcher` on top of a backup's watcher."""

    def __init__(self, ledger: Ledger, backup_set: BackupSet, watcher: Watcher) -> None:
        self._ledger = ledger
        self._set = backup_set
        self._watcher = watcher
        self._tape = ""
        #: Payload bytes of the copies before, and of the one at hand.
        self._before = 0
        self._at_hand: tuple[SegmentCopy, int] | None = None
        self._told_at_s = 0.0

    def this_volume(self, volume_id: VolumeId) -> None:
        """Pass it on."""
        self._tape = self._ledger.volume(volume_id).label
        self._tell()
        self._watcher.this_volume(volume_id)

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None:
        """Tell it a few times a second."""
        if self._at_hand is not None and self._at_hand[0] is not copy:
            self._before += self._at_hand[1]
        self._at_hand = (copy, payload_bytes)
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _PROGRESS_EVERY_S:
            self._told_at_s = now_s
            self._tell()

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None:
        """A trouble of the run."""
        self._watcher.trouble(path, f"content on tape {self._tape} is damaged")

    def check_cancelled(self) -> None:
        """Pass it on."""
        self._watcher.check_cancelled()

    def _tell(self) -> None:
        verified = self._before + (self._at_hand[1] if self._at_hand is not None else 0)
        backup_set = self._set
        self._watcher.progress(
            BackupProgress(
                set_id=backup_set.set_id,
                stage="verify",
                tape=self._tape,
                path=b"",
                files=backup_set.files,
                bytes=backup_set.bytes,
                stored_bytes=backup_set.stored_bytes,
                verified_bytes=verified,
            )
        )
