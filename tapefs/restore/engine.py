"""Restores a set, or parts of it, straight from tape through the staging cache.

First the chosen part of the index is walked: directories (0700 at first) and all that has no content are made, files
with content are planned. Then the files are written in the order of the tape, while a window of frames ahead is being
fetched, each checked against its SHA-256. Last, files get their other names and directories their attributes, the
deepest first, also when the restore ends early.

Blocking, one thread. Memory is bounded however large the set: 24 MB of plan (`plan`), the frame tables of a few
segments, one frame's bytes at a time.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from catalog.errors import CatalogError
from catalog.ids import SegmentId, SegmentNo
from catalog.index.model import Entry, EntryFlag
from tapefs.errors import (
    BadStructure,
    HomeError,
    RecallDamaged,
    RecallFailed,
    RecallLocked,
    RecallOffline,
    RecallTimedOut,
)
from tapefs.home import Home
from tapefs.restore.contents import Content, contents_of
from tapefs.restore.links import Links
from tapefs.restore.making import Maker, Name, TargetFull, join, reason_of
from tapefs.restore.plan import Directories, Plan, PlannedFile
from tapefs.restore.records import FrameWish, Index, NotFetched, RestoreProgress, RestoreReport, Trouble
from tapefs.restore.tally import Tally
from tapefs.restore.walk import Walk
from tapefs.restore.window import FrameKey, Recalls, Stages, Window
from tapefs.restore.writer import BadName, NewFile, SafeWriter

WINDOW_BYTES = 256 * 1024 * 1024
DEADLINE_S = 3600.0
_POLL_S = 0.02
# Plain numbers: an operation on flags costs 3 us.
_CHANGED = int(EntryFlag.CHANGED)
_READ_BYTES = 1024 * 1024


def _none_failed() -> Mapping[tuple[SegmentId, int], NotFetched]:
    return {}


def _no_note(trouble: Trouble) -> None:
    del trouble


def restore(
    home: Home,
    reader: Index,
    paths: Sequence[bytes],
    target: Path,
    *,
    fetch: Callable[[Sequence[FrameWish]], None],
    progress: Callable[[RestoreProgress], None],
    failed: Callable[[], Mapping[tuple[SegmentId, int], NotFetched]] = _none_failed,
    note: Callable[[Trouble], None] = _no_note,
    overwrite: bool = False,
    special: bool = True,
    window_bytes: int = WINDOW_BYTES,
    deadline_s: float = DEADLINE_S,
) -> RestoreReport:
    """Restore the recorded paths (none: the whole set), each with its whole path, beneath `target`, made if missing.

    `fetch` asks for frames to be staged and returns at once; the same ones may be asked for again. `failed` tells
    which frames, by segment and number, cannot be had; their files are reported, the others restored. What exists is
    left alone and reported, but for `overwrite`: then files and links are replaced, and existing directories get the
    recorded attributes. Without `special` nothing is made that gives rights: no set-id bits of files, no attributes
    `security.*` and `trusted.*`, no device nodes. `note` is told of every trouble and every refusal, the report has the
    first and counts.

    Raises UsageError (target, paths), NoSuchThing (paths), RecallTimedOut if no frame came for `deadline_s`,
    CatalogError, HomeError, and what `fetch` raises. A full disk ends the restore with a report that says so
    (`stopped`).
    """
    tally = Tally(progress, note)
    limit_bytes = home.settings.staging.limit_bytes
    recalls = Recalls(
        fetch=fetch,
        failed=failed,
        # Staged ahead and pinned: it must not be what fills a small staging folder.
        window_bytes=min(window_bytes, limit_bytes // 4) if limit_bytes else window_bytes,
        deadline_s=deadline_s,
        poll_s=_POLL_S,
        on_wait=lambda: tally.tell(b"", is_waiting=True),
    )
    with ExitStack() as stack:
        plan, directories, links = _scratch(home)
        for scratch in (plan, directories, links):
            stack.callback(scratch.close)
        writer = stack.enter_context(closing(SafeWriter(target, overwrite=overwrite, special=special)))
        maker = Maker(reader, writer, plan, directories, links, tally)
        walk = Walk(reader, writer, directories, maker, tally)
        _Restore(home, reader, writer, plan, directories, maker, tally).run(walk, paths, recalls)
    return tally.report()


def _scratch(home: Home) -> tuple[Plan, Directories, Links]:
    try:
        home.staging.mkdir(mode=0o700, exist_ok=True)
        return Plan(home.staging), Directories(home.staging), Links(home.staging)
    except OSError as error:
        do = (
            "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "become the owner of the state folder"
        )
        raise HomeError(f"cannot write to {home.staging}: {error.strerror}; {do}") from error


class _Mismatch(Exception):
    """Bytes from tape do not match the SHA-256 that was taken when they were backed up."""


class _Restore:
    """One restore at work."""

    def __init__(
        self,
        home: Home,
        index: Index,
        writer: SafeWriter,
        plan: Plan,
        directories: Directories,
        maker: Maker,
        tally: Tally,
    ) -> None:
        self._index = index
        self._writer = writer
        self._plan = plan
        self._directories = directories
        self._maker = maker
        self._tally = tally
        self._stages = Stages(home.staging, index)

    def run(self, walk: Walk, paths: Sequence[bytes], recalls: Recalls) -> None:
        """Do it all."""
        try:
            self._tally.enter_stage("plan")
            walk.take(paths)
            self._plan.sort()
            self._tally.enter_stage("write")
            self._write_files(recalls)
        except (TargetFull, HomeError) as error:
            self._tally.stopped = str(error)
        finally:
            self._tally.enter_stage("finish")
            for last in (self._link_others, self._finish_directories, self._sync):
                self._do_at_the_end(last)

    # -- files -------------------------------------------------------------------------------------------------------

    def _write_files(self, recalls: Recalls) -> None:
        self._window = Window(self._stages, recalls, self._frames_ahead())
        try:
            for file in self._plan:
                self._write_file(file)
        finally:
            self._window.close()

    def _frames_ahead(self) -> Iterator[FrameKey]:
        """Yield the frames in the order in which `_write_file` enters them."""
        for file in self._plan:
            yield from self._frames_of(file)

    def _frames_of(self, file: PlannedFile) -> Iterator[FrameKey]:
        try:
            for content in contents_of(self._index, file.first, self._index.entry(file.first)):
                for frame in self._stages[content.segment].frames_for(content.offset, content.length):
                    yield FrameKey(content.segment, frame)
        except (CatalogError, BadStructure):
            # The writer comes to the same place and reports it there.
            return

    def _write_file(self, file: PlannedFile) -> None:
        path = self._directories.path(file.place)
        try:
            entry = self._index.entry(file.number)
            path = join(path, entry.name)
            if file.first != file.number:
                entry = self._index.entry(file.first)
            self._tally.tell(path)
            self._write_entry(Name(path, file.number, file.first, file.place, file.group), entry)
        except FileExistsError:
            self._tally.skip(path)
        except RecallTimedOut:
            raise
        except RecallLocked as error:
            self._tally.lock_out(path, str(error))
        except RecallOffline as error:
            self._tally.miss(path, str(error))
        except (RecallDamaged, BadStructure, CatalogError, _Mismatch) as error:
            self._tally.damage(path, str(error))
        except RecallFailed as error:
            self._tally.leave_unread(path, str(error))
        except (OSError, BadName) as error:
            self._tally.fail(path, reason_of(error))
        else:
            self._tally.changed += bool(entry.flags & _CHANGED)

    def _write_entry(self, name: Name, entry: Entry) -> None:
        contents = contents_of(self._index, name.first, entry)
        xattrs = self._maker.xattrs(name.first, entry)
        out = self._writer.new_file(name.path)
        try:
            for content in contents:
                self._write_content(content, out)
        except BaseException:
            out.discard()
            raise
        self._maker.file_done(name, out.finish(entry.size, entry, xattrs), entry)

    def _write_content(self, content: Content, out: NewFile) -> None:
        expected = self._index.sha256(content.segment, content.offset)
        if expected is None:
            raise BadStructure("the index has no SHA-256 of its content")
        if self._copy(content, out, is_first=True) == expected:
            return
        # The disk of the staging folder may be to blame: fetch it from tape once more.
        self._window.drop(content.segment, self._stages[content.segment].frames_for(content.offset, content.length))
        out.cut(content.runs[0][0])
        if self._copy(content, out, is_first=False) != expected:
            # The frames are as they were written, so no reader of frames has noted anything.
            raise _Mismatch(
                "its content does not match its SHA-256, also when read from tape again: not restored; `tapefs verify` "
                "of the set notes which copies have that"
            )

    def _copy(self, content: Content, out: NewFile, *, is_first: bool) -> bytes:
        """Write the content, each run at its place, and return its SHA-256."""
        digest = hashlib.sha256()
        start = content.offset
        for file_offset, length in content.runs:
            for offset, piece in self._pieces(content.segment, start, length, is_first=is_first):
                digest.update(piece)
                out.write_at(file_offset + offset - start, piece)
            start += length
        return digest.digest()

    def _pieces(self, segment: SegmentNo, offset: int, length: int, *, is_first: bool) -> Iterator[tuple[int, bytes]]:
        """Yield (offset in the plain stream, bytes), frame by frame, a MiB at a time.

        A second time the window has moved on.
        """
        end = offset + length
        frames = self._stages[segment].frames_for(offset, length)
        for frame in frames:
            key = FrameKey(segment, frame)
            if is_first:
                self._window.enter(key)
            start, frame_bytes = self._stages[segment].extent_of(frame)
            frame_end = min(end, start + frame_bytes)
            while offset < frame_end:
                length = min(_READ_BYTES, frame_end - offset)
                yield offset, self._read(key, range(frame + 1, frames.stop), offset, length)
                offset += length

    def _read(self, key: FrameKey, behind: range, offset: int, length: int) -> bytes:
        while True:
            self._window.wait_until_staged(key, behind)
            content = self._stages[key.segment].read(offset, length)
            if content is not None:
                return content
            # Pinned and gone all the same: somebody has cut the file short.
            self._window.drop(key.segment, range(key.frame, key.frame + 1))

    # -- the end -----------------------------------------------------------------------------------------------------

    def _do_at_the_end(self, what: Callable[[], None]) -> None:
        """What comes last is done as far as that goes, also when a disk is full."""
        try:
            what()
        except (TargetFull, HomeError) as error:
            self._tally.stopped = str(error)

    def _link_others(self) -> None:
        """Also when the restore ends early: without its other names a file is not complete."""
        self._maker.link_others()

    def _finish_directories(self) -> None:
        for path, number, made in self._directories.newest_first():
            try:
                attributes, xattrs = self._index.directory(number), self._index.directory_xattrs(number)
                if made.is_new or self._writer.overwrite:
                    self._tally.refuse(path, self._writer.finish_directory(path, made, attributes, xattrs))
                elif self._writer.differs(path, made, attributes, xattrs):
                    self._tally.fail(path, "the directory existed already and keeps its own owner, mode and attributes")
            except (OSError, BadName, CatalogError) as error:
                self._tally.fail(path, f"its owner, mode or time could not be set: {error}")

    def _sync(self) -> None:
        try:
            self._writer.sync()
        except OSError as error:
            self._tally.fail(b"", f"the disk reports an error, files may be incomplete: {error.strerror}")
