"""The mover's end of the socket pair.

A thread reads all the while, so that a cancel or a further wish reaches a mover that is at work. `take` and `send`
belong to the main thread; the writer thread of a backup does not speak.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from typing import TypeVar

import structlog

from tapefs.errors import Cancelled, TapefsError
from tapefs.keys.ring import Keyring
from tapefs.mover.messages import Cancel, Command, GiveWay, Report, StreamGrew, UseKeys
from tapefs.mover.wire import PREFIX_BYTES, WireError, decode, encode, length_of
from tapefs.stream_words import StreamState

#: A mover whose sidecar is gone and that hangs in a device call ends itself after this.
_GRACE_S = 10.0

log = structlog.get_logger(__name__)

Kind = TypeVar("Kind")


class SidecarGone(TapefsError):
    """The sidecar has closed the socket: stop."""


class Post:
    """Commands in, reports out."""

    def __init__(self, connection: socket.socket, keyring: Keyring | None = None) -> None:
        """`keyring` is where keys go that the sidecar unlocks."""
        self._keyring = Keyring() if keyring is None else keyring
        self._connection = connection
        self._waiting: deque[Command] = deque()
        self._cancelled: set[int] = set()
        self._giving_way: set[int] = set()
        self._streams: dict[int, StreamState] = {}
        self._gone = False
        self._changed = threading.Condition()
        threading.Thread(target=self._read_all, name="post", daemon=True).start()

    def send(self, report: Report) -> None:
        """Tell the sidecar. Raises SidecarGone."""
        try:
            self._connection.sendall(encode(report))
        except OSError as error:
            raise SidecarGone("the sidecar is gone") from error

    def take(self, *kinds: type[Kind]) -> Kind:
        """Wait for the oldest command of one of these kinds. Raises SidecarGone."""
        with self._changed:
            while True:
                if (command := self._find(kinds)) is not None:
                    return command
                if self._gone:
                    raise SidecarGone("the sidecar is gone")
                self._changed.wait()

    def is_idle(self) -> bool:
        """Nothing waits to be taken, and the sidecar is there."""
        return not self._waiting and not self._gone

    def check_cancelled(self, command_id: int) -> None:
        """Raise Cancelled if the sidecar wants that command to stop, SidecarGone if it is gone."""
        if self._gone:
            raise SidecarGone("the sidecar is gone")
        if command_id in self._cancelled:
            raise Cancelled("it was cancelled")

    def is_to_give_way(self, command_id: int) -> bool:
        """Is that command to leave the drive to others at the next good place?"""
        return command_id in self._giving_way

    def gives_way(self, command_id: int) -> None:
        """It does so now."""
        with self._changed:
            self._giving_way.discard(command_id)

    def stream(self, command_id: int) -> StreamState:
        """Return how far the stream of that backup is, by the newest word. Raises SidecarGone."""
        if self._gone:
            raise SidecarGone("the sidecar is gone")
        return self._streams.get(command_id, StreamState())

    def wait_word(self, seconds: float) -> None:
        """Wait for any word of the sidecar, at most so long."""
        with self._changed:
            self._changed.wait(seconds)

    def wait_cancelled_or(self, command_id: int, *kinds: type[Kind]) -> Kind:
        """As `take`, but raises Cancelled when that command is to stop."""
        with self._changed:
            while True:
                self.check_cancelled(command_id)
                if (command := self._find(kinds)) is not None:
                    return command
                self._changed.wait()

    def _find(self, kinds: tuple[type[Kind], ...]) -> Kind | None:
        for command in self._waiting:
            if isinstance(command, kinds):
                self._waiting.remove(command)
                return command
        return None

    def _read_all(self) -> None:
        try:
            while (prefix := self._read(PREFIX_BYTES)) is not None:
                payload = self._read(length_of(prefix))
                if payload is None:
                    break
                self._deliver(decode(payload, Command))  # type: ignore[arg-type]
        except OSError:
            pass  # the other end is gone, as after an orderly close
        except WireError as error:
            log.error("the sidecar cannot be understood; the mover ends", error=str(error))
        with self._changed:
            self._gone = True
            self._changed.notify_all()
        timer = threading.Timer(_GRACE_S, os._exit, args=(3,))
        timer.daemon = True
        timer.start()

    def _deliver(self, command: Command) -> None:
        with self._changed:
            if isinstance(command, Cancel):
                self._cancelled.add(command.target)
            elif isinstance(command, UseKeys):
                self._use_keys(command)
            elif isinstance(command, StreamGrew):
                self._streams = {command.target: command.state}
            elif isinstance(command, GiveWay):
                (self._giving_way.add if command.is_wanted else self._giving_way.discard)(command.target)
            else:
                self._waiting.append(command)
            self._changed.notify_all()

    def _use_keys(self, command: UseKeys) -> None:
        if not command.secrets:
            # Without keys most movers never need what is behind them.
            self._keyring.replace(())
            return
        from tapefs.keys.identity import Identity

        self._keyring.replace(Identity(secret) for secret in command.secrets)

    def _read(self, length: int) -> bytes | None:
        data = bytearray()
        while len(data) < length:
            piece = self._connection.recv(length - len(data))
            if not piece:
                return None
            data += piece
        return bytes(data)
