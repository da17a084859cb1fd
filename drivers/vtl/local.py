"""A device server as a transport in the same process: for tests of initiators without a network. One thread."""

from __future__ import annotations

from drivers.errors import DeviceGone
from drivers.scsi.transport import Reply
from drivers.vtl.blocks import MAX_TRANSFER_BYTES
from drivers.vtl.commands import Nexus
from drivers.vtl.unit import LogicalUnit


class LocalTransport:
    """Implements `drivers.scsi.transport.Transport`; one initiator, named `name`."""

    max_transfer_bytes = MAX_TRANSFER_BYTES

    def __init__(self, server: LogicalUnit, name: str = "local") -> None:
        """The first command will be told of power-on, as by any device."""
        self._server = server
        self._nexus = Nexus(name)
        self._is_open = True
        server.attach(self._nexus)

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        """Do the command at once. Raises DeviceGone when closed."""
        if not self._is_open:
            raise DeviceGone("the way to the device is closed")
        sent = memoryview(data_out) if data_out is not None else None
        answer = self._server.execute(self._nexus, cdb, sent, data_in)
        return Reply(answer.status, answer.sense, answer.moved_bytes)

    def close(self) -> None:
        """Let go of the device. Harmless twice."""
        if self._is_open:
            self._is_open = False
            self._server.detach(self._nexus)
