"""What every drive and every changer must do. A driver's tests subclass these and give a bench.

    class TestMyDrive(DriveContract):
        @pytest.fixture
        def bench(self, tmp_path): ...      # a DriveBench

The bench's library has one drive with a blank cartridge in it, not threaded, that holds at least 16 MiB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from drivers.errors import (
    ChangerError,
    DriveError,
    DriveInUse,
    EndOfData,
    EndOfMedium,
    NoSuchElement,
    NotReady,
    NotSupported,
    SlotEmpty,
    SlotFull,
    WriteProtected,
)
from drivers.interface import BlockNo, Changer, Drive, Element, ElementKind, FileNo, Position, TellsHealth

FILEMARK = b""
KIB = 1024
MIB = 1024 * KIB


class DriveBench(Protocol):
    """A drive under test and the hands around it."""

    def open(self) -> Drive:
        """Open the drive as a new process would."""
        ...

    def take_out(self) -> None:
        """Take the unthreaded cartridge out of the drive."""
        ...

    def protect(self) -> None:
        """Set the write-protect tab of the cartridge, which is not in the drive."""
        ...

    def make_worm(self) -> None:
        """Make the blank cartridge in the drive, not threaded, one that can be written once.

        Skips the test where there are none.
        """
        ...

    def put_in(self) -> None:
        """Put the cartridge back."""
        ...


class ChangerBench(Protocol):
    """A library under test: three slots, two drives, cartridges in slots 0 and 1."""

    def open(self) -> Changer:
        """Open the changer."""
        ...

    def open_drive(self, number: int) -> Drive:
        """Open a drive of the same library."""
        ...


def position(block: int, file: int) -> Position:
    return Position(BlockNo(block), FileNo(file))


def block_of(number: int, size: int = 1000) -> bytes:
    """Return a block that tells its number."""
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


def read(drive: Drive, size: int = MIB) -> bytes:
    """Read one block; b"" is a filemark."""
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: drive.read_into(buffer)])


def read_all(drive: Drive) -> list[bytes]:
    """Read from the head to the end of data."""
    items = []
    while True:
        try:
            items.append(read(drive))
        except EndOfData:
            return items


def write(drive: Drive, *items: bytes, sync: bool = False) -> None:
    """Write blocks, and filemarks where an item is b""."""
    for item in items:
        if item:
            drive.write_block(item)
        else:
            drive.write_filemarks(1, sync=sync)


class DriveContract:
    """The drive's promises, see `drivers.interface.Drive`."""

    @pytest.fixture
    def unloaded(self, bench: DriveBench) -> Iterator[Drive]:
        drive = bench.open()
        yield drive
        drive.close()

    @pytest.fixture
    def drive(self, unloaded: Drive) -> Drive:
        unloaded.load()
        return unloaded

    def test_health_moves_nothing(self, unloaded: Drive) -> None:
        """With a tape and without; asked twice it says the same."""
        assert isinstance(unloaded, TellsHealth)
        unloaded.health()
        unloaded.load()
        write(unloaded, block_of(0), FILEMARK, block_of(1), sync=True)
        before = unloaded.position()
        first = unloaded.health()
        assert unloaded.health() == first
        assert unloaded.position() == before
        unloaded.rewind()
        assert read(unloaded) == block_of(0)
        unloaded.unload()
        unloaded.health()

    def test_health_tells_of_the_cartridge(self, drive: Drive) -> None:
        assert isinstance(drive, TellsHealth)
        medium, status = drive.health().medium, drive.status()
        if medium is None:
            pytest.skip("this device has no way to ask the cartridge's memory")
        assert medium.capacity_bytes is None or abs(medium.capacity_bytes - status.capacity_bytes) < 2 * MIB
        assert medium.generation in (None, status.medium_generation)
        assert medium.loads == status.medium_loads or status.medium_loads is None
        assert not medium.is_worm

    def test_load_stands_at_block_0_and_unload_ejects(self, unloaded: Drive) -> None:
        assert not unloaded.status().loaded
        unloaded.load()
        assert unloaded.status().loaded
        assert unloaded.position() == position(0, 0)
        unloaded.unload()
        assert not unloaded.status().loaded
        unloaded.unload()

    def test_compression_is_chosen_when_a_tape_is_loaded(self, bench: DriveBench, unloaded: Drive) -> None:
        """What was written reads the same whichever way the switch stood then and stands now; moving leaves it."""
        for compress in (True, False, True):
            unloaded.load(compress=compress)
            assert unloaded.status().compresses is compress
            unloaded.seek_end()
            write(unloaded, b"x" * 1000, b"")
            unloaded.rewind()
            unloaded.load()
            assert unloaded.status().compresses is compress
        unloaded.unload()
        assert unloaded.status().compresses is True
        unloaded.load(compress=False)
        assert [read(unloaded) for _ in range(6)] == [b"x" * 1000, b""] * 3
        unloaded.close()
        again = bench.open()
        assert again.status().compresses is False
        again.close()

    def test_everything_but_status_needs_a_loaded_tape(self, unloaded: Drive) -> None:
        buffer = memoryview(bytearray(10))
        calls = [
            unloaded.position,
            unloaded.rewind,
            lambda: unloaded.locate(BlockNo(0)),
            lambda: unloaded.space_filemarks(1),
            unloaded.seek_end,
            lambda: unloaded.read_into(buffer),
            lambda: unloaded.write_block(b"x"),
            lambda: unloaded.write_filemarks(1, sync=True),
            lambda: unloaded.erase(long=False),
        ]
        for call in calls:
            with pytest.raises(NotReady):
                call()

    def test_an_empty_drive_is_not_ready(self, bench: DriveBench) -> None:
        bench.take_out()
        drive = bench.open()
        with pytest.raises(NotReady):
            drive.load()
        status = drive.status()
        assert (status.loaded, status.barcode, status.medium_generation) == (False, None, None)
        assert status.capacity_bytes == status.remaining_bytes == 0
        drive.close()

    def test_a_blank_tape_has_no_data(self, drive: Drive) -> None:
        with pytest.raises(EndOfData):
            read(drive)
        drive.seek_end()
        assert drive.position() == position(0, 0)
        with pytest.raises(EndOfData):
            drive.space_filemarks(1)
        with pytest.raises(EndOfData):
            drive.locate(BlockNo(1))
        assert drive.position() == position(0, 0)

    def test_reads_what_was_written_block_by_block(self, drive: Drive) -> None:
        items = [block_of(1), block_of(2, 256 * KIB), block_of(3, 1), FILEMARK, block_of(4, 77), FILEMARK, FILEMARK]
        write(drive, *items)
        drive.rewind()
        assert read_all(drive) == items

    def test_takes_memoryviews_and_leaves_the_rest_of_the_buffer_alone(self, drive: Drive) -> None:
        drive.write_block(memoryview(bytearray(b"abcdef"))[1:4])
        drive.rewind()
        buffer = memoryview(bytearray(b"........"))
        assert drive.read_into(buffer) == 3
        assert bytes(buffer) == b"bcd....."

    def test_a_filemark_counts_as_a_block(self, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK, block_of(2), block_of(3), FILEMARK)
        assert drive.position() == position(5, 2)
        seen = []
        drive.rewind()
        for _ in range(5):
            read(drive)
            seen.append(drive.position())
        assert seen == [position(1, 0), position(2, 1), position(3, 1), position(4, 1), position(5, 2)]

    def test_locate_finds_every_block(self, drive: Drive) -> None:
        items = [FILEMARK if number % 5 == 4 else block_of(number, 100 + number) for number in range(30)]
        write(drive, *items)
        for number in [29, 0, 17, 18, 4, 3, 16]:
            drive.locate(BlockNo(number))
            assert drive.position() == position(number, number // 5)
            assert read(drive) == items[number]

    def test_locate_goes_to_the_end_of_data_and_not_behind(self, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK)
        drive.rewind()
        drive.locate(BlockNo(2))
        assert drive.position() == position(2, 1)
        drive.rewind()
        with pytest.raises(EndOfData):
            drive.locate(BlockNo(3))
        assert drive.position() == position(2, 1)

    def test_spacing_stands_behind_the_last_filemark(self, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK, block_of(2), FILEMARK, FILEMARK, block_of(5))
        drive.rewind()
        drive.space_filemarks(0)
        assert drive.position() == position(0, 0)
        drive.space_filemarks(1)
        assert drive.position() == position(2, 1)
        drive.space_filemarks(2)
        assert drive.position() == position(5, 3)
        with pytest.raises(EndOfData):
            drive.space_filemarks(1)
        assert drive.position() == position(6, 3)

    def test_reading_at_the_end_stays_there(self, drive: Drive) -> None:
        write(drive, block_of(0))
        for _ in range(3):
            with pytest.raises(EndOfData):
                read(drive)
        assert drive.position() == position(1, 0)

    def test_a_block_larger_than_the_buffer_is_refused_and_stays(self, drive: Drive) -> None:
        write(drive, block_of(7, 500))
        drive.rewind()
        with pytest.raises(ValueError, match="500"):
            drive.read_into(memoryview(bytearray(499)))
        assert drive.position() == position(0, 0)
        assert read(drive, 500) == block_of(7, 500)

    @pytest.mark.parametrize("bad", ["empty block", "negative locate", "negative space", "negative filemarks"])
    def test_senseless_arguments_are_value_errors(self, drive: Drive, bad: str) -> None:
        calls = {
            "empty block": lambda: drive.write_block(b""),
            "negative locate": lambda: drive.locate(BlockNo(-1)),
            "negative space": lambda: drive.space_filemarks(-1),
            "negative filemarks": lambda: drive.write_filemarks(-1, sync=True),
        }
        with pytest.raises(ValueError, match=r"\d"):
            calls[bad]()

    @pytest.mark.parametrize("at", range(7))
    @pytest.mark.parametrize("new", [b"new", FILEMARK], ids=["block", "filemark"])
    def test_writing_drops_everything_behind(self, drive: Drive, at: int, new: bytes) -> None:
        items = [block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK, FILEMARK, block_of(6)]
        write(drive, *items)
        drive.locate(BlockNo(at))
        write(drive, new)
        with pytest.raises(EndOfData):
            read(drive)
        drive.rewind()
        assert read_all(drive) == [*items[:at], new]

    def test_several_filemarks_at_once(self, drive: Drive) -> None:
        drive.write_filemarks(3, sync=False)
        drive.write_filemarks(0, sync=True)
        assert drive.position() == position(3, 3)
        drive.rewind()
        assert read_all(drive) == [FILEMARK] * 3

    def test_flushing_moves_nothing_and_drops_nothing(self, drive: Drive) -> None:
        items = [block_of(0), FILEMARK, block_of(2)]
        write(drive, *items)
        drive.rewind()
        drive.write_filemarks(0, sync=True)
        assert drive.position() == position(0, 0)
        assert read_all(drive) == items

    def test_appending_goes_on_at_the_end(self, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK)
        drive.rewind()
        drive.seek_end()
        write(drive, block_of(2))
        drive.rewind()
        assert read_all(drive) == [block_of(0), FILEMARK, block_of(2)]

    def test_the_tape_survives_unload_and_close(self, bench: DriveBench, drive: Drive) -> None:
        items = [block_of(0), FILEMARK, block_of(2), FILEMARK, block_of(4, 300 * KIB)]
        write(drive, *items)
        drive.unload()
        drive.close()
        again = bench.open()
        again.load()
        assert again.position() == position(0, 0)
        assert read_all(again) == items
        again.close()

    def test_what_was_synced_survives_a_close(self, bench: DriveBench, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.close()
        again = bench.open()
        again.load()
        assert read_all(again)[:2] == [block_of(0), FILEMARK]
        again.close()

    def test_loading_a_threaded_tape_rewinds_it(self, drive: Drive) -> None:
        write(drive, block_of(0))
        drive.load()
        assert drive.position() == position(0, 0)

    def test_one_process_at_a_time(self, bench: DriveBench, drive: Drive) -> None:
        with pytest.raises(DriveInUse):
            bench.open()
        drive.close()
        bench.open().close()

    def test_close_is_harmless_twice_and_final(self, drive: Drive) -> None:
        drive.close()
        drive.close()
        with pytest.raises(DriveError):
            drive.position()

    def test_early_warning_comes_before_the_end(self, drive: Drive) -> None:
        block = block_of(5, 256 * KIB)
        written = 0
        assert drive.status().remaining_bytes > 0
        while not drive.write_block(block):
            written += 1
            assert drive.status().remaining_bytes > 0
        assert drive.status().remaining_bytes == 0
        # Behind the warning there is room for a trailer and an index.
        for _ in range(4):
            assert drive.write_block(block)
        drive.write_filemarks(1, sync=True)
        drive.rewind()
        assert drive.status().remaining_bytes > 0
        drive.space_filemarks(1)
        assert drive.position() == position(written + 6, 1)

    def test_the_end_refuses_blocks_and_keeps_what_is_there(self, drive: Drive) -> None:
        block = block_of(6, 256 * KIB)
        count = 0
        while drive.status().capacity_bytes - count * len(block) >= len(block):
            drive.write_block(block)
            count += 1
        with pytest.raises(EndOfMedium):
            drive.write_block(block)
        assert drive.position() == position(count, 0)
        with pytest.raises(EndOfMedium):
            drive.write_block(block)
        drive.write_filemarks(1, sync=True)
        drive.rewind()
        assert read_all(drive) == [block] * count + [FILEMARK]

    def test_write_protection(self, bench: DriveBench, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK, sync=True)
        assert not drive.status().write_protected
        drive.unload()
        drive.close()
        bench.take_out()
        bench.protect()
        bench.put_in()
        again = bench.open()
        again.load()
        assert again.status().write_protected
        with pytest.raises(WriteProtected):
            again.write_block(b"x")
        with pytest.raises(WriteProtected):
            again.write_filemarks(1, sync=True)
        again.write_filemarks(0, sync=True)
        assert read_all(again) == [block_of(0), FILEMARK]
        again.close()

    @pytest.mark.parametrize("long", [False, True], ids=["short", "long"])
    def test_erased_from_the_beginning_a_tape_is_blank(self, bench: DriveBench, drive: Drive, long: bool) -> None:
        """And one that cannot be written over is as it was."""
        items = [block_of(0), block_of(1, 300 * KIB), FILEMARK, block_of(3), FILEMARK]
        write(drive, *items, sync=True)
        drive.rewind()
        try:
            drive.erase(long=long)
        except NotSupported:
            assert long
            assert read_all(drive) == items
            return
        assert drive.position() == position(0, 0)
        self.test_a_blank_tape_has_no_data(drive)
        drive.unload()
        drive.close()
        again = bench.open()
        again.load()
        self.test_a_blank_tape_has_no_data(again)
        write(again, block_of(7), FILEMARK)
        again.rewind()
        assert read_all(again) == [block_of(7), FILEMARK]
        again.close()

    @pytest.mark.parametrize("at", [1, 2, 3, 6])
    def test_an_erase_goes_from_the_head_to_the_end(self, drive: Drive, at: int) -> None:
        items = [block_of(0), block_of(1), FILEMARK, block_of(3), FILEMARK, block_of(5)]
        write(drive, *items)
        drive.locate(BlockNo(at))
        drive.erase(long=False)
        assert drive.position().block == at
        with pytest.raises(EndOfData):
            read(drive)
        write(drive, block_of(9))
        drive.rewind()
        assert read_all(drive) == [*items[:at], block_of(9)]

    def test_what_is_protected_is_not_erased(self, bench: DriveBench, drive: Drive) -> None:
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.unload()
        drive.close()
        bench.take_out()
        bench.protect()
        bench.put_in()
        again = bench.open()
        again.load()
        with pytest.raises(WriteProtected):
            again.erase(long=False)
        again.rewind()
        assert read_all(again) == [block_of(0), FILEMARK]
        again.close()

    def test_what_can_be_written_once_is_not_erased(self, bench: DriveBench) -> None:
        bench.make_worm()
        drive = bench.open()
        drive.load()
        write(drive, block_of(0), FILEMARK, sync=True)
        drive.rewind()
        for long in (False, True):
            with pytest.raises(WriteProtected):
                drive.erase(long=long)
        drive.rewind()
        assert read_all(drive) == [block_of(0), FILEMARK]
        drive.close()

    def test_counters_tell_what_was_done_and_outlive_the_process(self, bench: DriveBench, drive: Drive) -> None:
        write(drive, block_of(0, 100), block_of(1, 200), FILEMARK, sync=True)
        drive.rewind()
        read(drive)
        drive.locate(BlockNo(2))
        counters = drive.status().counters
        assert (counters.loads, counters.locates) == (1, 1)
        assert (counters.blocks_written, counters.bytes_written) == (2, 300)
        assert (counters.blocks_read, counters.bytes_read) == (1, 100)
        drive.close()
        again = bench.open()
        assert again.status().counters.bytes_written == 300
        again.close()

    def test_status_describes_drive_and_cartridge(self, drive: Drive) -> None:
        status = drive.status()
        assert status.generation >= 5
        assert status.medium_generation is not None
        assert status.capacity_bytes >= 16 * MIB
        assert 0 < status.remaining_bytes < status.capacity_bytes
        assert status.identity


def places(changer: Changer) -> tuple[list[str | None], list[str | None]]:
    """Return the barcodes in drives, and in slots."""
    elements = changer.inventory()
    return (
        [each.barcode for each in elements if each.kind is ElementKind.DRIVE],
        [each.barcode for each in elements if each.kind is ElementKind.SLOT],
    )


class ChangerContract:
    """The changer's promises, see `drivers.interface.Changer`."""

    @pytest.fixture
    def changer(self, library: ChangerBench) -> Iterator[Changer]:
        changer = library.open()
        yield changer
        changer.close()

    def test_inventory_lists_drives_then_slots(self, changer: Changer) -> None:
        elements = changer.inventory()
        assert [(each.kind, each.number, each.full) for each in elements] == [
            (ElementKind.DRIVE, 0, False),
            (ElementKind.DRIVE, 1, False),
            (ElementKind.SLOT, 0, True),
            (ElementKind.SLOT, 1, True),
            (ElementKind.SLOT, 2, False),
        ]
        assert elements[4] == Element(ElementKind.SLOT, 2, False, None)
        assert elements[2].barcode != elements[3].barcode

    def test_moves(self, changer: Changer) -> None:
        _, (first, second, _) = places(changer)
        changer.load(0, 1)
        assert places(changer) == ([None, first], [None, second, None])
        changer.transfer(1, 0)
        assert places(changer) == ([None, first], [second, None, None])
        changer.unload(1, 2)
        assert places(changer) == ([None, None], [second, None, first])

    @pytest.mark.parametrize(
        ("move", "error"),
        [
            (("load", 2, 0), SlotEmpty),
            (("unload", 0, 2), SlotEmpty),
            (("transfer", 2, 0), SlotEmpty),
            (("transfer", 0, 1), SlotFull),
            (("transfer", 0, 0), SlotFull),
            (("load", 3, 0), NoSuchElement),
            (("load", 0, 2), NoSuchElement),
            (("load", -1, 0), NoSuchElement),
            (("unload", 2, 0), NoSuchElement),
            (("unload", 0, 3), NoSuchElement),
            (("transfer", 0, 3), NoSuchElement),
        ],
    )
    def test_impossible_moves_change_nothing(
        self, changer: Changer, move: tuple[str, int, int], error: type[ChangerError]
    ) -> None:
        before = changer.inventory()
        with pytest.raises(error):
            getattr(changer, move[0])(*move[1:])
        assert changer.inventory() == before

    def test_a_full_drive_and_a_full_slot_are_refused(self, changer: Changer) -> None:
        changer.load(0, 0)
        with pytest.raises(SlotFull):
            changer.load(1, 0)
        with pytest.raises(SlotFull):
            changer.unload(0, 1)

    def test_a_threaded_cartridge_stays(self, library: ChangerBench, changer: Changer) -> None:
        changer.load(0, 0)
        drive = library.open_drive(0)
        drive.load()
        with pytest.raises(NotReady):
            changer.unload(0, 0)
        drive.unload()
        changer.unload(0, 0)
        assert drive.status().barcode is None
        drive.close()

    def test_the_drive_gets_the_cartridge_that_was_moved(self, library: ChangerBench, changer: Changer) -> None:
        _, (_, second, _) = places(changer)
        changer.load(1, 0)
        drive = library.open_drive(0)
        assert drive.status().barcode == second
        drive.load()
        assert drive.status().barcode == second
        drive.close()

    def test_close_is_harmless_twice(self, changer: Changer) -> None:
        changer.close()
        changer.close()
