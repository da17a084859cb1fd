"""What goes into TAF's tape calls and comes out of them. Names and types are TAF's; null is what nobody has measured.

Where a tape has to be loaded the answer is 202 and has two fields more than TAF's: `task`, a number, and `poll`, the
path that tells what became of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

TapeId = Annotated[str, Meta(min_length=1, max_length=600)]
_Text = Annotated[str, Meta(max_length=2000)]
_Months = Annotated[int, Meta(ge=0, le=1200)]


class CreateTapeRequest(msgspec.Struct, frozen=True):
    """The body of POST /api/tape/create."""

    #: Label or barcode of a tape that is here; any other: a blank tape is taken.
    tape_id: TapeId
    label: TapeId
    serial_number: _Text | None = None
    media_type: _Text = "LTO"
    generation: Annotated[int, Meta(ge=1, le=99)] = 8
    capacity_gb: Annotated[int, Meta(ge=0)] | None = None
    location: _Text | None = None
    notes: _Text | None = None
    retention_months: _Months = 6
    create_year: Annotated[int, Meta(ge=1970, le=9999)] | None = None
    create_month: Annotated[int, Meta(ge=1, le=12)] | None = None
    format_tape: bool = True


class UpdateTapeRequest(msgspec.Struct, frozen=True):
    """The body of PUT /api/tape/update/{tape_id}; what is missing or null stays."""

    serial_number: _Text | None = None
    media_type: _Text | None = None
    generation: Annotated[int, Meta(ge=1, le=99)] | None = None
    capacity_gb: Annotated[int, Meta(ge=0)] | None = None
    #: Where it lies when that is not the library; empty: in the library.
    location: _Text | None = None
    notes: _Text | None = None
    format_tape: bool = False
    label: TapeId | None = None
    #: What is on it now, as `tapefs tape identify` tells; more than TAF's.
    identity: _Text = ""


class FormatRequest(msgspec.Struct, frozen=True):
    """The body of POST /api/tape/format; TAF's has `force` only, and means the tape in the drive."""

    #: What is on it is nothing that this installation knows, and may go all the same.
    force: bool = False
    tape_id: TapeId | None = None
    #: What is on it now; needed when that is anything.
    identity: _Text = ""


class WriteTapeLabelRequest(msgspec.Struct, frozen=True):
    """The body of POST /api/tape/write-label."""

    tape_id: TapeId
    label: TapeId
    serial_number: _Text | None = None
    identity: _Text = ""


class TapeRow(msgspec.Struct, frozen=True, kw_only=True):
    """A tape in a list."""

    tape_id: str
    label: str
    status: str
    media_type: str
    generation: int
    serial_number: str | None
    location: str
    capacity_bytes: int
    used_bytes: int
    usage_percent: float
    write_count: int
    read_count: int
    load_count: int
    health_score: int
    first_use_date: datetime | None
    last_erase_date: datetime | None
    expiry_date: datetime | None
    retention_months: int | None
    backup_set_count: int
    notes: str


class TapeList(msgspec.Struct, frozen=True):
    """All tapes."""

    success: bool
    tapes: list[TapeRow]
    count: int


class TapeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One tape."""

    tape_id: str
    label: str
    status: str
    media_type: str
    generation: int
    serial_number: str | None
    location: str
    capacity_bytes: int
    used_bytes: int
    retention_months: int | None
    notes: str
    manufactured_date: str | None
    expiry_date: datetime | None
    auto_erase: bool
    health_score: int


class TapeShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """One tape, or why there is none."""

    success: bool
    tape: TapeFacts | None = None
    message: str = ""


class TapeChecked(msgspec.Struct, frozen=True, omit_defaults=True):
    """Is there such a tape?"""

    exists: bool
    tape_id: str | None = None
    label: str | None = None
    status: str | None = None
    is_expired: bool | None = None
    expiry_date: datetime | msgspec.UnsetType | None = msgspec.UNSET


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """How many tapes there are of each kind, and how much fits on them."""

    total_tapes: int
    available_tapes: int
    in_use_tapes: int
    full_tapes: int
    expired_tapes: int
    error_tapes: int
    excellent_tapes: int
    good_tapes: int
    warning_tapes: int
    critical_tapes: int
    total_capacity_bytes: int
    total_used_bytes: int
    total_available_bytes: int
    usage_percent: float


class CurrentTape(msgspec.Struct, frozen=True, kw_only=True):
    """The tape in the drive."""

    tape_id: str
    label: str
    status: str
    capacity_bytes: int
    used_bytes: int
    free_bytes: int
    usage_percent: float
    created_date: datetime | None
    expiry_date: datetime | None
    location: str
    scsi_info: dict[str, str | int | None]


class Message(msgspec.Struct, frozen=True):
    """A sentence, where there is nothing to show."""

    message: str


class TapeOperation(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was done with tapes."""

    id: int
    operation_time: str
    operation_type: str
    operation_user: str
    resource_type: str
    resource_id: str
    details: dict[str, object]
    ip_address: str | None
    user_agent: str | None
    result: str
    error_message: str | None
    duration_ms: float


class TapeHistory(msgspec.Struct, frozen=True):
    """A page of the audit log's entries about tapes, the newest first."""

    success: bool
    history: list[TapeOperation]
    count: int


class LabelFacts(msgspec.Struct, frozen=True):
    """What the label of a tape says."""

    tape_id: str
    label: str
    serial_number: str | None
    file_system: str


class LabelRead(msgspec.Struct, frozen=True):
    """The label of the tape in the drive, or why there is none."""

    success: bool
    message: str
    metadata: LabelFacts | None = None


class FormatChecked(msgspec.Struct, frozen=True):
    """Has the tape a label? null: nobody has looked."""

    success: bool
    formatted: bool | None
    metadata: LabelFacts | None
    message: str


class Begun(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is done now, or was; with `task` it goes on, and `poll` tells how far it is."""

    success: bool
    message: str
    tape_id: str | None = None
    task: int | None = None
    poll: str | None = None


class Created(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tape that was entered, or that is known already (`updated`)."""

    success: bool
    message: str
    tape_id: str
    label: str
    formatted: bool
    updated: bool
    task: int | None = None
    poll: str | None = None


class Updated(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tape that was changed."""

    success: bool
    message: str
    tape_id: str
    #: A label is being written.
    formatted: bool
    task: int | None = None
    poll: str | None = None


class UsageStats(msgspec.Struct, frozen=True, kw_only=True):
    """How a cartridge has done; what is not kept of it is null."""

    thread_count: int
    data_sets_read: int | None
    data_sets_written: int | None
    read_retries: int | None
    write_retries: int | None
    unrecovered_read_errors: int
    unrecovered_write_errors: int
    suspended_reads: int | None
    suspended_writes: int | None
    fatal_suspend_reads: int | None
    fatal_suspended_writes: int | None
    health_score: int
    result: str
    code: int
    is_formatted: bool


class TapeHealth(msgspec.Struct, frozen=True):
    """How the tape in the drive is."""

    healthy: bool
    health_score: int | None
    usage_stats: UsageStats | None


class TapeUsage(msgspec.Struct, frozen=True):
    """How the tape in the drive has done."""

    success: bool
    usage_stats: UsageStats | None


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A drive."""

    path: str
    vendor: str
    model: str
    generation: int | None
    serial: str
    status: str
    is_ibm_lto: bool


class Devices(msgspec.Struct, frozen=True):
    """The drives; `cached` is what its mover said last."""

    devices: list[Device]
    cached: bool


class UuidMade(msgspec.Struct, frozen=True):
    """A new UUID."""

    success: bool
    message: str
    uuid: str
