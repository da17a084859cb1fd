"""One device over a transport: sends commands, waits while it is busy, and turns what it says into errors.

Blocking; one thread. Attentions (sense key 6) are told to a listener; then the command, which was not done, is sent
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from drivers.errors import DeviceFailed, DriveError, DriveInUse, NotReady, NotSupported
from drivers.scsi import cdb as commands
from drivers.scsi.cdb import Op
from drivers.scsi.inquiry import (
    DEVICE_IDENTIFICATION,
    OF_THE_UNIT,
    SERIAL_NUMBER,
    Identity,
    parse_designators,
    parse_inquiry,
    parse_serial,
)
from drivers.scsi.opcodes import Supported, parse_supported_opcodes
from drivers.scsi.outcomes import CLEANING_REQUESTED, Doing, error_of, outcome_of
from drivers.scsi.sense import Key, Sense, parse_sense
from drivers.scsi.timeouts import Timeouts
from drivers.scsi.transport import Reply, Status, Transport

#: Each of these may wait for the first command after a power cycle; a device that has more is out of order.
_MOST_ATTENTIONS = 16
_BUSY_LIMIT_S = 60.0
_BUSY_POLL_S = 0.5
#: Commands that may be half done when they are broken off, and must not be done twice.
_ONCE = frozenset({Op.SPACE_6, Op.SPACE_16, Op.WRITE_FILEMARKS_6, Op.WRITE_FILEMARKS_16, Op.MOVE_MEDIUM})


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    #: Bytes that were moved.
    moved_bytes: int
    #: What the device said; None for a plain good end.
    sense: Sense | None


@dataclass(slots=True)
class Clock:
    """Time passing; tests pass their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Device:
    """One logical unit."""

    def __init__(self, transport: Transport, *, clock: Clock | None = None) -> None:
        """Ask who it is. Raises DeviceFailed."""
        self.transport = transport
        self.clock = clock or Clock()
        #: Told every attention before the command is sent again; may raise.
        self.on_attention: Callable[[Sense], None] = lambda sense: None
        #: Told what a device adds for its operator when all went well: that it wants to be cleaned.
        self.on_advice: Callable[[str], None] = lambda text: None
        #: By the sense data of a command that went well, since it was cleaned last.
        self.asks_to_be_cleaned = False
        self.timeouts = Timeouts()
        self.name = "the device"
        self.identity: Identity = parse_inquiry(self.read(commands.inquiry(96), 96))
        self.serial = self._read_serial()
        self.name = " ".join(each for each in (self.identity.vendor, self.identity.product, self.serial) if each)

    def _read_serial(self) -> str:
        """Return the serial number, or of a device without one the first name of its own; "" when it has neither."""
        try:
            serial = parse_serial(self.read(commands.inquiry(255, page=SERIAL_NUMBER), 255))
        except NotSupported:
            serial = ""
        return serial or self._read_name()

    def _read_name(self) -> str:
        try:
            names = parse_designators(self.read(commands.inquiry(255, page=DEVICE_IDENTIFICATION), 255))
        except NotSupported:
            return ""
        return next((each.text for each in names if each.association == OF_THE_UNIT), "")

    def supported_commands(self) -> list[Supported]:
        """Return what the device says that it can do; nothing when it does not say."""
        try:
            return parse_supported_opcodes(self.read(commands.report_supported_opcodes(0x4000), 0x4000))
        except NotSupported:
            return []

    def ask_sense(self) -> Sense | None:
        """Ask what the device is busy with or has to tell; attentions are told to the listener. None: nothing.

        Raises what the listener does, DriveInUse, NotReady, TransportFailed.
        """
        for _ in range(_MOST_ATTENTIONS):
            data = self.read(commands.request_sense(), 252)
            sense = parse_sense(data) if data else Sense(Key.NO_SENSE)
            if sense.key is not Key.UNIT_ATTENTION or sense.deferred:
                return None if (sense.key, sense.asc, sense.ascq) == (Key.NO_SENSE, 0, 0) else sense
            self._tell(sense, Doing.ASK)
        raise DeviceFailed(f"{self.name} tells one attention after the other")

    # -- sending -------------------------------------------------------------------------------------------------

    def read(self, cdb: bytes, allocation_bytes: int, doing: Doing = Doing.ASK) -> bytes:
        """Ask something; return what came. Raises as `run`."""
        buffer = bytearray(allocation_bytes)
        done = self.run(cdb, doing, data_in=memoryview(buffer))
        return bytes(buffer[: done.moved_bytes])

    def run(
        self,
        cdb: bytes,
        doing: Doing,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        block: int = 0,
    ) -> Done:
        """Send a command and return how it ended, if it was done: the sense may tell a filemark or early warning.

        `block` is the logical block that it is about, for messages. Raises the error of `outcomes.RULES`, DriveInUse,
        NotReady, TransportFailed.
        """
        done = self.execute(cdb, doing, data_in=data_in, data_out=data_out)
        error = self.error_in(done, doing, block)
        if error is not None:
            raise error
        if done.sense is not None and outcome_of(done.sense).advice:
            self.asks_to_be_cleaned |= (done.sense.asc, done.sense.ascq) == CLEANING_REQUESTED
            self.on_advice(f"{self.name}: {outcome_of(done.sense).happened} ({outcome_of(done.sense).advice})")
        return done

    def error_in(self, done: Done, doing: Doing, block: int = 0) -> DriveError | None:
        """Return the error in how a command ended, None when it was done."""
        return None if done.sense is None else self.error_of(done.sense, doing, block)

    def error_of(self, sense: Sense, doing: Doing, block: int = 0) -> DriveError | None:
        """Return the error that sense data mean, None when they tell of none."""
        return error_of(sense, doing, block=block, device=self.name)

    def execute(
        self,
        cdb: bytes,
        doing: Doing,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
    ) -> Done:
        """Send a command and return how it ended, done or not. Raises DriveInUse, NotReady, TransportFailed."""
        timeout_s = self.timeouts.of(cdb)
        attentions = 0
        may_repeat = cdb[0] not in _ONCE
        while True:
            reply = self._send(cdb, data_in, data_out, timeout_s)
            if reply.status is not Status.CHECK_CONDITION:
                if reply.status is Status.TASK_ABORTED:
                    if may_repeat and not reply.moved_bytes:
                        may_repeat = False
                        continue
                    raise DeviceFailed(f"{self.name}, {doing.value}: the command was broken off by another host")
                return Done(reply.moved_bytes, None)
            sense = parse_sense(reply.sense) if reply.sense else Sense(Key.HARDWARE_ERROR)
            if sense.key is Key.UNIT_ATTENTION and not sense.deferred:
                attentions += 1
                if attentions > _MOST_ATTENTIONS:
                    raise DeviceFailed(f"{self.name} tells one attention after the other [sense {sense.codes}]")
                self._tell(sense, doing)
                continue
            if sense.key is Key.ABORTED_COMMAND and not sense.deferred and may_repeat and not reply.moved_bytes:
                may_repeat = False
                continue
            if sense.deferred and outcome_of(sense).error is None:
                # Told of an earlier command; this one was not done.
                continue
            return Done(reply.moved_bytes, sense)

    def _tell(self, sense: Sense, doing: Doing) -> None:
        self.on_attention(sense)
        error = error_of(sense, doing, block=0, device=self.name)
        if isinstance(error, DriveInUse | DeviceFailed):
            raise error

    def _send(
        self, cdb: bytes, data_in: memoryview | None, data_out: bytes | memoryview | None, timeout_s: float
    ) -> Reply:
        """Send a command, again while the device is busy with those of others."""
        until_s: float | None = None
        while True:
            reply = self.transport.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
            if reply.status is Status.RESERVATION_CONFLICT:
                raise DriveInUse(f"{self.name} is reserved by another host: it can be used when that lets go of it")
            if reply.status not in (Status.BUSY, Status.TASK_SET_FULL):
                return reply
            now_s = self.clock.now()
            until_s = now_s + _BUSY_LIMIT_S if until_s is None else until_s
            if now_s >= until_s:
                raise NotReady(f"{self.name} has been busy for {_BUSY_LIMIT_S:.0f} s")
            self.clock.sleep(_BUSY_POLL_S)
