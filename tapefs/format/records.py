"""The JSON of the on-tape structures, as typed records.

Unknown keys are ignored; an unknown major version is refused by the readers in `structures`. Names that are not UTF-8
go into the `…_b64` twin of their key (`as_text` and `as_bytes`). Times are nanoseconds since the epoch; offsets and
sizes bytes. Bytes fields are base64 in the JSON.

Decoding checks what the annotations say (ids become file names, numbers become places on a medium); a line that breaks
them is a `BadStructure` of its reader. Making a record checks nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from catalog.ids import DirectoryNo, InstallationId, JobId, SegmentId, SetId, VolumeId
from tapefs.errors import BadStructure

FORMAT_MAJOR = 1
FORMAT_MINOR = 0

_UUID = msgspec.Meta(pattern=r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z")
_COUNT = msgspec.Meta(ge=0, le=2**63 - 1)

#: major.minor of the format; another major than ours is refused. Always written, though it has a default.
Format = Annotated[str, msgspec.Meta(pattern=rf"\A{FORMAT_MAJOR}\.[0-9]{{1,4}}\Z")]
#: A count, size or place.
Count = Annotated[int, _COUNT]
#: Nanoseconds since the epoch, before it too. Not bounded: the year 9999 on tmpfs is over 2**63, and is kept as it is.
Nanoseconds = int
#: What the kernel counts with 64 bits: device and inode numbers.
KernelNumber = Annotated[int, msgspec.Meta(ge=0)]
#: A canonical lower-case UUID that has no type of its own.
Uuid = Annotated[str, _UUID]
VolumeUuid = Annotated[VolumeId, _UUID]
InstallationUuid = Annotated[InstallationId, _UUID]
SegmentUuid = Annotated[SegmentId, _UUID]
SetUuid = Annotated[SetId, _UUID]
JobUuid = Annotated[JobId, _UUID]
DirectoryNumber = Annotated[DirectoryNo, _COUNT]
#: By another name, because in a record that has a field `bytes` that is what `bytes` means.
Octets = bytes
#: XXH3-128, most significant byte first.
FrameSum = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
#: `Header.encryption`: before blocks go to the drive, or by the drive.
AGE, DRIVE = "age", "drive"
#: `Header.algorithm`, with DRIVE.
DRIVE_ALGORITHM = "AES-256-GCM"
#: What the key of a tape that the drive encrypts is made with; the tape's UUID follows.
DRIVE_KEY_INFO = "tapefs drive encryption AES-256-GCM "
#: SHA-256, or nothing.
Sha256 = Annotated[bytes, msgspec.Meta(max_length=32)]


def _this_format() -> str:
    # A factory, because `omit_defaults` leaves out what equals a plain default.
    return f"{FORMAT_MAJOR}.{FORMAT_MINOR}"


class _Structure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all on-tape records."""


class Label(_Structure, frozen=True, kw_only=True):
    """Tape file 0: who this tape is."""

    format: Format = msgspec.field(default_factory=_this_format)
    volume: VolumeUuid
    installation: InstallationUuid
    label: str
    pool: str
    created_ns: Nanoseconds
    block_size: Count
    software: str


class SetLabel(_Structure, frozen=True, kw_only=True):
    """Tape file 1: its place among the tapes of its volume set."""

    format: Format = msgspec.field(default_factory=_this_format)
    volume: VolumeUuid
    volume_set: str
    sequence: Count
    previous_volume: VolumeUuid | None = None
    #: `drive`: the drive encrypts; else, with a fingerprint, `age` does.
    encryption: str | None = None
    #: The drive's, where it encrypts.
    algorithm: str | None = None
    key_fingerprint: str | None = None


class Header(_Structure, frozen=True, kw_only=True):
    """First tape file of a segment."""

    format: Format = msgspec.field(default_factory=_this_format)
    segment: SegmentUuid
    #: Ordinal of the segment in its set, from 0.
    number: Count
    set: SetUuid
    #: The set's number in the catalog that wrote it: a wish for a rebuild.
    set_number: Count
    parent_set: SetUuid | None = None
    type: str
    job: JobUuid
    job_number: Count
    job_name: str
    #: Source paths that are UTF-8, and those that are not (`split_sources`).
    sources: list[str]
    sources_b64: list[Octets] = []
    #: Source paths that were left out: no room in the block, or the segment is encrypted.
    sources_omitted: Count = 0
    installation: InstallationUuid
    volume: VolumeUuid
    codec: str
    #: `age`: PAYLOAD and TRAILER are age files. `drive`: the drive has encrypted their blocks.
    encryption: str | None = None
    #: The drive's, where it encrypts.
    algorithm: str | None = None
    #: Of the key that they are encrypted with.
    key_fingerprint: str | None = None
    block_size: Count
    host: str
    #: When the set was begun, and when this segment was.
    set_started_ns: Nanoseconds
    created_ns: Nanoseconds
    software: str


class DirectoryEntered(_Structure, frozen=True, kw_only=True, tag_field="t", tag="d"):
    """The scan enters a directory; said again at the start of a segment for every directory still open.

    A set that builds on a base says only the directories that differ from it, and those above them; all others are as
    in the base, with all that is in them.
    """

    #: Number of the directory in the set, and its parent's; the root is 0 and its own parent.
    n: DirectoryNumber
    p: DirectoryNumber
    name: str = ""
    name_b64: bytes = b""
    mode: Count
    uid: Count
    gid: Count
    size: Count
    mtime: Nanoseconds
    ctime: Nanoseconds
    nlink: Count
    dev: KernelNumber
    ino: KernelNumber
    blocks: Count
    #: Extended attributes, ACLs among them as the kernel has them (`system.posix_acl_*`), sorted by name; those whose
    #: name is not UTF-8 stand in `xattrs_b64`.
    xattrs: list[tuple[str, Octets]] = []
    xattrs_b64: list[tuple[Octets, Octets]] = []
    #: Number of the directory at the same path in the base set, which is then its own number too; -1 when there is
    #: none. See `DirectoryLeft`.
    base: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)] = -1
    #: Said again: the directory was entered in an earlier segment.
    again: bool = False


class Member(_Structure, frozen=True, kw_only=True, tag_field="t", tag="m"):
    """A tar member that is not a directory: a regular file, a part of one, a link, a fifo or a device node.

    A name whose content could not be read has a member line, `flags` with UNREADABLE, and no member in the payload.
    With LINKED in `flags`, and without CHANGED, it is another name of a file: that of the last earlier member line of
    the set with the same `dev` and `ino` and none of LINKED, CHANGED, UNREADABLE. If its content, or that of another of
    its names, is in this segment already, the payload has a hardlink member, `at` is where that content begins, and
    there is neither `sha256` nor `data`; else the content is stored here again, at `at`, behind all content before it.
    """

    #: Directory it is in.
    d: DirectoryNumber
    name: str = ""
    name_b64: bytes = b""
    #: As st_mode, with the type bits.
    mode: Count
    uid: Count
    gid: Count
    #: Of the whole file, even where this member is a part.
    size: Count
    mtime: Nanoseconds
    ctime: Nanoseconds
    nlink: Count
    rdev: KernelNumber = 0
    dev: KernelNumber
    ino: KernelNumber
    blocks: Count
    #: catalog.index.model.EntryFlag.
    flags: Count = 0
    #: Where the content begins in the segment's plain tar stream.
    at: Count
    #: SHA-256 of the content of this member, regular files only.
    sha256: Sha256 = b""
    target: str = ""
    target_b64: bytes = b""
    #: For a part of a split file: its ordinal, its place in the file, its length. `part` -1 means the file is whole.
    part: Annotated[int, msgspec.Meta(ge=-1, le=2**31)] = -1
    part_offset: Count = 0
    part_bytes: Count = 0
    #: As for directories.
    xattrs: list[tuple[str, Octets]] = []
    xattrs_b64: list[tuple[Octets, Octets]] = []
    #: With SPARSE in `flags`: the runs of data (place in the file, length), ascending and not empty. They lie one
    #: behind the other from `at` on; what is between them are holes. Of a part: within the part's range of the file.
    data: list[tuple[Count, Count]] = []
    #: The content is that of the base's regular file of this name, and nothing of it is in the payload; only what this
    #: line says of the file is new.
    as_base: bool = False
    #: Of a part of a stream, or of one in a trailer that was made from the payload: the file's end was not known yet.
    #: `size` is what there was with this part, `mtime` when it was written; those of the file stand with its last part,
    #: which lacks this.
    more: bool = False


class Elsewhere(_Structure, frozen=True, kw_only=True):
    """A name in a listing whose member is not in this segment."""

    name: str = ""
    name_b64: bytes = b""
    segment: SegmentUuid
    #: Where its content begins in that segment's plain tar stream.
    at: Count


class DirectoryPart(_Structure, frozen=True, kw_only=True, tag_field="t", tag="e"):
    """A piece of a listing too long for one line: stands before the directory's last line, which has the rest."""

    n: DirectoryNumber
    elsewhere: list[Elsewhere] = []
    directories: list[DirectoryNumber] = []
    removed: list[str] = []
    removed_b64: list[Octets] = []


class DirectoryLeft(_Structure, frozen=True, kw_only=True, tag_field="t", tag="l"):
    """The scan leaves a directory: its listing is complete.

    Of a directory with a `base` the names that are not directories are those of the base's listing, without `removed`,
    each replaced by its member line in this set if it has one, and the new ones of this set. What is removed is said
    before the next member line, and before the first subdirectory is entered. Subdirectories are always listed whole.
    """

    n: DirectoryNumber
    #: Runs of member lines of this segment (ordinal of the first among the member lines, count).
    here: list[tuple[Count, Count]] = []
    elsewhere: list[Elsewhere] = []
    #: Numbers of its subdirectories, in name order.
    directories: list[DirectoryNumber] = []
    #: Names of the base's listing that are gone, or are directories now; ascending.
    removed: list[str] = []
    removed_b64: list[Octets] = []


class FrameLine(_Structure, frozen=True, kw_only=True, tag_field="t", tag="b"):
    """A frame of the payload; its ordinal is its place among the frame lines."""

    #: Place in the payload, length there, length when decoded.
    at: Count
    stored: Count
    plain: Count
    #: XXH3-128 of the stored bytes.
    sum: FrameSum


class End(_Structure, frozen=True, kw_only=True, tag_field="t", tag="end"):
    """Last line of a trailer: without it the segment does not count."""

    segment: SegmentUuid
    #: Ordinal of the segment in its set.
    number: Count
    payload_sha256: Sha256
    #: As they are on tape: encrypted, if they are.
    payload_bytes: Count
    payload_blocks: Count
    plain_bytes: Count
    members: Count
    frames: Count
    #: Of an encrypted payload: fingerprint of its key, and the age header with the nonce in front of its chunks.
    key_fingerprint: str | None = None
    preamble: Octets = b""


TrailerLine = DirectoryEntered | Member | DirectoryPart | DirectoryLeft | FrameLine | End


class IndexHead(_Structure, frozen=True, kw_only=True, tag_field="t", tag="index"):
    """First line of a SET INDEX."""

    format: Format = msgspec.field(default_factory=_this_format)
    index: Uuid
    set: SetUuid
    set_number: Count
    base_set: SetUuid | None = None
    type: str
    job: JobUuid
    job_number: Count
    job_name: str
    #: As in the header.
    sources: list[str]
    sources_b64: list[Octets] = []
    installation: InstallationUuid
    codec: str
    #: -1: each frame may have another.
    level: Annotated[int, msgspec.Meta(ge=-1, le=2**63 - 1)]
    set_started_ns: Nanoseconds
    created_ns: Nanoseconds
    #: True: the set is whole with this index; False: an index before a tape change, more follows elsewhere.
    final: bool
    files: Count
    directories: Count
    bytes: Count
    stored_bytes: Count
    troubled_files: Count
    #: What else the catalog knew of the job and of the set, for a rebuilt one; the keys are the catalog's own.
    job_settings: dict[str, object] = {}
    set_settings: dict[str, object] = {}


class IndexSegment(_Structure, frozen=True, kw_only=True, tag_field="t", tag="segment"):
    """A segment that the set uses and where it lies; then follow, for the delta, the lines of its trailer."""

    segment: SegmentUuid
    number: Count
    volume: VolumeUuid
    label: str
    header_file: Count
    header_block: Count
    payload_block: Count
    trailer_block: Count
    end_block: Count
    block_size: Count
    #: When the segment was committed the first time; 0: not said.
    committed_ns: Nanoseconds = 0


class IndexEnd(_Structure, frozen=True, kw_only=True, tag_field="t", tag="index_end"):
    """Last line of a SET INDEX: without it the index does not count."""

    index: Uuid
    lines: Count


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


def split_xattrs(xattrs: Sequence[tuple[bytes, bytes]]) -> tuple[list[tuple[str, bytes]], list[tuple[bytes, bytes]]]:
    """Return the values of `xattrs` and `xattrs_b64`."""
    if not xattrs:
        return [], []
    texts, raws = [], []
    for name, value in xattrs:
        text, raw = as_text(name)
        if raw:
            raws.append((raw, value))
        else:
            texts.append((text, value))
    return texts, raws


def xattrs_of(line: DirectoryEntered | Member) -> list[tuple[bytes, bytes]]:
    """Return the extended attributes of a line by name. Raises BadStructure for names that cannot be."""
    xattrs = sorted([(text.encode("utf-8"), value) for text, value in line.xattrs] + line.xattrs_b64)
    names = {name for name, _ in xattrs}
    if len(names) < len(xattrs) or any(not 0 < len(name) <= 255 or b"\0" in name for name in names):
        raise BadStructure("the names of extended attributes on tape are empty, too long, or there twice")
    return xattrs


def name_of(line: DirectoryEntered | Member | Elsewhere) -> bytes:
    """Return the name of a line, checked: one plain component, as a directory can hold it; the root's is empty.

    Raises BadStructure, because names of a hostile tape must not climb out of a restore or a mount.
    """
    name = as_bytes(line.name, line.name_b64)
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > 255:
        if not name and isinstance(line, DirectoryEntered) and line.n == 0:
            return name
        raise BadStructure(f"a name on tape is not a plain file name: {name[:80]!r}")
    return name


def split_sources(sources: Sequence[bytes]) -> tuple[list[str], list[bytes]]:
    """Return the values of `sources` and `sources_b64`."""
    pairs = [as_text(source) for source in sources]
    return [text for text, raw in pairs if not raw], [raw for _, raw in pairs if raw]


def join_sources(structure: Header | IndexHead) -> list[bytes]:
    """Return the source paths; those that are not UTF-8 come last."""
    return [source.encode("utf-8") for source in structure.sources] + structure.sources_b64
