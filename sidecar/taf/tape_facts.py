"""What TAF's calls tell of tapes and drives, from what the ledger, the library and the drives' files know.

Blocking where the ledger is asked; any thread.
"""

from __future__ import annotations

import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import msgspec

from catalog.errors import NotFound
from catalog.ledger import Ledger
from catalog.pool_records import RetentionKind
from catalog.records import BackupSet, SetState, Volume, VolumeState
from drivers.interface import ElementKind
from sidecar.drives.drive import DriveTask
from sidecar.http.answers import moment
from sidecar.service import Service
from sidecar.taf.tape_models import (
    CurrentTape,
    Device,
    Inventory,
    LabelFacts,
    TapeFacts,
    TapeRow,
    UsageStats,
)
from tapefs.condition.blame import Blame
from tapefs.condition.known import blame_now, condition_now
from tapefs.errors import NoSuchThing, NotNow
from tapefs.retention.calendar import end_of_month
from tapefs.retention.pools import Pools
from tapefs.tape.names import tape_called

STATUSES = {
    VolumeState.BLANK: "available",
    VolumeState.APPENDABLE: "in_use",
    VolumeState.FULL: "full",
    VolumeState.SUSPECT: "error",
}
#: From these scores on a tape counts as excellent, good, and to be warned of.
EXCELLENT, GOOD, WARNING = 90, 70, 50


class DriveFile(msgspec.Struct, frozen=True):
    """What a mover has left about its drive."""

    identity: str = ""
    generation: int | None = None
    state: str = ""
    reason: str = ""
    counters: dict[str, int | float] = {}


def drive_file(folder: Path, name: str) -> DriveFile | None:
    """Return it; None before the mover has said anything. Raises OSError."""
    try:
        return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=DriveFile)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


class TapeKnowledge:
    """Everything that is told of tapes."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ledger: Ledger = service.ledger

    # -- which one -------------------------------------------------------------------------------------------------

    def called(self, name: str) -> Volume:
        """Return the tape of that label or barcode. Raises NotFound."""
        return tape_called(self._ledger, name)

    def loaded(self, name: str = "") -> tuple[DriveTask, Volume] | None:
        """Return the tape that is in a drive, with that drive: the named one, else the only one; None for none.

        Raises NotFound for a tape that is not known, NoSuchThing for one that is in no drive, NotNow where several
        drives have tapes and none is named.
        """
        wanted = self.called(name) if name else None
        found = []
        for drive in self._service.drives:
            code = self._service.library.in_drive(drive.number)
            volume = self._by_code(code)
            if volume is not None and (wanted is None or volume.volume_id == wanted.volume_id):
                found.append((drive, volume))
        if wanted is not None and not found:
            raise NoSuchThing(f"tape {wanted.label} is in no drive")
        if len(found) > 1:
            names = ", ".join(f"{volume.label} in {drive.name}" for drive, volume in found)
            raise NotNow(f"several drives have tapes ({names}): say which by tape_id")
        return found[0] if found else None

    def _by_code(self, code: str | None) -> Volume | None:
        try:
            return None if code is None else self._ledger.volume_by_code(code)
        except NotFound:
            return None  # A cleaning cartridge, for instance.

    # -- tapes -----------------------------------------------------------------------------------------------------

    def rows(self, limit: int | None = None, offset: int = 0) -> list[TapeRow]:
        """Return tapes by label."""
        written, complete = counts(self._ledger.backup_sets())
        now_ns = time.time_ns()
        whose = blame_now(self._ledger, now_ns)
        volumes = self._ledger.volumes()
        chosen = volumes[offset:] if limit is None else volumes[offset : offset + limit]
        return [self._row(each, written[each.label], complete[each.label], now_ns, whose) for each in chosen]

    def _row(self, volume: Volume, written: int, complete: int, now_ns: int, whose: Blame) -> TapeRow:
        capacity, used, life = volume.capacity_bytes, volume.used_bytes, self._ledger.life(volume.code)
        is_begun = volume.state is not VolumeState.BLANK and used > 0
        months, expires = self.expiry(volume)
        return TapeRow(
            tape_id=volume.label,
            label=volume.label,
            status=STATUSES[volume.state],
            media_type="LTO",
            generation=volume.generation,
            serial_number=life.medium.serial or None if life.medium else None,
            location=self.location(volume),
            capacity_bytes=capacity,
            used_bytes=used,
            usage_percent=percent(used, capacity),
            write_count=written,
            read_count=sum(bool(each.read_bytes) for each in self._ledger.mountings(volume.code)),
            load_count=max(life.mountings, (life.medium.loads if life.medium else None) or 0),
            health_score=condition_now(self._ledger, volume, now_ns, whose).score,
            first_use_date=moment(volume.labelled_at_ns or volume.created_at_ns) if is_begun else None,
            last_erase_date=moment(life.erased_at_ns),
            expiry_date=expires,
            retention_months=months,
            backup_set_count=complete,
            notes=volume.reason,
        )

    def facts(self, volume: Volume) -> TapeFacts:
        """Return one tape."""
        medium = self._ledger.life(volume.code).medium
        months, expires = self.expiry(volume)
        return TapeFacts(
            tape_id=volume.label,
            label=volume.label,
            status=STATUSES[volume.state],
            media_type="LTO",
            generation=volume.generation,
            serial_number=medium.serial or None if medium else None,
            location=self.location(volume),
            capacity_bytes=volume.capacity_bytes,
            used_bytes=volume.used_bytes,
            retention_months=months,
            notes=volume.reason,
            manufactured_date=_date(medium.manufactured) if medium else None,
            expiry_date=expires,
            auto_erase=False,
            health_score=condition_now(self._ledger, volume, time.time_ns()).score,
        )

    def expiry(self, volume: Volume) -> tuple[int | None, datetime | None]:
        """Return how long its pool keeps the tape, where the pool's rule is TAF's; nothing otherwise."""
        pool = Pools.of(self._service.home, self._ledger).find(volume.pool)
        if pool is None or pool.retention.kind is not RetentionKind.TAPE_MONTHS:
            return None, None
        months, begun_ns = pool.retention.count, volume.labelled_at_ns
        return months, moment(end_of_month(begun_ns, months)) if begun_ns else None

    def is_expired(self, volume: Volume) -> bool:
        """Is its time over?"""
        expires = self.expiry(volume)[1]
        return expires is not None and expires.timestamp() < time.time()

    def location(self, volume: Volume) -> str:
        """Name the place for people."""
        place = self._service.library.place_of(volume.code)
        if place is None:
            return volume.location or "not in the library"
        return f"{'drive' if place.kind is ElementKind.DRIVE else 'slot'} {place.number}"

    def inventory(self) -> Inventory:
        """Count tapes, and what fits on them."""
        volumes, now_ns = self._ledger.volumes(), time.time_ns()
        whose = blame_now(self._ledger, now_ns)
        states = Counter(volume.state for volume in volumes)
        health = Counter(_grade(condition_now(self._ledger, each, now_ns, whose).score) for each in volumes)
        total, used = sum(each.capacity_bytes for each in volumes), sum(each.used_bytes for each in volumes)
        return Inventory(
            total_tapes=len(volumes),
            available_tapes=states[VolumeState.BLANK],
            in_use_tapes=states[VolumeState.APPENDABLE],
            full_tapes=states[VolumeState.FULL],
            expired_tapes=sum(map(self.is_expired, volumes)),
            error_tapes=states[VolumeState.SUSPECT],
            excellent_tapes=health["excellent"],
            good_tapes=health["good"],
            warning_tapes=health["warning"],
            critical_tapes=health["critical"],
            total_capacity_bytes=total,
            total_used_bytes=used,
            total_available_bytes=sum(max(0, each.capacity_bytes - each.used_bytes) for each in volumes),
            usage_percent=percent(used, total),
        )

    def current(self, drive: DriveTask, volume: Volume) -> CurrentTape:
        """Return the tape in a drive."""
        used = volume.used_bytes
        facts = self.device(drive)
        return CurrentTape(
            tape_id=volume.label,
            label=volume.label,
            status=STATUSES[volume.state],
            capacity_bytes=volume.capacity_bytes,
            used_bytes=used,
            free_bytes=max(0, volume.capacity_bytes - used),
            usage_percent=percent(used, volume.capacity_bytes),
            created_date=moment(volume.labelled_at_ns or volume.created_at_ns),
            expiry_date=self.expiry(volume)[1],
            location=self.location(volume),
            scsi_info={
                "drive": drive.name,
                "state": drive.state,
                "vendor": facts.vendor,
                "model": facts.model,
                "serial": facts.serial,
                "generation": facts.generation,
            },
        )

    def label_facts(self, volume: Volume) -> LabelFacts | None:
        """Return what its label says; None for a tape that has none, or of which nobody knows."""
        if volume.foreign:
            return LabelFacts(volume.label, volume.label, self._serial(volume), volume.foreign)
        if volume.state is VolumeState.BLANK or not volume.end_block:
            return None
        return LabelFacts(volume.label, volume.label, self._serial(volume), "tapefs")

    def is_labelled(self, volume: Volume) -> bool | None:
        """Has it a label? None: nobody has looked."""
        if volume.foreign or volume.end_block:
            return True
        return None if volume.state is VolumeState.BLANK and not volume.identified_at_ns else False

    def _serial(self, volume: Volume) -> str | None:
        medium = self._ledger.life(volume.code).medium
        return medium.serial or None if medium else None

    # -- how they are ----------------------------------------------------------------------------------------------

    def usage(self, volume: Volume) -> UsageStats:
        """Return how a cartridge has done."""
        life, mountings = self._ledger.life(volume.code), self._ledger.mountings(volume.code)
        condition = condition_now(self._ledger, volume, time.time_ns())
        reads = [each.corrected_reads for each in mountings if each.corrected_reads is not None]
        writes = [each.corrected_writes for each in mountings if each.corrected_writes is not None]
        return UsageStats(
            thread_count=max(life.mountings, (life.medium.loads if life.medium else None) or 0),
            data_sets_read=None,
            data_sets_written=None,
            read_retries=sum(reads) if reads else None,
            write_retries=sum(writes) if writes else None,
            unrecovered_read_errors=life.read_failures,
            unrecovered_write_errors=life.write_failures,
            suspended_reads=None,
            suspended_writes=None,
            fatal_suspend_reads=None,
            fatal_suspended_writes=None,
            health_score=condition.score,
            result=condition.warning or "; ".join(each.sentence for each in condition.reasons) or "nothing is wrong",
            code=0 if condition.score >= WARNING else 1,
            is_formatted=self.is_labelled(volume) is True,
        )

    # -- drives ----------------------------------------------------------------------------------------------------

    def devices(self) -> list[Device]:
        """Return the drives."""
        return [self.device(drive) for drive in self._service.drives]

    def device(self, drive: DriveTask) -> Device:
        """Return one."""
        home = self._service.home
        file = drive_file(home.drives, drive.name) or DriveFile()
        named = home.settings.library.drives
        words = file.identity.split()
        vendor = words[0] if words else ""
        serial = words[-1] if len(words) > 2 else ""
        return Device(
            path=named[drive.number] if isinstance(named, tuple) else f"virtual:{drive.name}",
            vendor=vendor,
            model=" ".join(words[1:-1] if serial else words[1:]),
            generation=file.generation,
            serial=serial,
            status=drive.state,
            is_ibm_lto=vendor.upper() == "IBM" and file.generation is not None,
        )


def counts(sets: list[BackupSet]) -> tuple[Counter[str], Counter[str]]:
    """Return by label how many sets were begun on a tape, and how many of them are complete."""
    written: Counter[str] = Counter()
    complete: Counter[str] = Counter()
    for backup_set in sets:
        written.update(backup_set.tapes)
        if backup_set.state is SetState.COMPLETE:
            complete.update(backup_set.tapes)
    return written, complete


def percent(part: int, whole: int) -> float:
    """Return a share, of nothing 0."""
    return round(100 * part / whole, 2) if whole else 0.0


def _grade(score: int) -> str:
    if score >= EXCELLENT:
        return "excellent"
    if score >= GOOD:
        return "good"
    return "warning" if score >= WARNING else "critical"


def _date(text: str) -> str | None:
    """Return YYYYMMDD as ISO 8601 has it."""
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}" if len(text) == 8 and text.isdigit() else None
