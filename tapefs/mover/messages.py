"""What sidecar and mover tell each other over their socket pair.

Every message is msgpack, preceded by its length as four bytes, big-endian. Commands carry an `id`, and every command is
answered by exactly one `Done` or `Failed` with that id; events may come before. A mover does one command at a time, in
order, but reads its socket all the while: `Cancel`, `GiveWay`, further `Recall`s and `VolumeReady` reach it while it
works, and `Unload` and `Look` while it waits for a tape. A backup that has given way has `Load`, `Recall`, `Recommend`,
`Look` and `Unload` done meanwhile. When the socket closes it stops: a backup ends at once (its open intent stays), a
recall likewise.
"""

from __future__ import annotations

import msgspec

from catalog.ids import FrameNo, JobNumber, SegmentId, SetId, VolumeId
from tapefs.along.words import CopyTask
from tapefs.stream_words import StreamState, StreamTask
from tapefs.taf.views import Imported


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Base of all messages."""


# -- sidecar to mover ------------------------------------------------------------------------------------------------


class Load(_Message, frozen=True, kw_only=True):
    """Thread the tape that the changer put in and check that its label is that of `volume_id`."""

    id: int
    volume_id: VolumeId


class Unload(_Message, frozen=True, kw_only=True):
    """Rewind, unthread and eject."""

    id: int


class Look(_Message, frozen=True, kw_only=True):
    """Tell in `Done.seen` what is in the drive, for a library whose robot is a human.

    Moves nothing, unless `volume_id` says which tape it should be: then what is there is threaded, and its label read.
    """

    id: int
    volume_id: VolumeId | None = None


class Backup(_Message, frozen=True, kw_only=True):
    """Run the job, which is QUEUED in the ledger: begin its set, write it, complete it. Needs no tape to be loaded."""

    id: int
    job: JobNumber
    #: What a job of a stream stores.
    stream: StreamTask | None = None


class StreamGrew(_Message, frozen=True, kw_only=True):
    """The stream that backup `target` stores is so far. Not answered."""

    target: int
    state: StreamState


class CopyAlong(_Message, frozen=True, kw_only=True):
    """Write a further copy of what a job's backup is writing, together with its mover; done when that wants no more.

    Needs no tape to be loaded; asks for tapes as a backup does.
    """

    id: int
    job: JobNumber
    task: CopyTask


class CopiesComing(_Message, frozen=True, kw_only=True):
    """Answer to CopiesOffered of command `target`: so many drives have taken it up at once."""

    target: int
    count: int


class FinishSets(_Message, frozen=True, kw_only=True):
    """After a start: put the namespace index of every SEALED set in place. Needs no tape."""

    id: int


class FrameRange(msgspec.Struct, frozen=True, array_like=True):
    """Frames `first` to `last`, both included, of a segment."""

    segment_id: SegmentId
    first: FrameNo
    last: FrameNo


class Recall(_Message, frozen=True, kw_only=True):
    """Stage these frames from the loaded tape; then read on, as far as readers come behind."""

    id: int
    volume_id: VolumeId
    frames: list[FrameRange]
    #: So far may the mover go on behind the last frame while nothing else waits, in bytes of plain stream.
    read_on_bytes: int = 0


class Recommend(_Message, frozen=True, kw_only=True):
    """Tell in `Done.order` in which order the drive would read these extents of the loaded tape. Moves nothing."""

    id: int
    #: First and last block of each.
    extents: list[tuple[int, int]]


class Verify(_Message, frozen=True, kw_only=True):
    """Read the segment back from the loaded tape; `Verified` comes before Done."""

    id: int
    volume_id: VolumeId
    segment_id: SegmentId


class Identify(_Message, frozen=True, kw_only=True):
    """Thread the tape that the changer put in and tell in `Done.found` what it is, whatever that may be."""

    id: int
    volume_id: VolumeId


class Tend(_Message, frozen=True, kw_only=True):
    """Thread the tape that the changer put in, and label, relabel or erase it; see `tapefs.tape.tending.Order`.

    `Done.found` tells what was on it before, `Done.volume_id` the tape's id from now on.
    """

    id: int
    volume_id: VolumeId
    #: `label`, `relabel` or `erase`.
    task: str
    identity: str = ""
    is_forced: bool = False
    name: str = ""
    is_counted: bool = False
    pool: str = ""
    is_long: bool = False


class Reclaim(_Message, frozen=True, kw_only=True):
    """Have all that lives on a tape copied to others of its pool, and nothing on it. Needs no tape to be loaded.

    It asks for its tapes with NeedVolume, gives way and is cancelled as a backup; see `Done.reclaimed`.
    """

    id: int
    volume_id: VolumeId


class ImportTaf(_Message, frozen=True, kw_only=True):
    """Have TAF's sets on the mounted volume taken into the catalog; see `Done.imported`. It can be cancelled."""

    id: int
    #: As it is known before: the import may give it another id.
    volume_id: VolumeId
    #: TAF's names; none: all.
    sets: list[str]
    #: TAF's own catalog; empty: none.
    catalog: str
    again: bool


class Clean(_Message, frozen=True, kw_only=True):
    """Have the drive clean itself with the cartridge that the changer put in, and count that for cartridge `code`."""

    id: int
    code: str


class UseKeys(_Message, frozen=True, kw_only=True):
    """Have these keys unlocked from now on, and no others. Not answered; holds for what is read after it."""

    #: Of the identities, 32 bytes each.
    secrets: list[bytes]

    def __repr__(self) -> str:
        return f"UseKeys({len(self.secrets)} secrets)"


class Cancel(_Message, frozen=True, kw_only=True):
    """Stop command `target` at the next good place; it answers Failed with kind `cancelled`."""

    target: int


class GiveWay(_Message, frozen=True, kw_only=True):
    """Backup `target` is to leave its tape at the end of the segment at hand, because others wait for the drive.

    It says so with a NeedVolume that has `gave_way`. With `is_wanted` false it need not any more.
    """

    target: int
    is_wanted: bool = True


class VolumeReady(_Message, frozen=True, kw_only=True):
    """Answer to NeedVolume: the tape is in the drive, not yet threaded; the mover may append to it."""

    volume_id: VolumeId
    #: All of its sets have expired, and by the rules of its pool it is to be relabelled first.
    anew: bool = False


class NoVolume(_Message, frozen=True, kw_only=True):
    """Answer to NeedVolume: there is none; `reason` tells the operator what to do."""

    reason: str


Command = (
    Load
    | Unload
    | Look
    | Backup
    | StreamGrew
    | CopyAlong
    | CopiesComing
    | FinishSets
    | Recall
    | Recommend
    | Verify
    | Identify
    | Tend
    | Reclaim
    | ImportTaf
    | Clean
    | UseKeys
    | Cancel
    | GiveWay
    | VolumeReady
    | NoVolume
)


# -- mover to sidecar ------------------------------------------------------------------------------------------------


class Ready(_Message, frozen=True, kw_only=True):
    """First message: the drive is open. `loaded` tells whether a tape is threaded, `barcode` which is in the drive."""

    drive: str
    loaded: bool
    barcode: str | None
    #: LTO generation of the drive; 0: it does not tell.
    generation: int = 0
    #: It has asked to be cleaned; and at once, before anything else is written.
    wants_cleaning: bool = False
    must_be_cleaned: bool = False


class Ends(_Message, frozen=True, kw_only=True):
    """Last message, instead of Ready too: why the mover ends, for people. The drive cannot be opened, or has gone."""

    reason: str


class SeenTape(msgspec.Struct, frozen=True, array_like=True):
    """What is in a drive."""

    #: One that was ejected and sticks out may not be seen.
    full: bool
    threaded: bool
    #: Its name for people, by label or barcode; None when it has neither.
    name: str | None


class FoundTape(msgspec.Struct, frozen=True, kw_only=True):
    """What a tape was found to be, and what the drive and the cartridge's memory tell of the cartridge."""

    #: `nobody`, `ours`, `elsewhere` or `foreign`, as `tapefs.tape.identity.Owner` has it.
    owner: str
    #: `tapefs`, `LTFS`, `AMANDA` …; `blank`; `unreadable`.
    format: str
    #: What it is called, the usual name first; none for a blank tape.
    names: tuple[str, ...]
    #: All that in words.
    sentence: str
    #: It is what the ledger says that it is.
    is_expected: bool
    generation: int | None = None
    capacity_bytes: int = 0
    is_worm: bool = False
    is_write_protected: bool = False
    serial: str = ""
    loads: int | None = None


class ReclaimedTape(msgspec.Struct, frozen=True, array_like=True):
    """What was moved off a tape."""

    sets: int
    segments: int
    payload_bytes: int


class Done(_Message, frozen=True, kw_only=True):
    """The command succeeded."""

    id: int
    #: The set a backup made.
    set_id: SetId | None = None
    #: What a Look has seen.
    seen: SeenTape | None = None
    #: What a drive recommends, as indices of the extents; empty when it recommends nothing.
    order: tuple[int, ...] = ()
    #: What an Identify or a Tend has found.
    found: FoundTape | None = None
    #: The tape that a Tend has left.
    volume_id: VolumeId | None = None
    #: What a Reclaim has moved.
    reclaimed: ReclaimedTape | None = None
    #: What an ImportTaf has taken in.
    imported: Imported | None = None


class Failed(_Message, frozen=True, kw_only=True):
    """The command failed.

    `kind` is one of `cancelled`, `no_volume`, `wrong_tape`, `damaged`, `not_verified`, `source`, `refused`,
    `drive_failed` (what another drive may do), `drive` (what another one would not help with), `catalog`, `no_space`,
    `internal`.
    """

    id: int
    kind: str
    message: str


class NeedVolume(_Message, frozen=True, kw_only=True):
    """The running backup wants a tape to append to.

    What was in the drive has been ejected if `ejected`; otherwise the sidecar may choose the tape in the drive, or send
    `Unload` (answered with Done at once) before it moves another one in.
    """

    id: int
    pool: str
    #: Not these: they were tried or filled by this job.
    exclude: list[VolumeId]
    ejected: bool
    #: This very tape, to be read; `pool` and `exclude` then mean nothing.
    volume_id: VolumeId | None = None
    #: That is the tape at whose end the backup wants to go on; until then the drive may recall.
    gave_way: bool = False
    #: Whose copy is to be written, where that is not what the job at hand makes.
    set_id: SetId | None = None


class Progress(_Message, frozen=True, kw_only=True):
    """How far the running backup is; a few times a second at most."""

    id: int
    set_id: SetId
    #: `scan`, `write`, `index`, `verify`.
    stage: str
    files: int
    bytes: int
    stored_bytes: int
    #: Payload bytes read back.
    verified_bytes: int = 0
    #: Path at hand, for people.
    path: str
    tape: str


class Trouble(_Message, frozen=True, kw_only=True):
    """A source file that could not be read as it was; the backup goes on."""

    id: int
    path: str
    reason: str


class FramesArrived(_Message, frozen=True, kw_only=True):
    """Frames `first` to `last`, both included, are staged."""

    segment_id: SegmentId
    first: FrameNo
    last: FrameNo


class CopiesOffered(_Message, frozen=True, kw_only=True):
    """The running backup's further copies may be written at once by other drives, for as long as it runs."""

    id: int
    set_id: SetId
    #: Where its mover listens, and for each copy whose tapes it is for; empty: those of the job's pool.
    address: str
    pools: list[str]


class FramesFailed(_Message, frozen=True, kw_only=True):
    """These frames cannot be had from this tape."""

    segment_id: SegmentId
    first: FrameNo
    last: FrameNo
    message: str
    #: What arrivals call it: `damaged`, `locked`, or `read_failed` for what is no fault of the tape.
    error: str = "read_failed"


class VerifyProgress(_Message, frozen=True, kw_only=True):
    """How far a Verify is; a few times a second at most."""

    id: int
    segment_id: SegmentId
    volume_id: VolumeId
    payload_bytes: int


class LostFile(_Message, frozen=True, kw_only=True):
    """The copy does not hold all content of this file; told of its first hundred, the damage file has all."""

    id: int
    segment_id: SegmentId
    volume_id: VolumeId
    #: As the kernel has it.
    path: bytes


class Verified(_Message, frozen=True, kw_only=True):
    """A copy was read back, and the ledger knows what was found."""

    id: int
    segment_id: SegmentId
    volume_id: VolumeId
    #: Sentences for people; none: it is as it was written.
    problems: list[str]
    #: Files of which content is lost.
    files: int


class DriveState(_Message, frozen=True, kw_only=True):
    """The drive's state changed.

    `state` is one of `empty`, `loaded`, `writing`, `reading`, `locating`, `loading`, `measuring`, `erasing`,
    `cleaning`, `failed`.
    """

    state: str
    barcode: str | None
    #: A sentence for people about something that takes long; "" for none.
    note: str = ""
    #: The drive has asked to be cleaned; and at once, before anything else is written.
    wants_cleaning: bool = False
    must_be_cleaned: bool = False


class StreamKept(_Message, frozen=True, kw_only=True):
    """So much of the stream that a backup stores is committed: the file that it comes through need not have it."""

    id: int
    up_to: int


Report = (
    Ready
    | Ends
    | Done
    | Failed
    | NeedVolume
    | CopiesOffered
    | Progress
    | StreamKept
    | Trouble
    | FramesArrived
    | FramesFailed
    | VerifyProgress
    | LostFile
    | Verified
    | DriveState
)
