"""A year of nights on thirty tapes in three pools: the sets the pools promise are there, whole, and no others."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalog.ids import SetId, VolumeId
from catalog.pool_records import Pool
from catalog.records import Job, SegmentCopy, SetState, VolumeState
from tapefs.errors import NoTape
from tapefs.retention.allocation import Source, Want, choose
from tapefs.retention.candidates import candidates_of
from tapefs.retention.expire import expire
from tapefs.retention.holds import begun_at_ns
from tapefs.retention.places import placement
from tapefs.retention.pools import Pools
from tapefs.retention.rules import allocation_rule, retention_rule
from tests.backup.rig import LocalWatcher, Rig
from tests.retention.promise import (
    GRACE_DAYS,
    MONTHLY_TAPE_MONTHS,
    NIGHTLY_DAYS,
    OFFSITE_MONTHS,
    VAULT_AFTER_DAYS,
    Made,
    belongs,
    living,
)

#: In the future, so that no file has changed after the night that saved it.
FIRST, NIGHTS = datetime(2031, 1, 1, 1, tzinfo=UTC), 365
TAPES, NIGHTLY_TAPES = 30, 14


class Clock:
    """The time at which everything in this process believes to be."""

    def __init__(self) -> None:
        self.now = FIRST

    def ns(self) -> int:
        return int(self.now.timestamp()) * 10**9


class PoolWatcher(LocalWatcher):
    """Chooses tapes as the sidecar does."""

    rig: Rig
    job: Job

    def next_volume(self, exclude: list[VolumeId], *, ejected: bool, pool: str = "") -> VolumeId:
        ledger = self.rig.ledger
        pools = Pools.of(self.rig.home, ledger)
        job = ledger.job(self.job.number)
        want = Want(
            pool=pools.get(pool or job.pool),
            now_ns=time.time_ns(),
            job_id=job.job_id,
            set_id=job.set_id,
            exclude=exclude,
            zone=UTC,
        )
        taken = choose(want, candidates_of(ledger, pools, want.now_ns, UTC)).taken
        if taken is None:
            raise NoTape(f"no tape with room is left in pool {want.pool.name}")
        if taken.source is Source.SCRATCH:
            ledger.assign_volume(taken.volume.volume_id, want.pool.name, want.now_ns)
        if taken.source is Source.REUSED:
            self.anew.add(taken.volume.volume_id)
        if not ejected:
            self.rig.drive.unload()
        self._clear_drive()
        self._put_in(taken.volume)
        return taken.volume.volume_id


class Year:
    """The installation, its jobs, and what the test has seen of it."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.clock = clock
        self.folder = folder
        self.rig = Rig(folder, tapes=TAPES, tape_bytes=64 * 1024**2)
        self._make_pools()
        self.rig.watcher.close()
        self.rig.watcher = self.watcher = PoolWatcher(self.rig.home, self.rig.ledger, self.rig.drive)
        self.watcher.rig = self.rig
        self.jobs: dict[str, Job] = {}
        self.made: list[Made] = []
        #: When the test has seen a set on a tape the first time, by the tape's id; and the id by label.
        self.begun: dict[VolumeId, datetime] = {}
        self.ids: dict[str, VolumeId] = {}
        #: When a set was seen to be gone.
        self.gone: dict[str, datetime] = {}
        self.overwritten = 0
        self.carried = 0

    def _make_pools(self) -> None:
        ledger, now_ns = self.rig.ledger, self.clock.ns()
        ledger.put_pool(None, Pool(name="scratch"), now_ns)
        offsite = Pool(
            name="offsite",
            retention=retention_rule(f"{OFFSITE_MONTHS} months"),
            allocation=allocation_rule("job"),
            vault="the bank",
            vault_after_days=VAULT_AFTER_DAYS,
            reuse=True,
            reuse_grace_days=GRACE_DAYS,
        )
        monthly = Pool(
            name="monthly",
            retention=retention_rule(f"{MONTHLY_TAPE_MONTHS} tape-months"),
            allocation=allocation_rule("per monthly"),
            copy_pools=("offsite",),
            reuse=True,
            reuse_grace_days=GRACE_DAYS,
        )
        nightly = Pool(
            name="nightly",
            retention=retention_rule(f"{NIGHTLY_DAYS} days"),
            allocation=allocation_rule("per weekly"),
            use_scratch=False,
            reuse=True,
            reuse_grace_days=GRACE_DAYS,
        )
        for pool in (offsite, monthly, nightly):
            ledger.put_pool(None, pool, now_ns)
        for number, volume in enumerate(ledger.volumes()):
            pool_name = "nightly" if number < NIGHTLY_TAPES else "scratch"
            ledger.assign_volume(volume.volume_id, pool_name, now_ns)

    # -- runs --------------------------------------------------------------------------------------------------------

    def run(self, name: str, run_type: str, files: dict[str, bytes], **fields: object) -> None:
        """Change these files of the job's source, run the job, and note what was seen."""
        source = self.folder / "sources" / name
        source.mkdir(parents=True, exist_ok=True)
        for file, data in files.items():
            (source / file).write_bytes(data)
        content = {path.name: path.read_bytes() for path in source.iterdir()}
        if name not in self.jobs:
            job = self.rig.queued(source, name=name, retention_days=-1, type=run_type, **fields)
        else:
            job = self.rig.ledger.queue_job(self.jobs[name].number, self.clock.ns(), run_type)
        self.jobs[name] = self.watcher.job = job
        before = {each.set_id for each in self.made if each.job == name}
        set_id = self.rig.run(job)
        assert set_id not in before
        self._note(name, set_id, content)

    def _note(self, name: str, set_id: SetId, content: dict[str, bytes]) -> None:
        ledger = self.rig.ledger
        found = ledger.backup_set(set_id)
        volumes = [ledger.volume_by_label(label) for label in found.tapes]
        for volume in volumes:
            self.begun.setdefault(volume.volume_id, self.clock.now)
        made = Made(
            set_id=set_id,
            job=name,
            at=self.clock.now,
            base=found.parent_id,
            begun={volume.pool: self.begun[volume.volume_id] for volume in volumes},
            tapes={volume.pool: volume.label for volume in volumes},
            content=content,
        )
        assert len(made.tapes) == len(volumes), "one tape in each pool"
        for volume in volumes:
            self._check_overwritten(volume.label, volume.volume_id)
        self.made.append(made)

    def _check_overwritten(self, label: str, volume_id: VolumeId) -> None:
        """A tape that is another one now held nothing that lived, and has rested."""
        if self.ids.setdefault(label, volume_id) == volume_id:
            return
        self.ids[label] = volume_id
        held = [each for each in self.made if label in each.tapes.values() and self.begun[volume_id] > each.at]
        assert held
        for each in held:
            assert self.gone[each.set_id] + timedelta(days=GRACE_DAYS) <= self.clock.now, f"{label} was begun too early"
        self.overwritten += 1

    # -- what is there -----------------------------------------------------------------------------------------------

    def check_living(self) -> set[str]:
        """The sets that are there are those that are promised. Returns them."""
        sets = self.rig.ledger.backup_sets()
        there = {str(each.set_id) for each in sets if each.state is SetState.COMPLETE}
        for each in self.made:
            if each.set_id not in there:
                self.gone.setdefault(each.set_id, self.clock.now)
        named = {each.set_id: f"{each.job} of {each.at:%m-%d}" for each in self.made}
        promised = living(self.made, self.clock.now)
        assert {named[each] for each in there} == {named[each] for each in promised}, f"{self.clock.now}"
        return there

    def check_bytes(self, there: set[str]) -> None:
        """Of all that lives every copy is on its tape as it was written."""
        for set_id in there:
            for segment in self.rig.ledger.segments(SetId(set_id)):
                for copy in self.rig.ledger.copies(segment.segment_id):
                    data = self._payload(copy).read_bytes()
                    assert hashlib.sha256(data).digest() == segment.payload_sha256

    def check_restored(self, made: Made, pool: str, out: Path) -> None:
        """What it builds on and the set itself, unpacked one over the other by zstd and tar, give what was saved."""
        chain, known = [made], {each.set_id: each for each in self.made}
        while chain[0].base is not None:
            chain.insert(0, known[chain[0].base])
        out.mkdir()
        for each in chain:
            for segment in self.rig.ledger.segments(SetId(each.set_id)):
                copies = self.rig.ledger.copies(segment.segment_id)
                (copy,) = [one for one in copies if self.rig.ledger.volume(one.volume_id).pool == pool]
                unpack = f"zstd -dqc {self._payload(copy)} | tar -xpf - -C {out}"
                subprocess.run(["bash", "-o", "pipefail", "-c", unpack], check=True)
        source = out / str(self.folder / "sources" / made.job).lstrip("/")
        assert {path.name: path.read_bytes() for path in source.iterdir()} == made.content

    def _payload(self, copy: SegmentCopy) -> Path:
        label = self.rig.ledger.volume(copy.volume_id).label
        return self.rig.home.library / "cartridges" / label / f"{copy.header_file + 1:05}"

    def carry(self, there: set[str]) -> None:
        """The list of what is to be carried away and back is as promised; do it."""
        ledger = self.rig.ledger
        pools = Pools.of(self.rig.home, ledger)
        sets = ledger.backup_sets()
        for volume in ledger.volumes():
            on_it = [each for each in sets if volume.label in each.tapes]
            begun_ns = begun_at_ns(ledger, volume)
            found = placement(volume, pools.find(volume.pool), on_it, begun_ns, self.clock.ns(), UTC)
            if volume.pool != "offsite" or volume.state is VolumeState.BLANK:
                assert not found.is_due
                continue
            has_living = any(each.set_id in there for each in self.made if each.tapes.get("offsite") == volume.label)
            assert found.should == belongs(self.begun[volume.volume_id], has_living, self.clock.now), volume.label
            if found.is_due:
                ledger.move_volume(volume.volume_id, found.should, self.clock.ns())
                self.carried += 1


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: 430 runs sync 8,000 times, and no power fails here."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as found:
        yield Path(found)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "UTC")
        time.tzset()
        patched.setattr(time, "time_ns", clock.ns)
        yield clock
    time.tzset()


def test_a_year_of_nights_on_thirty_tapes(folder: Path, clock: Clock) -> None:
    """Full on Sundays and incremental otherwise, a mirror on Mondays, a full set with a copy elsewhere each month."""
    year = Year(folder, clock)
    for night in range(NIGHTS):
        clock.now = FIRST + timedelta(days=night)
        stamp = f"{clock.now:%F}".encode() * 20
        is_full = clock.now.weekday() == 6 or night == 0
        year.run("home", "full" if is_full else "incremental", {f"file{night % 3}": stamp}, pool="nightly")
        if clock.now.weekday() == 0:
            clock.now += timedelta(hours=1)
            year.run("photos", "mirror", {"file": stamp}, pool="nightly", verify=True)
        if clock.now.day == 1:
            clock.now += timedelta(hours=1)
            year.run("books", "full", {"file": stamp}, pool="monthly")
        clock.now = FIRST + timedelta(days=night, hours=5)
        expire(year.rig.home, year.rig.ledger, clock.ns())
        there = year.check_living()
        if (clock.now + timedelta(days=1)).day == 1:
            year.carry(there)
            year.check_bytes(there)
            sample = {each.job: each for each in year.made if each.set_id in there}
            for job, pool in (("home", "nightly"), ("photos", "nightly"), ("books", "offsite")):
                year.check_restored(sample[job], pool, folder / f"out-{job}-{night}")
    _check_year(year, there)
    year.rig.close()


def _check_year(year: Year, there: set[str]) -> None:
    """The last of December, by hand.

    Of the nights those of two weeks, and the week before, because the first of them builds on it. Two mirrors. The
    first of July's books stay for six months, to the first of January.
    """
    left = [f"{each.job} {each.at:%m-%d}" for each in year.made if each.set_id in there]
    assert sorted(each for each in left if each.startswith("books")) == [
        f"books {month:02}-01" for month in range(7, 13)
    ]
    assert sum(each.startswith("photos") for each in left) == 2
    homes = sorted(each for each in left if each.startswith("home"))
    assert homes == [f"home 12-{day:02}" for day in range(14, 32)]
    weeks: dict[tuple[int, int], set[str]] = {}
    for each in year.made:
        if "nightly" in each.tapes:
            weeks.setdefault(each.at.isocalendar()[:2], set()).add(each.tapes["nightly"])
    assert all(len(tapes) == 1 for tapes in weeks.values()), "a week is on one tape"
    # 53 weeks on fourteen tapes. Twelve months take one from the scratch pool each. Tapes come back from the bank after
    # seven months, with room, and go on with the same job; so seven are enough there.
    assert len({each.tapes["offsite"] for each in year.made if each.job == "books"}) == 7
    assert year.overwritten == (53 - NIGHTLY_TAPES) + (12 + 7 - (TAPES - NIGHTLY_TAPES))
    assert year.carried == 12 + 6
    assert year.rig.ledger.verify() == []
