"""Which tape drives and changers the Linux kernel knows, by sysfs. Blocking; any thread.

Nodes are numbered in the order of appearance: after the next start /dev/nst0 can be another drive. So a drive is named
by /dev/tape/by-id or by its serial number, and both are looked up here. Nothing is opened but, where sysfs does not
tell the serial number, the sg node.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from drivers.errors import BadAnswer, DeviceFailed, DeviceGone, DriveInUse
from drivers.scsi import cdb
from drivers.scsi.inquiry import SERIAL_NUMBER, parse_serial
from drivers.scsi.transport import Status
from drivers.st.sg_io import SgIo

_INQUIRY_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """One tape drive or changer."""

    #: The node to use: /dev/nst0, or /dev/sch0 for a changer. None when the driver for it is not loaded.
    node: Path | None
    #: For SCSI commands: /dev/sg3. None when the sg module is not loaded.
    sg: Path | None
    vendor: str
    model: str
    #: Firmware level.
    revision: str
    #: "" when the device does not tell it.
    serial: str
    #: Host, channel, target and unit, as lsscsi prints them.
    address: str
    #: Names below /dev/tape/by-id and by-path that lead to `node`: the same after every start.
    stable_names: tuple[Path, ...]

    @property
    def identity(self) -> str:
        """Return vendor, model and serial number in one line."""
        return " ".join(filter(None, (self.vendor, self.model, self.serial)))


_TAPE, _CHANGER = "1", "8"


@dataclass(frozen=True, slots=True)
class System:
    """Where the kernel shows its devices; tests have their own."""

    sys: Path = Path("/sys")
    dev: Path = Path("/dev")

    def tapes(self) -> list[Found]:
        """Return all tape drives."""
        return list(self._found(_TAPE, "scsi_tape", "nst"))

    def changers(self) -> list[Found]:
        """Return all changers."""
        return list(self._found(_CHANGER, "scsi_changer", "sch"))

    def _found(self, kind: str, driver: str, prefix: str) -> Iterator[Found]:
        folder = self.sys / "bus/scsi/devices"
        for device in sorted(folder.iterdir(), key=_numbers) if folder.is_dir() else []:
            if _text(device / "type") == kind:
                yield self._describe(device, driver, prefix)

    def _describe(self, device: Path, driver: str, prefix: str) -> Found:
        node = self._node(device / driver, prefix)
        sg = self._node(device / "scsi_generic", "sg")
        return Found(
            node=node,
            sg=sg,
            vendor=_text(device / "vendor"),
            model=_text(device / "model"),
            revision=_text(device / "rev"),
            serial=_serial(device, sg),
            address=device.name,
            stable_names=self._stable_names(node) if node else (),
        )

    def _node(self, folder: Path, prefix: str) -> Path | None:
        """Return the node whose name is `prefix` and a number: there are also nst0a, nst0l and nst0m."""
        names = [each.name for each in folder.iterdir()] if folder.is_dir() else []
        return next((self.dev / each for each in names if each.removeprefix(prefix).isdecimal()), None)

    def _stable_names(self, node: Path) -> tuple[Path, ...]:
        links = [each for kind in ("by-id", "by-path") for each in sorted((self.dev / "tape" / kind).glob("*"))]
        return tuple(each for each in links if each.resolve() == node.resolve())

    def tape(self, name: str) -> Found:
        """Return the drive that a setting names: a node, a name below /dev/tape, or a serial number.

        A node that rewinds on close (/dev/st0) stands for the one that does not. Raises DeviceGone, and DeviceFailed
        for a drive that the st driver does not hold.
        """
        found = _named(name, self.tapes(), "tape drive")
        if found.node is None:
            raise DeviceFailed(f"{found.identity} has no tape node: load the st module (modprobe st)")
        return found

    def changer(self, name: str) -> Found:
        """Return the changer that a setting names: a node or a serial number. Raises DeviceGone, DeviceFailed."""
        found = _named(name, self.changers(), "changer")
        if found.sg is None:
            raise DeviceFailed(f"{found.identity} has no sg node: load the sg module (modprobe sg)")
        return found


def _named(name: str, devices: list[Found], kind: str) -> Found:
    if "/" in name:
        real = Path(name).resolve()
        meant = real.with_name("n" + real.name) if real.name.startswith("st") else real
        matching = [each for each in devices if meant in (each.node, each.sg)]
    else:
        matching = [each for each in devices if each.serial == name != ""]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise DeviceGone(f"{len(matching)} devices have the serial number {name}: name one by its node")
    there = ", ".join(f"{each.node or each.sg} ({each.identity})" for each in devices)
    raise DeviceGone(
        f"there is no {kind} {name}: " + (f"the kernel knows {there}" if there else "the kernel knows none")
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


def _numbers(device: Path) -> tuple[int, ...]:
    """Sort 2:0:0:0 before 10:0:0:0; hosts and targets have other names."""
    parts = device.name.split(":")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _serial(device: Path, sg: Path | None) -> str:
    """Return the serial number as the kernel asked for it once, or ask again; "" when nobody tells."""
    try:
        return parse_serial((device / "vpd_pg80").read_bytes())
    except (OSError, BadAnswer):
        return _ask_serial(sg) if sg else ""


def _ask_serial(sg: Path) -> str:
    try:
        device = SgIo(sg)
    except (DeviceFailed, DriveInUse):
        return ""
    buffer = memoryview(bytearray(252))
    try:
        reply = device.execute(cdb.inquiry(252, page=SERIAL_NUMBER), data_in=buffer, timeout_s=_INQUIRY_S)
        return parse_serial(bytes(buffer[: reply.moved_bytes])) if reply.status is Status.GOOD else ""
    except (DeviceFailed, BadAnswer):
        return ""
    finally:
        device.close()
