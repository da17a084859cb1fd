"""Frames against their checksums, and the contents in them against their SHA-256.

Worker threads check, decode and hash whole frames (all of that releases the GIL); content that runs over several frames
is hashed in the caller's thread, in order. Memory: 2 frames, stored and plain, for each thread.
"""

from __future__ import annotations

import hashlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from tapefs.codecs import Codec
from tapefs.errors import BadStructure
from tapefs.format.frames import frame_checksum
from tapefs.verify.trailer import Content, Frame


class _Checked(NamedTuple):
    """What a worker made of a frame."""

    #: It is not what was written.
    is_damaged: bool
    #: Contents wholly inside whose sum is another.
    wrong: list[Content]
    #: The plain bytes, kept only if a content runs over the frame's edge.
    plain: bytes


class DamagedFrame(NamedTuple):
    """A frame that is not what was written, and what it was in the plain stream."""

    number: int
    start: int
    end: int


_NOT_READ = _Checked(True, [], b"")
_NOT_OPENED = _Checked(False, [], b"")


class Sums:
    """The frames of one payload, in order. `close` ends the threads."""

    def __init__(self, codec: Codec, threads: int) -> None:
        self._codec = codec
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="verify")
        self._most = 2 * threads
        self._waiting: deque[tuple[Frame, Future[_Checked] | _Checked]] = deque()
        #: Of the content that runs over frames; None: a frame of it is damaged.
        self._running: hashlib._Hash | None = None
        #: Damaged frames, ascending, and contents that are wrong though their frames are not.
        self.damaged: list[DamagedFrame] = []
        self.wrong: list[Content] = []

    def add(self, frame: Frame, stored: bytes | None) -> None:
        """Check the next frame; None means that it could not be read. Waits for the oldest when many are waiting."""
        check = _NOT_READ if stored is None else self._threads.submit(_check, self._codec, frame, stored)
        self._put(frame, check)

    def pass_over(self, frame: Frame) -> None:
        """The next frame was read, and cannot be looked into: it is encrypted, and the key is not at hand."""
        self._put(frame, _NOT_OPENED)

    def _put(self, frame: Frame, check: Future[_Checked] | _Checked) -> None:
        self._waiting.append((frame, check))
        if len(self._waiting) > self._most:
            self._take_oldest()

    def finish(self) -> None:
        """Wait for all frames."""
        while self._waiting:
            self._take_oldest()

    def close(self) -> None:
        """End the threads; harmless twice."""
        self._threads.shutdown(cancel_futures=True)

    def _take_oldest(self) -> None:
        frame, check = self._waiting.popleft()
        checked = check if isinstance(check, _Checked) else check.result()
        if checked.is_damaged:
            self.damaged.append(DamagedFrame(frame.number, frame.plain_at, frame.plain_end))
        self.wrong += checked.wrong
        for content in frame.contents:
            if not _is_inside(content, frame):
                self._go_on(content, frame, checked)

    def _go_on(self, content: Content, frame: Frame, checked: _Checked) -> None:
        """Hash what this frame has of a content that is in others, too."""
        if content.at >= frame.plain_at:
            self._running = hashlib.sha256()
        if checked.is_damaged or checked is _NOT_OPENED:
            self._running = None
        if self._running is None:
            return
        start, end = max(content.at, frame.plain_at), min(content.end, frame.plain_end)
        self._running.update(memoryview(checked.plain)[start - frame.plain_at : end - frame.plain_at])
        if content.end == end and self._running.digest() != content.sha256:
            self.wrong.append(content)


def _is_inside(content: Content, frame: Frame) -> bool:
    return frame.plain_at <= content.at and content.end <= frame.plain_end


def _check(codec: Codec, frame: Frame, stored: bytes) -> _Checked:
    if frame_checksum(stored) != frame.line.sum:
        return _NOT_READ
    try:
        plain = codec.decode(stored, frame.line.plain)
    except BadStructure:
        return _NOT_READ
    view, wrong, runs_over = memoryview(plain), [], False
    for content in frame.contents:
        if not _is_inside(content, frame):
            runs_over = True
            continue
        start = content.at - frame.plain_at
        if hashlib.sha256(view[start : start + content.length]).digest() != content.sha256:
            wrong.append(content)
    return _Checked(False, wrong, plain if runs_over else b"")
