"""What reading a tape for its catalog finds; kept as JSON in `rebuild/`, so that a tape is read only once."""

from __future__ import annotations

from enum import Enum

import msgspec

from catalog.ids import InstallationId, SegmentId, SetId, VolumeId
from tapefs.format.records import Header, IndexHead, IndexSegment


class Method(Enum):
    """Where the contents of segments are read from; if that is damaged, from the next one, by itself."""

    #: SET INDEX structures: the fewest bytes.
    INDEX = "index"
    #: TRAILERs: the payloads are passed over.
    TRAILERS = "trailers"
    #: The archives themselves: every block is read.
    PAYLOADS = "payloads"


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """Base of the records."""


class Tape(_Found, frozen=True, kw_only=True):
    """Who a tape is."""

    volume_id: VolumeId
    installation_id: InstallationId
    #: As its LABEL says; if that is gone, its barcode or its id.
    label: str
    #: By which the library finds it; empty: it has none.
    barcode: str
    pool: str
    created_ns: int
    block_size: int
    #: Of the cartridge, as the drive tells it; 0: it does not.
    generation: int
    capacity_bytes: int
    #: Of the key that it is encrypted with; empty: it is not.
    key_fingerprint: str = ""
    #: The drive encrypts it.
    by_drive: bool = False


class Segment(_Found, frozen=True, kw_only=True):
    """A whole segment and where it lies; its trailer is in `trailers/`."""

    segment: SegmentId
    set: SetId
    number: int
    codec: str
    header_file: int
    header_block: int
    payload_block: int
    trailer_block: int
    end_block: int
    block_size: int
    #: As the last line of its trailer says.
    payload_bytes: int
    plain_bytes: int
    members: int
    frames: int
    payload_sha256: bytes
    #: Length of the TRAILER on tape, and its SHA-256 if it is encrypted.
    trailer_bytes: int
    trailer_sha256: bytes = b""
    #: Of an encrypted payload, as the last line of its trailer says.
    key_fingerprint: str = ""
    preamble: bytes = b""
    #: When it was committed, or its HEADER written; 0: not known.
    committed_ns: int = 0
    #: Its trailer was made anew from the payload.
    is_from_payload: bool = False


class Index(_Found, frozen=True, kw_only=True):
    """A SET INDEX."""

    head: IndexHead
    #: Of all segments that the set had then.
    table: list[IndexSegment]
    file: int
    block: int
    end_block: int
    stored_bytes: int
    #: False: something of it is damaged, and it does not count; but what its first line says is right.
    is_whole: bool = True


class Torn(_Found, frozen=True, kw_only=True):
    """A structure at the end of the data that was never finished."""

    structure: str
    is_index: bool
    set: SetId
    block: int


class Survey(_Found, frozen=True, kw_only=True):
    """All that a tape says."""

    method: Method
    tape: Tape
    headers: list[Header]
    segments: list[Segment]
    indexes: list[Index]
    torn: list[Torn]
    #: Behind the last whole structure.
    end_block: int
    end_file: int
    #: Of the two labels.
    label_bytes: int
    #: The last structure is an index before a change of tapes, or the drive says that no room is left.
    is_full: bool
    written_ns: int
    #: Sentences for people: what was passed over, and why.
    ignored: list[str]
    #: Why nothing may be appended, if that is so.
    suspect: str = ""
