"""Records and hypothesis strategies that the format's tests share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from catalog.ids import DirectoryNo, InstallationId, JobId, SegmentId, SetId, VolumeId
from tapefs.format.records import (
    DirectoryEntered,
    DirectoryLeft,
    Elsewhere,
    End,
    FrameLine,
    Header,
    IndexEnd,
    IndexHead,
    IndexSegment,
    Label,
    Member,
    SetLabel,
    as_text,
)

VOLUME = VolumeId("6b1f5d3e-0c5b-4d0e-9d0a-3f4f1c2b7a10")
OTHER_VOLUME = VolumeId("f0a4d9a2-7a63-4ee5-8a9b-0d3c1b2a4e5f")
INSTALLATION = InstallationId("1c21e9a7-2d10-4b23-8b8d-dca8338b4ef3")
SEGMENT = SegmentId("bac46cef-3ad7-4c67-9e1b-e827d503f5f3")
SET = SetId("0aedfea3-3583-4bca-b102-2161fc8990d7")
JOB = JobId("9dd8576b-71ff-4e4b-b92c-e1c6f1082a85")
INDEX = "5f1b2f62-9f0e-4d52-8d5b-6f3f0c1a7e21"

LABEL = Label(
    volume=VOLUME,
    installation=INSTALLATION,
    label="TAPE01L9",
    pool="default",
    created_ns=1_700_000_000_123_456_789,
    block_size=262_144,
    software="tapefs 0.1.0",
)
SET_LABEL = SetLabel(volume=VOLUME, volume_set="default", sequence=2, previous_volume=OTHER_VOLUME)
HEADER = Header(
    segment=SEGMENT,
    number=3,
    set=SET,
    set_number=5,
    type="full",
    job=JOB,
    job_number=2,
    job_name="täglich",
    sources=["/usr/share", "/srv/Größe"],
    sources_b64=[b"/srv/gr\xf6\xdfe"],
    installation=INSTALLATION,
    volume=VOLUME,
    codec="zstd",
    block_size=262_144,
    host="backup.example",
    set_started_ns=1_700_000_000_000_000_000,
    created_ns=1_700_000_100_000_000_000,
    software="tapefs 0.1.0",
)
INDEX_HEAD = IndexHead(
    index=INDEX,
    set=SET,
    set_number=5,
    type="full",
    job=JOB,
    job_number=2,
    job_name="täglich",
    sources=["/usr/share", "/srv/Größe"],
    sources_b64=[b"/srv/gr\xf6\xdfe"],
    installation=INSTALLATION,
    codec="zstd",
    level=3,
    set_started_ns=1_700_000_000_000_000_000,
    created_ns=1_700_000_200_000_000_000,
    final=True,
    files=3,
    directories=2,
    bytes=8902,
    stored_bytes=3051,
    troubled_files=0,
)
INDEX_SEGMENT = IndexSegment(
    segment=SEGMENT,
    number=3,
    volume=VOLUME,
    label="TAPE01L9",
    header_file=2,
    header_block=4,
    payload_block=6,
    trailer_block=8,
    end_block=10,
    block_size=262_144,
)

text = st.text(st.characters(codec="utf-8"), max_size=40)
uuids = st.uuids().map(str)
counts = st.integers(0, 2**63 - 1)
small = st.integers(0, 2**32)
times = st.integers(-(2**70), 2**70)
names = st.binary(min_size=1, max_size=255).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)


def made(kind: Any, **fields: Any) -> st.SearchStrategy[Any]:
    """Build records of a kind, with a name in either twin of its key if `name` is among the fields."""

    def make(values: dict[str, Any]) -> Any:
        for key in ("name", "target"):
            if key in values:
                values[key], values[f"{key}_b64"] = as_text(values[key])
        return kind(**values)

    return st.fixed_dictionaries(fields).map(make)


_attributes = {key: counts for key in ("mode", "uid", "gid", "size", "nlink", "blocks")} | {
    "mtime": times,
    "ctime": times,
    "dev": st.integers(0, 2**64 - 1),
    "ino": st.integers(0, 2**64 - 1),
}
_digests = st.binary(min_size=32, max_size=32)

labels = made(
    Label,
    volume=uuids,
    installation=uuids,
    label=text,
    pool=text,
    created_ns=times,
    block_size=st.integers(4096, 1 << 24),
    software=text,
)
set_labels = made(
    SetLabel,
    volume=uuids,
    volume_set=text,
    sequence=small,
    previous_volume=st.none() | uuids,
    key_fingerprint=st.none() | text,
)
headers = made(
    Header,
    segment=uuids,
    number=small,
    set=uuids,
    set_number=small,
    parent_set=st.none() | uuids,
    type=text,
    job=uuids,
    job_number=small,
    job_name=text,
    sources=st.lists(text, max_size=5),
    sources_b64=st.lists(st.just(b"/\xff"), max_size=2),
    installation=uuids,
    volume=uuids,
    codec=st.just("zstd"),
    block_size=st.just(262_144),
    host=text,
    set_started_ns=times,
    created_ns=times,
    software=text,
)
members = made(
    Member,
    d=small.map(DirectoryNo),
    name=names,
    **_attributes,
    flags=small,
    at=counts,
    sha256=st.just(b"") | _digests,
    target=st.just(b"") | names,
    part=st.integers(-1, 9999),
    part_offset=counts,
    part_bytes=counts,
)
directories = made(DirectoryEntered, n=small, p=small, name=names, **_attributes, again=st.booleans())
left = made(
    DirectoryLeft,
    n=small,
    here=st.lists(st.tuples(small, small), max_size=4),
    elsewhere=st.lists(made(Elsewhere, name=names, segment=uuids, at=counts), max_size=4),
    directories=st.lists(small, max_size=4),
)
frame_lines = made(FrameLine, at=counts, stored=counts, plain=counts, sum=st.binary(min_size=16, max_size=16))
ends = made(
    End,
    segment=uuids,
    payload_sha256=_digests,
    **{key: small for key in ("number", "payload_bytes", "payload_blocks", "plain_bytes", "members", "frames")},
)
trailer_lines = st.one_of(members, directories, left, frame_lines, ends)
index_lines = st.one_of(
    trailer_lines,
    made(
        IndexHead,
        index=uuids,
        set=uuids,
        set_number=small,
        type=text,
        job=uuids,
        job_number=small,
        job_name=text,
        sources=st.lists(text, max_size=3),
        installation=uuids,
        codec=text,
        level=small,
        set_started_ns=times,
        created_ns=times,
        final=st.booleans(),
        **{key: small for key in ("files", "directories", "bytes", "stored_bytes", "troubled_files")},
    ),
    made(
        IndexSegment,
        segment=uuids,
        volume=uuids,
        label=text,
        **{
            key: small
            for key in (
                "number",
                "header_file",
                "header_block",
                "payload_block",
                "trailer_block",
                "end_block",
                "block_size",
            )
        },
    ),
    made(IndexEnd, index=uuids, lines=small),
)
