"""Random operations on a virtual drive beside the simplest model of a tape: a list."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from drivers.errors import EndOfData
from drivers.interface import BlockNo
from drivers.virtual.drive import VirtualDrive
from tests.drivers.benches import VirtualBench
from tests.drivers.contract import FILEMARK, block_of, position, read, read_all

SIZES = st.sampled_from([1, 2, 500, 500, 500, 4096])


class TapeMachine(RuleBasedStateMachine):
    """`items` is the tape, filemarks are b""; the first `synced` of them survive a power cut."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="tape-model-"))
        self.bench = VirtualBench(self.root / "library")
        self.items: list[bytes] = []
        self.head = 0
        self.synced = 0
        self.serial = 0
        self.lost = False

    @initialize()
    def start(self) -> None:
        self.drive: VirtualDrive = self.bench.loaded()

    def teardown(self) -> None:
        self.drive.close()
        shutil.rmtree(self.root)

    def put(self, item: bytes) -> None:
        if self.head < len(self.items):
            # Overwriting moves the end of data durably.
            del self.items[self.head :]
            self.synced = self.head
        self.items.append(item)
        self.head += 1

    def move(self, target: int) -> None:
        self.synced = len(self.items)
        self.head = min(target, len(self.items))

    @precondition(lambda self: not self.lost)
    @rule(size=SIZES, count=st.integers(1, 4))
    def write_blocks(self, size: int, count: int) -> None:
        for _ in range(count):
            self.serial += 1
            block = block_of(self.serial, size)
            self.drive.write_block(block)
            self.put(block)

    @precondition(lambda self: not self.lost)
    @rule(count=st.integers(0, 2), sync=st.booleans())
    def write_filemarks(self, count: int, sync: bool) -> None:
        self.drive.write_filemarks(count, sync=sync)
        for _ in range(count):
            self.put(FILEMARK)
        if sync:
            self.synced = len(self.items)

    @precondition(lambda self: not self.lost)
    @rule(block=st.integers(0, 30))
    def locate(self, block: int) -> None:
        try:
            self.drive.locate(BlockNo(block))
            assert block <= len(self.items)
        except EndOfData:
            assert block > len(self.items)
        self.move(block)

    @precondition(lambda self: not self.lost)
    @rule(count=st.integers(1, 3))
    def space(self, count: int) -> None:
        marks = [at for at, item in enumerate(self.items) if item == FILEMARK and at >= self.head]
        try:
            self.drive.space_filemarks(count)
            self.move(marks[count - 1] + 1)
        except EndOfData:
            assert len(marks) < count
            self.move(len(self.items))

    @precondition(lambda self: not self.lost)
    @rule()
    def seek_end(self) -> None:
        self.drive.seek_end()
        self.move(len(self.items))

    @rule()
    def rewind(self) -> None:
        self.drive.rewind()
        self.move(0)
        self.lost = False

    @precondition(lambda self: not self.lost)
    @rule()
    def read(self) -> None:
        try:
            item = read(self.drive)
            assert item == self.items[self.head]
            self.head += 1
        except EndOfData:
            assert self.head == len(self.items)

    @rule()
    def unload_and_load(self) -> None:
        self.drive.unload()
        self.drive.load()
        self.move(0)
        self.lost = False

    @rule()
    def close_and_open(self) -> None:
        self.drive.close()
        self.drive = self.bench.open()

    @rule()
    def power_cut(self) -> None:
        self.drive.cut_power()
        self.drive.close()
        del self.items[self.synced :]
        self.drive = self.bench.open()
        self.lost = True

    @rule()
    def reset(self) -> None:
        self.drive.reset()
        del self.items[self.synced :]
        self.lost = True

    @invariant()
    def stands_where_the_model_stands(self) -> None:
        if not self.lost:
            before = self.items[: self.head]
            assert self.drive.position() == position(self.head, before.count(FILEMARK))

    @precondition(lambda self: not self.lost)
    @rule()
    def everything_is_as_written(self) -> None:
        self.drive.locate(BlockNo(0))
        assert read_all(self.drive) == self.items
        self.move(len(self.items))


TapeMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTapeModel = TapeMachine.TestCase
