"""Does the drive stream when the source is slow? 100 MB/s against a drive that needs 177, with the spool and without.

The clock is a simulated one: every byte that is read from the source moves it, nothing else does. The drive's buffer
is a 250th of a real one, so that 100 MB are as 25 GB. One segment at a time is on disk: the clock goes by what is
read, and must not go on while the drive writes. Blocking; one at a time in a process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from catalog.ids import JobId, JobNumber, VolumeId, new_uuid
from catalog.ledger import Ledger
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Job, VolumeState
from drivers.interface import Counters, ElementKind
from drivers.registry import open_changer
from drivers.virtual.drive import VirtualDrive
from drivers.virtual.generations import GENERATIONS, MB, lto
from tapefs.along.companions import CopyOffer
from tapefs.backup import spool as spooling
from tapefs.backup.run import run_backup
from tapefs.backup.watcher import BackupProgress
from tapefs.bench.stand import Result, Stand
from tapefs.errors import NoTape
from tapefs.home import Home, open_home
from tapefs.report.files import read_report
from tapefs.report.records import BufferUse
from tapefs.setup_home import NewHome, create_home

RATE_BYTES_S = 100 * MB
_FILES, _FILE_BYTES = 100, 1_000_000
_SEGMENT_BYTES = 32 * 1024**2
_BUFFER_BYTES = 8 * 1024**2
#: A 250th of it is as much as the buffer.
_TAPE_BYTES = 4_000 * 1024**2
_DRIVE_BUFFER_BYTES = 4 * MB


@dataclass(frozen=True, slots=True)
class Streamed:
    """How a run went."""

    #: By the simulated clock.
    seconds: float
    segments: int
    drive: Counters
    buffer: BufferUse


def run(stand: Stand) -> list[Result]:
    """Measure with and without the spool, each with and without a fill buffer."""
    tree = _tree(stand.folder / "slow")
    print("spool: 100 MB at 100 MB/s, a drive that needs 177 MB/s, simulated clock, buffers a 250th")
    print("  spool  buffer  segments  underruns  back-hitches")
    found = {}
    for spool in (False, True):
        for buffer_bytes in (0, _BUFFER_BYTES):
            run = found[spool, buffer_bytes] = backup_slowly(
                stand.folder / f"slow-{spool}-{buffer_bytes}", tree, spool=spool, buffer_bytes=buffer_bytes
            )
            counted = f"{run.segments:>8}  {run.drive.underruns:>9}  {run.drive.backhitches:>12}"
            print(f"  {'yes' if spool else 'no':<5}  {buffer_bytes // 1024**2:>3} MiB  {counted}")
    spooled, direct = found[True, _BUFFER_BYTES].drive, found[False, _BUFFER_BYTES].drive
    what, ours, theirs = "underruns with a source of 100 MB/s, spooled", spooled.underruns, direct.underruns
    return [Result(what, str(ours), "not spooled", str(theirs), None, "0", ours == 0)]


def backup_slowly(folder: Path, tree: Path, *, spool: bool, buffer_bytes: int) -> Streamed:
    """Back the tree up in this process, from a source of that rate, to a drive that goes by the same clock."""
    home = _home(folder, buffer_bytes)
    ledger = LmdbLedger.open(home.ledger)
    try:
        with (
            patch.dict(GENERATIONS, {9: replace(lto(9), buffer_bytes=_DRIVE_BUFFER_BYTES)}),
            patch.object(spooling, "_SEGMENTS", 1),
            _slow_reads() as clock,
        ):
            drive = VirtualDrive(home.library, 0, now=lambda: clock[0])
            watcher = _Changer(home, ledger)
            try:
                set_id = run_backup(home, ledger, drive, _job(ledger, tree, spool=spool), watcher)
            finally:
                watcher.close()
                drive.close()
        report = read_report(home, set_id)
        if report is None or report.drive is None or report.buffer is None:
            raise RuntimeError("the run left no report")
        return Streamed(clock[0], report.segments, report.drive, report.buffer)
    finally:
        ledger.close()


@contextmanager
def _slow_reads() -> Iterator[list[float]]:
    """Yield the clock, in seconds."""
    clock, real = [0.0], os.preadv

    def read(fd: int, buffers: list[memoryview], offset: int) -> int:
        got = real(fd, buffers, offset)
        clock[0] += got / RATE_BYTES_S
        return got

    with patch.object(os, "preadv", read):
        yield clock


def _home(folder: Path, buffer_bytes: int) -> Home:
    create_home(NewHome(path=folder, tapes=1, tape_bytes=_TAPE_BYTES), time.time_ns())
    settings = folder / "tapefs.toml"
    lines = f"[backup]\nframe_bytes = 65536\nsegment_bytes = {_SEGMENT_BYTES}\nbuffer_bytes = {buffer_bytes}\n"
    settings.write_text(settings.read_text().replace("[backup]\n", lines))
    return open_home(folder)


def _tree(folder: Path) -> Path:
    folder.mkdir()
    for number in range(_FILES):
        (folder / f"{number:03}").write_bytes(os.urandom(_FILE_BYTES))
    return folder


def _job(ledger: Ledger, tree: Path, *, spool: bool) -> Job:
    job = Job(number=JobNumber(0), job_id=JobId(new_uuid()), name="slow", sources=(bytes(tree),), spool=spool)
    return ledger.queue_job(ledger.add_job(job).number, time.time_ns())


class _Changer:
    """Puts the one tape in; a `tapefs.backup.watcher.Watcher`."""

    def __init__(self, home: Home, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changer = open_changer(home.library_config)

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        """See `Watcher`."""
        volume = self._ledger.volumes()[0]
        if volume.volume_id in exclude or volume.state is not VolumeState.BLANK:
            raise NoTape("there is one tape only")
        for element in self._changer.inventory():
            if element.kind is ElementKind.SLOT and element.barcode == volume.label:
                self._changer.load(element.number, 0)
                return volume.volume_id
        raise NoTape(f"{volume.label} is in no slot")

    def begins_anew(self, volume_id: VolumeId) -> bool:
        """None does."""
        return False

    def this_volume(self, volume_id: VolumeId) -> None:
        """See `Watcher`."""
        raise NoTape(f"nobody puts {volume_id} in")

    def is_drive_wanted(self) -> bool:
        """Nobody else is there."""
        return False

    def give_way(self, volume_id: VolumeId) -> None:
        """Never asked for."""
        raise AssertionError("nobody wanted the drive")

    def offer_copies(self, offer: CopyOffer) -> None:
        """There is one drive."""
        raise AssertionError("copies were offered to nobody")

    def copies_coming(self) -> int:
        """Never asked for."""
        return 0

    def progress(self, progress: BackupProgress) -> None:
        """See `Watcher`."""

    def trouble(self, path: bytes, reason: str) -> None:
        """See `Watcher`."""
        raise RuntimeError(f"{path!r}: {reason}")

    def check_cancelled(self) -> None:
        """See `Watcher`."""

    def close(self) -> None:
        """Let go of the changer."""
        self._changer.close()
