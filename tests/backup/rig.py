"""A state folder, a virtual library and a backup in this process: the product's parts without sidecar and mover."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from catalog.ids import JobId, JobNumber, SetId, VolumeId, new_uuid
from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Job, Volume, VolumeState
from drivers.interface import Drive, ElementKind
from drivers.registry import open_changer, open_drive
from tapefs.along.companions import CopyOffer
from tapefs.backup.run import run_backup
from tapefs.backup.watcher import BackupProgress
from tapefs.errors import NoTape
from tapefs.home import Home, open_home
from tapefs.setup_home import NewHome, create_home

#: There is one, and two drives may want it at the same time.
_ROBOT = threading.RLock()


class LocalWatcher:
    """Puts tapes in with the changer itself, and remembers what it is told."""

    def __init__(self, home: Home, ledger: LmdbLedger, drive: Drive, number: int = 0) -> None:
        self._number = number
        self._ledger = ledger
        self._drive = drive
        self._changer = open_changer(home.library_config)
        self.troubles: list[tuple[bytes, str]] = []
        self.progresses: list[BackupProgress] = []
        self.asked = 0
        #: Tapes to be begun anew; they are offered when no other is left.
        self.anew: set[VolumeId] = set()
        #: Called at every look at cancellation; may raise.
        self.interrupt = lambda: None
        #: Whether others want the drive, and what they do with it.
        self.wanted: Callable[[], bool] = lambda: False
        self.meanwhile: Callable[[], None] = lambda: None
        self.gave_way = 0
        #: Called with an offer of further copies; returns how many are coming.
        self.companions: Callable[[CopyOffer], int] = lambda _: 0
        self._coming = 0
        #: Called before a tape is asked for that another drive may have.
        self.wait_free: Callable[[], None] = lambda: None

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        self.asked += 1
        if pool:
            self.wait_free()
        if not ejected:
            self._drive.unload()
        with _ROBOT:
            return self._next_volume(exclude, pool)

    def _next_volume(self, exclude: list[VolumeId], pool: str) -> VolumeId:
        self._clear_drive()
        for state in (VolumeState.APPENDABLE, VolumeState.BLANK):
            for volume in self._ledger.volumes():
                in_pool = volume.pool == (pool or "default")
                is_free = self._place(volume) is not None
                if in_pool and is_free and volume.state is state and volume.volume_id not in exclude:
                    self._put_in(volume)
                    return volume.volume_id
        for volume_id in self.anew.difference(exclude):
            self._put_in(self._ledger.volume(volume_id))
            return volume_id
        raise NoTape("no tape with room is left")

    def begins_anew(self, volume_id: VolumeId) -> bool:
        return volume_id in self.anew

    def this_volume(self, volume_id: VolumeId) -> None:
        self.wait_free()
        self.put_in(self._ledger.volume(volume_id).label)

    def is_drive_wanted(self) -> bool:
        return self.wanted()

    def give_way(self, volume_id: VolumeId) -> None:
        self._drive.unload()
        self._clear_drive()
        self.gave_way += 1
        self.meanwhile()
        self._clear_drive()
        self._put_in(self._ledger.volume(volume_id))

    def offer_copies(self, offer: CopyOffer) -> None:
        self._coming = self.companions(offer)

    def copies_coming(self) -> int:
        return self._coming

    def progress(self, progress: BackupProgress) -> None:
        self.progresses.append(progress)

    def trouble(self, path: bytes, reason: str) -> None:
        self.troubles.append((path, reason))

    def check_cancelled(self) -> None:
        self.interrupt()

    def put_in(self, label: str) -> None:
        """Have that tape in the drive, not threaded."""
        self._drive.unload()
        with _ROBOT:
            self._clear_drive()
            self._put_in(self._ledger.volume_by_label(label))

    def _put_in(self, volume: Volume) -> None:
        slot = self._place(volume)
        assert slot is not None, f"{volume.label} is in no slot"
        self._changer.load(slot, self._number)

    def _place(self, volume: Volume) -> int | None:
        for element in self._changer.inventory():
            if element.kind is ElementKind.SLOT and element.barcode == volume.code:
                return element.number
        return None

    def put_away(self) -> None:
        """Have the drive's ejected tape in a slot."""
        with _ROBOT:
            self._clear_drive()

    def _clear_drive(self) -> None:
        inventory = self._changer.inventory()
        if any(e.kind is ElementKind.DRIVE and e.full and e.number == self._number for e in inventory):
            free = next(e.number for e in inventory if e.kind is ElementKind.SLOT and not e.full)
            self._changer.unload(self._number, free)

    def close(self) -> None:
        self._changer.close()


class Rig:
    """Everything a backup needs, in one process."""

    def __init__(
        self,
        folder: Path,
        *,
        tapes: int = 4,
        tape_bytes: int = 256 * 1024**2,
        backup_settings: str = "",
        drives: int = 1,
    ) -> None:
        path = folder / "home"
        create_home(NewHome(path=path, tapes=tapes, tape_bytes=tape_bytes, drives=drives), time.time_ns())
        toml = path / "tapefs.toml"
        toml.write_text(toml.read_text().replace("[backup]\n", f"[backup]\n{backup_settings}\n"))
        self.home = open_home(path)
        self.open()

    @classmethod
    def existing(cls, home: Path) -> Rig:
        """Return a rig on a state folder that is there already."""
        rig = cls.__new__(cls)
        rig.home = open_home(home)
        rig.open()
        return rig

    def open(self) -> None:
        """Open ledger and drive, as a mover does."""
        self.ledger = LmdbLedger.open(self.home.ledger)
        self.drive = open_drive(self.home.library_config, 0)
        self.watcher = LocalWatcher(self.home, self.ledger, self.drive)

    def backup(self, *sources: Path | bytes, name: str = "job", **fields: object) -> SetId:
        """Queue a job and run it; `fields` are a Job's."""
        return self.run(self.queued(*sources, name=name, **fields))

    def run(self, job: Job) -> SetId:
        """Run a QUEUED job."""
        return run_backup(self.home, self.ledger, self.drive, job, self.watcher)

    def again(self, job: Job, **changes: object) -> SetId:
        """Run a job once more, as `changes` say."""
        known = self.ledger.job(job.number)
        self.ledger.edit_job(known, msgspec.structs.replace(known, **changes), time.time_ns())
        return self.run(self.ledger.queue_job(job.number, time.time_ns()))

    def queued(self, *sources: Path | bytes, name: str = "job", **fields: object) -> Job:
        """Return a QUEUED job."""
        job = Job(
            number=JobNumber(0),
            job_id=JobId(new_uuid()),
            name=name,
            sources=tuple(bytes(source) if isinstance(source, Path) else source for source in sources),
            **fields,  # type: ignore[arg-type]
        )
        number = self.ledger.add_job(job).number
        return self.ledger.queue_job(number, time.time_ns())

    def close(self) -> None:
        """Let go of everything."""
        self.watcher.close()
        self.drive.close()
        self.ledger.close()


def rigs(folder: Path) -> Iterator[Callable[..., Rig]]:
    """Yield a function that makes rigs in a folder, for a fixture; they are closed at the end."""
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(Rig(folder, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        rig.close()
