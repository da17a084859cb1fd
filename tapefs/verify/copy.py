"""One copy of a segment is read back: HEADER, PAYLOAD, TRAILER, and the ledger learns what was found.

A damaged frame costs only the files in it: what lies behind is located and checked, and the damage file names the
others. What was read and found wrong is a finding; a drive that fails is an error and leaves the copy as it was. Runs
in the drive's thread, which should have a tape that was loaded after it was written: else the drive may answer from its
buffer.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import structlog

from catalog.ledger import Ledger
from catalog.records import CopyState, Segment, SegmentCopy
from drivers.errors import ReadFailed
from drivers.interface import Drive
from tapefs.codecs import codec_of_format
from tapefs.errors import BadStructure, KeyMissing
from tapefs.format.structures import read_header
from tapefs.home import Home
from tapefs.keys.chunks import Places, Unsealer
from tapefs.keys.driving import give_key
from tapefs.keys.reading import open_file, open_payload
from tapefs.recall.frame_table import frame_table
from tapefs.taf.verifying import damaged_frames, lost_paths
from tapefs.verify.damage import Damage, forget_damage, write_damage
from tapefs.verify.payload import PayloadScan
from tapefs.verify.places import blocks_from, is_same, open_trailer
from tapefs.verify.sums import Sums
from tapefs.verify.trailer import Trailer, frames_of, touched

log = structlog.get_logger(__name__)

#: After so many unreadable frames in a row some are passed over unread, each time twice as many: a drive may try for a
#: minute before it gives a block up, and a stretch that long is lost anyhow.
_FAILURES_IN_A_ROW = 8
#: Files of a damaged copy that are told one by one; the damage file names all.
_TOLD_FILES = 100


class VerifyWatcher(Protocol):
    """Who follows a verification."""

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None:
        """So many bytes of the payload have been read; told for every frame."""
        ...

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None:
        """This copy does not hold all of the file; told of the first hundred."""
        ...

    def check_cancelled(self) -> None:
        """Raise what ends the verification; asked before every frame."""
        ...


@dataclass(slots=True)
class Finding:
    """What reading a copy back has found."""

    copy: SegmentCopy
    #: Sentences for people; none: it is as it was written.
    problems: list[str] = field(default_factory=list)
    #: Ordinals of damaged frames, ascending.
    frames: list[int] = field(default_factory=list)
    #: Files of which content is lost.
    files: int = 0

    @property
    def is_good(self) -> bool:
        """Is the copy as it was written?"""
        return not self.problems


def verify_copy(home: Home, ledger: Ledger, drive: Drive, copy: SegmentCopy, watcher: VerifyWatcher) -> Finding:
    """Read the copy from the loaded tape, record in the ledger what was found, and return it.

    Raises drive errors other than ReadFailed, OSError, catalog errors, and what the watcher raises; KeyMissing and
    KeyUnfit when the drive has encrypted the tape and is not to have the key, or cannot. Nothing is recorded then.
    """
    segment = ledger.segment(copy.segment_id)
    if segment.archive is not None:
        return _mark(ledger, _verify_archive(home, ledger, drive, segment, copy, watcher))
    give_key(home, drive, ledger.volume(copy.volume_id))
    reading = _Reading(home, drive, segment, copy, watcher)
    with ExitStack() as files:
        trailer = reading.open_trailer(files)
        reading.header()
        reading.payload(trailer)
        reading.trailer(trailer)
        finding = reading.finding
        if finding.is_good:
            forget_damage(home, copy.segment_id, copy.volume_id)
        else:
            _write_damage(home, ledger, segment, finding, reading.lost_files(trailer))
    return _mark(ledger, finding)


def _mark(ledger: Ledger, finding: Finding) -> Finding:
    state = CopyState.GOOD if finding.is_good else CopyState.DAMAGED
    ledger.mark_copy(finding.copy.segment_id, finding.copy.volume_id, state, time.time_ns())
    return finding


def _verify_archive(
    home: Home, ledger: Ledger, drive: Drive, segment: Segment, copy: SegmentCopy, watcher: VerifyWatcher
) -> Finding:
    """Read an archive of another program: it has no HEADER and no TRAILER, and only the index knows its frames."""

    def told(payload_bytes: int) -> None:
        watcher.check_cancelled()
        watcher.verified(copy, payload_bytes)

    finding = Finding(copy)
    rows = frame_table(home, ledger, drive, copy)
    finding.frames, reason = damaged_frames(drive, segment, copy, rows, told)
    if not finding.frames:
        forget_damage(home, copy.segment_id, copy.volume_id)
        return finding
    finding.problems.append(f"{len(finding.frames)} of {segment.frames} frames are damaged ({reason})")
    paths = _telling(copy, watcher, lost_paths(home, segment, finding.frames))
    _write_damage(home, ledger, segment, finding, paths)
    return finding


def _telling(copy: SegmentCopy, watcher: VerifyWatcher, paths: Iterable[bytes]) -> Iterator[bytes]:
    for number, path in enumerate(paths):
        if number < _TOLD_FILES:
            watcher.lost_file(copy, path)
        yield path


def _write_damage(home: Home, ledger: Ledger, segment: Segment, finding: Finding, paths: Iterable[bytes]) -> None:
    volume = ledger.volume(finding.copy.volume_id)
    damage = Damage(
        segment=segment.segment_id,
        set=segment.set_id,
        volume=volume.volume_id,
        tape=volume.label,
        found_at_ns=time.time_ns(),
        problems=finding.problems,
        frames=runs_of(finding.frames),
    )
    finding.files = write_damage(home, damage, paths)


def runs_of(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as runs: the first, and how many."""
    groups = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in group] for _, group in groups]
    return [(run[0], len(run)) for run in runs]


class _Reading:
    """The parts of a copy, one after the other, and what is found."""

    def __init__(self, home: Home, drive: Drive, segment: Segment, copy: SegmentCopy, watcher: VerifyWatcher) -> None:
        self._home = home
        self._drive = drive
        self._segment = segment
        self._copy = copy
        self._watcher = watcher
        #: Of an encrypted payload: where its chunks lie, and what decrypts them, if the key is at hand.
        self._places = Places(len(segment.preamble), segment.stored_bytes) if segment.key_fingerprint else None
        self._unsealer = self._open_payload()
        self._threads = home.settings.backup.threads or len(os.sched_getaffinity(0))
        self._scan = PayloadScan(drive, copy, segment.stored_bytes)
        #: Why something of the payload could not be read, the first time.
        self._error = ""
        #: What is lost of the plain stream.
        self._spans: list[tuple[int, int]] = []
        self.finding = Finding(copy)

    def problem(self, sentence: str) -> None:
        """Something is not as it was written."""
        self.finding.problems.append(sentence)

    def _open_payload(self) -> Unsealer | None:
        try:
            return open_payload(self._home, self._segment)
        except KeyMissing as error:
            log.info("read back without its key", segment=self._segment.segment_id, reason=str(error))
            return None

    @property
    def _is_sealed(self) -> bool:
        """Is it encrypted, and its key not at hand? Then only the SHA-256 of all of it tells damage."""
        return self._places is not None and self._unsealer is None

    def open_trailer(self, files: ExitStack) -> Trailer | None:
        """Return the trailer to compare with; None when there is none that can be read."""
        try:
            return open_trailer(self._home, self._drive, self._segment, self._copy, self.problem, files)
        except KeyMissing as error:
            log.info("the trailer on tape cannot be read", segment=self._segment.segment_id, reason=str(error))
            return None

    def header(self) -> None:
        """Read the HEADER and the filemark behind it. Raises drive errors other than ReadFailed."""
        try:
            blocks = list(blocks_from(self._drive, self._copy, self._copy.header_block))
            if len(blocks) != 1:
                raise BadStructure(f"there are {len(blocks)} blocks where one should be")
            header = read_header(blocks[0])
            if header.segment != self._segment.segment_id or header.set != self._segment.set_id:
                raise BadStructure(f"it is that of segment {header.segment}")
        except (ReadFailed, BadStructure) as error:
            self.problem(f"HEADER: {error}")

    def payload(self, trailer: Trailer | None) -> None:
        """Read the PAYLOAD and compare it with the trailer; without one only as a whole with the ledger."""
        if trailer is None:
            self._read_blindly()
        else:
            self._read_frames(trailer)
        if sentence := self._wrong_as_a_whole():
            self.problem(f"PAYLOAD: {sentence}")

    def _read_frames(self, trailer: Trailer) -> None:
        sums = Sums(codec_of_format(self._segment.codec), self._threads)
        failures = skip = 0
        try:
            for frame in frames_of(trailer.lines()):
                self._watcher.check_cancelled()
                stored = None
                if skip:
                    skip -= 1
                else:
                    stored = self._read_stored(frame.line.at, frame.line.stored)
                    failures = 0 if stored is not None else failures + 1
                    skip = 1 << (failures - _FAILURES_IN_A_ROW) if failures > _FAILURES_IN_A_ROW else 0
                if stored is not None and self._is_sealed:
                    sums.pass_over(frame)
                else:
                    sums.add(frame, stored)
            sums.finish()
        finally:
            sums.close()
        self._judge(sums)

    def _read_blindly(self) -> None:
        size, end = self._copy.block_size, self._segment.stored_bytes
        for start in range(0, end, size):
            self._watcher.check_cancelled()
            if self._read(start, min(size, end - start)) is None:
                return

    def _read_stored(self, offset: int, length: int) -> bytes | None:
        """Read what was written at a place, before encryption; without the key return it as it is."""
        if self._places is None:
            return self._read(offset, length)
        try:
            first, end = self._places.extent(offset, length)
            sealed = self._read(first, end - first, self._places.chunk_at(offset + length))
            if sealed is None or self._unsealer is None:
                return sealed
            return self._unsealer.open(sealed, offset, length)
        except BadStructure as error:
            self._error = self._error or str(error)
            return None

    def _read(self, offset: int, length: int, kept_from: int | None = None) -> bytes | None:
        try:
            stored = self._scan.frame(offset, length, kept_from)
        except (ReadFailed, BadStructure) as error:
            self._error = self._error or str(error)
            return None
        finally:
            self._watcher.verified(self._copy, offset + length)
        return stored

    def _judge(self, sums: Sums) -> None:
        self.finding.frames = [frame.number for frame in sums.damaged]
        if sums.damaged:
            why = f" ({self._error})" if self._error else ""
            self.problem(f"PAYLOAD: {len(sums.damaged)} of {self._segment.frames} frames are damaged{why}")
        if sums.wrong:
            self.problem(f"PAYLOAD: the SHA-256 of {len(sums.wrong)} members is another, though their frames are whole")
        spans = [(frame.start, frame.end) for frame in sums.damaged]
        self._spans = joined([*spans, *((content.at, content.end) for content in sums.wrong)])

    def _wrong_as_a_whole(self) -> str:
        """Say what is wrong with the payload that no frame tells."""
        try:
            sha256 = self._scan.finish()
        except (ReadFailed, BadStructure) as error:
            return str(error)
        if self.finding.frames or sha256 == self._segment.payload_sha256:
            return ""
        if sha256 is None:
            return self._error or "not all of it was read"
        untold = f"; with key {self._segment.key_fingerprint} unlocked the files can be told" if self._is_sealed else ""
        return f"its SHA-256 is another{untold}"

    def trailer(self, trailer: Trailer | None) -> None:
        """Read the TRAILER and compare it with the one in hand."""
        if (trailer is None or trailer.is_from_tape) and not self._copy.trailer_sha256:
            return  # It has been read, and what was wrong with it been told.
        try:
            found = blocks_from(self._drive, self._copy, self._copy.trailer_block)
            if not self._is_own_trailer(found, trailer):
                raise BadStructure("it is another than the one that was written")
        except KeyMissing as error:
            # Neither its sum nor the key is here, as after a rebuild.
            log.info("the trailer on tape was not compared", segment=self._segment.segment_id, reason=str(error))
        except (ReadFailed, BadStructure) as error:
            self.problem(f"TRAILER: {error}")

    def _is_own_trailer(self, found: Iterator[bytes], trailer: Trailer | None) -> bool:
        """Is it the one that was written to this tape? Raises KeyMissing when that cannot be told, drive errors."""
        if self._copy.trailer_sha256:
            sha256 = hashlib.sha256()
            for block in found:
                sha256.update(block)
            return sha256.digest() == self._copy.trailer_sha256
        expected = iter(()) if trailer is None else trailer.pieces()
        return is_same(open_file(self._home, found), expected)

    def lost_files(self, trailer: Trailer | None) -> Iterator[bytes]:
        """Yield the paths of files with lost content, each once if its lines follow each other."""
        if trailer is None:
            return
        before, told = b"", 0
        for path, _ in touched(trailer.lines(), self._spans):
            if path == before:
                continue
            before = path
            told += 1
            if told <= _TOLD_FILES:
                self._watcher.lost_file(self._copy, path)
            yield path


def joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans (start, end) sorted, and those that touch as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
