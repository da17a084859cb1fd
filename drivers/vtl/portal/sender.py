"""What a session sends, with its serial numbers. Any thread of the session; the wire's lock keeps them apart."""

from __future__ import annotations

from drivers.vtl.portal.login import WINDOW, LoggedIn
from drivers.vtl.portal.pdu import FINAL, NO_TAG, Opcode, header
from drivers.vtl.portal.tasks import Task
from drivers.vtl.portal.wire import Wire, padding


class Sender:
    """Numbers the answers of one session, and tells how many commands it may send."""

    def __init__(self, wire: Wire, login: LoggedIn) -> None:
        self.wire = wire
        self._status_number = login.status_number
        #: The number of the next command.
        self.expected = login.command_number
        #: Commands that have come and are not answered, by tag.
        self.pending: dict[int, Task] = {}

    def numbers(self, *, advance: bool) -> tuple[int, int, int]:
        """Return StatSN, ExpCmdSN, MaxCmdSN for a PDU; under the wire's lock."""
        number = self._status_number
        if advance:
            self._status_number = (number + 1) % 2**32
        left = max(0, WINDOW - len(self.pending))
        return number, self.expected, (self.expected + left - 1) % 2**32

    def send(
        self,
        opcode: Opcode,
        *,
        data: bytes = b"",
        flags: int = FINAL,
        bytes_2_3: tuple[int, int] = (0, 0),
        lun: bytes = bytes(8),
        tag: int = NO_TAG,
        word: int = 0,
        last: tuple[int, int, int] = (0, 0, 0),
        advance: bool = True,
    ) -> None:
        """Send one PDU. Raises ConnectionError."""
        with self.wire.lock:
            head = header(
                opcode,
                flags=flags,
                bytes_2_3=bytes_2_3,
                data_bytes=len(data),
                lun=lun,
                tag=tag,
                word=word,
                numbers=self.numbers(advance=advance),
                last=last,
            )
            self.wire.send([head, data, padding(len(data))] if data else [head])
