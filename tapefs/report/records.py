"""The figures of a run. Frozen; JSON; unknown keys are ignored when reading. Times are nanoseconds since the epoch."""

from __future__ import annotations

import msgspec

from catalog.ids import JobNumber, SetId, SetNumber
from drivers.interface import Counters
from tapefs.format.records import as_bytes, as_text


class Path(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A path; one of the keys is there."""

    path: str = ""
    path_b64: bytes = b""

    @classmethod
    def of(cls, raw: bytes) -> Path:
        """Make one."""
        text, b64 = as_text(raw)
        return cls(path=text, path_b64=b64)

    @property
    def raw(self) -> bytes:
        """The path as the kernel has it."""
        return as_bytes(self.path, self.path_b64)


class Trouble(Path, frozen=True, kw_only=True, omit_defaults=True):
    """A source file that is not in the set, or not as it was, and why."""

    reason: str = ""


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One of the stages that work at the same time."""

    #: Seconds it worked, summed over its threads, and seconds it waited for the others.
    busy_s: float
    waited_s: float
    #: What went through it: content and headers before compression, the payload behind it.
    bytes: int

    @property
    def bytes_per_s(self) -> float:
        """How fast it was while it worked; 0 when nothing was to do."""
        return self.bytes / self.busy_s if self.busy_s > 0 else 0.0


class BufferUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the fill buffer before the drive has done."""

    #: 0: there was none.
    size_bytes: int = 0
    #: Times that the drive was started, at least once for each segment, and times that it was given nothing more for
    #: a while because the buffer was down to its low-water mark.
    starts: int = 0
    stops: int = 0


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A drive that the run has left because it failed."""

    drive: str
    #: Label of the tape that was in it; empty: none.
    tape: str
    reason: str
    at_ns: int


class TapeUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the set has on one tape."""

    #: Label.
    tape: str
    segments: int
    stored_bytes: int


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """What the set shows, and what of it this run has brought."""

    #: Everything but directories; content of regular files.
    files: int = 0
    directories: int = 0
    bytes: int = 0
    #: Compared with the set it builds on.
    new_files: int = 0
    changed_files: int = 0
    removed_files: int = 0
    #: Content that was read to be stored.
    read_bytes: int = 0


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a job; of one that was resumed, the last run, where nothing else is said."""

    set_id: SetId
    set_number: SetNumber
    job: JobNumber
    name: str
    type: str
    parent_id: SetId | None
    codec: str
    level: int
    sources: list[Path]
    #: Runs that have made the set; more than one if it was resumed.
    runs: int
    #: Of the set, of this run, and 0 while it runs.
    begun_at_ns: int
    started_at_ns: int
    finished_at_ns: int = 0
    #: Why it failed; empty if it did not.
    error: str = ""
    #: It was killed: `finished_at_ns` is when that was noticed, and what only its process knew is missing.
    interrupted: bool = False
    #: The drives that failed, oldest first, until the one that has made what this tells of.
    moves: list[Move] = []
    #: Of all runs.
    content: Files = Files()
    stored_bytes: int = 0
    segments: int = 0
    tapes: list[TapeUse] = []
    #: Lines in the file of troubles.
    troubles: int = 0
    #: Scanning and reading; hashing and compressing; writing to tape.
    read: Stage | None = None
    compress: Stage | None = None
    write: Stage | None = None
    #: Frames by the level that they were compressed with.
    levels: dict[int, int] = {}
    buffer: BufferUse | None = None
    #: What the drive has done for this run, by its own counters; None while it runs, and when the drive is silent.
    drive: Counters | None = None
    #: Seconds it took to read everything back, 0 when it was not.
    verify_s: float = 0.0

    @property
    def ratio(self) -> float | None:
        """Bytes on tape for each byte of content that was read; None when nothing was."""
        return self.stored_bytes / self.content.read_bytes if self.content.read_bytes else None
