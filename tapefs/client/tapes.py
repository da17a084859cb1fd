"""The sidecar's calls about tapes as functions, with typed answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlencode

import msgspec

from catalog.ids import SetId
from tapefs.client.calling import Ask, Family, Steps, WaitingFamily, call, every
from tapefs.mover.messages import FoundTape
from tapefs.taf.views import Imported


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the answers; unknown keys are ignored."""


class ReclaimProgress(_View, frozen=True, kw_only=True):
    """How far a reclaim is."""

    #: `copy` or `verify`.
    stage: str
    #: The tape at hand.
    tape: str
    #: Read, written and read back so far.
    bytes: int


class MovedData(_View, frozen=True, kw_only=True):
    """What a reclaim has moved."""

    sets: int
    segments: int
    payload_bytes: int


class TapeTaskView(_View, frozen=True, kw_only=True):
    """Something that is done with a tape."""

    number: int
    #: `identify`, `label`, `relabel`, `erase`, `reclaim`, `import` or `unload`.
    task: str
    #: Label; the new one when it was done.
    tape: str
    #: `waiting`, `running`, `done`, `failed`, `cancelled` or `interrupted`.
    state: str
    #: Of what kind the error is, as the mover's `Failed` has it, and the error; empty: none.
    error_kind: str = ""
    error: str = ""
    #: What is on the tape, or was before.
    found: FoundTape | None = None
    #: Of a reclaim: how far it is, and what it has moved.
    progress: ReclaimProgress | None = None
    reclaimed: MovedData | None = None
    #: Of an import: what it has taken in.
    imported: Imported | None = None

    @property
    def is_open(self) -> bool:
        """Has it not come to an end?"""
        return self.state in ("waiting", "running")


class ReclaimableSet(_View, frozen=True, kw_only=True):
    """A set that would be moved."""

    set_id: SetId
    name: str


class Reclaimable(_View, frozen=True, kw_only=True):
    """What still lives on a tape, and where that would go."""

    tape: str
    pool: str
    state: str
    used_bytes: int
    sets: list[ReclaimableSet]
    #: Sets that cannot be moved; empty: none.
    staying: str
    segments: int
    payload_bytes: int
    #: Of what was written to the tape.
    percent: float
    #: Why nothing is moved; empty: something can be.
    obstacle: str
    #: Label of the tape that would be written next; None: there is none.
    onto: str | None
    onto_reason: str
    tape_changes: int
    task: TapeTaskView | None


class _Reclaimables(_View, frozen=True, kw_only=True):
    tapes: list[Reclaimable]


class KnownTape(_View, frozen=True, kw_only=True):
    """A tape of the ledger."""

    label: str
    barcode: str
    pool: str
    state: str
    reason: str = ""
    generation: int = 0
    #: Where people have put it, if it is not in the library.
    location: str = ""
    #: Nobody has looked at what is on it.
    is_unknown: bool = False


class TapeLine(_View, frozen=True, kw_only=True):
    """A tape as lists have it."""

    label: str
    barcode: str
    volume_id: str
    pool: str
    state: str
    reason: str | None = None
    generation: int = 0
    capacity_bytes: int = 0
    used_bytes: int = 0
    #: Of the drive that holds it.
    drive: str | None = None
    is_in_library: bool = False
    #: The vault that it lies in.
    location: str | None = None
    is_encrypted: bool = False
    written_at: datetime | None = None


class SetOnTape(_View, frozen=True, kw_only=True):
    """A live set on a tape."""

    set_id: SetId
    name: str
    state: str
    started_at: datetime
    #: May it expire, and why, or why not?
    goes: bool
    reason: str
    #: Something of it lies on this tape alone.
    is_only_here: bool


class ReasonView(_View, frozen=True, kw_only=True):
    """Something against a tape."""

    points: int
    sentence: str


class ConditionView(_View, frozen=True, kw_only=True):
    """How a tape is."""

    score: int
    reasons: list[ReasonView] = []
    warning: str = ""


class MountingView(_View, frozen=True, kw_only=True):
    """One time that it was in a drive."""

    drive: str
    loaded_at: datetime
    unloaded_at: datetime | None = None
    purposes: list[str] = []
    written_bytes: int = 0
    read_bytes: int = 0
    write_failures: int = 0
    read_failures: int = 0
    alerts: list[int] = []


class TapeDetails(KnownTape, frozen=True, kw_only=True):
    """All that is known of a tape."""

    volume_id: str
    installation_id: str
    #: Where in the library it is; None: not there.
    place: str | None
    is_worm: bool
    capacity_bytes: int
    used_bytes: int
    block_size: int
    end_file: int
    end_block: int
    segments: int
    #: What is on it may be overwritten.
    is_given_up: bool
    known_since: datetime | None = None
    identified_at: datetime | None = None
    labelled_at: datetime | None = None
    written_at: datetime | None = None
    sets: list[SetOnTape] = []
    condition: ConditionView = ConditionView(score=100)
    mountings: list[MountingView] = []


class LibraryPlace(_View, frozen=True, kw_only=True):
    """A drive, a slot or a port."""

    place: str
    kind: str
    full: bool
    barcode: str | None = None
    tape: KnownTape | None = None
    is_cleaning: bool = False


class Inventory(_View, frozen=True, kw_only=True):
    """What lies where."""

    places: list[LibraryPlace]
    #: Tapes that are not in the library.
    elsewhere: list[KnownTape]


class LostSet(_View, frozen=True, kw_only=True):
    """A set that has lost something for ever."""

    set_id: SetId
    name: str
    state: str


class _Forgotten(_View, frozen=True, kw_only=True):
    lost: list[LostSet]


class _DriveNote(_View, frozen=True, kw_only=True):
    tape: str | None = None
    note: str | None = None


class _Drives(_View, frozen=True, kw_only=True):
    drives: list[_DriveNote]


#: `list` is a call there.
_Lines = list[TapeLine]
_Tasks = list[TapeTaskView]
_Reclaimable = list[Reclaimable]
_Lost = list[LostSet]


class TapeCalls:
    """The sidecar behind a socket. Every call may raise Unreachable, and what it refuses with (see `transport`)."""

    @call
    @staticmethod
    def begin(task: str, tape: str, **fields: str | bool) -> Ask[TapeTaskView]:
        """Have `task` done with a tape; the fields are those of the call's body. Raises NoSuchThing, NotNow."""
        body = {"tape": tape, **fields}
        return Ask("POST", f"/api/v1/tapes/{task}", body, TapeTaskView)

    @call
    @staticmethod
    def reclaim(tapes: Sequence[str], pool: str, below_percent: float, *, apply: bool) -> Ask[_Reclaimable]:
        """Tell what would be moved off tapes, or off those of a pool; with `apply` have it done.

        Raises NoSuchThing, and with `apply` NotNow.
        """
        body = {"tapes": list(tapes), "pool": pool, "below_percent": below_percent, "apply": apply}
        return Ask("POST", "/api/v1/reclaim", body, _Reclaimables).giving(lambda told: told.tapes)

    @call
    @staticmethod
    def import_taf(tape: str, sets: Sequence[str], catalog: str, *, again: bool) -> Ask[TapeTaskView]:
        """Have TAF's sets on a volume that is mounted where a drive is taken in. Raises NoSuchThing, NotNow."""
        body = {"tape": tape, "sets": list(sets), "catalog": catalog, "again": again}
        return Ask("POST", "/api/v1/taf/import", body, TapeTaskView)

    @call
    @staticmethod
    def task(number: int) -> Ask[TapeTaskView]:
        """Ask how it stands. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/tape-tasks/{number}", None, TapeTaskView)

    @call
    @staticmethod
    def tasks() -> Steps[_Tasks]:
        """Return the tasks that are kept, oldest first."""
        return every("/api/v1/tape-tasks", TapeTaskView)

    @call
    @staticmethod
    def drive_note(tape: str) -> Ask[str]:
        """Return what the drive with that tape says of something that takes it long; empty: nothing."""
        return Ask("GET", "/api/v1/status", None, _Drives).giving(
            lambda told: next((each.note or "" for each in told.drives if each.tape == tape), "")
        )

    @call
    @staticmethod
    def cancel(number: int) -> Ask[TapeTaskView]:
        """Give up what waits. Raises NoSuchThing, NotNow."""
        return Ask("POST", f"/api/v1/tape-tasks/{number}/cancel", None, TapeTaskView)

    @call
    @staticmethod
    def list(**choice: str) -> Steps[_Lines]:
        """Ask for tapes by label, by `state` and `pool` or all; none is loaded."""
        return every(f"/api/v1/tapes?{urlencode(choice)}", TapeLine)

    @call
    @staticmethod
    def show(tape: str) -> Ask[TapeDetails]:
        """Tell all of one tape. Raises NoSuchThing."""
        return Ask("GET", f"/api/v1/tapes/show?{urlencode({'tape': tape})}", None, TapeDetails)

    @call
    @staticmethod
    def inventory() -> Ask[Inventory]:
        """Have the robot asked what lies where."""
        return Ask("POST", "/api/v1/inventory", None, Inventory)

    @call
    @staticmethod
    def forget(tape: str, identity: str) -> Ask[_Lost]:
        """Forget a tape; return what was lost with it. Raises NoSuchThing, NotNow."""
        body = {"tape": tape, "identity": identity}
        return Ask("POST", "/api/v1/tapes/forget", body, _Forgotten).giving(lambda told: told.lost)


class TapeClient(TapeCalls, Family):
    """The calls, by a blocking client."""


class WaitingTapeClient(TapeCalls, WaitingFamily):
    """The calls, by a trio client."""
