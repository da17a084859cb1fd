"""A tape drive as a SCSI device: SSC over a drive of the virtual library. Any thread; one command at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from drivers.errors import CleaningUsedUp, DriveError, IncompatibleMedium, NotReady
from drivers.scsi.transport import Status
from drivers.virtual.condition import is_cleaning
from drivers.virtual.drive import MAX_BLOCK_BYTES
from drivers.virtual.faults import BreakableDrive
from drivers.vtl.attributes import Attributes
from drivers.vtl.blocks import Blocks
from drivers.vtl.commands import Access, Answer, Command, Done, Nexus, Operation, operation
from drivers.vtl.density import density_report
from drivers.vtl.encryption import TapeEncryption
from drivers.vtl.failures import sense_of
from drivers.vtl.inquiry import TAPE, Identity
from drivers.vtl.lengthy import Interrupted, LengthyWork
from drivers.vtl.sense import (
    CLEAN_NOW,
    INCOMPATIBLE_MEDIUM,
    INVALID_FIELD_IN_CDB,
    LOAD_REQUIRED,
    LOG_CHANGED,
    LUN_RESET,
    MEDIUM_CHANGED,
    MODE_CHANGED,
    NO_MEDIUM,
    POWER_ON,
    READ_ERROR,
    REMOVAL_PREVENTED,
    REMOVAL_PREVENTED_BY_DRIVE,
    WRITE_ERROR,
    WRITE_PROTECTED,
    CheckCondition,
    Key,
    Sense,
    not_ready,
    refuse,
)
from drivers.vtl.tape_logs import CLEANING_USED_UP, READ_FAILURE, WRITE_FAILURE, WRITE_PROTECT, TapeLogs
from drivers.vtl.tape_modes import TapeModes
from drivers.vtl.tape_order import TapeOrder
from drivers.vtl.unit import LogicalUnit

log = logging.getLogger(__name__)

REVISION = "0001"
_READ, _WRITE, _REQUEST_SENSE = 0x08, 0x0A, 0x03
#: READ, WRITE, VERIFY: they go by the key of who sends them.
_BLOCKS = frozenset((_READ, _WRITE, 0x13))
#: REWIND, FORMAT MEDIUM, VERIFY, WRITE FILEMARKS, SPACE, ERASE, LOAD UNLOAD, LOCATE, WRITE ATTRIBUTE,
#: GENERATE RECOMMENDED ACCESS ORDER.
_SLOW = frozenset((0x01, 0x04, 0x10, 0x11, 0x13, 0x19, 0x1B, 0x2B, 0x80, 0x8D, 0x91, 0x92, 0x93, 0xA4))
#: What is answered with "becoming ready" while a cartridge is being threaded.
_WHEN_READY = _SLOW | {0x00, _REQUEST_SENSE, _READ, _WRITE, 0x34}
#: Seconds that commands may take, as LTO-9 drives report them.
_LOAD_S, _LOCATE_S, _REWIND_S, _WRITE_S, _READ_S, _ERASE_S = 960, 2940, 600, 1500, 2340, 74341
#: The first generation of drives that recommends an access order.
_KNOWS_ORDER = 9


def tape_identity(drive: BreakableDrive) -> Identity:
    """Return the identity of a virtual drive: vendor, model and serial number of its status."""
    vendor, model, serial = drive.status().identity.split()
    return Identity(TAPE, vendor, model, REVISION, serial)


class TapeServer(LogicalUnit):
    """The device server of one drive. It owns the drive, which must be open, from now on."""

    def __init__(self, drive: BreakableDrive, *, is_paced: bool = False) -> None:
        """`is_paced`: the drive takes its time, as its motion mode wants it."""
        self._is_paced = is_paced
        identity = tape_identity(drive)
        self._drive = drive
        self._logs = TapeLogs(drive, identity, activity=lambda: 0, is_prevented=lambda: bool(self.preventing))
        self._modes = TapeModes(drive, self._set_descriptor_sense, self._logs.alerts.test)
        self._blocks = Blocks(drive, lambda: self._modes.block_bytes, self._was_reset)
        self._attributes = Attributes(drive)
        self._order = TapeOrder(drive)
        self._encryption = TapeEncryption(drive, self.tell)
        self._speaker: Nexus | None = None
        #: A cartridge is being threaded or measured, or the tape erased.
        self._lengthy = LengthyWork()
        #: A cleaning cartridge has done its work and was ejected; it waits for the robot.
        self._is_out = False
        #: That it asks to be cleaned was told by sense data.
        self._has_asked = False
        #: Has an initiator moved the tape since it was threaded?
        self._is_used = True
        super().__init__(identity)

    def _set_descriptor_sense(self, wanted: bool) -> None:
        self.descriptor_sense = wanted

    # -- what happens to the drive -------------------------------------------------------------------------------

    def inserted(self) -> None:
        """The changer has put a cartridge in: thread it, as libraries do. Some cannot be threaded, and stay so.

        A paced drive is becoming ready meanwhile, and this returns at once. A cleaning cartridge cleans.
        """
        self._is_out = False
        if self._holds_cleaning_cartridge():
            self._begin_cleaning()
        elif self._is_paced:
            self._lengthy.begin(lambda: self._thread(None))
        else:
            self._thread(None)

    def _holds_cleaning_cartridge(self) -> bool:
        with self.lock:
            try:
                return is_cleaning(self._drive.status().barcode or "")
            except DriveError:
                return False

    def _begin_cleaning(self) -> None:
        if self._is_paced:
            self._lengthy.begin(self._clean_slowly, cleans=True)
        else:
            self._clean()

    def _clean_slowly(self) -> None:
        self._lengthy.wait(self._drive.cleaning_s())
        self._clean()

    def _clean(self) -> None:
        """Use the cartridge, and eject it in any case."""
        with self.lock:
            try:
                self._drive.clean(is_waited_for=True)
                self._logs.was_cleaned()
                self._has_asked = False
            except CleaningUsedUp:
                self._logs.alerts.put_up(CLEANING_USED_UP)
            except DriveError as error:
                log.warning("a drive cannot be cleaned: %s", error)
            self._is_out = True

    def _asks_for_cleaning(self, done: Done) -> Done:
        """Say once with what went well that the drive wants to be cleaned."""
        if done.sense is not None or self._has_asked or not self._logs.asks_to_be_cleaned():
            return done
        self._has_asked = True
        return replace(done, sense=Sense(Key.RECOVERED_ERROR, CLEAN_NOW))

    def _thread(self, by: Nexus | None) -> None:
        """Thread the cartridge; initiators but the one that asked for it hear of it."""
        try:
            self._measure()
            with self.lock:
                self._drive.load()
                self._is_used = by is not None
                self._threaded(by)
        except NotReady:
            log.debug("there is no cartridge to be threaded")
        except DriveError as error:
            # A drive that was let go while its thread began has nothing to tell.
            level = logging.DEBUG if self._lengthy.is_closing else logging.WARNING
            log.log(level, "a cartridge cannot be threaded: %s", error)

    def _measure(self) -> None:
        """Wait for a cartridge that is being measured, without the lock. Raises DriveError, Interrupted."""
        with self.lock:
            seconds = self._drive.first_load_s()
        if seconds:
            self._lengthy.wait(seconds)
            with self.lock:
                self._drive.skip_measuring()

    def is_threaded(self) -> bool:
        """Tell whether a cartridge is threaded or about to be; a drive that does not answer does not give it back."""
        if self._lengthy:
            return True
        with self.lock:
            try:
                return self._drive.status().loaded
            except DriveError:
                return True

    def let_go(self) -> None:
        """Let the changer take the cartridge: one that nobody has used since it came is unthreaded for that.

        Raises CheckCondition.
        """
        if self._lengthy:
            raise refuse(REMOVAL_PREVENTED_BY_DRIVE)
        with self.lock:
            if self.preventing:
                raise refuse(REMOVAL_PREVENTED)
            if self._drive.status().loaded:
                if self._is_used:
                    raise refuse(REMOVAL_PREVENTED_BY_DRIVE)
                self._unload()
            self._is_out = False

    def reset(self, code: int = LUN_RESET) -> None:
        """A reset: the drive's buffer and position are lost."""
        with self.lock:
            super().reset(code)
            self._encryption.reset()
            self._blocks.lost()
            self._order.forget()
            try:
                self._drive.reset()
            except DriveError as error:
                # Every command says so from now on.
                log.warning("a drive cannot be reset: %s", error)

    def detach(self, nexus: Nexus) -> None:
        """An initiator has gone, and with it the key that was its own."""
        with self.lock:
            super().detach(nexus)
            self._encryption.forget(nexus)

    def close(self) -> None:
        """Let go of the drive; what takes long is broken off."""
        self._lengthy.close()
        with self.lock:
            self._drive.close()

    def _threaded(self, by: Nexus | None) -> None:
        self._blocks.found_again()
        self._order.forget()
        self.tell_others(by, MEDIUM_CHANGED)

    def _was_reset(self) -> None:
        """The drive says that it lost its position: all are told, who speaks is answered so."""
        self.tell_others(self._speaker, POWER_ON)

    def execute(
        self, nexus: Nexus, cdb: bytes, data_out: memoryview | None = None, data_in: memoryview | None = None
    ) -> Answer:
        """See `LogicalUnit.execute`. What needs a tape does not wait for one that is being threaded or erased."""
        if self._lengthy and cdb and cdb[0] in _WHEN_READY:
            if cdb[0] != _REQUEST_SENSE:
                return self.refusal(self._lengthy.refusal())
            sense = self._lengthy.told().encode(descriptors=bool(cdb[1] & 1))
            done = Command(nexus, cdb, data_in=data_in or memoryview(b"")).give(sense, cdb[4])
            return Answer(Status.GOOD, b"", done.moved_bytes, done.wanted_bytes)
        return super().execute(nexus, cdb, data_out, data_in)

    def _run(self, command: Command) -> Done:
        self._speaker = command.nexus
        if command.cdb and command.cdb[0] in _BLOCKS:
            self._encryption.apply(command.nexus)
        try:
            return super()._run(command)
        except CheckCondition as error:
            self._note(error.sense)
            raise
        except DriveError as error:
            raise self._blocks.failure(error) from error

    def _note(self, sense: Sense) -> None:
        """Raise what TapeAlert knows of such an error."""
        if sense.code == WRITE_ERROR:
            self._logs.tally.write_errors += 1
            self._logs.alerts.put_up(WRITE_FAILURE)
        elif sense.code == READ_ERROR:
            self._logs.tally.read_errors += 1
            self._logs.alerts.put_up(READ_FAILURE)
        elif sense.code == WRITE_PROTECTED:
            self._logs.alerts.put_up(WRITE_PROTECT)

    # -- the table -----------------------------------------------------------------------------------------------

    def operations(self) -> Sequence[Operation]:
        """Return the commands of SSC."""
        blocks, modes, medium, asking = self._blocks, self._modes.pages, self._with_medium, self._asking
        return [
            operation("TEST UNIT READY", "00 00 00 00 00 00", self._test_ready, Access.ALWAYS),
            operation("REWIND", "01 01 00 00 00 00", medium(blocks.rewind), timeout_s=_REWIND_S),
            operation("READ BLOCK LIMITS", "05 01 00 00 00 00", self._block_limits, Access.READER),
            operation("READ(6)", "08 03 FF FF FF 00", medium(self._noted(blocks.read)), timeout_s=_READ_S),
            operation("WRITE(6)", "0A 01 FF FF FF 00", medium(self._noted(blocks.write)), timeout_s=_WRITE_S),
            operation(
                "WRITE FILEMARKS(6)",
                "10 01 FF FF FF 00",
                medium(self._asking(blocks.write_filemarks)),
                timeout_s=_WRITE_S,
            ),
            operation("VERIFY(6)", "13 05 FF FF FF 00", medium(self._noted(blocks.verify)), timeout_s=_READ_S),
            operation("FORMAT MEDIUM", "04 03 0F FF FF 00", medium(blocks.format), timeout_s=_WRITE_S),
            operation("SPACE(6)", "11 0F FF FF FF 00", medium(blocks.space), timeout_s=_LOCATE_S),
            operation("MODE SELECT(6)", "15 11 00 00 FF 00", lambda c: self._select(c, modes.select_6)),
            operation("ERASE(6)", "19 03 00 00 00 00", medium(self._erase), timeout_s=_ERASE_S),
            operation("MODE SENSE(6)", "1A 08 FF FF FF 00", modes.sense_6, Access.READER),
            operation("LOAD UNLOAD", "1B 01 00 00 0F 00", self._load_unload, timeout_s=_LOAD_S),
            operation("PREVENT ALLOW MEDIUM REMOVAL", "1E 00 00 00 03 00", self._prevent),
            operation("LOCATE(10)", "2B 06 00 FF FF FF FF 00 FF 00", medium(blocks.locate), timeout_s=_LOCATE_S),
            *(
                operation(
                    "READ POSITION",
                    f"34 {form:02X} 00 00 00 00 00 {length} 00",
                    medium(run),
                    Access.READER,
                    action=True,
                )
                for form, length, run in (
                    (0x00, "FF FF", blocks.position_short),
                    # What st's MTIOCPOS asks for: by a number of the drive's own, which on LTO is the logical one.
                    (0x01, "FF FF", blocks.position_short),
                    (0x06, "FF FF", blocks.position_long),
                    (0x08, "FF FF", blocks.position_extended),
                )
            ),
            operation("REPORT DENSITY SUPPORT", "44 01 00 00 00 00 00 FF FF 00", self._densities, Access.READER),
            operation("LOG SELECT", "4C 03 FF FF 00 00 00 FF FF 00", self._log_select, Access.READER),
            operation("LOG SENSE", "4D 01 FF FF 00 FF FF FF FF 00", self._logs.pages.sense, Access.ALWAYS),
            operation("MODE SELECT(10)", "55 11 00 00 00 00 00 FF FF 00", lambda c: self._select(c, modes.select_10)),
            operation("MODE SENSE(10)", "5A 18 FF FF 00 00 00 FF FF 00", modes.sense_10, Access.READER),
            operation(
                "WRITE FILEMARKS(16)",
                "80 01 00 FF 00 00 00 00 00 00 00 00 FF FF 00 00",
                medium(asking(blocks.write_filemarks_16)),
                timeout_s=_WRITE_S,
            ),
            *(
                operation(
                    "READ ATTRIBUTE",
                    f"8C {action:02X} 00 00 00 FF 00 FF FF FF FF FF FF FF 01 00",
                    self._memory,
                    Access.READER,
                    action=True,
                )
                for action in (0, 1, 2, 3, 5)
            ),
            operation(
                "WRITE ATTRIBUTE", "8D 01 00 00 00 FF 00 FF 00 00 FF FF FF FF 00 00", medium(self._attributes.write)
            ),
            operation(
                "SPACE(16)",
                "91 0F 00 00 FF FF FF FF FF FF FF FF 00 00 00 00",
                medium(blocks.space_16),
                timeout_s=_LOCATE_S,
            ),
            operation(
                "LOCATE(16)",
                "92 3B 00 FF FF FF FF FF FF FF FF FF 00 00 00 00",
                medium(blocks.locate_16),
                timeout_s=_LOCATE_S,
            ),
            operation(
                "ERASE(16)",
                "93 03 00 FF FF FF FF FF FF FF FF FF 00 00 00 00",
                medium(self._erase_16),
                timeout_s=_ERASE_S,
            ),
            *self._encryption.operations(),
            *(self._order_operations() if self._drive.status().generation >= _KNOWS_ORDER else ()),
        ]

    def _order_operations(self) -> Sequence[Operation]:
        return [
            operation(
                "RECEIVE RECOMMENDED ACCESS ORDER",
                "A3 9D FF FF FF FF FF FF FF FF 07 00",
                self._order.receive,
                Access.READER,
                action=True,
            ),
            operation(
                "GENERATE RECOMMENDED ACCESS ORDER",
                "A4 1D 07 07 00 00 FF FF FF FF 00 00",
                self._with_medium(self._order.generate),
                action=True,
            ),
        ]

    def is_quick(self, cdb: bytes) -> bool:
        """Tell whether a command neither moves the tape far nor waits for the disk."""
        if cdb[0] in (_READ, _WRITE):
            return not self._is_paced
        return cdb[0] not in _SLOW

    def _with_medium(self, run: Callable[[Command], Done]) -> Callable[[Command], Done]:
        def checked(command: Command) -> Done:
            self._check_medium()
            self._is_used = True
            return run(command)

        return checked

    def _noted(self, run: Callable[[Command], Done]) -> Callable[[Command], Done]:
        """Look at the sense of what ends with both data and an error, too."""

        def looked_at(command: Command) -> Done:
            done = run(command)
            if done.sense is not None:
                self._note(done.sense)
            return done

        return looked_at

    def _asking(self, run: Callable[[Command], Done]) -> Callable[[Command], Done]:
        return lambda command: self._asks_for_cleaning(run(command))

    def _test_ready(self, command: Command) -> Done:
        self._check_medium()
        return Done()

    def _check_medium(self) -> None:
        self._check_not_out()
        status = self._drive.status()
        if not status.loaded:
            raise not_ready(NO_MEDIUM if status.barcode is None else LOAD_REQUIRED)

    def _check_not_out(self) -> None:
        if self._is_out:
            raise not_ready(NO_MEDIUM)

    def _memory(self, command: Command) -> Done:
        self._check_not_out()
        return self._attributes.read(command)

    # -- commands that move no tape ------------------------------------------------------------------------------

    def _block_limits(self, command: Command) -> Done:
        if command.cdb[1] & 1:
            # MLOI: the largest logical object identifier.
            return command.give(bytes(12) + (2**63 - 1).to_bytes(8, "big"), 20)
        return command.give(bytes([0]) + MAX_BLOCK_BYTES.to_bytes(3, "big") + (1).to_bytes(2, "big"), 6)

    def _densities(self, command: Command) -> Done:
        status = self._drive.status()
        medium = None
        if command.cdb[1] & 1:
            self._check_medium()
            medium = status.medium_generation
        return command.give(density_report(status.generation, medium), command.number(7, 2))

    def _select(self, command: Command, select: Callable[[Command], bool]) -> Done:
        if select(command):
            self.tell_others(command.nexus, MODE_CHANGED)
        length = len(command.data_out)
        return Done(length, length)

    def _log_select(self, command: Command) -> Done:
        done = self._logs.pages.select(command)
        self.tell_others(command.nexus, LOG_CHANGED)
        return done

    def _prevent(self, command: Command) -> Done:
        kind = command.cdb[4] & 3
        if kind > 1:
            raise refuse(INVALID_FIELD_IN_CDB, 4)
        if kind:
            self.preventing.add(command.nexus)
        else:
            self.preventing.discard(command.nexus)
        return Done()

    # -- loading -------------------------------------------------------------------------------------------------

    def _load_unload(self, command: Command) -> Done:
        wanted = command.cdb[4]
        # EOT (4) belongs to unloading without a rewind, which LTO drives do not do.
        if wanted & 0x04:
            raise refuse(INVALID_FIELD_IN_CDB, 4)
        is_immediate = bool(command.cdb[1] & 0x01)
        if self._is_out:
            if wanted & 0x01:
                raise not_ready(NO_MEDIUM)
            return Done()
        if wanted == 0x01 and is_immediate and self._is_paced and not self._drive.status().loaded:
            if self._drive.status().barcode is None:
                raise not_ready(NO_MEDIUM)
            self._lengthy.begin(lambda: self._thread(command.nexus))
        elif wanted & 0x01:
            self._load(command.nexus, hold=bool(wanted & 0x08))
        else:
            self._unload()
        return Done()

    def _load(self, nexus: Nexus, *, hold: bool) -> None:
        was_threaded = self._drive.status().loaded
        if hold and not was_threaded:
            return
        self._is_used = True
        try:
            if self._is_paced and not was_threaded:
                self._measure_unlocked()
            self._drive.load()
        except Interrupted as error:
            raise not_ready(NO_MEDIUM) from error
        except NotReady as error:
            raise not_ready(NO_MEDIUM) from error
        except IncompatibleMedium as error:
            raise CheckCondition(Sense(Key.MEDIUM_ERROR, INCOMPATIBLE_MEDIUM)) from error
        if was_threaded:
            self._blocks.found_again()
        else:
            self._threaded(nexus)

    def _measure_unlocked(self) -> None:
        """Let others hear meanwhile that the drive is becoming ready: the command at hand has the lock, once."""
        self._lengthy.start()
        self.lock.release()
        try:
            self._measure()
        finally:
            self.lock.acquire()
            self._lengthy.end()

    def _erase(self, command: Command) -> Done:
        """ERASE(6)."""
        return self._erased(command, self._blocks.erase)

    def _erase_16(self, command: Command) -> Done:
        """ERASE(16)."""
        return self._erased(command, self._blocks.erase_16)

    def _erased(self, command: Command, erase: Callable[[Command, bool], Done]) -> Done:
        """Erase; a paced drive that is to answer at once goes on for as long as it takes."""
        is_long, is_immediate = bool(command.cdb[1] & 1), bool(command.cdb[1] & 2)
        if not (is_long and is_immediate and self._is_paced):
            return erase(command, is_long)
        done = erase(command, False)
        seconds = self._drive.long_erase_s()
        self._lengthy.begin(lambda: self._lengthy.wait(seconds), erases=True)
        return done

    def _unload(self) -> None:
        if self.preventing:
            raise refuse(REMOVAL_PREVENTED)
        try:
            self._drive.unload()
        except DriveError as error:
            raise CheckCondition(sense_of(error)) from error
        self._blocks.found_again()
        self._encryption.unloaded()
        self._order.forget()
