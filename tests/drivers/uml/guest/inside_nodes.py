"""In the guest: the kernel's nodes over a tape of tgt. What `st` does by itself is shown here, and undone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.errors import DriveInUse
from drivers.scsi.transport import Status
from drivers.st.device import Flag, Op, Option, TapeNode
from drivers.st.discovery import System
from drivers.st.sg_io import SgIo

NST = Path("/dev/nst0")
INQUIRY = bytes([0x12, 0, 0, 0, 96, 0])
MTFSF = 1
LOCATE_16 = bytes([0x92, *bytes(15)])


def sg_of(nst: Path) -> Path:
    sg = System().tape(str(nst)).sg
    assert sg is not None
    return sg


@pytest.fixture
def sg() -> Iterator[SgIo]:
    device = SgIo(sg_of(NST))
    yield device
    device.close()


@pytest.fixture
def node() -> Iterator[TapeNode]:
    node = TapeNode(NST)
    node.do(Op.REWIND)
    node.do(Op.SET_BLOCK_SIZE, 0)
    node.do(Op.WRITE_FILEMARKS)
    node.do(Op.REWIND)
    yield node
    node.close()


def test_the_drive_is_found_by_its_nodes_and_its_serial_number() -> None:
    (found,) = System().tapes()
    assert (found.node, found.vendor) == (NST, "IET")
    assert found.serial
    for name in ("/dev/nst0", "/dev/st0", str(found.sg), found.serial):
        assert System().tape(name) == found
    # lsscsi is another who reads sysfs.
    line = subprocess.run(["lsscsi", "-g", found.address], check=True, capture_output=True, text=True).stdout
    assert line.split()[0] == f"[{found.address}]"
    assert line.split()[-2:] == ["/dev/st0", str(found.sg)]


@pytest.mark.parametrize("of", [sg_of, Path], ids=["sg", "nst"])
def test_a_command_by_either_node(of: type[Path]) -> None:
    device = SgIo(of(NST))
    buffer = memoryview(bytearray(96))
    reply = device.execute(INQUIRY, data_in=buffer, timeout_s=10)
    device.close()
    assert reply.status is Status.GOOD
    # Sequential access, and tgt's vendor.
    assert (buffer[0], bytes(buffer[8:16])) == (0x01, b"IET     ")
    assert 36 <= reply.moved_bytes <= 96


def test_sense_comes_back(sg: SgIo) -> None:
    reply = sg.execute(LOCATE_16, timeout_s=10)
    assert reply.status is Status.CHECK_CONDITION
    # Illegal request, invalid command: tgt has no LOCATE.
    assert (reply.sense[0] & 0x7F, reply.sense[2] & 0x0F, reply.sense[12]) == (0x70, 5, 0x20)


@pytest.mark.parametrize("readonly", [False, True])
def test_large_transfers_both_ways(sg: SgIo, node: TapeNode, readonly: bool) -> None:
    data = os.urandom(sg.max_transfer_bytes)
    length = len(data).to_bytes(3, "big")
    out = data if readonly else memoryview(bytearray(data))
    assert sg.execute(bytes([0x0A, 0, *length, 0]), data_out=out, timeout_s=60).status is Status.GOOD
    assert sg.execute(bytes([0x01, 0, 0, 0, 0, 0]), timeout_s=60).status is Status.GOOD
    back = memoryview(bytearray(len(data)))
    reply = sg.execute(bytes([0x08, 0, *length, 0]), data_in=back, timeout_s=60)
    assert (reply.status, reply.moved_bytes) == (Status.GOOD, len(data))
    assert bytes(back) == data


def test_a_lock_keeps_others_away(sg: SgIo) -> None:
    sg.lock()
    other = SgIo(sg_of(NST))
    with pytest.raises(DriveInUse, match="in use"):
        other.lock()
    sg.close()
    other.lock()
    other.close()


def test_the_kernel_gives_the_tape_to_one_process(node: TapeNode) -> None:
    with pytest.raises(OSError, match="busy"):
        TapeNode(NST)


def filemarks(node: TapeNode) -> int:
    """Count from the start; tgt says that there is no more by failing the motion."""
    node.do(Op.REWIND)
    for count in range(10):
        try:
            node.do(MTFSF)
        except OSError:
            return count
    raise AssertionError("more than ten filemarks")


@pytest.mark.parametrize(("forget", "left"), [(False, 1), (True, 0)])
def test_st_writes_a_filemark_on_close_unless_it_forgot(node: TapeNode, forget: bool, left: int) -> None:
    node.write(b"block" * 100)
    if forget:
        node.forget()
    node.reopen()
    assert filemarks(node) == left


def test_st_writes_a_filemark_when_it_rewinds_unless_it_forgot(node: TapeNode) -> None:
    node.write(b"block" * 100)
    node.forget()
    assert filemarks(node) == 0
    node.do(Op.REWIND)
    node.write(b"block" * 100)
    assert filemarks(node) == 1


def test_state_and_options(node: TapeNode) -> None:
    state = node.state()
    assert state.flags & Flag.ONLINE
    assert state.flags & Flag.START
    assert not state.flags & (Flag.WRITE_PROTECTED | Flag.EMPTY)
    assert state.block_size_bytes == 0
    node.do(Op.SET_BLOCK_SIZE, 4096)
    assert node.state().block_size_bytes == 4096
    node.set_options(on=Option.SCSI2_LOGICAL, off=Option.ASYNC_WRITES | Option.READ_AHEAD)
    node.set_timeout(1234)
    assert Path("/sys/class/scsi_tape/nst0/device/timeout").read_text() == "1234\n"


def test_early_warning_is_known_after_the_write(node: TapeNode) -> None:
    """tgt warns with every block behind its size; st tells of it with an error in the write behind."""
    block = bytes(1024 * 1024)
    for _ in range(40):
        assert node.write(block) == len(block)
        if node.state().flags & Flag.END_OF_TAPE:
            break
    else:
        raise AssertionError("no early warning on a tape of 32 MiB")
    with pytest.raises(OSError, match="No space left"):
        node.write(block)
    # It is said once: the next block is written.
    assert node.write(block) == len(block)
    node.forget()
