"""Finding drives and changers in sysfs: a tree as Linux makes it, and names that lead to a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from drivers.errors import DeviceFailed, DeviceGone
from drivers.st.discovery import Found, System


def page_80(serial: str) -> bytes:
    return bytes([0x01, 0x80, 0, len(serial)]) + serial.encode()


class Tree:
    """Devices below `tmp_path`, as sysfs and udev show them."""

    def __init__(self, root: Path) -> None:
        self.system = System(root / "sys", root / "dev")
        (root / "dev").mkdir()

    def add(self, address: str, kind: int, nodes: dict[str, str], serial: str | None, by_id: str = "") -> None:
        """Add a device; `nodes` are folders of sysfs and the names in them."""
        device = self.system.sys / "bus/scsi/devices" / address
        device.mkdir(parents=True)
        for folder, names in nodes.items():
            for name in names.split():
                (device / folder / name).mkdir(parents=True)
                (self.system.dev / name).touch()
        for name, text in {"type": str(kind), "vendor": "IBM     ", "model": "ULT3580-TD9     ", "rev": "R3G0"}.items():
            (device / name).write_text(text + "\n")
        if serial is not None:
            (device / "vpd_pg80").write_bytes(page_80(serial))
        if by_id:
            link = self.system.dev / "tape/by-id" / by_id
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to("../../" + next(each for each in nodes["scsi_tape"].split() if each == "nst0"))


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree(tmp_path)
    eight = "nst0 nst0a nst0l nst0m st0 st0a st0l st0m"
    tree.add("10:0:0:0", 1, {"scsi_tape": "nst1 st1", "scsi_generic": "sg2"}, " 10WT002 ")
    tree.add("2:0:0:0", 1, {"scsi_tape": eight, "scsi_generic": "sg7"}, "10WT001", "scsi-10WT001-nst")
    tree.add("2:0:0:1", 8, {"scsi_changer": "sch0", "scsi_generic": "sg8"}, "78A0001")
    tree.add("3:0:0:0", 0, {"scsi_generic": "sg0"}, "A DISK")
    (tree.system.sys / "bus/scsi/devices/host2").mkdir()
    return tree


def test_tapes_and_changers(tree: Tree, tmp_path: Path) -> None:
    dev = tmp_path / "dev"
    first, second = tree.system.tapes()
    assert first == Found(
        node=dev / "nst0",
        sg=dev / "sg7",
        vendor="IBM",
        model="ULT3580-TD9",
        revision="R3G0",
        serial="10WT001",
        address="2:0:0:0",
        stable_names=(dev / "tape/by-id/scsi-10WT001-nst",),
    )
    assert first.identity == "IBM ULT3580-TD9 10WT001"
    assert (second.node, second.sg, second.serial, second.stable_names) == (dev / "nst1", dev / "sg2", "10WT002", ())
    (changer,) = tree.system.changers()
    assert (changer.node, changer.sg, changer.serial) == (dev / "sch0", dev / "sg8", "78A0001")


@pytest.mark.parametrize("name", ["nst0", "st0", "sg7", "tape/by-id/scsi-10WT001-nst"])
def test_a_drive_by_any_of_its_nodes(tree: Tree, tmp_path: Path, name: str) -> None:
    assert tree.system.tape(str(tmp_path / "dev" / name)).address == "2:0:0:0"


def test_by_serial_number(tree: Tree) -> None:
    assert tree.system.tape("10WT002").address == "10:0:0:0"
    assert tree.system.changer("78A0001").address == "2:0:0:1"


@pytest.mark.parametrize("name", ["10WT009", "/dev/nst5", "78A0001", "", "A DISK"])
def test_what_is_not_there_is_told_with_what_is(tree: Tree, name: str) -> None:
    with pytest.raises(DeviceGone, match=r"nst0 \(IBM ULT3580-TD9 10WT001\), .*nst1 \(IBM ULT3580-TD9 10WT002\)"):
        tree.system.tape(name)


def test_no_devices_at_all(tmp_path: Path) -> None:
    assert System(tmp_path, tmp_path).tapes() == []
    with pytest.raises(DeviceGone, match="the kernel knows none"):
        System(tmp_path, tmp_path).changer("78A0001")


def test_two_with_one_serial_number_are_not_guessed_between(tree: Tree) -> None:
    tree.add("4:0:0:0", 1, {"scsi_tape": "nst4", "scsi_generic": "sg4"}, "10WT001")
    with pytest.raises(DeviceGone, match="2 devices have the serial number 10WT001"):
        tree.system.tape("10WT001")


def test_without_the_drivers_modules(tree: Tree) -> None:
    tree.add("5:0:0:0", 1, {"scsi_generic": "sg5"}, "NO-ST")
    tree.add("5:0:0:1", 8, {"scsi_changer": "sch1"}, "NO-SG")
    with pytest.raises(DeviceFailed, match="modprobe st"):
        tree.system.tape("NO-ST")
    with pytest.raises(DeviceFailed, match="modprobe sg"):
        tree.system.changer("NO-SG")


@pytest.mark.parametrize("page", [b"", b"\1\x80", page_80("X")[:4], bytes([1, 0x83, 0, 1, 65])])
def test_a_serial_number_that_nobody_can_tell(tree: Tree, page: bytes) -> None:
    tree.add("6:0:0:0", 1, {"scsi_tape": "nst6"}, None)
    (tree.system.sys / "bus/scsi/devices/6:0:0:0/vpd_pg80").write_bytes(page)
    assert tree.system.tapes()[-2].serial == ""
