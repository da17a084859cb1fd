"""A drive whose mountings are recorded: a wrapper that behaves as the drive inside. Blocking; its drive's thread.

Drive and cartridge are asked for their health when a tape was threaded and before it leaves, never while it streams.
What fails is recorded at once, because the drive may not come to unloading. That is history, not content: when the
ledger or the drive refuse, a warning is logged and the work goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from catalog.errors import CatalogError
from catalog.ids import new_uuid
from catalog.ledger import Ledger
from catalog.life_records import CLEANING, MediumFacts, Mishap, Mounting
from drivers.errors import (
    CleaningUsedUp,
    DiskFull,
    DriveError,
    EndOfData,
    EndOfMedium,
    NotReady,
    NotSupported,
    ReadFailed,
    WriteFailed,
)
from drivers.health import CLEAN_NOW, DriveHealth, MediumHealth
from drivers.interface import (
    BlockNo,
    CanBeCleaned,
    Drive,
    DriveKey,
    DriveStatus,
    Encryption,
    Encrypts,
    HoldsFiles,
    NextBlock,
    Position,
    TellsHealth,
)

#: What says nothing of tape or drive: it was asked for too much, or nothing was in.
_NO_MISHAPS = (EndOfData, EndOfMedium, NotReady)

log = structlog.get_logger(__name__)


class RecordingDrive:
    """Implements `drivers.interface.Drive`."""

    def __init__(self, drive: Drive, name: str, ledger: Ledger, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        #: The drive inside, for what drives can besides.
        self.inside = drive
        #: It has asked to be cleaned; and at once.
        self.wants_cleaning = self.must_be_cleaned = False
        self._name = name
        self._ledger = ledger
        self._now_ns = now_ns
        self._mounting: Mounting | None = None
        #: Errors that the drive had corrected when the tape was threaded.
        self._corrected_before: tuple[int | None, int | None] = (None, None)
        self._expected = ""
        self._purpose = ""
        self._written_bytes = self._read_bytes = 0

    # -- what the mover tells ------------------------------------------------------------------------------------

    def expect(self, code: str) -> None:
        """Say which cartridge is about to be loaded: not every drive can tell."""
        self._expected = code

    def is_used_for(self, purpose: str) -> None:
        """Say what is done from now on with the tape in it, or with the next one."""
        self._purpose = purpose
        if self._mounting is not None:
            self._mounting = _with_purpose(self._mounting, purpose)

    def note(self) -> None:
        """Record what has been read and written by now: the tape may stay in the drive for long."""
        self._record(None)

    def look(self) -> None:
        """The same, and ask drive and cartridge how they are; not while the tape streams."""
        self._look()

    def ask(self) -> None:
        """Ask the drive whether it wants to be cleaned; a tape that an earlier process has left in it is recorded."""
        try:
            if self.inside.status().loaded:
                self._begin()
            elif isinstance(self.inside, TellsHealth):
                self._note_wish(self.inside.health())
        except DriveError as error:
            log.warning("the drive does not tell its health", drive=self._name, error=str(error))

    # -- loading -------------------------------------------------------------------------------------------------

    def load(self, *, compress: bool | None = None) -> None:
        """See `Drive.load`."""
        with self._watched():
            self.inside.load(compress=compress)
        if self._mounting is None:
            self._begin()

    def unload(self) -> None:
        """See `Drive.unload`."""
        self._look()
        try:
            with self._watched():
                self.inside.unload()
        finally:
            if self._mounting is not None:
                self._mounting = msgspec.structs.replace(self._mounting, unloaded_at_ns=self._now_ns())
                self._record(None)
        self._mounting = None

    def clean(self, code: str) -> None:
        """Have the drive clean itself with the cartridge `code`, and record that. Raises as `CanBeCleaned.clean`."""
        if not isinstance(self.inside, CanBeCleaned):
            raise NotReady(f"{self._name} cannot be told to clean itself: put a cleaning cartridge in by hand")
        began_ns = self._now_ns()
        try:
            self.inside.clean()
        except CleaningUsedUp:
            self._ledger.note_used_up(code, began_ns)
            raise
        self.wants_cleaning = self.must_be_cleaned = False
        cleaning = Mounting(
            mounting_id=new_uuid(),
            code=code,
            drive=self._name,
            drive_identity=self.inside.status().identity,
            loaded_at_ns=began_ns,
            unloaded_at_ns=self._now_ns(),
            purposes=(CLEANING,),
        )
        self._ledger.note_mounting(cleaning)

    # -- the record ----------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """A tape was threaded; one that an earlier process has threaded here goes on with its mounting."""
        try:
            status = self.inside.status()
        except DriveError as error:
            log.warning("this mounting is not recorded", drive=self._name, error=str(error))
            return
        code = status.barcode or self._expected
        if not code:
            return
        try:
            known = next(iter(self._ledger.mountings(code)), None)
        except CatalogError as error:
            log.warning("this mounting is not recorded", drive=self._name, tape=code, error=str(error))
            return
        if known is None or known.unloaded_at_ns or known.drive != self._name:
            known = Mounting(
                mounting_id=new_uuid(),
                code=code,
                drive=self._name,
                drive_identity=status.identity,
                loaded_at_ns=self._now_ns(),
            )
        self._mounting = _with_purpose(known, self._purpose)
        self._written_bytes, self._read_bytes = known.written_bytes, known.read_bytes
        self._corrected_before = (None, None)
        self._look()

    def _look(self) -> None:
        """Ask for the health, and record it."""
        if self._mounting is None or not isinstance(self.inside, TellsHealth):
            return self._record(None)
        try:
            health = self.inside.health()
        except DriveError as error:
            log.warning("the drive does not tell its health", drive=self._name, error=str(error))
            return self._record(None)
        self._note_wish(health)
        corrected = (health.writing.corrected, health.reading.corrected)
        if self._corrected_before == (None, None):
            self._corrected_before = corrected
        writes, reads = map(_since, self._corrected_before, corrected)
        self._mounting = msgspec.structs.replace(
            self._mounting,
            alerts=tuple(sorted({*self._mounting.alerts, *health.alerts})),
            temperature_c=_higher(self._mounting.temperature_c, health.temperature_c),
            corrected_writes=writes,
            corrected_reads=reads,
        )
        self._record(_facts(health, self._now_ns()))
        return None

    def _note_wish(self, health: DriveHealth) -> None:
        """Keep how urgent it is for as long as it is wanted at all: some drives say a flag only once."""
        self.must_be_cleaned = CLEAN_NOW in health.alerts or (self.must_be_cleaned and health.wants_cleaning)
        self.wants_cleaning = health.wants_cleaning

    def _record(self, medium: MediumFacts | None) -> None:
        if self._mounting is None:
            return
        self._mounting = msgspec.structs.replace(
            self._mounting, written_bytes=self._written_bytes, read_bytes=self._read_bytes
        )
        try:
            self._ledger.note_mounting(self._mounting, medium)
        except CatalogError as error:
            log.warning("this mounting is not recorded", drive=self._name, tape=self._mounting.code, error=str(error))

    @contextmanager
    def _watched(self) -> Iterator[None]:
        try:
            yield
        except _NO_MISHAPS:
            raise
        except DriveError as error:
            self._note_mishap(error)
            raise

    def _note_mishap(self, error: DriveError) -> None:
        if self._mounting is None:
            return
        mishap = Mishap(at_ns=self._now_ns(), kind=type(error).__name__, message=str(error))
        self._mounting = msgspec.structs.replace(
            self._mounting,
            mishaps=(*self._mounting.mishaps, mishap),
            write_failures=self._mounting.write_failures + _is_of_the_tape(error),
            read_failures=self._mounting.read_failures + isinstance(error, ReadFailed),
        )
        self._record(None)

    # -- the drive inside ----------------------------------------------------------------------------------------

    def status(self) -> DriveStatus:
        """See `Drive.status`."""
        return self.inside.status()

    def position(self) -> Position:
        """See `Drive.position`."""
        return self.inside.position()

    def rewind(self) -> None:
        """See `Drive.rewind`."""
        with self._watched():
            self.inside.rewind()

    def locate(self, block: BlockNo) -> None:
        """See `Drive.locate`."""
        with self._watched():
            self.inside.locate(block)

    def space_filemarks(self, count: int) -> None:
        """See `Drive.space_filemarks`."""
        with self._watched():
            self.inside.space_filemarks(count)

    def seek_end(self) -> None:
        """See `Drive.seek_end`."""
        with self._watched():
            self.inside.seek_end()

    def read_into(self, buffer: memoryview) -> int:
        """See `Drive.read_into`."""
        try:
            length = self.inside.read_into(buffer)
        except ReadFailed as error:
            self._note_mishap(error)
            raise
        self._read_bytes += length
        return length

    def write_block(self, block: bytes | memoryview) -> bool:
        """See `Drive.write_block`."""
        try:
            is_warned = self.inside.write_block(block)
        except WriteFailed as error:
            self._note_mishap(error)
            raise
        self._written_bytes += block.nbytes if isinstance(block, memoryview) else len(block)
        return is_warned

    def write_filemarks(self, count: int, *, sync: bool) -> None:
        """See `Drive.write_filemarks`."""
        with self._watched():
            self.inside.write_filemarks(count, sync=sync)

    def erase(self, *, long: bool) -> None:
        """See `Drive.erase`."""
        with self._watched():
            self.inside.erase(long=long)

    def set_key(self, key: DriveKey | None, *, writes: bool = True) -> None:
        """See `Encrypts.set_key`."""
        if isinstance(self.inside, Encrypts):
            self.inside.set_key(key, writes=writes)
        elif key is not None:
            raise NotSupported(f"{self._name} cannot encrypt")

    def encryption(self) -> Encryption | None:
        """See `Encrypts.encryption`."""
        return self.inside.encryption() if isinstance(self.inside, Encrypts) else None

    def next_block(self) -> NextBlock:
        """See `Encrypts.next_block`."""
        return self.inside.next_block() if isinstance(self.inside, Encrypts) else NextBlock.UNKNOWN

    def medium_id(self) -> str:
        """See `HoldsFiles.medium_id`."""
        return self._files().medium_id()

    def folder(self) -> Path:
        """See `HoldsFiles.folder`."""
        return self._files().folder()

    def open_file(self, path: bytes) -> int:
        """See `HoldsFiles.open_file`. Raises NotSupported where the drive has no files."""
        with self._watched():
            return self._files().open_file(path)

    def _files(self) -> HoldsFiles:
        if not isinstance(self.inside, HoldsFiles):
            raise NotSupported(f"{self._name} is no place where volumes are mounted: it reads no files")
        return self.inside

    def close(self) -> None:
        """See `Drive.close`."""
        self._record(None)
        self.inside.close()


def _with_purpose(mounting: Mounting, purpose: str) -> Mounting:
    if not purpose or purpose in mounting.purposes:
        return mounting
    return msgspec.structs.replace(mounting, purposes=(*mounting.purposes, purpose))


def _is_of_the_tape(error: DriveError) -> bool:
    """Could something not be written, and not because the disk below a virtual tape is full?"""
    return isinstance(error, WriteFailed) and not isinstance(error, DiskFull)


def _since(before: int | None, now: int | None) -> int | None:
    """Return what a counter has counted; one that was set back meanwhile has counted all it says."""
    if now is None or before is None:
        return now
    return now - before if now >= before else now


def _higher(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)


def _facts(health: DriveHealth, now_ns: int) -> MediumFacts | None:
    medium = health.medium
    if medium is None:
        return None
    return MediumFacts(
        asked_at_ns=now_ns, **{name: getattr(medium, name) for name in MediumHealth.__dataclass_fields__}
    )
