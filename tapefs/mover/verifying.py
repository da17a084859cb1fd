"""A verification's way to the sidecar. Main thread of the mover."""

from __future__ import annotations

import time

from catalog.records import SegmentCopy
from tapefs.mover.messages import LostFile, VerifyProgress
from tapefs.mover.post import Post

_PROGRESS_EVERY_S = 0.25


class PostVerifyWatcher:
    """Implements `tapefs.verify.copy.VerifyWatcher` over the socket."""

    def __init__(self, post: Post, command_id: int) -> None:
        self._post = post
        self._id = command_id
        self._told_at_s = 0.0

    def verified(self, copy: SegmentCopy, payload_bytes: int) -> None:
        """Pass it on, a few times a second."""
        now_s = time.monotonic()
        if now_s - self._told_at_s >= _PROGRESS_EVERY_S:
            self._told_at_s = now_s
            self._post.send(
                VerifyProgress(
                    id=self._id, segment_id=copy.segment_id, volume_id=copy.volume_id, payload_bytes=payload_bytes
                )
            )

    def lost_file(self, copy: SegmentCopy, path: bytes) -> None:
        """Pass it on."""
        self._post.send(LostFile(id=self._id, segment_id=copy.segment_id, volume_id=copy.volume_id, path=path))

    def check_cancelled(self) -> None:
        """Raise Cancelled or SidecarGone."""
        self._post.check_cancelled(self._id)
