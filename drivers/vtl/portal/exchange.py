"""SCSI commands of a session, their data in both directions, and their answers.

The thread of the session calls everything here; `_do` and what it calls run in the thread of a queue.
"""

from __future__ import annotations

import logging

from drivers.scsi.transport import Status
from drivers.vtl.blocks import MAX_TRANSFER_BYTES
from drivers.vtl.commands import Answer, Nexus
from drivers.vtl.portal.keys import RECEIVE_BYTES, Operational
from drivers.vtl.portal.login import WINDOW
from drivers.vtl.portal.pdu import FINAL, NO_TAG, Header, Opcode, ProtocolError, decode_lun, header
from drivers.vtl.portal.sender import Sender
from drivers.vtl.portal.tasks import Task, UnitQueue
from drivers.vtl.portal.wire import padding
from drivers.vtl.sense import INTERNAL_FAILURE, INVALID_FIELD_IN_CDB, Key, Sense
from drivers.vtl.unit import LogicalUnit

log = logging.getLogger(__name__)

#: Room for data on their way to the units, for a whole session.
MAX_BUFFERED_BYTES = 4 * MAX_TRANSFER_BYTES
_SPARE_BUFFERS = 4
_READS, _WRITES = 0x40, 0x20
#: Flags of residuals, in a response and in Data-In alike.
_OVERFLOW, _UNDERFLOW = 0x04, 0x02
_STATUS_IN_DATA = 0x01
_NO_UNIT = -1


def checked(length: int) -> int:
    """Return the length of a data segment, when it is not longer than was promised. Raises ProtocolError."""
    if length > RECEIVE_BYTES:
        raise ProtocolError(f"a data segment of {length} bytes, {RECEIVE_BYTES} were promised at most")
    return length


class Exchange:
    """The commands of one session."""

    def __init__(
        self, sender: Sender, agreed: Operational, nexus: Nexus, units: dict[int, LogicalUnit], missing: LogicalUnit
    ) -> None:
        self._sender = sender
        self._wire = sender.wire
        self._agreed = agreed
        self._nexus = nexus
        #: By LUN; the last one is for all LUNs that are not there.
        self._queues = {lun: UnitQueue(unit, self._do) for lun, unit in units.items()}
        self._queues[_NO_UNIT] = UnitQueue(missing, self._do)
        self._spare: list[memoryview] = []
        self._buffered_bytes = 0
        self._next_transfer_tag = 1

    def queue(self, lun: bytes) -> UnitQueue | None:
        """Return the queue of a unit, None when there is no such unit."""
        number = decode_lun(lun)
        return None if number is None or number == _NO_UNIT else self._queues.get(number)

    def queues(self) -> list[UnitQueue]:
        """Return the queues of all units."""
        return [queue for lun, queue in self._queues.items() if lun != _NO_UNIT]

    def close(self) -> None:
        """Drop what has not begun, and return when what has begun is done."""
        for queue in self._queues.values():
            queue.close()

    # -- commands ------------------------------------------------------------------------------------------------

    def command(self, pdu: Header) -> None:
        """Take in a SCSI command, with its immediate data."""
        tag, expected_bytes = pdu.tag, pdu.words[0]
        if len(self._sender.pending) >= 2 * WINDOW:
            raise ProtocolError("more commands for immediate delivery than anybody needs")
        if tag in self._sender.pending or tag == NO_TAG:
            raise ProtocolError(f"task tag {tag:#x} is in use")
        number = decode_lun(pdu.lun)
        lun = number if number is not None and number in self._queues else _NO_UNIT
        reads, writes = bool(pdu.flags & _READS), bool(pdu.flags & _WRITES)
        task = Task(tag, lun, pdu.raw[32:48], expected_bytes, reads)
        if pdu.data_bytes and not (writes and self._agreed.immediate_data):
            raise ProtocolError("immediate data that were not agreed upon")
        if not writes:
            self._start(task)
            return
        if reads or expected_bytes > MAX_TRANSFER_BYTES or not self._make_room(task):
            self._wire.skip_data(checked(pdu.data_bytes))
            refusal = Sense(Key.ILLEGAL_REQUEST, INVALID_FIELD_IN_CDB).encode()
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
            # Fresh memory costs more than the transfer: 0.25 ms a MiB.
            index = next((number for number, each in enumerate(self._spare) if len(each) >= size), None)
            buffer = self._spare.pop(index) if index is not None else memoryview(bytearray(size))
        task.data = buffer[:size]
        return True

    def _take_immediate(self, pdu: Header, task: Task) -> None:
        length, first_burst = checked(pdu.data_bytes), min(self._agreed.first_burst_bytes, len(task.data))
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
        self._sender.pending[task.tag] = task
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
        self._sender.send(
            Opcode.READY_TO_TRANSFER,
            lun=_encode_lun(task.lun),
            tag=task.tag,
            word=task.transfer_tag,
            last=(task.bursts, task.received_bytes, task.burst_end - task.received_bytes),
            advance=False,
        )
        task.bursts += 1

    def data_out(self, pdu: Header) -> None:
        """Take in data of a command that came before."""
        task = self._sender.pending.get(pdu.tag)
        if task is None or task.is_aborted:
            # Of a command that was answered or aborted meanwhile.
            self._wire.skip_data(checked(pdu.data_bytes))
            return
        _, _, _, _, number, offset, _ = pdu.words
        length = checked(pdu.data_bytes)
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
                answer = queue.unit.execute(self._nexus, task.cdb, task.data, room)
            except Exception:  # The boundary of the device: a bug must not take other initiators with it.
                log.exception("command %s failed", task.cdb.hex())
                answer = Answer(Status.CHECK_CONDITION, Sense(Key.HARDWARE_ERROR, INTERNAL_FAILURE).encode())
            self._respond(task, answer, room)
        except ConnectionError:
            # The session's own thread sees that, too, and ends it.
            self._wire.shut()
        except Exception:  # The boundary of a task: a bug ends the session, and no worker.
            log.exception("a task failed")
            self._wire.shut()

    def _respond(self, task: Task, answer: Answer, room: memoryview) -> None:
        with self._wire.lock:
            if self._sender.pending.pop(task.tag, None) is not None:
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
                    numbers=self._sender.numbers(advance=True),
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
                    numbers=self._sender.numbers(advance=with_status),
                    last=(number, start, residual),
                ),
                room[start:end],
                padding(end - start),
            ]
            start, number = end, number + 1
        return number

    def abort(self, queue: UnitQueue, tag: int | None) -> None:
        """Drop one task, or all, that have not begun; one that has begun is not answered any more."""
        queue.abort(lambda task: tag is None or task.tag == tag)
        with self._wire.lock:
            for task in [each for each in self._sender.pending.values() if self._queues[each.lun] is queue]:
                if tag is None or task.tag == tag:
                    dropped = task.is_aborted
                    task.is_aborted = True
                    if dropped:
                        del self._sender.pending[task.tag]
                        self._give_back(task)


def _residual(expected: int, wanted: int) -> tuple[int, int]:
    if wanted > expected:
        return _OVERFLOW, wanted - expected
    if wanted < expected:
        return _UNDERFLOW, expected - wanted
    return 0, 0


def _encode_lun(lun: int) -> bytes:
    return (lun if lun < 256 else 0x4000 | lun).to_bytes(2, "big") + bytes(6)
