"""Small backups in which a drive says one bad thing: `python -m tests.faults.sense_sweep FOLDER WHERE FIRST STEP`.

WHERE is `blank`: the tape is labelled first; `append`: there is a set on it already; or `read`, see `reading_sweep`.

The backup goes through ScsiDrive to the device server of a virtual drive. For each fault and each phase in which a
command of its kind is given (loading, label, header, payload, trailer, index …) there is one run. A JSON line for each;
`wrong` says what must not be.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from catalog.lmdb_ledger import LmdbLedger
from drivers.errors import DriveError
from drivers.scsi.cdb import Op
from drivers.scsi.drive import ScsiDrive
from drivers.scsi.transport import Reply, Status
from drivers.virtual.drive import VirtualDrive
from drivers.vtl.local import LocalTransport
from drivers.vtl.tape import TapeServer
from tests.backup.rig import LocalWatcher, Rig
from tests.drivers.scsi.script import sense
from tests.faults.outcomes import outcome_of_backup, part_of
from tests.faults.sweep import Sweep

_ASK = {
    Op.TEST_UNIT_READY: "ready?",
    Op.MODE_SENSE_10: "settings?",
    Op.READ_POSITION: "where?",
    Op.LOG_SENSE: "log?",
    Op.READ_ATTRIBUTE: "memory?",
}
_LOAD = {Op.LOAD_UNLOAD: "load", Op.REWIND: "rewind", Op.MODE_SELECT_10: "set", Op.PREVENT_ALLOW: "hold"}
_READ = {Op.READ_6: "read"}
_MOVE = {Op.LOCATE_16: "locate", Op.SPACE_6: "space"}
_WRITE = {Op.WRITE_6: "write", Op.WRITE_FILEMARKS_6: "filemark"}
_NAMES = _ASK | _LOAD | _READ | _MOVE | _WRITE


@dataclass(frozen=True)
class Fault:
    """What the drive says, once."""

    codes: tuple[int, int, int]
    #: Commands that it is said to.
    to: dict[Op, str]
    flags: int = 0
    deferred: bool = False
    #: The command is done all the same; a reset loses buffer and position.
    is_done: bool = False
    resets: bool = False

    @property
    def name(self) -> str:
        """Return the codes, and whether it is deferred."""
        return "/".join(f"{each:02X}" for each in self.codes) + (" deferred" if self.deferred else "")


ALL = _NAMES
FAULTS = [
    # Of a drive that tells a filemark or a beginning where there is none.
    Fault((0x0, 0x00, 0x01), _READ, flags=0x80),
    Fault((0x0, 0x00, 0x04), _MOVE | _LOAD, flags=0x40, is_done=True),
    Fault((0x0, 0x00, 0x02), _WRITE, flags=0x40, is_done=True),
    Fault((0x0, 0x00, 0x07), _WRITE, flags=0x40, is_done=True),
    Fault((0x0, 0x00, 0x17), _WRITE, is_done=True),
    Fault((0x1, 0x00, 0x17), _WRITE | _READ | _MOVE | _LOAD, is_done=True),
    Fault((0x2, 0x04, 0x01), ALL),
    Fault((0x2, 0x3A, 0x00), ALL),
    Fault((0x2, 0x30, 0x03), _LOAD),
    Fault((0x3, 0x0C, 0x00), _WRITE | _MOVE | _LOAD),
    Fault((0x3, 0x0C, 0x00), ALL, deferred=True),
    Fault((0x3, 0x11, 0x00), _READ | _MOVE | _WRITE),
    Fault((0x3, 0x14, 0x03), _MOVE | _WRITE),
    Fault((0x3, 0x30, 0x00), _LOAD | _READ),
    Fault((0x4, 0x44, 0x00), ALL),
    Fault((0x4, 0x10, 0x01), _WRITE | _READ),
    Fault((0x5, 0x24, 0x00), _LOAD | _WRITE | _READ | _MOVE),
    Fault((0x5, 0x53, 0x02), {Op.LOAD_UNLOAD: "load"}),
    Fault((0x6, 0x28, 0x00), ALL),
    Fault((0x6, 0x28, 0x01), ALL),
    Fault((0x6, 0x29, 0x00), ALL, resets=True),
    # The connection was made anew, and nothing is lost.
    Fault((0x6, 0x29, 0x07), ALL),
    Fault((0x6, 0x2A, 0x01), ALL),
    Fault((0x6, 0x2A, 0x11), ALL),
    Fault((0x6, 0x5A, 0x01), ALL),
    Fault((0x7, 0x27, 0x00), _WRITE),
    Fault((0x7, 0x30, 0x0C), _WRITE),
    Fault((0x7, 0x74, 0x00), _READ | _WRITE),
    Fault((0x8, 0x00, 0x05), _READ | _MOVE),
    Fault((0xB, 0x47, 0x00), ALL),
    Fault((0xD, 0x00, 0x02), _WRITE, flags=0x40),
]


class SayingTransport:
    """A way to a virtual drive's server that can say something bad, and knows in which phase it is."""

    max_transfer_bytes = LocalTransport.max_transfer_bytes

    def __init__(self, drive: VirtualDrive) -> None:
        self._drive = drive
        self._server = TapeServer(drive)
        self._way = LocalTransport(self._server)
        #: Names of phases in the order in which they came.
        self.phases: dict[str, None] = {}
        self._fault: Fault | None = None
        self._phase = ""
        self.struck = False

    def arm(self, fault: Fault, phase: str) -> None:
        self._fault, self._phase = fault, phase
        self.phases.clear()

    def disarm(self) -> None:
        self._fault = None

    def execute(
        self,
        cdb: bytes,
        *,
        data_in: memoryview | None = None,
        data_out: bytes | memoryview | None = None,
        timeout_s: float,
    ) -> Reply:
        phase = self._name(cdb)
        self.phases[phase] = None
        fault = self._fault
        if fault is None or phase != self._phase:
            return self._way.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
        self._fault, self.struck = None, True
        if fault.resets:
            # The server tells of it by itself.
            self._server.reset()
            return self._way.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
        moved_bytes = 0
        if fault.is_done:
            done = self._way.execute(cdb, data_in=data_in, data_out=data_out, timeout_s=timeout_s)
            if done.status is not Status.GOOD:
                return done
            moved_bytes = done.moved_bytes
        said = sense(*fault.codes, flags=fault.flags, deferred=fault.deferred)
        return Reply(Status.CHECK_CONDITION, said, moved_bytes)

    def _name(self, cdb: bytes) -> str:
        """Return what the command is and in which tape file."""
        kind = _NAMES.get(cdb[0], "other")  # type: ignore[call-overload]
        try:
            return f"{kind} in file {self._drive.position().file}"
        except DriveError:
            return f"{kind} before a tape is loaded"

    def close(self) -> None:
        self._way.close()
        self._drive.close()


class ScsiRig(Rig):
    """A rig whose drive is reached by SCSI."""

    way: SayingTransport

    def open(self) -> None:
        self.ledger = LmdbLedger.open(self.home.ledger)
        self.way = SayingTransport(VirtualDrive(self.home.library, 0))
        self.drive = ScsiDrive(self.way, self.home.path / "drives")
        self.watcher = LocalWatcher(self.home, self.ledger, self.drive)


class SenseSweep(Sweep):
    """All faults in all phases."""

    rig_type = ScsiRig

    def __init__(self, folder: Path, where: str = "blank") -> None:
        super().__init__(folder)
        self.cases: list[tuple[Fault, str]] = []
        #: Tape file in which the first HEADER comes.
        self._first_file = 2
        if where == "append":
            self.back_up_before()
            rig = ScsiRig.existing(self._fresh)
            (volume,) = [each for each in rig.ledger.volumes() if each.end_block]
            self._first_file = volume.end_file
            rig.close()

    def prepare(self) -> None:
        """Run a clean backup to learn the phases, and list the cases."""
        self.cases = [(Fault((0, 0, 0), {}), "never")]
        probe = self.run(0)
        assert "wrong" not in probe, probe
        phases = probe["phases"]
        assert isinstance(phases, list)
        self.cases = [
            (fault, phase) for fault in FAULTS for phase in phases if phase.split(" ")[0] in fault.to.values()
        ]

    def arm(self, rig: Rig, number: int) -> None:
        assert isinstance(rig, ScsiRig)
        rig.way.arm(*self.cases[number])

    def disarm(self, rig: Rig) -> dict[str, object]:
        assert isinstance(rig, ScsiRig)
        rig.way.disarm()
        is_probe = len(self.cases) == 1
        first = min(rig.ledger.volumes(), key=lambda each: each.label)
        sets = rig.ledger.backup_sets()
        return {
            "struck": rig.way.struck,
            "phases": list(rig.way.phases) if is_probe else [],
            "state": first.state.value,
            "is_on_first": bool(sets) and first.label in sets[-1].tapes,
        }

    def results(self, numbers: range) -> Iterator[dict[str, object]]:
        """Try some of the cases."""
        for number in numbers:
            fault, phase = self.cases[number]
            result = {"fault": fault.name, "phase": phase, "part": part_of(phase, self._first_file)} | self.run(number)
            yield result | {"outcome": outcome_of_backup(result)}


def main() -> None:
    from tests.faults.reading_sweep import ReadingSweep

    folder, where, first, step = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    sweep = ReadingSweep(folder) if where == "read" else SenseSweep(folder, where)
    sweep.prepare()
    for result in sweep.results(range(first, len(sweep.cases), step)):
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
