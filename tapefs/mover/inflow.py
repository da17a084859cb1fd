"""The stream that a backup stores, as the sidecar tells of it. Main thread of the mover."""

from __future__ import annotations

from tapefs.mover.messages import StreamKept
from tapefs.mover.post import Post
from tapefs.stream_words import StreamState, StreamTask


class PostInflow:
    """Implements `tapefs.backup.inflow.Inflow` over the socket."""

    def __init__(self, post: Post, command_id: int, task: StreamTask) -> None:
        self.task = task
        self._post = post
        self._id = command_id

    def state(self) -> StreamState:
        """Return the newest state that the sidecar has told. Raises SidecarGone."""
        return self._post.stream(self._id)

    def wait(self, seconds: float) -> None:
        """Wait for a word of the sidecar."""
        self._post.wait_word(seconds)

    def kept(self, up_to: int) -> None:
        """Pass it on; the sidecar gives the space back."""
        self._post.send(StreamKept(id=self._id, up_to=up_to))
