"""What moving costs a virtual drive: counts, modelled seconds by kind, and their passing. One thread: its drive's."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.interface import Counters
from drivers.virtual.drive_state import Tally
from drivers.virtual.motion import Motion, motion_of
from drivers.virtual.pace import Pace
from drivers.virtual.streaming import BACKHITCH_S, Streaming


class Mechanics:
    """Counts what the drive does; a tape that stops or turns pays a backhitch when it goes on streaming.

    Stopping: a synchronous filemark or flush, or a host that is too slow (`Streaming`). Turning: from reading to
    writing or back. A locate, rewind or load ends the stream; its own time covers the new start. The drive loads and
    unloads at its own speed, all else is the cartridge's generation.
    """

    def __init__(self, generation: int, counters: Counters, pace: Pace) -> None:
        self._drive = motion_of(generation)
        self._medium: Motion = self._drive
        self._tally = Tally.resume(counters)
        self._pace = pace
        #: "read" or "write" while the tape runs or has just stopped for a sync; "" after a move.
        self._stream = ""
        self._stopped = False
        self._streaming = Streaming(self._medium.generation)

    def counters(self) -> Counters:
        """Return a snapshot."""
        return self._tally.snapshot()

    def adopt(self, medium_generation: int) -> None:
        """Take a cartridge's geometry and rate."""
        self._medium = motion_of(medium_generation)
        self._streaming.adopt(self._medium.generation)
        self._stream = ""

    def load(self) -> None:
        """Account for threading."""
        self._tally.loads += 1
        self._spend("load", self._drive.load_s())

    def measure(self, seconds: float) -> None:
        """Account for a part of the first load of a new cartridge; it counts as `load` time."""
        self._spend("load", seconds)

    def measured(self, seconds: float) -> None:
        """Count the seconds of a first load, or of a cleaning, that somebody else has waited for."""
        self._tally.seconds["load"] += seconds

    def waited_s(self, seconds: float) -> float:
        """Return the seconds by the clock that modelled ones take; 0 when nothing waits."""
        return self._pace.clock_s(seconds)

    def clean(self, seconds: float) -> None:
        """Be cleaned."""
        self._spend("load", seconds)

    def unload(self, from_byte: int) -> None:
        """Account for rewinding and unthreading; the latter counts as `load` time."""
        self.rewind(from_byte)
        self._spend("load", self._drive.unload_s())

    def rewind(self, from_byte: int) -> None:
        """Account for going to the load point."""
        self._spend("rewind", self._medium.rewind_s(from_byte))
        self._stream = ""

    def locate(self, from_byte: int, to_byte: int) -> None:
        """Account for a locate that passes at least one block or filemark."""
        self._tally.locates += 1
        if from_byte == to_byte:
            return
        self._spend("locate", self._medium.locate_s(from_byte, to_byte))
        self._stream = ""

    def nearest_first(self, head_byte: int, spans: Sequence[tuple[int, int]]) -> list[int]:
        """Return the order of spans by the cartridge's geometry. See `Motion.nearest_first`."""
        return self._medium.nearest_first(head_byte, spans)

    def read(self, size_bytes: int) -> None:
        """Account for one block, or for a filemark with size 0."""
        self._run("read")
        if size_bytes:
            self._tally.blocks_read += 1
            self._tally.bytes_read += size_bytes
            self._spend("read", self._medium.read_s(size_bytes))

    def write(self, size_bytes: int) -> None:
        """Account for one block, or for filemarks with size 0."""
        self._run("write")
        if size_bytes:
            self._tally.blocks_written += 1
            self._tally.bytes_written += size_bytes
            self._spend("write", self._medium.write_s(size_bytes))
            held_s = self._streaming.take(size_bytes, self._pace.host_s())
            self._count_underruns()
            self._pace.spend(held_s)

    def erase(self, from_byte: int, to_byte: int) -> None:
        """Account for writing over a part of the tape and coming back; of no length it is a new end of data."""
        self.stop()
        self._run("write")
        if to_byte > from_byte:
            self._spend("write", self._medium.write_s(to_byte - from_byte))
            self._spend("locate", self._medium.locate_s(to_byte, from_byte))
            self._stream = ""
        self._stopped = True

    def erase_s(self, from_byte: int, to_byte: int) -> float:
        """Return the modelled seconds of writing over a part of the tape and coming back."""
        return self._medium.write_s(to_byte - from_byte) + self._medium.locate_s(to_byte, from_byte)

    def stop(self) -> None:
        """The drive emptied its buffer onto the tape and stands."""
        self._streaming.flush(self._pace.host_s())
        self._count_underruns()
        self._stopped = True

    def lose_buffer(self) -> None:
        """What had not reached the tape is gone."""
        self._streaming.rest()

    def _count_underruns(self) -> None:
        """The tape backs up while the host goes on, so that no more of its time passes than `take` says."""
        new, self._streaming.underruns = self._streaming.underruns, 0
        self._tally.underruns += new
        self._tally.backhitches += new
        self._tally.seconds["backhitch"] += new * BACKHITCH_S

    def _run(self, kind: str) -> None:
        if self._stream == kind and not self._stopped:
            return
        if self._stream:
            self._tally.backhitches += 1
            self._spend("backhitch", BACKHITCH_S)
        self._stream = kind
        self._stopped = False

    def _spend(self, kind: str, seconds: float) -> None:
        self._tally.seconds[kind] += seconds
        self._pace.spend(seconds)
