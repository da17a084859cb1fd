"""A wire between an initiator and a target that can be cut, also when the answer is on its way."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Cutter:
    """Listens on the loopback and passes on to a port there; what comes after a cut is passed on again."""

    def __init__(self, port: int, listen: int = 0) -> None:
        """Pass on to `port`; listen at `listen`, or at any port that is free."""
        self._target_port = port
        self._listener = socket.create_server(("127.0.0.1", listen))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        #: Nothing that the target says arrives any more: its answers are lost with the connection.
        self._is_deaf = threading.Event()
        self._swallowed = threading.Event()
        self._accepter = threading.Thread(target=self._accept, daemon=True)
        self._accepter.start()

    def cut(self) -> None:
        """End the connections there are."""
        # First: who is cut off may be back before all ends are shut, and must get his answers.
        self._is_deaf.clear()
        ends, self._ends = self._ends, []
        for each in ends:
            _shut(each)
        self._swallowed.clear()

    def swallow_next_answer(self) -> None:
        """Lose what the target says next, and then cut."""
        self._is_deaf.set()

        def cut_then() -> None:
            self._swallowed.wait(30)
            self.cut()

        thread = threading.Thread(target=cut_then, daemon=True)
        self._threads.append(thread)
        thread.start()

    def close(self) -> None:
        """End it all. Harmless twice."""
        _shut(self._listener)
        self._listener.close()
        self._accepter.join()
        self._swallowed.set()
        self.cut()
        for each in self._threads:
            each.join()

    def _accept(self) -> None:
        while True:
            try:
                near = self._listener.accept()[0]
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                near.close()
                continue
            self._ends += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, source is far), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        try:
            while data := source.recv(1 << 18):
                if is_answer and self._is_deaf.is_set():
                    self._swallowed.set()
                else:
                    sink.sendall(data)
        except OSError:
            pass  # Cut.
        finally:
            # Both directions end together.
            _shut(sink)
            source.close()


def _shut(end: socket.socket) -> None:
    with suppress(OSError):  # It may have gone already.
        end.shutdown(socket.SHUT_RDWR)
