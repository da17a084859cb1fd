"""Virtual tapes with full sets of very many small files, made in minutes. Blocking.

LABEL, HEADER, TRAILER and SET INDEX are as a backup writes them, with random checksums. The payloads are frames of
zeros: whoever reads catalogs passes over them.
"""

from __future__ import annotations

import json
import os
from base64 import b64encode
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import zstandard

from catalog.ids import InstallationId, JobId, SegmentId, SetId, VolumeId, new_uuid
from drivers.interface import Drive, ElementKind
from drivers.registry import open_changer, open_drive
from tapefs.codecs import codec
from tapefs.format.frames import frame_checksum, seek_table
from tapefs.format.lines import LineWriter
from tapefs.format.records import End, FrameLine, Header, IndexEnd, IndexHead, IndexSegment, Label, SetLabel
from tapefs.format.structures import header_block, label_block, set_label_block
from tapefs.home import Home
from tapefs.tape.blocks import BlockWriter

_BLOCK_SIZE = 256 * 1024
_FRAME_BYTES = 4 << 20
_FILES_PER_DIRECTORY = 500
#: Header, content of under 512 bytes, filled up; the pax header before it.
_MEMBER_BYTES = 2048
_BEFORE_CONTENT = 1536
_BEGAN_NS = 1_700_000_000_000_000_000
_NS_PER_HOUR = 3600 * 10**9

_MEMBER = (
    b'{"t":"m","d":%d,"name":"file-%06d.dat","mode":33188,"uid":1000,"gid":1000,"size":300,"mtime":%d,"ctime":%d,'
    b'"nlink":1,"dev":2049,"ino":%d,"blocks":8,"at":%d,"sha256":"%b"}\n'
)
_ENTERED = (
    b'{"t":"d","n":%d,"p":%d,"name":"%b","mode":16877,"uid":1000,"gid":1000,"size":4096,"mtime":1,"ctime":1,'
    b'"nlink":2,"dev":2049,"ino":%d,"blocks":8}\n'
)


@dataclass(frozen=True, slots=True)
class _Ids:
    installation: InstallationId
    job: JobId


def fill_library(home: Home, entries_per_tape: int) -> int:
    """Write a full set to every blank tape of the library; return how many entries there are. Raises drive errors."""
    ids = _Ids(InstallationId(new_uuid()), JobId(new_uuid()))
    changer, drive = open_changer(home.library_config), open_drive(home.library_config, 0)
    entries = 0
    try:
        slots = [each for each in changer.inventory() if each.kind is ElementKind.SLOT and each.barcode is not None]
        for number, slot in enumerate(slots, 1):
            changer.load(slot.number, 0)
            drive.load()
            entries += _Tape(home.path, drive, ids, slot.barcode or "", number).write(entries_per_tape)
            drive.unload()
            changer.unload(0, slot.number)
    finally:
        drive.close()
        changer.close()
    return entries


class _Tape:
    """One tape with one set."""

    def __init__(self, scratch: Path, drive: Drive, ids: _Ids, barcode: str, number: int) -> None:
        self._scratch = scratch
        self._drive = drive
        self._ids = ids
        self._barcode = barcode
        self._number = number
        self._volume = VolumeId(new_uuid())
        self._set = SetId(new_uuid())
        self._segment = SegmentId(new_uuid())
        self._began_ns = _BEGAN_NS + number * _NS_PER_HOUR

    def write(self, files: int) -> int:
        """Write it; return how many entries its set has."""
        drive = self._drive
        label = Label(
            volume=self._volume, installation=self._ids.installation, label=self._barcode, pool="default",
            created_ns=self._began_ns, block_size=_BLOCK_SIZE, software="bench",
        )  # fmt: skip
        set_label = SetLabel(volume=self._volume, volume_set=self._volume, sequence=1)
        for block in (label_block(label), set_label_block(set_label)):
            self._tape_file(block)
        header = drive.position()
        self._tape_file(header_block(self._header(), header.file + 1))
        payload = drive.position()
        frames, sha256, stored_bytes, blocks = self._payload(files * _MEMBER_BYTES)
        trailer = drive.position()
        path = self._scratch / "made.trailer"
        end = End(
            segment=self._segment, number=0, payload_sha256=sha256, payload_bytes=stored_bytes, payload_blocks=blocks,
            plain_bytes=sum(frame.plain for frame in frames), members=files, frames=len(frames),
        )  # fmt: skip
        directories, lines = _write_trailer(path, files, frames, end)
        self._file(path)
        place = IndexSegment(
            segment=self._segment, number=0, volume=self._volume, label=self._barcode, header_file=header.file,
            header_block=header.block, payload_block=payload.block, trailer_block=trailer.block,
            end_block=drive.position().block, block_size=_BLOCK_SIZE, committed_ns=self._began_ns,
        )  # fmt: skip
        self._index(path, place, files, directories, stored_bytes, lines)
        path.unlink()
        return files + directories

    def _tape_file(self, block: bytes) -> None:
        self._drive.write_block(block)
        self._drive.write_filemarks(1, sync=False)

    def _payload(self, plain_bytes: int) -> tuple[list[FrameLine], bytes, int, int]:
        encode = codec("zstd").encoder(1)
        stored = encode(bytes(_FRAME_BYTES))
        checksum = frame_checksum(stored)
        count = -(-plain_bytes // _FRAME_BYTES) + 1
        blocks = BlockWriter(self._drive, _BLOCK_SIZE)
        for _ in range(count):
            blocks.write(stored)
        blocks.write(seek_table([(len(stored), _FRAME_BYTES)] * count))
        sha256 = blocks.finish()
        self._drive.write_filemarks(1, sync=False)
        frames = [
            FrameLine(at=number * len(stored), stored=len(stored), plain=_FRAME_BYTES, sum=checksum)
            for number in range(count)
        ]
        return frames, sha256, blocks.bytes, blocks.blocks

    def _file(self, path: Path) -> None:
        blocks = BlockWriter(self._drive, _BLOCK_SIZE)
        with path.open("rb") as file:
            for piece in iter(partial(file.read, _BLOCK_SIZE), b""):
                blocks.write(piece)
        blocks.finish()
        self._drive.write_filemarks(1, sync=False)

    def _header(self) -> Header:
        return Header(
            segment=self._segment, number=0, set=self._set, set_number=self._number, type="full", job=self._ids.job,
            job_number=1, job_name="made", sources=["/made"], installation=self._ids.installation, volume=self._volume,
            codec="zstd", block_size=_BLOCK_SIZE, host="bench", set_started_ns=self._began_ns,
            created_ns=self._began_ns, software="bench",
        )  # fmt: skip

    def _index(
        self, trailer: Path, place: IndexSegment, files: int, directories: int, stored_bytes: int, lines: int
    ) -> None:
        head = IndexHead(
            index=new_uuid(), set=self._set, set_number=self._number, type="full", job=self._ids.job, job_number=1,
            job_name="made", sources=["/made"], installation=self._ids.installation, codec="zstd", level=3,
            set_started_ns=self._began_ns, created_ns=self._began_ns + 1, final=True, files=files,
            directories=directories, bytes=300 * files, stored_bytes=stored_bytes, troubled_files=0,
        )  # fmt: skip
        blocks = BlockWriter(self._drive, _BLOCK_SIZE)
        encode = msgspec.json.Encoder().encode_lines
        compress = zstandard.ZstdCompressor(level=3, write_checksum=True).compress
        blocks.write(compress(encode([head, place])))
        with trailer.open("rb") as file:
            for piece in iter(partial(file.read, _BLOCK_SIZE), b""):
                blocks.write(piece)
        blocks.write(compress(encode([IndexEnd(index=head.index, lines=lines + 2)])))
        blocks.finish()
        self._drive.write_filemarks(1, sync=True)


def _write_trailer(path: Path, files: int, frames: list[FrameLine], end: End) -> tuple[int, int]:
    """Write a trailer of so many files; return how many directories it has, and lines."""
    with path.open("wb") as file:
        writer = LineWriter(file.write)
        writer.write_text(_ENTERED.replace(b'"n":%d', b'"n":0') % (0, b"", 2), 1)
        writer.write_text(_ENTERED % (1, 0, b"made", 3), 1)
        children = []
        for number, first in enumerate(range(0, files, _FILES_PER_DIRECTORY), 2):
            count = min(_FILES_PER_DIRECTORY, files - first)
            writer.write_text(_ENTERED % (number, 1, b"folder-%06d" % number, number), 1)
            writer.write_text(b"".join(_member(number, each) for each in range(first, first + count)), count)
            writer.write_text(b'{"t":"l","n":%d,"here":[[%d,%d]]}\n' % (number, first, count), 1)
            children.append(number)
        writer.write_text(b'{"t":"l","n":1,"directories":%b}\n' % json.dumps(children).encode(), 1)
        writer.write_text(b'{"t":"l","n":0,"directories":[1]}\n', 1)
        writer.write_many(frames)
        writer.write(end)
        writer.close()
    return len(children) + 2, writer.lines


def _member(directory: int, number: int) -> bytes:
    mtime = _BEGAN_NS + number * 1_234_567
    at = number * _MEMBER_BYTES + _BEFORE_CONTENT
    return _MEMBER % (directory, number, mtime, mtime, number + 10, at, b64encode(os.urandom(32)))
