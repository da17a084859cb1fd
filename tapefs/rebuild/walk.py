"""A tape is read for its catalog: from label to end of data, structure by structure. Blocking; the drive's thread.

What is damaged costs only itself: an index that cannot be read is made up for by the trailers of its segments, a
trailer by its payload. What is torn at the end of the data is noted, so that the next writer may overwrite it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from catalog.ids import SegmentId
from drivers.errors import EndOfData, ReadFailed
from drivers.interface import BlockNo, Drive, FileNo, Position
from tapefs.errors import BadStructure
from tapefs.format.identify import foreign_format, is_ours
from tapefs.format.records import AGE, End, Header
from tapefs.format.structures import read_header
from tapefs.home import Home
from tapefs.keys.reading import open_file
from tapefs.rebuild.labels import Labels, give_key
from tapefs.rebuild.orientation import is_header, is_index, last_file_before
from tapefs.rebuild.payloads import members_file, take_payload
from tapefs.rebuild.records import Index, Method, Segment, Survey, Tape, Torn
from tapefs.rebuild.trailers import IndexReading, end_of, take_trailer
from tapefs.tape.blocks import LARGEST_BLOCK_BYTES, BlockReader

log = structlog.get_logger(__name__)

#: How every zstd frame begins.
_ZSTD = b"\x28\xb5\x2f\xfd"
#: To find where an index begins takes some ten short locates; a segment that is passed over forwards takes three stops.
_WORTH_A_SEARCH = 4

#: Told what is being read, for people: tape, tape file, segments so far.
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class _Place:
    """A segment whose three tape files are there."""

    header: Header
    at: Position
    payload_block: int
    trailer_block: int
    end_block: int
    #: Of an encrypted TRAILER as it is on tape; else nothing.
    trailer_sha256: bytes
    trailer_bytes: int


@dataclass(slots=True)
class _Findings:
    headers: list[Header] = field(default_factory=list)
    places: list[_Place] = field(default_factory=list)
    indexes: list[Index] = field(default_factory=list)
    torn: list[Torn] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    #: By segment: what the last line of its trailer says, its length, and whether the trailer was made anew.
    trailers: dict[SegmentId, tuple[End, int, bool]] = field(default_factory=dict)
    #: Behind the last structure that is whole, or at least was finished.
    end: Position = field(default_factory=lambda: Position(BlockNo(0), FileNo(0)))
    suspect: str = ""
    #: Tape files that were passed over.
    unknown: list[Position] = field(default_factory=list)


def survey_tape(home: Home, drive: Drive, method: Method, tell: Tell, folder: Path) -> Survey:
    """Read the threaded tape; local trailers of what is found are in `home` then, what payloads hold is in `folder`.

    Raises Blank, NotBlank when it is somebody else's, KeyMissing, BadStructure when not even its label can be made out,
    drive errors, StorageFailed.
    """
    return _Walk(home, drive, method, tell, folder).run()


class _Walk:
    """One tape, read once."""

    def __init__(self, home: Home, drive: Drive, method: Method, tell: Tell, folder: Path) -> None:
        self._home = home
        self._folder = folder
        self._drive = drive
        self._method = method
        self._tell = tell
        self._found = _Findings()
        #: Of the tape file that was read last.
        self._stored_bytes = 0
        self._reader = BlockReader(drive, LARGEST_BLOCK_BYTES // 16)

    def run(self) -> Survey:
        """Read it."""
        found = self._found
        labels = Labels(self._home, self._drive, self._reader)
        tape, label_bytes = labels.read()
        found.ignored += labels.ignored
        begin = found.end = self._drive.position()
        stop = None
        give_key(self._home, self._drive, tape)
        # Of a tape with age files each TRAILER is read, because its SHA-256 is not known otherwise.
        if self._method is Method.INDEX and (tape.by_drive or not tape.key_fingerprint):
            stop = self._from_the_end(tape, begin)
        if stop is None or stop > begin.block:
            end, found.end = found.end, begin
            self._drive.locate(begin.block)
            self._forwards(tape, stop)
            found.end = found.end if stop is None else end
        self._drive.seek_end()
        self._judge_end(self._drive.position())
        found.indexes.sort(key=lambda index: index.block)
        remaining_bytes = self._drive.status().remaining_bytes
        segments = [segment for place in found.places if (segment := self._segment_at(tape, place)) is not None]
        segments += self._without_header(tape, {segment.segment for segment in segments})
        for at in found.unknown:
            if not any(segment.header_block <= at.block < segment.end_block for segment in segments):
                # It may be part of a set that is only to be had here.
                found.suspect = found.suspect or f"tape file {at.file} cannot be read"
        last = found.indexes[-1] if found.indexes else None
        is_left = last is not None and last.end_block == found.end.block and not last.head.final
        return Survey(
            method=self._method,
            tape=tape,
            headers=found.headers,
            segments=segments,
            indexes=found.indexes,
            torn=found.torn,
            end_block=found.end.block,
            end_file=found.end.file,
            label_bytes=label_bytes,
            is_full=is_left or remaining_bytes == 0,
            written_ns=max(
                [tape.created_ns, *(h.created_ns for h in found.headers), *(i.head.created_ns for i in found.indexes)]
            ),
            ignored=found.ignored,
            suspect=found.suspect,
        )

    def _forwards(self, tape: Tape, stop: int | None) -> None:
        """Take all structures from here on; up to block `stop` if there is one, else to the end of data."""
        while True:
            at = self._drive.position()
            if stop is not None and at.block >= stop:
                return
            self._tell(tape.label, at.file, len(self._found.places))
            try:
                is_more = self._structure(at)
            except ReadFailed as error:
                is_more = self._pass_over(at, str(error))
            if not is_more:
                return

    # -- from the end ------------------------------------------------------------------------------------------------

    def _from_the_end(self, tape: Tape, begin: Position) -> int | None:
        """Take SET INDEXes from the end backwards, as long as each stands for many segments before it.

        Returns the block from which on everything is known; None when the data does not end with a whole index.
        """
        drive, found = self._drive, self._found
        drive.seek_end()
        end = drive.position()
        stop = None
        while (stop or end.block) > begin.block:
            indexes, ignored = len(found.indexes), len(found.ignored)
            at = last_file_before(drive, stop or end.block, begin)
            if at is None or not self._is_whole_index(at):
                # Forwards it is met again.
                del found.indexes[indexes:], found.ignored[ignored:]
                break
            index = found.indexes[-1]
            stop = self._begin_of(tape, index)
            if sum(line.volume == tape.volume_id for line in index.table) < _WORTH_A_SEARCH:
                break
        found.end = end
        return stop

    def _is_whole_index(self, at: Position) -> bool:
        """Take the index that begins there; False when there is none, or none that is whole."""
        self._drive.locate(at.block)
        first = self._peek()
        return bool(first) and is_index(first or b"") and self._index(at) and self._found.indexes[-1].is_whole

    def _begin_of(self, tape: Tape, index: Index) -> int:
        """Return where the segments begin that lie directly before an index and are repeated in it."""
        starts = {
            line.end_block: line.header_block
            for line in index.table
            if line.volume == tape.volume_id and line.segment in self._found.trailers
        }
        block = index.block
        while block in starts and starts[block] < block:
            block = starts[block]
        return block

    # -- structures --------------------------------------------------------------------------------------------------

    def _structure(self, at: Position) -> bool:
        """Take what begins here; False at the end of data. Raises ReadFailed, other drive errors, StorageFailed."""
        try:
            first = bytes(self._reader.read())
        except EndOfData:
            return False
        if not first:
            return True  # An empty tape file.
        if is_ours(first):
            try:
                header = read_header(first)
            except BadStructure as error:
                return self._pass_over(at, str(error))
            return self._segment(at, header)
        if first.startswith(_ZSTD) or is_index(first):
            return self._index(at)
        return self._pass_over(at, f"it is {foreign_format(first)}")

    def _pass_over(self, at: Position, why: str) -> bool:
        """Leave a tape file alone, and say so; False when the data ends within it."""
        self._found.ignored.append(f"tape file {at.file} is passed over: {why}")
        if not self._skip():
            self._found.suspect = f"its data ends with something that is not understood, at block {at.block}"
            return False
        self._found.unknown.append(at)
        self._found.end = self._drive.position()
        return True

    def _skip(self) -> bool:
        """Go behind the next filemark; False when there is none."""
        try:
            self._drive.space_filemarks(1)
        except EndOfData:
            return False
        return True

    def _segment(self, at: Position, header: Header) -> bool:
        """Take a HEADER and what follows it; False when the data ends within."""
        self._found.headers.append(header)
        torn = Torn(structure=header.segment, is_index=False, set=header.set, block=at.block)
        if not self._skip():
            return self._torn(torn)
        payload = self._drive.position()
        first = self._peek()
        if first is None:
            return self._torn(torn)
        if not first or is_header(first):
            self._abandoned(at, header, payload if first else None)
            return True
        if not self._skip():
            return self._torn(torn)
        trailer = self._drive.position()
        first = self._peek()
        if first is None:
            return self._torn(torn)
        if first == b"" or is_header(first) or is_index(first):
            self._abandoned(at, header, trailer if first else None)
            return True
        sealed = self._sealed(first) if header.encryption == AGE else (b"", 0)
        if sealed is None or (header.encryption != AGE and not self._skip()):
            return self._torn(torn)
        end = self._drive.position()
        place = _Place(header, at, payload.block, trailer.block, end.block, *sealed)
        self._found.places.append(place)
        self._found.end = end
        if self._method is not Method.INDEX:
            self._contents(place)
            self._drive.locate(end.block)
        return True

    def _peek(self) -> bytes | None:
        """Return the next block, b"" for a filemark, None at the end of data, some bytes when it is unreadable."""
        try:
            return bytes(self._reader.read())
        except EndOfData:
            return None
        except ReadFailed:
            return b"\0"

    def _sealed(self, first: bytes) -> tuple[bytes, int] | None:
        """Read an encrypted TRAILER on; return SHA-256 and length of it as it is, None at the end of data."""
        sha256, length = hashlib.sha256(first), len(first)
        try:
            for block in self._reader.rest_of_file():
                sha256.update(block)
                length += len(block)
        except ReadFailed:
            return (b"", 0) if self._skip() else None
        except BadStructure:
            return None
        return sha256.digest(), length

    def _torn(self, torn: Torn) -> bool:
        """The data ends within a structure."""
        self._found.torn.append(torn)
        what = "SET INDEX" if torn.is_index else "segment"
        self._found.ignored.append(f"the {what} at block {torn.block} was never finished: it does not count")
        return False

    def _abandoned(self, at: Position, header: Header, following: Position | None) -> None:
        """A segment was given up and something else follows it, or nothing but its filemark."""
        self._found.ignored.append(
            f"segment {header.number} of set {header.set[:8]} at tape file {at.file} was given up: it does not count"
        )
        if following is not None:
            self._drive.locate(following.block)
        self._found.end = self._drive.position()

    def _index(self, at: Position) -> bool:
        """Take a SET INDEX, or a TRAILER whose HEADER is gone; False when the data ends within."""
        self._drive.locate(at.block)
        reading = IndexReading(self._home, takes_trailers=self._method is Method.INDEX)
        why = ""
        try:
            reading.read(self._blocks())
        except (ReadFailed, BadStructure) as error:
            why = str(error)
            self._drive.locate(at.block)
            if not self._skip():
                return self._torn_index(at, reading)
        self._found.end = self._drive.position()
        self._found.trailers.update({each: (*end, False) for each, end in reading.trailers.items()})
        if why:
            self._found.ignored.append(f"the SET INDEX at tape file {at.file} is passed over: {why}")
        if reading.head is not None:
            index = Index(
                head=reading.head,
                table=reading.table,
                file=at.file,
                block=at.block,
                end_block=self._found.end.block,
                stored_bytes=self._stored_bytes,
                is_whole=not why,
            )
            self._found.indexes.append(index)
        return True

    def _torn_index(self, at: Position, reading: IndexReading) -> bool:
        if reading.head is None:
            return self._pass_over(at, "it is torn")
        head = reading.head
        return self._torn(Torn(structure=head.index, is_index=True, set=head.set, block=at.block))

    def _blocks(self) -> Iterator[bytes]:
        """Yield what the tape file at hand holds, decrypted if need be. Raises KeyMissing, BadStructure, ReadFailed."""
        self._stored_bytes = 0
        return open_file(self._home, self._counted())

    def _counted(self) -> Iterator[memoryview]:
        for block in self._reader.rest_of_file():
            self._stored_bytes += len(block)
            yield block

    def _judge_end(self, end: Position) -> None:
        """What lies behind the last whole structure must be what is torn, else nobody appends to it."""
        found = self._found
        if end.block > found.end.block and not any(torn.block == found.end.block for torn in found.torn):
            found.suspect = found.suspect or f"there is something behind block {found.end.block} that is not understood"

    # -- contents ----------------------------------------------------------------------------------------------------

    def _contents(self, place: _Place) -> bool:
        """Have a segment's local trailer; False when it cannot be had, which is told then."""
        segment_id = place.header.segment
        if segment_id in self._found.trailers or self._is_there(segment_id):
            return True
        ways = [self._from_trailer, self._from_payload]
        if self._method is Method.PAYLOADS:
            # A 7z, for instance, tells too little.
            ways.reverse()
        if any(way(place) for way in ways):
            return True
        self._found.suspect = f"the segment at tape file {place.at.file} cannot be read"
        return False

    def _is_there(self, segment_id: SegmentId) -> bool:
        """Did a rebuild that was cut off have it already? Its files are kept only when they are whole."""
        for path, is_payload in (
            (self._home.trailer(segment_id), False),
            (members_file(self._folder, segment_id), True),
        ):
            try:
                end, size = end_of(path, segment_id)
            except (FileNotFoundError, BadStructure):
                continue
            self._found.trailers[segment_id] = (end, 0 if is_payload else size, is_payload)
            return True
        return False

    def _from_trailer(self, place: _Place) -> bool:
        try:
            self._drive.locate(BlockNo(place.trailer_block))
            end, size = take_trailer(self._home, place.header.segment, self._blocks())
        except (ReadFailed, BadStructure) as error:
            self._found.ignored.append(f"{_named(place)}: its TRAILER cannot be read: {error}")
            return False
        self._found.trailers[place.header.segment] = (end, size, False)
        return True

    def _from_payload(self, place: _Place) -> bool:
        try:
            self._drive.locate(BlockNo(place.payload_block))
            end = take_payload(self._home, self._folder, place.header, self._reader.rest_of_file())
        except (ReadFailed, BadStructure) as error:
            self._found.ignored.append(f"{_named(place)}: its payload cannot be read: {error}")
            return False
        self._found.trailers[place.header.segment] = (end, 0, True)
        return True

    def _segment_at(self, tape: Tape, place: _Place) -> Segment | None:
        if place.header.volume != tape.volume_id:
            self._found.ignored.append(f"{_named(place)}: its HEADER says that it lies on tape {place.header.volume}")
            return None
        if not self._contents(place):
            return None
        end, trailer_bytes, is_anew = self._found.trailers[place.header.segment]
        header = place.header
        return Segment(
            segment=header.segment,
            set=header.set,
            number=header.number,
            codec=header.codec,
            header_file=place.at.file,
            header_block=place.at.block,
            payload_block=place.payload_block,
            trailer_block=place.trailer_block,
            end_block=place.end_block,
            block_size=header.block_size,
            payload_bytes=end.payload_bytes,
            plain_bytes=end.plain_bytes,
            members=end.members,
            frames=end.frames,
            payload_sha256=end.payload_sha256,
            trailer_bytes=place.trailer_bytes or trailer_bytes,
            trailer_sha256=place.trailer_sha256,
            key_fingerprint=end.key_fingerprint or "",
            preamble=end.preamble,
            committed_ns=self._committed_ns(header),
            is_from_payload=is_anew,
        )

    def _without_header(self, tape: Tape, known: set[SegmentId]) -> Iterator[Segment]:
        """Yield segments of which an index tells where they lie, and repeats the trailer; their HEADER is damaged."""
        for index in self._found.indexes:
            for line in index.table:
                if line.volume != tape.volume_id or line.segment in known or line.segment not in self._found.trailers:
                    continue
                if line.end_block > index.block:
                    continue
                known.add(line.segment)
                end, trailer_bytes, _ = self._found.trailers[line.segment]
                yield Segment(
                    segment=line.segment,
                    set=index.head.set,
                    number=line.number,
                    codec=index.head.codec,
                    header_file=line.header_file,
                    header_block=line.header_block,
                    payload_block=line.payload_block,
                    trailer_block=line.trailer_block,
                    end_block=line.end_block,
                    block_size=line.block_size,
                    payload_bytes=end.payload_bytes,
                    plain_bytes=end.plain_bytes,
                    members=end.members,
                    frames=end.frames,
                    payload_sha256=end.payload_sha256,
                    trailer_bytes=trailer_bytes,
                    key_fingerprint=end.key_fingerprint or "",
                    preamble=end.preamble,
                    committed_ns=line.committed_ns,
                )

    def _committed_ns(self, header: Header) -> int:
        lines = (line for index in self._found.indexes for line in index.table)
        said = next((line.committed_ns for line in lines if line.segment == header.segment), 0)
        return said or header.created_ns


def _named(place: _Place) -> str:
    return f"segment {place.header.number} of set {place.header.set[:8]} at tape file {place.at.file}"
