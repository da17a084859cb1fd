"""A backup with a second drive in the same process, whose thread writes a further copy at the same time."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from catalog.ids import SetId
from catalog.ledger import Ledger
from catalog.pool_records import Pool
from drivers.errors import DriveError
from drivers.interface import Drive
from drivers.registry import open_drive
from tapefs.along.companions import CopyOffer
from tapefs.along.second import copy_along
from tapefs.along.words import CopyTask
from tapefs.backup.segment import SetContext
from tapefs.codecs import codec
from tapefs.home import Home
from tests.backup.rig import LocalWatcher, Rig

NOW = 1_800_000_000_000_000_000


class Pair(Rig):
    """Two drives; tapes from the third on are in pool vault."""

    def __init__(self, folder: Path, *, tapes: int = 4, vault: int = 2, **options: object) -> None:
        super().__init__(folder, tapes=tapes, drives=2, **options)  # type: ignore[arg-type]
        self.ledger.put_pool(None, Pool(name="vault"), NOW)
        for number in range(tapes - vault, tapes):
            volume = self.ledger.volume_by_label(f"TP{number + 1:04}L9")
            self.ledger.assign_volume(volume.volume_id, "vault", NOW)

    def open(self) -> None:
        """Open the second drive, too; it is there when a backup offers copies."""
        super().open()
        self.second = open_drive(self.home.library_config, 1)
        self.second_watcher = LocalWatcher(self.home, self.ledger, self.second, 1)
        self.threads: list[threading.Thread] = []
        #: What ended the second drive's work.
        self.errors: list[BaseException] = []
        #: Stands before the second drive.
        self.wrap: Callable[[Drive], Drive] = lambda drive: drive
        self.watcher.companions = self.begin
        # As the sidecar does: who wants a tape that another drive has waits until it is free.
        self.watcher.wait_free = self.rest

    def begin(self, offer: CopyOffer) -> int:
        """Have the second drive write the first copy that is offered."""
        thread = threading.Thread(target=self._copy, args=(offer,))
        self.threads.append(thread)
        thread.start()
        return 1

    def _copy(self, offer: CopyOffer) -> None:
        task = CopyTask(set_id=offer.set_id, address=offer.address, target=0, pool=offer.pools[0])
        backup_set = self.ledger.backup_set(offer.set_id)
        context = SetContext(self.home, self.ledger, backup_set, socket.gethostname(), codec(backup_set.codec, "auto"))
        try:
            copy_along(context, self.wrap(self.second), self.second_watcher, task)
        except BaseException as error:
            self.errors.append(error)
        finally:
            try:
                self.put_away()
            except DriveError:
                # It is broken: it is switched off and on.
                self.second.close()
                self.second = open_drive(self.home.library_config, 1)
                self.put_away()

    def put_away(self) -> None:
        """Have the second drive's tape in its slot."""
        self.second.unload()
        self.second_watcher.put_away()

    def rest(self) -> None:
        """Wait until the second drive has ended its work; its tape is in its slot then."""
        for thread in self.threads:
            thread.join()

    def close(self) -> None:
        """Let go of everything."""
        for thread in self.threads:
            thread.join()
        self.second_watcher.close()
        self.second.close()
        super().close()


def labels(rig: Rig, set_id: SetId) -> list[list[str]]:
    """By segment, the tapes it lies on."""
    return [
        sorted(rig.ledger.volume(copy.volume_id).label for copy in rig.ledger.copies(segment.segment_id))
        for segment in rig.ledger.segments(set_id)
    ]


def from_tape(home: Home, ledger: Ledger, label: str, out: Path) -> Path:
    """Unpack all payloads that lie on that tape with GNU tar."""
    out.mkdir(exist_ok=True)
    cartridge = home.library / "cartridges" / label
    volume = ledger.volume_by_label(label)
    for copy in ledger.copies_on(volume.volume_id):
        payload = cartridge / f"{copy.header_file + 1:05}"
        subprocess.run(f"zstd -dqc {payload} | tar -xpf - -C {out}", shell=True, check=True)
    return out


def wait_until(is_true: Callable[[], bool], what: str) -> None:
    """Poll."""
    deadline_s = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < deadline_s, what
        time.sleep(0.01)
