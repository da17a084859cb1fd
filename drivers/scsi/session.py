"""A drive that is held and set as it must be, and the place of its head. Blocking; one thread.

The place is counted along. When the way to the drive breaks and can be made again, READ POSITION tells whether the
command was done: the head stands where it stood, or one further. A drive that lost its power stands at block 0 instead,
and then the position counts as lost, as after every attention that tells of a reset while the way was whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from drivers.errors import BadAnswer, DeviceFailed, DriveError, NotSupported, PositionLost, TransportFailed
from drivers.scsi import cdb as commands
from drivers.scsi.cdb import MAX_24
from drivers.scsi.device import Clock, Device, Done
from drivers.scsi.generations import generation_of_model
from drivers.scsi.inquiry import TAPE
from drivers.scsi.keying import Keying
from drivers.scsi.logs import TAPE_ALERT_RESPONSE, parse_tape_alert_response
from drivers.scsi.medium import read_log
from drivers.scsi.mode_access import DriveSettings
from drivers.scsi.notes import Notes
from drivers.scsi.outcomes import Doing, outcome_of
from drivers.scsi.position import LongPosition, parse_block_limits, parse_position_long
from drivers.scsi.ready import Report
from drivers.scsi.reserve import release_reservation, take_reservation
from drivers.scsi.sense import Sense
from drivers.scsi.tape_alerts import TapeAlert, describe
from drivers.scsi.timeouts import Timeouts
from drivers.scsi.transport import Transport

_MODES_CHANGED = (0x2A, 0x01)
_NEXUS_LOST = (0x29, 0x07)
#: Encryption parameters changed by another initiator, by the drive itself; the key's counter has changed.
_KEYS_CHANGED = frozenset({(0x2A, 0x11), (0x2A, 0x12), (0x2A, 0x13)})
T = TypeVar("T")


class DriveSession:
    """One drive, from taking it to letting go."""

    def __init__(
        self, transport: Transport, folder: Path, *, reserve: bool, report: Report, clock: Clock | None
    ) -> None:
        """Take the drive. Raises DriveInUse, DeviceFailed; the transport is closed then."""
        self.transport = transport
        self.report = report
        #: Block under the head; None when it must be asked.
        self.block: int | None = None
        #: The head is behind early warning, as far as writing has told.
        self.is_warned = False
        self._lost = ""
        self._is_closed = False
        self._is_settled = False
        #: The place is relied on, so an attention that tells of a reset counts.
        self._relies = False
        #: A command is under way whose meaning depends on the place.
        self._depends = False
        self._holds_tape = False
        #: The tape is on its way out.
        self._is_leaving = False
        #: How compression was switched last; None when nobody cared.
        self._compress: bool | None = None
        #: What the operator has been told since the tape was loaded.
        self._told: set[str] = set()
        try:
            self.device = Device(transport, clock=clock)
            if self.device.identity.device_type != TAPE:
                raise DeviceFailed(f"{self.device.name} is no tape drive")
            self.notes = Notes(folder, self.device.serial, self.device.name)
        except BaseException:
            transport.close()
            raise
        try:
            self._open(reserve)
        except BaseException:
            self.notes.close()
            transport.close()
            raise

    def _open(self, reserve: bool) -> None:
        device = self.device
        #: LTO generation of the drive, None when its name tells none.
        self.generation = generation_of_model(device.identity.product)
        device.timeouts = Timeouts(self.generation)
        self._is_reserved = reserve and take_reservation(device, self.notes.key)
        device.timeouts = Timeouts(self.generation, device.supported_commands())
        self.settings = DriveSettings(device)
        self.keying = Keying(device, self.notes)
        self.max_block_bytes = min(self._read_max_block(), self.transport.max_transfer_bytes)
        device.on_attention = self._attend
        device.on_advice = self._tell_once

    def _read_max_block(self) -> int:
        try:
            told = parse_block_limits(self.device.read(commands.read_block_limits(), 6)).max_bytes
        except NotSupported:
            return MAX_24
        return told or MAX_24

    # -- the state of the place ----------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Tell whether the drive was let go."""
        return self._is_closed

    @property
    def lost(self) -> str:
        """Return why the place of the head is unknown, "" while it is known."""
        return self._lost

    def lose(self, reason: str) -> None:
        """Remember that the place is unknown, until the tape is rewound."""
        self._lost = reason
        self.block = None
        self._is_settled = False

    def stands_at(self, block: int | None) -> None:
        """Remember where the head went; None when it must be asked."""
        self.block = block
        self.is_warned = False

    def check_open(self) -> None:
        """Raise DeviceFailed when the drive was let go."""
        if self._is_closed:
            raise DeviceFailed(f"{self.device.name} is closed")

    def check_steady(self) -> None:
        """Make sure that a tape is there, set right, and its place known. Raises NotReady, PositionLost."""
        self.check_open()
        if self._lost:
            raise PositionLost(f"{self._lost}: rewind, then check label and position")
        if not self._is_settled:
            self.device.run(commands.test_unit_ready(), Doing.ASK)
            self.settle()

    def settle(self, compress: bool | None = None) -> None:
        """Make the settings, hold the tape, and rely on the place of the head from now on."""
        if compress is not None:
            self._compress = compress
        self.settings.make(self._compress)
        self.keying.settle()
        self._hold_tape()
        self._is_settled = self._relies = True

    def steady_after_rewind(self) -> None:
        """The tape was rewound: whatever was lost is found again; a drive that was reset is held and set anew."""
        if self._lost and self._is_reserved:
            take_reservation(self.device, self.notes.key)
        if not self._is_settled:
            self.settle()
        self._lost = ""
        self.stands_at(0)

    def tape_is_out(self) -> None:
        """Forget the place: there is no tape any more."""
        self._told.clear()
        self._is_settled = self._relies = False
        self._lost = ""
        self.stands_at(None)

    def _attend(self, sense: Sense) -> None:
        """Hear an attention. Raises PositionLost when the command must not be sent again."""
        if outcome_of(sense).error is PositionLost:
            self._is_settled = False
            if self._relies and (sense.asc, sense.ascq) == _NEXUS_LOST and self._stands_as_before():
                return
            if self._relies:
                self.lose(f"{self.device.name}: {outcome_of(sense).happened} [sense {sense.codes}]")
                if self._depends:
                    raise PositionLost(f"{self._lost}: rewind, then check label and position")
        elif (sense.asc, sense.ascq) == _MODES_CHANGED:
            self._is_settled = False
            if self._depends:
                self.settle()
        elif (sense.asc, sense.ascq) in _KEYS_CHANGED:
            self._is_settled = False

    def _stands_as_before(self) -> bool:
        """The way to the drive was made anew before a command was sent: look whether the head is where it must be.

        Losing a nexus moves no tape and loses no block, as losing power does. Raises TransportFailed.
        """
        expected, depends = self.block, self._depends
        if expected is None:
            return False
        self._relies = False
        try:
            if self._is_reserved:
                take_reservation(self.device, self.notes.key)
            if self.where() != expected:
                return False
            self.settle()
        except TransportFailed:
            raise
        except DriveError:
            return False
        finally:
            self._relies, self._depends = True, depends
        return True

    # -- commands that depend on the place -----------------------------------------------------------------------

    def command(
        self,
        cdb: bytes,
        doing: Doing,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        block: int | None = None,
    ) -> Done:
        """Send a command that means something only where the head stands. Raises as `Device.run`, PositionLost."""
        about = self.block if block is None else block
        self._depends = True
        try:
            return self.device.run(cdb, doing, data_in=data_in, data_out=data_out, block=about or 0)
        except DriveError:
            self.block = None
            raise
        finally:
            self._depends = False

    def careful(self, send: Callable[[], Done], steps: int) -> Done | None:
        """Send a command that moves the head by `steps` blocks; when the way breaks, find out whether it was done.

        Returns None when it was done but its answer is lost; with 0 steps nothing tells, and it is sent again.
        Raises TransportFailed, PositionLost, and what `send` does.
        """
        before = self.known_block()
        try:
            return send()
        except TransportFailed as broken:
            after = self.where_after(broken)
            if steps and after == before + steps:
                return None
            if after != before:
                raise self._misplaced(before, after) from broken
            self.block = before
        return self._second_try(send)

    def again(self, ask: Callable[[], T]) -> T:
        """Ask something that moves nothing; once more when the way breaks. Raises PositionLost as it should."""
        before = self.block
        try:
            return ask()
        except TransportFailed as broken:
            if self._lost or not self._relies:
                self.hold_again(broken)
            else:
                after = self.where_after(broken)
                if after != before and (before is not None or after == 0):
                    raise self._misplaced(before, after) from broken
        return ask()

    def hold_again(self, broken: TransportFailed) -> None:
        """After a break: reserve the drive for the new connection. Raises `broken` when that cannot be."""
        try:
            if self._is_reserved:
                take_reservation(self.device, self.notes.key)
        except DriveError as error:
            raise broken from error

    def known_block(self) -> int:
        """Return the block under the head; asks when it is not known. Raises PositionLost, TransportFailed."""
        if self.block is not None:
            return self.block
        try:
            return self.where()
        except TransportFailed as broken:
            after = self.where_after(broken)
            if after == 0:
                raise self._misplaced(None, after) from broken
            return after

    def go_back(self, broken: TransportFailed, before: int, *, also: Collection[int], or_between: bool = False) -> None:
        """After a break: go back to block `before`, so that a command can be given again.

        The head must stand there, at a block of `also`, or, with `or_between`, anywhere but at the beginning: there it
        stands after a loss of power. Raises PositionLost when it does not, TransportFailed.
        """
        after = self.where_after(broken)
        if after == before:
            return
        if after not in also and (not or_between or after == 0):
            raise self._misplaced(before, after) from broken
        self.device.run(commands.locate_16(before), Doing.MOVE, block=before)
        self.stands_at(before)

    def _second_try(self, send: Callable[[], Done]) -> Done:
        try:
            return send()
        except TransportFailed as broken:
            self.lose(str(broken))
            raise

    def _misplaced(self, before: int | None, after: int) -> PositionLost:
        where = "where it was" if before is None else f"at {before}"
        self.lose(f"{self.device.name} stands at block {after}, not {where}, since the way to it broke")
        return PositionLost(f"{self._lost}: rewind, then check label and position")

    def where_after(self, broken: TransportFailed) -> int:
        """Return where the head stands after the way to the drive broke. Raises `broken` when that cannot be known."""
        # Every new connection begins with attentions; where the head stands tells more.
        self._relies = False
        try:
            self.hold_again(broken)
            block = self.where()
            self.settle()
        except DriveError as error:
            self.lose(f"{self.device.name}: {broken}")
            raise broken from error
        finally:
            self._relies = True
        return block

    def read_position(self) -> LongPosition:
        """Ask where the head stands. Raises NotReady, PositionLost, DeviceFailed."""
        data = bytearray(32)
        done = self.command(commands.read_position_long(), Doing.ASK, data_in=memoryview(data))
        found = parse_position_long(bytes(data[: done.moved_bytes]))
        self.block = found.block
        return found

    def where(self) -> int:
        """Ask for the block under the head. Raises PositionLost when the drive does not know."""
        block = self.read_position().block
        if block is None:
            self.lose(f"{self.device.name} does not know where its head stands")
            raise PositionLost(f"{self._lost}: rewind, then check label and position")
        return block

    # -- what the operator should know ----------------------------------------------------------------------------

    def alerts(self) -> list[TapeAlert]:
        """Return what the drive wants to be told, the worst first; asking clears nothing. Raises DeviceFailed."""
        page = read_log(self.device, TAPE_ALERT_RESPONSE)
        return describe(parse_tape_alert_response(page)) if page else []

    def tell_alerts(self) -> None:
        """Tell the operator what the drive wants to be told, each thing once while a tape is loaded."""
        try:
            for alert in self.alerts():
                self._tell_once(f"{self.device.name}: {alert.message} [TapeAlert {alert.number}]")
        except BadAnswer as error:
            self._tell_once(f"{self.device.name}: its TapeAlert cannot be read: {error}")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.report(text)

    # -- holding -------------------------------------------------------------------------------------------------

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """The tape is let go, and not held again meanwhile, whatever the drive tells."""
        self.release_tape()
        self._is_leaving = True
        try:
            yield
        finally:
            self._is_leaving = False

    def _hold_tape(self) -> None:
        """Let nobody eject the tape by hand, where the drive can be told so."""
        if self._is_leaving:
            return
        with suppress(NotSupported):
            self.device.run(commands.prevent_allow(prevent=True), Doing.LOAD)
            self._holds_tape = True

    def release_tape(self) -> None:
        """Let the tape be ejected; also when an earlier process held it."""
        with suppress(NotSupported):
            self.device.run(commands.prevent_allow(prevent=False), Doing.LOAD)
        self._holds_tape = False

    def close(self) -> None:
        """Let go of the drive; the tape stays where it is. Harmless twice."""
        if self._is_closed:
            return
        self._is_closed = True
        self._relies = False
        try:
            self.keying.clear()
            if self._holds_tape:
                self.release_tape()
            if self._is_reserved:
                release_reservation(self.device, self.notes.key)
        except DriveError as error:
            # The device is gone or was taken by another: there is nothing left to let go of.
            self.report(f"{self.device.name} was not let go in order: {error}")
        finally:
            self.notes.close()
            self.transport.close()
