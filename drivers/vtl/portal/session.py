"""The full feature phase of one session. Its own thread reads; workers of its queues send answers, too.

Whatever the peer does wrong ends the session (error recovery level 0), never the target.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial

from drivers.vtl.commands import Nexus
from drivers.vtl.portal.exchange import Exchange, checked
from drivers.vtl.portal.keys import MAX_TEXT_BYTES, RECEIVE_BYTES, format_keys, parse_keys
from drivers.vtl.portal.login import WINDOW, LoggedIn
from drivers.vtl.portal.pdu import FINAL, NO_TAG, Header, Opcode, ProtocolError, header, is_after
from drivers.vtl.portal.sender import Sender
from drivers.vtl.portal.tasks import Task, UnitQueue
from drivers.vtl.portal.wire import Wire
from drivers.vtl.unit import LogicalUnit

_CONTINUE = 0x40
#: Functions of task management, and their responses.
_ABORT_TASK, _ABORT_TASK_SET, _CLEAR_TASK_SET, _LUN_RESET, _WARM_RESET, _COLD_RESET = 1, 2, 4, 5, 6, 7
_COMPLETE, _NO_TASK, _NO_LUN, _UNSUPPORTED = 0, 1, 2, 5
_COMMAND_NOT_SUPPORTED = 5
_CONNECTION_DROPS = 2


@dataclass(frozen=True, slots=True)
class Served:
    """What a session gives access to."""

    name: str
    #: By LUN.
    units: dict[int, LogicalUnit]
    #: Stands for all LUNs that are not there.
    missing: LogicalUnit


class Session:
    """Serves one initiator until it goes, or breaks the rules."""

    def __init__(self, wire: Wire, login: LoggedIn, served: Served) -> None:
        self._wire = wire
        self._served = served
        self._login = login
        self._agreed = login.operational
        self._units = {} if login.is_discovery else served.units
        self._nexus = Nexus(f"{login.initiator},i,0x{login.isid.hex()}")
        self._sender = Sender(wire, login)
        self._exchange = Exchange(self._sender, login.operational, self._nexus, self._units, served.missing)
        self._is_over = False

    def run(self) -> None:
        """Serve. Raises ConnectionError when the peer is gone, ProtocolError when it breaks the rules."""
        for unit in self._units.values():
            unit.attach(self._nexus)
        try:
            while not self._is_over:
                self._serve_one()
        finally:
            self._is_over = True
            self._exchange.close()
            for unit in self._units.values():
                unit.detach(self._nexus)

    def say_goodbye(self) -> None:
        """Tell the initiator that the target ends, and drop the connection. Any thread."""
        try:
            with self._wire.lock:
                numbers = self._sender.numbers(advance=True)
                # Event 2 with parameters: do not come back before two seconds, nothing is kept.
                last = (_CONNECTION_DROPS << 24, 2 << 16, 0)
                self._wire.send([header(Opcode.ASYNC, numbers=numbers, last=last)])
        except ConnectionError:
            # It has gone by itself.
            pass
        self._wire.shut()

    # -- what comes ----------------------------------------------------------------------------------------------

    def _serve_one(self) -> None:
        pdu = self._wire.read_header()
        if pdu.opcode == Opcode.DATA_OUT:
            self._exchange.data_out(pdu)
            return
        if not self._is_due(pdu):
            self._wire.skip_data(checked(pdu.data_bytes))
            return
        if pdu.opcode == Opcode.COMMAND and not self._login.is_discovery:
            self._exchange.command(pdu)
        elif pdu.opcode == Opcode.NOP_OUT:
            self._nop_out(pdu)
        elif pdu.opcode == Opcode.TEXT:
            self._text(pdu)
        elif pdu.opcode == Opcode.LOGOUT:
            self._logout(pdu)
        elif pdu.opcode == Opcode.TASK_MANAGEMENT and not self._login.is_discovery:
            self._manage(pdu)
        else:
            self._wire.skip_data(checked(pdu.data_bytes))
            self._sender.send(Opcode.REJECT, data=pdu.raw, bytes_2_3=(_COMMAND_NOT_SUPPORTED, 0))

    def _is_due(self, pdu: Header) -> bool:
        """Check CmdSN; False for a PDU that is to be ignored. Raises ProtocolError when one has been lost."""
        if pdu.is_immediate:
            return True
        number = pdu.command_number
        if number == self._sender.expected:
            if len(self._sender.pending) >= WINDOW:
                return False
            self._sender.expected = (number + 1) % 2**32
            return True
        if is_after(number, self._sender.expected) and (number - self._sender.expected) % 2**32 < WINDOW:
            raise ProtocolError(f"command {number} came, {self._sender.expected} did not")
        return False

    # -- the rest ------------------------------------------------------------------------------------------------

    def _nop_out(self, pdu: Header) -> None:
        data = self._wire.read_data(pdu.data_bytes, RECEIVE_BYTES)
        if pdu.tag == NO_TAG:
            # An answer to a NOP-In, or none wanted.
            return
        self._sender.send(Opcode.NOP_IN, data=data[: self._agreed.send_bytes], lun=pdu.lun, tag=pdu.tag, word=NO_TAG)

    def _text(self, pdu: Header) -> None:
        pairs = parse_keys(self._wire.read_data(pdu.data_bytes, MAX_TEXT_BYTES))
        if pdu.flags & _CONTINUE or not pdu.flags & FINAL or pdu.words[0] != NO_TAG:
            raise ProtocolError("a text request in several PDUs")
        answers: dict[str, str] = {}
        for key, value in pairs.items():
            if key != "SendTargets":
                answers[key] = "NotUnderstood"
            elif value in ("All", "", self._served.name):
                answers["TargetName"] = self._served.name
                answers["TargetAddress"] = f"{self._wire.local_address()},1"
        self._sender.send(Opcode.TEXT_RESPONSE, data=format_keys(answers), lun=pdu.lun, tag=pdu.tag, word=NO_TAG)

    def _logout(self, pdu: Header) -> None:
        self._wire.skip_data(checked(pdu.data_bytes))
        reason = pdu.flags & 0x7F
        if reason > 1:
            # Recovery of a connection, which level 0 does not have.
            self._sender.send(Opcode.LOGOUT_RESPONSE, bytes_2_3=(2, 0), tag=pdu.tag)
            return
        self._sender.send(Opcode.LOGOUT_RESPONSE, tag=pdu.tag)
        self._is_over = True

    def _manage(self, pdu: Header) -> None:
        self._wire.skip_data(checked(pdu.data_bytes))
        function, queue, tag = pdu.flags & 0x7F, self._exchange.queue(pdu.lun), pdu.tag
        if function in (_WARM_RESET, _COLD_RESET):
            self._reset(self._exchange.queues(), tag)
        elif function not in (_ABORT_TASK, _ABORT_TASK_SET, _CLEAR_TASK_SET, _LUN_RESET):
            self._managed(tag, _UNSUPPORTED)
        elif queue is None:
            self._managed(tag, _NO_LUN)
        elif function == _LUN_RESET:
            self._reset([queue], tag)
        elif function == _ABORT_TASK:
            wanted = pdu.words[0]
            is_known = wanted in self._sender.pending
            self._exchange.abort(queue, wanted)
            self._managed(tag, _COMPLETE if is_known else _NO_TASK)
        else:
            self._exchange.abort(queue, None)
            self._managed(tag, _COMPLETE)
        if queue is not None:
            queue.go()

    def _managed(self, tag: int, response: int) -> None:
        self._sender.send(Opcode.TASK_MANAGEMENT_RESPONSE, bytes_2_3=(response, 0), tag=tag)

    def _reset(self, queues: list[UnitQueue], tag: int) -> None:
        """Reset units, each in its turn; the last one answers."""
        left, lock = list(queues), threading.Lock()

        def reset_one(queue: UnitQueue) -> None:
            queue.unit.reset()
            with lock:
                left.remove(queue)
                is_last = not left
            if is_last:
                self._managed(tag, _COMPLETE)

        for queue in queues:
            self._exchange.abort(queue, None)
            queue.put(Task(NO_TAG, 0, b"", job=partial(reset_one, queue)))
            queue.go()
