"""How fast a drive writes and reads what cannot be compressed, and whether what comes back is what went out. Blocking.

The tape is written from its start; it must be one on which nothing is. Its first block says what is there, so that a
test that was broken off is recognised. One thread.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from catalog.crash import crash_point
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import Drive
from drivers.virtual.generations import GENERATIONS
from tapefs.doctor.findings import Finding, Grade

KIB, MIB, MB = 1024, 2**20, 10**6
#: Sizes of blocks that are tried: what tapefs writes by itself, and what other programs do.
BLOCK_SIZES = (256 * KIB, 512 * KIB, MIB)
#: Begins the first block of a tape on which such a test was broken off.
MARK = b"tapefs doctor --speed wrote test data on this tape. There is nothing of worth here: it may be erased.\n"
_POOL_BYTES = 16 * MIB

_before_write = crash_point("doctor.speed.write.before")
_before_erase = crash_point("doctor.speed.erase.before")


@dataclass(frozen=True, slots=True)
class Run:
    """Blocks of one size, written one after the other."""

    block_bytes: int
    #: How many, and in how many seconds, with the last one on the medium.
    blocks: int
    seconds: float
    #: The longest that one call took: the buffer was full, or the tape backed up.
    longest_s: float
    #: Times that the tape stopped and backed up, where the drive counts them.
    backhitches: int

    @property
    def mb_s(self) -> float:
        """Return the rate in 10^6 bytes per second."""
        return self.blocks * self.block_bytes / MB / max(self.seconds, 1e-9)


class Pool:
    """Blocks that no drive can make smaller; each number has its own."""

    def __init__(self) -> None:
        self._bytes = os.urandom(_POOL_BYTES)

    def block(self, number: int, size_bytes: int) -> bytes:
        """Return the block `number` of that size."""
        begin = number * 4099 % (_POOL_BYTES - size_bytes)
        return number.to_bytes(8, "big") + self._bytes[begin : begin + size_bytes - 8]


class Speed:
    """One test on one drive, whose tape stands at its start and is blank."""

    def __init__(
        self, drive: Drive, about: str, *, seconds: float, now: Callable[[], float] = time.perf_counter
    ) -> None:
        """`seconds`: how long to write blocks of one size, at most; a quarter of the room is enough for each, too."""
        self._drive = drive
        self._about = about
        self._seconds = seconds
        self._now = now
        self._pool = Pool()

    def measure(self) -> Iterator[Finding]:
        """Write, read back and compare; yield what was found. Raises DriveError. The data stay on the tape."""
        status = self._drive.status()
        _before_write()
        self._drive.write_block(MARK)
        self._drive.write_filemarks(1, sync=False)
        room_bytes = status.remaining_bytes // (len(BLOCK_SIZES) + 1)
        written: list[Run] = []
        for size_bytes in BLOCK_SIZES:
            try:
                written.append(self._write(size_bytes, room_bytes))
            except ValueError as error:
                yield self._finding(Grade.WARNING, f"blocks of {size_bytes // KIB} KiB do not go through: {error}")
        for run in written:
            yield self._told(run, "writes")
        slowest = _slowest_bytes_s(status.medium_generation)
        yield from self._streams(written, slowest, status.medium_generation)
        yield from self._read_back(written)

    def _finding(self, grade: Grade, says: str, *, fix: str = "") -> Finding:
        return Finding(grade=grade, about=self._about, says=says, fix=fix)

    def _told(self, run: Run, does: str) -> Finding:
        hitches = f", back-hitches: {run.backhitches}" if run.backhitches else ""
        return self._finding(
            Grade.GOOD,
            f"{does} {run.mb_s:,.0f} MB/s in blocks of {run.block_bytes // KIB} KiB "
            f"({run.blocks * run.block_bytes / MB:,.0f} MB; the longest call took {run.longest_s:.2f} s{hitches})",
        )

    # -- writing -----------------------------------------------------------------------------------------------------

    def _write(self, size_bytes: int, room_bytes: int) -> Run:
        begun_s = last_s = self._now()
        blocks, longest_s, before = 0, 0.0, 0
        while last_s - begun_s < self._seconds and (blocks + 1) * size_bytes <= room_bytes:
            is_near_end = self._drive.write_block(self._pool.block(blocks, size_bytes))
            blocks += 1
            if blocks == 1:
                # That the tape stood before the first one is our doing.
                before = self._backhitches()
            now_s = self._now()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
            if is_near_end:
                break
        self._drive.write_filemarks(1, sync=True)
        seconds = self._now() - begun_s
        hitches = self._backhitches() - before if blocks else 0
        return Run(size_bytes, blocks, seconds, longest_s, hitches)

    def _streams(self, written: Sequence[Run], slowest: float | None, generation: int | None) -> Iterator[Finding]:
        """Say what the rates mean for the tape."""
        rates = [run.mb_s for run in written if run.blocks]
        if not rates:
            yield self._finding(Grade.PROBLEM, "nothing could be written: the tape has no room")
        elif slowest is None:
            yield self._finding(Grade.NOTE, "how slow this kind of tape can run is not known here")
        elif max(rates) >= slowest / MB:
            yield self._finding(
                Grade.GOOD, f"an LTO-{generation} tape runs at {slowest / MB:.0f} MB/s and more: it streams"
            )
        else:
            yield self._finding(
                Grade.WARNING,
                f"an LTO-{generation} tape runs at {slowest / MB:.0f} MB/s and more: at {max(rates):,.0f} MB/s it "
                "stops again and again and backs up (back-hitches), which costs 2 to 5 s each and wears tape and drive",
                fix="look at cable, adapter and network before the drive; a source that is too slow is helped by "
                "`spool = true`",
            )

    def _backhitches(self) -> int:
        return self._drive.status().counters.backhitches

    # -- reading -----------------------------------------------------------------------------------------------------

    def _read_back(self, written: Sequence[Run]) -> Iterator[Finding]:
        self._drive.rewind()
        self._drive.space_filemarks(1)
        for run in written:
            try:
                read, different = self._read(run)
            except (ReadFailed, EndOfData) as error:
                yield self._finding(
                    Grade.PROBLEM, f"what was just written cannot be read: {error}",
                    fix="clean the drive, then try another tape: one of the two is bad",
                )  # fmt: skip
                return
            if different is None:
                yield self._told(read, "reads")
            else:
                yield self._finding(
                    Grade.PROBLEM,
                    f"block {different} of {run.blocks} of {run.block_bytes // KIB} KiB came back other than it was "
                    "written, and the drive said nothing",
                    fix="do not use this drive: look at cable, adapter and memory of this host",
                )

    def _read(self, run: Run) -> tuple[Run, int | None]:
        """Read a run and the filemark behind it; return how that went and the first block that is not as written."""
        before = self._backhitches()
        buffer = memoryview(bytearray(run.block_bytes + 1))
        different: int | None = None
        begun_s = last_s = self._now()
        longest_s = 0.0
        for number in range(run.blocks):
            length = self._drive.read_into(buffer)
            now_s = self._now()
            longest_s, last_s = max(longest_s, now_s - last_s), now_s
            if different is None and bytes(buffer[:length]) != self._pool.block(number, run.block_bytes):
                different = number
        seconds = self._now() - begun_s
        if self._drive.read_into(buffer):
            different = run.blocks if different is None else different
        hitches = self._backhitches() - before
        return Run(run.block_bytes, run.blocks, seconds, longest_s, hitches), different


def erase_test(drive: Drive) -> None:
    """Make the tape blank again. Raises DriveError."""
    drive.rewind()
    _before_erase()
    drive.erase(long=False)


def _slowest_bytes_s(generation: int | None) -> float | None:
    known = GENERATIONS.get(generation) if generation is not None else None
    return known.slowest_bytes_s if known is not None else None
