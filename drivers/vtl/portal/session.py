"""The full feature phase of one session. Its own thread reads; workers of its queues send answers, too.

Whatever the peer does wrong ends the session (error recovery level 0), never the target.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

from drivers.scsi.transport import Status
from drivers.vtl.blocks import MAX_TRANSFER_BYTES
from drivers.vtl.commands import Answer, Nexus
from drivers.vtl.portal.keys import MAX_TEXT_BYTES, RECEIVE_BYTES, format_keys, parse_keys
from drivers.vtl.portal.login import WINDOW, LoggedIn
from drivers.vtl.portal.pdu import (
    FINAL,
    NO_TAG,
    Header,
    Opcode,
    ProtocolError,
    decode_lun,
    header,
    is_after,
)
from drivers.vtl.portal.tasks import Task, UnitQueue
from drivers.vtl.portal.wire import Wire, padding
from drivers.vtl.sense import INTERNAL_FAILURE, Key, Sense
from drivers.vtl.unit import LogicalUnit

log = logging.getLogger(__name__)

#: Room for data on their way to the units, for a whole session.
MAX_BUFFERED_BYTES = 4 * MAX_TRANSFER_BYTES
_SPARE_BUFFERS = 4
_READS, _WRITES = 0x40, 0x20
_CONTINUE = 0x40
#: Flags of residuals, in a response and in Data-In alike.
_OVERFLOW, _UNDERFLOW = 0x04, 0x02
_STATUS_IN_DATA = 0x01
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
        self.nexus = Nexus(f"{login.initiator},i,0x{login.isid.hex()}")
        self._status_number = login.status_number
        self._expected = login.command_number
        #: Commands that have come and are not answered.
        self._pending: dict[int, Task] = {}
        self._queues: dict[int, UnitQueue] = {}
        self._spare: list[memoryview] = []
        self._buffered_bytes = 0
        self._next_transfer_tag = 1
        self._is_over = False

    def run(self) -> None:
        """Serve. Raises ConnectionError when the peer is gone, ProtocolError when it breaks the rules."""
        units = {} if self._login.is_discovery else self._served.units
        everything = [*units.values(), self._served.missing]
        for unit in everything:
            unit.attach(self.nexus)
        self._queues = {lun: UnitQueue(unit, self._do) for lun, unit in units.items()}
        self._queues[-1] = UnitQueue(self._served.missing, self._do)
        try:
            while not self._is_over:
                self._serve_one()
        finally:
            self._is_over = True
            for queue in self._queues.values():
                queue.close()
            for unit in everything:
                unit.detach(self.nexus)

    def say_goodbye(self) -> None:
        """Tell the initiator that the target ends, and drop the connection. Any thread."""
        try:
            with self._wire.lock:
                numbers = self._numbers(advance=True)
                # Event 2 with parameters: do not come back before two seconds, nothing is kept.
                last = (_CONNECTION_DROPS << 24, 2 << 16, 0)
                self._wire.send([header(Opcode.ASYNC, numbers=numbers, last=last)])
        except ConnectionError:
            # It has gone by itself.
            pass
        self._wire.shut()

    # -- numbers -------------------------------------------------------------------------------------------------

    def _numbers(self, *, advance: bool) -> tuple[int, int, int]:
        """Return StatSN, ExpCmdSN, MaxCmdSN for a PDU; under the wire's lock."""
        number = self._status_number
        if advance:
            self._status_number = (number + 1) % 2**32
        left = max(0, WINDOW - len(self._pending))
        return number, self._expected, (self._expected + left - 1) % 2**32

    def _send(
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
        with self._wire.lock:
            head = header(
                opcode,
                flags=flags,
                bytes_2_3=bytes_2_3,
                data_bytes=len(data),
                lun=lun,
                tag=tag,
                word=word,
                numbers=self._numbers(advance=advance),
                last=last,
            )
            self._wire.send([head, data, padding(len(data))] if data else [head])

    # -- what comes ----------------------------------------------------------------------------------------------

    def _serve_one(self) -> None:
        pdu = self._wire.read_header()
        if pdu.opcode == Opcode.DATA_OUT:
            self._data_out(pdu)
            return
        if not self._is_due(pdu):
            self._wire.skip_data(self._checked(pdu.data_bytes))
            return
        if pdu.opcode == Opcode.COMMAND and not self._login.is_discovery:
            self._command(pdu)
        elif pdu.opcode == Opcode.NOP_OUT:
            self._nop_out(pdu)
        elif pdu.opcode == Opcode.TEXT:
            self._text(pdu)
        elif pdu.opcode == Opcode.LOGOUT:
            self._logout(pdu)
        elif pdu.opcode == Opcode.TASK_MANAGEMENT and not self._login.is_discovery:
            self._manage(pdu)
        else:
            self._wire.skip_data(self._checked(pdu.data_bytes))
            self._send(Opcode.REJECT, data=pdu.raw, bytes_2_3=(_COMMAND_NOT_SUPPORTED, 0))

    def _is_due(self, pdu: Header) -> bool:
        """Check CmdSN; False for a PDU that is to be ignored. Raises ProtocolError when one has been lost."""
        if pdu.is_immediate:
            return True
        number = pdu.command_number
        if number == self._expected:
            if len(self._pending) >= WINDOW:
                return False
            self._expected = (number + 1) % 2**32
            return True
        if is_after(number, self._expected) and (number - self._expected) % 2**32 < WINDOW:
            raise ProtocolError(f"command {number} came, {self._expected} did not")
        return False

    def _checked(self, length: int) -> int:
        if length > RECEIVE_BYTES:
            raise ProtocolError(f"a data segment of {length} bytes, {RECEIVE_BYTES} were promised at most")
        return length

    # -- commands ------------------------------------------------------------------------------------------------

    def _command(self, pdu: Header) -> None:
        tag, expected_bytes = pdu.tag, pdu.words[0]
        if len(self._pending) >= 2 * WINDOW:
            raise ProtocolError("more commands for immediate delivery than anybody needs")
        if tag in self._pending or tag == NO_TAG:
            raise ProtocolError(f"task tag {tag:#x} is in use")
        number = decode_lun(pdu.lun)
        lun = number if number is not None and number in self._queues else -1
        reads, writes = bool(pdu.flags & _READS), bool(pdu.flags & _WRITES)
        task = Task(tag, lun, pdu.raw[32:48], expected_bytes, reads)
        if pdu.data_bytes and not (writes and self._agreed.immediate_data):
            raise ProtocolError("immediate data that were not agreed upon")
        if not writes:
            self._start(task)
            return
        if reads or expected_bytes > MAX_TRANSFER_BYTES or not self._make_room(task):
            self._wire.skip_data(self._checked(pdu.data_bytes))
            refusal = Sense(Key.ILLEGAL_REQUEST, 0x2400).encode()
            too_much = not reads and expected_bytes <= MAX_TRANSFER_BYTES
            answer = Answer(Status.TASK_SET_FULL) if too_much else Answer(Status.CHECK_CONDITION, refusal)
            self._respond(task, answer, memoryview(b""))
            return
        self._take_immediate(pdu, task)
        self._start(task)

    def _make_room(self, task: Task) -> bool:
        """Give the task a buffer; False when those of the session are too large already."""
        size = task.expected_bytes
        with self._wire.lock:
            if size and self._buffered_bytes + size > MAX_BUFFERED_BYTES:
                return False
            self._buffered_bytes += size
            fitting = next((each for each in self._spare if len(each) >= size), None)
            if fitting is not None:
                self._spare.remove(fitting)
        # Fresh memory costs more than the transfer: 0.25 ms a MiB.
        task.data = (fitting if fitting is not None else memoryview(bytearray(size)))[:size]
        return True

    def _take_immediate(self, pdu: Header, task: Task) -> None:
        length, first_burst = self._checked(pdu.data_bytes), min(self._agreed.first_burst_bytes, len(task.data))
        if length > first_burst:
            raise ProtocolError("more immediate data than the first burst or the command has")
        self._wire.read_data_into(task.data[:length])
        task.received_bytes = length
        if not pdu.flags & FINAL:
            if self._agreed.initial_r2t:
                raise ProtocolError("unsolicited data that were not agreed upon")
            task.unsolicited_bytes = first_burst - length
            task.burst_end, task.transfer_tag = first_burst, NO_TAG

    def _start(self, task: Task) -> None:
        self._pending[task.tag] = task
        queue = self._queues[task.lun]
        queue.put(task)
        if task.is_ready:
            queue.go()
        elif not task.unsolicited_bytes:
            self._ask_for_more(task)

    def _ask_for_more(self, task: Task) -> None:
        """Send an R2T for the next burst."""
        task.transfer_tag, self._next_transfer_tag = self._next_transfer_tag, self._next_transfer_tag % 0xFFFFFFF0 + 1
        task.burst_end = min(len(task.data), task.received_bytes + self._agreed.max_burst_bytes)
        task.data_number = 0
        self._send(
            Opcode.READY_TO_TRANSFER,
            lun=_encode_lun(task.lun),
            tag=task.tag,
            word=task.transfer_tag,
            last=(task.bursts, task.received_bytes, task.burst_end - task.received_bytes),
            advance=False,
        )
        task.bursts += 1

    def _data_out(self, pdu: Header) -> None:
        task = self._pending.get(pdu.tag)
        if task is None or task.is_aborted:
            # Of a command that was answered or aborted meanwhile.
            self._wire.skip_data(self._checked(pdu.data_bytes))
            return
        _, _, _, _, number, offset, _ = pdu.words
        length = self._checked(pdu.data_bytes)
        is_final = bool(pdu.flags & FINAL)
        if (pdu.words[0], number, offset) != (task.transfer_tag, task.data_number, task.received_bytes):
            raise ProtocolError("data out of order")
        end = offset + length
        if end > task.burst_end or (is_final and task.transfer_tag != NO_TAG and end != task.burst_end):
            raise ProtocolError("data that were not asked for")
        self._wire.read_data_into(task.data[offset:end])
        task.received_bytes = end
        task.data_number += 1
        if task.is_ready:
            self._queues[task.lun].go()
        elif is_final:
            task.unsolicited_bytes = 0
            self._ask_for_more(task)
        elif end == task.burst_end:
            raise ProtocolError("a burst that does not end")

    # -- answers -------------------------------------------------------------------------------------------------

    def _do(self, queue: UnitQueue, task: Task) -> None:
        """Do a task and answer; called by the queue, in one thread at a time."""
        try:
            if task.job is not None:
                task.job()
                return
            room = queue.room(min(task.expected_bytes, MAX_TRANSFER_BYTES)) if task.reads else memoryview(b"")
            try:
                answer = queue.unit.execute(self.nexus, task.cdb, task.data, room)
            except Exception:  # The boundary of the device: a bug must not take other initiators with it.
                log.exception("command %s failed", task.cdb.hex())
                answer = Answer(Status.CHECK_CONDITION, Sense(Key.HARDWARE_ERROR, INTERNAL_FAILURE).encode())
            self._respond(task, answer, room)
        except ConnectionError:
            # The session's own thread sees that, too, and ends it.
            self._wire.shut()

    def _respond(self, task: Task, answer: Answer, room: memoryview) -> None:
        with self._wire.lock:
            if self._pending.pop(task.tag, None) is not None:
                self._give_back(task)
            if task.is_aborted:
                return
            flags, residual = _residual(task.expected_bytes, answer.wanted_bytes)
            pieces: list[bytes | memoryview] = []
            data_pdus = 0
            if task.reads and answer.moved_bytes:
                is_whole = not answer.sense
                data_pdus = self._data_in(pieces, task, answer, room, (flags, residual) if is_whole else None)
                if is_whole:
                    self._wire.send(pieces)
                    return
            sense = len(answer.sense).to_bytes(2, "big") + answer.sense if answer.sense else b""
            pieces += [
                header(
                    Opcode.RESPONSE,
                    flags=FINAL | flags,
                    bytes_2_3=(0, answer.status),
                    data_bytes=len(sense),
                    tag=task.tag,
                    numbers=self._numbers(advance=True),
                    last=(data_pdus or task.bursts, 0, residual),
                ),
                sense,
                padding(len(sense)),
            ]
            self._wire.send(pieces)

    def _give_back(self, task: Task) -> None:
        if len(task.data):
            self._buffered_bytes -= len(task.data)
            whole = task.data.obj
            if len(self._spare) < _SPARE_BUFFERS and isinstance(whole, bytearray):
                self._spare.append(memoryview(whole))
            task.data = memoryview(b"")

    def _data_in(
        self,
        pieces: list[bytes | memoryview],
        task: Task,
        answer: Answer,
        room: memoryview,
        ending: tuple[int, int] | None,
    ) -> int:
        """Put Data-In PDUs into `pieces`; with an `ending` of flags and residual the last one brings the status, too.

        Return how many PDUs they are.
        """
        most, burst = self._agreed.send_bytes, self._agreed.max_burst_bytes
        start = number = 0
        total = answer.moved_bytes
        while start < total:
            end = min(total, start + most, (start // burst + 1) * burst)
            is_last = end == total
            flags = FINAL if is_last or end % burst == 0 else 0
            residual = 0
            if is_last and ending is not None:
                flags |= _STATUS_IN_DATA | ending[0]
                residual = ending[1]
            with_status = is_last and ending is not None
            pieces += [
                header(
                    Opcode.DATA_IN,
                    flags=flags,
                    bytes_2_3=(0, answer.status if with_status else 0),
                    data_bytes=end - start,
                    tag=task.tag,
                    word=NO_TAG,
                    numbers=self._numbers(advance=with_status),
                    last=(number, start, residual),
                ),
                room[start:end],
                padding(end - start),
            ]
            start, number = end, number + 1
        return number

    # -- the rest ------------------------------------------------------------------------------------------------

    def _nop_out(self, pdu: Header) -> None:
        data = self._wire.read_data(pdu.data_bytes, RECEIVE_BYTES)
        if pdu.tag == NO_TAG:
            # An answer to a NOP-In, or none wanted.
            return
        self._send(Opcode.NOP_IN, data=data[: self._agreed.send_bytes], lun=pdu.lun, tag=pdu.tag, word=NO_TAG)

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
        self._send(Opcode.TEXT_RESPONSE, data=format_keys(answers), lun=pdu.lun, tag=pdu.tag, word=NO_TAG)

    def _logout(self, pdu: Header) -> None:
        self._wire.skip_data(self._checked(pdu.data_bytes))
        reason = pdu.flags & 0x7F
        if reason > 1:
            # Recovery of a connection, which level 0 does not have.
            self._send(Opcode.LOGOUT_RESPONSE, bytes_2_3=(2, 0), tag=pdu.tag)
            return
        self._send(Opcode.LOGOUT_RESPONSE, tag=pdu.tag)
        self._is_over = True

    def _manage(self, pdu: Header) -> None:
        self._wire.skip_data(self._checked(pdu.data_bytes))
        function, number, tag = pdu.flags & 0x7F, decode_lun(pdu.lun), pdu.tag
        queue = self._queues.get(number) if number is not None else None
        if function in (_WARM_RESET, _COLD_RESET):
            self._reset(list(self._queues.values()), tag)
        elif function not in (_ABORT_TASK, _ABORT_TASK_SET, _CLEAR_TASK_SET, _LUN_RESET):
            self._managed(tag, _UNSUPPORTED)
        elif queue is None:
            self._managed(tag, _NO_LUN)
        elif function == _LUN_RESET:
            self._reset([queue], tag)
        elif function == _ABORT_TASK:
            wanted = pdu.words[0]
            is_known = wanted in self._pending
            self._abort(queue, wanted)
            self._managed(tag, _COMPLETE if is_known else _NO_TASK)
        else:
            self._abort(queue, None)
            self._managed(tag, _COMPLETE)
        if queue is not None:
            queue.go()

    def _abort(self, queue: UnitQueue, tag: int | None) -> None:
        """Drop one task, or all, that have not begun; one that has begun is not answered any more."""
        queue.abort(lambda task: tag is None or task.tag == tag)
        with self._wire.lock:
            for task in [each for each in self._pending.values() if self._queues[each.lun] is queue]:
                if tag is None or task.tag == tag:
                    dropped = task.is_aborted
                    task.is_aborted = True
                    if dropped:
                        del self._pending[task.tag]
                        self._give_back(task)

    def _managed(self, tag: int, response: int) -> None:
        self._send(Opcode.TASK_MANAGEMENT_RESPONSE, bytes_2_3=(response, 0), tag=tag)

    def _reset(self, queues: list[UnitQueue], tag: int) -> None:
        """Reset units, each in its turn; the last one answers."""
        left = [queue for queue in queues if queue.unit is not self._served.missing]

        def reset_one(queue: UnitQueue) -> None:
            queue.unit.reset()
            left.remove(queue)
            if not left:
                self._managed(tag, _COMPLETE)

        for queue in list(left):
            self._abort(queue, None)
            queue.put(Task(NO_TAG, 0, b"", job=partial(reset_one, queue)))
            queue.go()


def _residual(expected: int, wanted: int) -> tuple[int, int]:
    if wanted > expected:
        return _OVERFLOW, wanted - expected
    if wanted < expected:
        return _UNDERFLOW, expected - wanted
    return 0, 0


def _encode_lun(lun: int) -> bytes:
    return (lun if lun < 256 else 0x4000 | lun).to_bytes(2, "big") + bytes(6)
