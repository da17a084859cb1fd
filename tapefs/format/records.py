"""The JSON of the on-tape structures, as typed records.

Unknown keys are ignored; an unknown major version is refused by the readers in `structures`. Names that are not UTF-8 go
into the `…_b64` twin of their key (`as_text` and `as_bytes`). Times are nanoseconds since the epoch; offsets and sizes bytes.
Bytes fields are base64 in the JSON.
"""

from __future__ import annotations

import msgspec

from catalog.ids import DirectoryNo, InstallationId, JobId, SegmentId, SetId, VolumeId

FORMAT_MAJOR = 1
FORMAT_MINOR = 0


class _Structure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all on-tape records."""


class Label(_Structure, frozen=True, kw_only=True):
    """Tape file 0: who this tape is."""

    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    volume: VolumeId
    installation: InstallationId
    label: str
    pool: str
    created_ns: int
    block_size: int
    software: str


class SetLabel(_Structure, frozen=True, kw_only=True):
    """Tape file 1: its place among the tapes of its volume set."""

    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    volume: VolumeId
    volume_set: str
    sequence: int
    previous_volume: VolumeId | None = None
    key_fingerprint: str | None = None


class Header(_Structure, frozen=True, kw_only=True):
    """First tape file of a segment."""

    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    segment: SegmentId
    #: Ordinal of the segment in its set, from 0.
    number: int
    set: SetId
    #: The set's number in the catalog that wrote it: a wish for a rebuild.
    set_number: int
    parent_set: SetId | None = None
    type: str
    job: JobId
    job_number: int
    job_name: str
    sources: list[str]
    installation: InstallationId
    volume: VolumeId
    codec: str
    encryption: str | None = None
    block_size: int
    host: str
    #: When the set was begun, and when this segment was.
    set_started_ns: int
    created_ns: int
    software: str


class DirectoryEntered(_Structure, frozen=True, kw_only=True, tag_field="t", tag="d"):
    """The scan enters a directory; said again at the start of a segment for every directory still open."""

    #: Number of the directory in the set, and its parent's; the root is 0 and its own parent.
    n: DirectoryNo
    p: DirectoryNo
    name: str = ""
    name_b64: bytes = b""
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    ctime: int
    nlink: int
    dev: int
    ino: int
    blocks: int
    #: Said again: the directory was entered in an earlier segment.
    again: bool = False


class Member(_Structure, frozen=True, kw_only=True, tag_field="t", tag="m"):
    """A tar member that is not a directory: a regular file, a part of one, or a symbolic link.

    A name whose content could not be read has a member line, `flags` with UNREADABLE, and no member in the payload.
    """

    #: Directory it is in.
    d: DirectoryNo
    name: str = ""
    name_b64: bytes = b""
    #: As st_mode, with the type bits.
    mode: int
    uid: int
    gid: int
    #: Of the whole file, even where this member is a part.
    size: int
    mtime: int
    ctime: int
    nlink: int
    rdev: int = 0
    dev: int
    ino: int
    blocks: int
    #: catalog.index.model.EntryFlag.
    flags: int = 0
    #: Where the content begins in the segment's plain tar stream.
    at: int
    #: SHA-256 of the content of this member, regular files only.
    sha256: bytes = b""
    target: str = ""
    target_b64: bytes = b""
    #: For a part of a split file: its ordinal, its place in the file, its length. `part` -1 means the file is whole.
    part: int = -1
    part_offset: int = 0
    part_bytes: int = 0


class Elsewhere(_Structure, frozen=True, kw_only=True):
    """A name in a listing whose member is not in this segment."""

    name: str = ""
    name_b64: bytes = b""
    segment: SegmentId
    #: Where its content begins in that segment's plain tar stream.
    at: int


class DirectoryLeft(_Structure, frozen=True, kw_only=True, tag_field="t", tag="l"):
    """The scan leaves a directory: its listing is complete."""

    n: DirectoryNo
    #: Runs of member lines of this segment (ordinal of the first among the member lines, count).
    here: list[tuple[int, int]] = []
    elsewhere: list[Elsewhere] = []
    #: Numbers of its subdirectories, in name order.
    directories: list[DirectoryNo] = []


class FrameLine(_Structure, frozen=True, kw_only=True, tag_field="t", tag="b"):
    """A frame of the payload; its ordinal is its place among the frame lines."""

    #: Place in the payload, length there, length when decoded.
    at: int
    stored: int
    plain: int
    #: BLAKE2b-128 of the stored bytes.
    sum: bytes


class End(_Structure, frozen=True, kw_only=True, tag_field="t", tag="end"):
    """Last line of a trailer: without it the segment does not count."""

    segment: SegmentId
    #: Ordinal of the segment in its set.
    number: int
    payload_sha256: bytes
    payload_bytes: int
    payload_blocks: int
    plain_bytes: int
    members: int
    frames: int


TrailerLine = DirectoryEntered | Member | DirectoryLeft | FrameLine | End


class IndexHead(_Structure, frozen=True, kw_only=True, tag_field="t", tag="index"):
    """First line of a SET INDEX."""

    format: str = f"{FORMAT_MAJOR}.{FORMAT_MINOR}"
    index: str
    set: SetId
    set_number: int
    base_set: SetId | None = None
    type: str
    job: JobId
    job_number: int
    job_name: str
    sources: list[str]
    installation: InstallationId
    codec: str
    level: int
    set_started_ns: int
    created_ns: int
    #: True: the set is whole with this index; False: an index before a tape change, more follows elsewhere.
    final: bool
    files: int
    directories: int
    bytes: int
    stored_bytes: int
    troubled_files: int


class IndexSegment(_Structure, frozen=True, kw_only=True, tag_field="t", tag="segment"):
    """A segment that the set uses and where it lies; then follow, for the delta, the lines of its trailer."""

    segment: SegmentId
    number: int
    volume: VolumeId
    label: str
    header_file: int
    header_block: int
    payload_block: int
    trailer_block: int
    end_block: int
    block_size: int


class IndexEnd(_Structure, frozen=True, kw_only=True, tag_field="t", tag="index_end"):
    """Last line of a SET INDEX: without it the index does not count."""

    index: str
    lines: int


IndexLine = IndexHead | IndexSegment | TrailerLine | IndexEnd


def as_text(name: bytes) -> tuple[str, bytes]:
    """Return (text, b"") for UTF-8, else ("", raw): the values of a key and of its `_b64` twin."""
    try:
        return name.decode("utf-8"), b""
    except UnicodeDecodeError:
        return "", name


def as_bytes(text: str, raw: bytes) -> bytes:
    """Return the name that `as_text` took apart."""
    return raw or text.encode("utf-8")
