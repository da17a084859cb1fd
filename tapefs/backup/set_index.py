"""The SET INDEX: what a rebuild reads first. Written at the end of a tape and of a job, in the drive's thread."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec
import zstandard

from catalog.crash import crash_point
from catalog.ids import BlockNo, FileNo, InstallationId, VolumeId, new_uuid
from catalog.records import IndexCopy, Intent, IntentKind, SetState, SetTotals, VolumeEnd
from drivers.interface import Drive
from tapefs.backup.segment import CommittedSegment, SetContext
from tapefs.format.catalog_settings import job_settings, set_settings
from tapefs.format.records import IndexEnd, IndexHead, IndexSegment, split_sources
from tapefs.keys.driving import require_encrypted, write_encrypted
from tapefs.tape.append import OpenTape
from tapefs.tape.files import TapeFile

_LEVEL = 3
_READ_BYTES = 1024 * 1024

_before_index = crash_point("set_index.before")
_after_index = crash_point("set_index.after")
_after_sync = crash_point("set_index.sync.after")
_after_commit = crash_point("set_index.commit.after")


def write_set_index(
    context: SetContext,
    drive: Drive,
    tape: OpenTape,
    segments: Sequence[CommittedSegment],
    delta: Sequence[CommittedSegment],
    totals: SetTotals,
    *,
    final: bool,
    replaces: VolumeId | None = None,
) -> None:
    """Write the index at the tape's end and commit it; a final one seals the set, unless that is COMPLETE already.

    `segments` are all the set has so far; of `delta`, those since the previous index, the trailers are repeated. With
    `replaces` it takes the place of those on another tape. Raises drive and catalog errors.
    """
    index_id, now_ns = new_uuid(), time.time_ns()
    volume, start = tape.volume, tape.end
    set_id = context.backup_set.set_id
    intent = Intent(
        structure_id=index_id,
        kind=IntentKind.INDEX,
        volume_id=volume.volume_id,
        block=start.block,
        set_id=set_id,
        opened_at_ns=now_ns,
    )
    context.ledger.open_intent(intent, tape.claim)
    _before_index()
    write_encrypted(drive, tape.drive_key)
    blocks = TapeFile(drive, volume.block_size, tape.recipient, "index", index_id)
    head = _head(context, index_id, volume.installation_id, totals, now_ns, final=final)
    for piece in _stored(context, head, segments, delta):
        blocks.write(piece)
    blocks.finish()
    _after_index()
    require_encrypted(drive, tape.drive_key)
    drive.write_filemarks(1, sync=True)
    _after_sync()
    position = drive.position()
    index = IndexCopy(
        index_id=index_id,
        set_id=set_id,
        volume_id=volume.volume_id,
        file=start.file,
        block=start.block,
        end_block=BlockNo(position.block),
        replaces=replaces or VolumeId(""),
    )
    end = VolumeEnd(
        block=BlockNo(position.block), file=FileNo(position.file), used_bytes=start.used_bytes + blocks.stored_bytes
    )
    if final and context.backup_set.state is not SetState.COMPLETE:
        context.ledger.seal_set(set_id, totals, index, tape.claim, end, now_ns)
    else:
        context.ledger.commit_index(index, tape.claim, end, now_ns)
    tape.end = end
    _after_commit()


def _head(
    context: SetContext, index_id: str, installation: InstallationId, totals: SetTotals, now_ns: int, *, final: bool
) -> IndexHead:
    backup_set = context.backup_set
    sources, sources_b64 = split_sources(backup_set.sources)
    return IndexHead(
        index=index_id,
        set=backup_set.set_id,
        set_number=backup_set.number,
        base_set=backup_set.parent_id,
        type=backup_set.type,
        job=backup_set.job_id,
        job_number=backup_set.job_number,
        job_name=backup_set.name,
        sources=sources,
        sources_b64=sources_b64,
        installation=installation,
        codec=context.codec.format,
        level=backup_set.level,
        set_started_ns=backup_set.started_at_ns,
        created_ns=now_ns,
        final=final,
        files=totals.files,
        directories=totals.directories,
        bytes=totals.bytes,
        stored_bytes=totals.stored_bytes,
        troubled_files=totals.troubled_files,
        job_settings=job_settings(context.ledger, backup_set.job_number),
        set_settings=set_settings(
            msgspec.structs.replace(backup_set, unread_files=totals.unread_files, unread_mark=totals.unread_mark)
        ),
    )


def _stored(
    context: SetContext, head: IndexHead, segments: Sequence[CommittedSegment], delta: Sequence[CommittedSegment]
) -> Iterator[bytes]:
    """Yield the compressed lines in pieces of any length.

    Trailers go as they lie on disk, as zstd frames between ours: to compress their lines again takes four times as long
    as to count them.
    """
    encode = msgspec.json.Encoder().encode
    repeated = {segment.segment.segment_id for segment in delta}
    text, lines = [encode(head)], 1
    for segment in segments:
        text.append(encode(_segment_line(segment)))
        lines += 1
        if segment.segment.segment_id in repeated:
            yield _frame(text)
            text = []
            trailer = context.home.trailer(segment.segment.segment_id)
            lines += _lines_of(trailer)
            with trailer.open("rb") as file:
                yield from iter(partial(file.read, _READ_BYTES), b"")
    yield _frame([*text, encode(IndexEnd(index=head.index, lines=lines))])


def _segment_line(committed: CommittedSegment) -> IndexSegment:
    copy = committed.copy
    return IndexSegment(
        segment=copy.segment_id,
        number=committed.segment.number,
        volume=copy.volume_id,
        label=committed.label,
        header_file=copy.header_file,
        header_block=copy.header_block,
        payload_block=copy.payload_block,
        trailer_block=copy.trailer_block,
        end_block=copy.end_block,
        block_size=copy.block_size,
        committed_ns=committed.segment.committed_at_ns,
    )


def _lines_of(trailer: Path) -> int:
    with trailer.open("rb") as stored:
        with zstandard.ZstdDecompressor().stream_reader(stored, read_across_frames=True) as reader:
            return sum(text.count(b"\n") for text in iter(partial(reader.read, _READ_BYTES), b""))


def _frame(lines: Sequence[bytes]) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(b"\n".join([*lines, b""]))
