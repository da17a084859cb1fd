"""A transport that plays exchanges written down byte for byte, and fails when the other side says anything else."""

from __future__ import annotations

from collections.abc import Sequence

from drivers.errors import TransportFailed
from drivers.scsi.transport import Reply, Status
from tests.drivers.scsi.bench import FakeClock


def sense(
    key: int, asc: int, ascq: int, *, flags: int = 0, information: int | None = None, deferred: bool = False
) -> bytes:
    """Return fixed-format sense data; `flags` are those of the byte 2."""
    head = bytes([(0xF0 if information is not None else 0x70) + deferred, 0, flags | key])
    return head + (information or 0).to_bytes(4, "big", signed=True) + bytes([10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0])


class Script:
    """Plays (command in hex, answer) one by one.

    An answer is data in hex, "check KK AA QQ", "filemark", "early", "busy", "conflict", "broken" (the way breaks),
    or a Reply.
    """

    max_transfer_bytes = 1024 * 1024

    def __init__(self, exchanges: Sequence[tuple[str, str | Reply]]) -> None:
        self._exchanges = list(exchanges)
        self.clock = FakeClock()
        self.timeouts_s: list[float] = []
        self.sent: list[bytes] = []
        self.is_closed = False

    def add(self, *exchanges: tuple[str, str | Reply]) -> None:
        """Go on with these."""
        self._exchanges += exchanges

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        assert self._exchanges, f"nothing more was expected, but {cdb.hex(' ')}"
        expected, answer = self._exchanges.pop(0)
        assert cdb.hex(" ") == expected
        self.timeouts_s.append(timeout_s)
        if data_out is not None:
            self.sent.append(bytes(data_out))
        if isinstance(answer, Reply):
            return answer
        return self._play(answer, data_in)

    def _play(self, answer: str, data_in: memoryview | None) -> Reply:
        if answer == "broken":
            raise TransportFailed("the cable was pulled")
        if answer in ("busy", "conflict"):
            return Reply(Status.BUSY if answer == "busy" else Status.RESERVATION_CONFLICT)
        if answer == "filemark":
            return Reply(Status.CHECK_CONDITION, sense(0, 0, 1, flags=0x80, information=0))
        if answer == "early":
            return Reply(Status.CHECK_CONDITION, sense(0, 0, 2, flags=0x40, information=0))
        if answer.startswith("check "):
            key, asc, ascq = bytes.fromhex(answer[6:])
            return Reply(Status.CHECK_CONDITION, sense(key, asc, ascq))
        data = bytes.fromhex(answer)
        if data_in is not None:
            data = data[: len(data_in)]
            data_in[: len(data)] = data
        return Reply(Status.GOOD, b"", len(data))

    def close(self) -> None:
        self.is_closed = True

    def is_over(self) -> None:
        """Check that all was said."""
        assert not self._exchanges, f"never said: {self._exchanges[0]}"
