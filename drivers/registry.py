"""The table of drivers: what a setting's driver name opens. Blocking; any thread.

A new driver is one package and one line in `DRIVERS`. A changer that goes with any drives is one line in `CHANGERS`.
What they need is imported when it is used. Faults on request (TAPEFS_FAULTS) are applied here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from drivers.config import LibraryConfig
from drivers.interface import Changer, Drive
from drivers.virtual.changer import VirtualChanger
from drivers.virtual.layout import cartridge_folder
from drivers.virtual.opening import open_virtual_drive
from drivers.virtual.state import read_state


@dataclass(frozen=True, slots=True)
class Driver:
    """How to open what a driver drives."""

    #: Raises ValueError when settings cannot be meant for this driver; touches no device.
    check: Callable[[LibraryConfig], None]
    #: Library, number of the drive.
    open_drive: Callable[[LibraryConfig, int], Drive]
    open_changer: Callable[[LibraryConfig], Changer]
    #: Library, barcode: bytes of a cartridge that is not in a drive, None where only a drive can tell.
    capacity_bytes: Callable[[LibraryConfig, str], int | None]
    #: What to write as `changer`, for drivers that cannot do without; "" for the others.
    changer_example: str = ""


def _check_virtual(library: LibraryConfig) -> None:
    if library.drives or library.changer:
        raise ValueError("the virtual library has a number of drives and no changer to be named")


def _open_virtual_drive(library: LibraryConfig, number: int) -> Drive:
    return open_virtual_drive(library.folder, number, library.motion)


def _open_virtual_changer(library: LibraryConfig) -> Changer:
    return VirtualChanger(library.folder, library.motion)


def _virtual_capacity(library: LibraryConfig, barcode: str) -> int:
    return read_state(cartridge_folder(library.folder, barcode)).capacity_bytes


def _check_iscsi(library: LibraryConfig) -> None:
    from drivers.iscsi.driver import check

    check(library)


def _open_iscsi_drive(library: LibraryConfig, number: int) -> Drive:
    from drivers.iscsi.driver import open_drive

    return open_drive(library, number)


def _open_iscsi_changer(library: LibraryConfig) -> Changer:
    from drivers.iscsi.driver import open_changer

    return open_changer(library)


def _check_st(library: LibraryConfig) -> None:
    from drivers.st.driver import check

    check(library)


def _open_st_drive(library: LibraryConfig, number: int) -> Drive:
    from drivers.st.driver import open_drive

    return open_drive(library, number)


def _open_st_changer(library: LibraryConfig) -> Changer:
    from drivers.st.driver import open_changer

    return open_changer(library)


def _check_ltfs(library: LibraryConfig) -> None:
    from drivers.ltfs.driver import check

    check(library)


def _open_ltfs_drive(library: LibraryConfig, number: int) -> Drive:
    from drivers.ltfs.driver import open_drive

    return open_drive(library, number)


def _open_ltfs_changer(library: LibraryConfig) -> Changer:
    from drivers.ltfs.driver import open_changer

    return open_changer(library)


def _ltfs_capacity(library: LibraryConfig, barcode: str) -> int | None:
    from drivers.ltfs.driver import capacity_bytes

    return capacity_bytes(library, barcode)


def _check_itdt(library: LibraryConfig) -> None:
    from drivers.itdt.driver import check

    check(library)


def _open_itdt_drive(library: LibraryConfig, number: int) -> Drive:
    from drivers.itdt.driver import open_drive

    return open_drive(library, number)


def _open_itdt_changer(library: LibraryConfig) -> Changer:
    from drivers.itdt.driver import open_changer

    return open_changer(library)


def _unknown_capacity(library: LibraryConfig, barcode: str) -> None:
    return None


_ISCSI_CHANGER = "iscsi://HOST[:PORT]/TARGET/LUN"

DRIVERS = {
    "virtual": Driver(_check_virtual, _open_virtual_drive, _open_virtual_changer, _virtual_capacity),
    "iscsi": Driver(_check_iscsi, _open_iscsi_drive, _open_iscsi_changer, _unknown_capacity, _ISCSI_CHANGER),
    "st": Driver(_check_st, _open_st_drive, _open_st_changer, _unknown_capacity, "/dev/sch0"),
    "itdt": Driver(_check_itdt, _open_itdt_drive, _open_itdt_changer, _unknown_capacity, "/dev/IBMchanger0"),
    "ltfs": Driver(_check_ltfs, _open_ltfs_drive, _open_ltfs_changer, _ltfs_capacity),
}


def _open_mtx(library: LibraryConfig, address: str) -> Changer:
    from drivers.mtx.changer import MtxChanger, parse_address

    device, numbers = parse_address(address)
    return MtxChanger(device, numbers)


def _check_mtx(address: str) -> None:
    from drivers.mtx.changer import parse_address

    parse_address(address)


def _open_human(library: LibraryConfig, address: str) -> Changer:
    from drivers.human.changer import HumanChanger
    from drivers.virtual.layout import read_library

    drives = len(library.drives) if library.driver != "virtual" else len(read_library(library.folder).drives)
    return HumanChanger(library.folder, drives)


def _check_human(address: str) -> None:
    if address:
        raise ValueError(f"a human as the changer is just human: nothing stands behind it, not {address}")


@dataclass(frozen=True, slots=True)
class AnyChanger:
    """How to open a changer that goes with any drives; a setting names it before a colon."""

    #: Raises ValueError when what stands behind the colon cannot be meant.
    check: Callable[[str], None]
    open: Callable[[LibraryConfig, str], Changer]


CHANGERS = {
    "human": AnyChanger(_check_human, _open_human),
    "mtx": AnyChanger(_check_mtx, _open_mtx),
}


def _any_changer(library: LibraryConfig) -> tuple[AnyChanger, str] | None:
    """Return the changer that goes with any drives and its address, None when it is the driver's own."""
    name, _, address = library.changer.partition(":")
    return (CHANGERS[name], address) if name in CHANGERS else None


def _driver(name: str) -> Driver:
    if name not in DRIVERS:
        raise ValueError(f"driver {name!r} is unknown: use one of {', '.join(DRIVERS)}")
    return DRIVERS[name]


def check_library(library: LibraryConfig) -> None:
    """Raise ValueError with what to write instead when the settings make no sense. Touches no device."""
    found = _any_changer(library)
    if found is not None:
        changer, address = found
        changer.check(address)
        library = replace(library, changer="")
    driver = _driver(library.driver)
    driver.check(library)
    if found is None and driver.changer_example and not library.changer:
        raise ValueError(
            f'the driver {library.driver} needs `changer = "{driver.changer_example}"`, `"mtx:/dev/sg3"` or `"human"`'
        )


def open_drive(library: LibraryConfig, number: int) -> Drive:
    """Open drive `number`, from 0. Raises ValueError for unknown names and modes, DriveInUse, DeviceFailed."""
    return _driver(library.driver).open_drive(library, number)


def open_changer(library: LibraryConfig) -> Changer:
    """Open the changer. Raises ValueError for unknown names and modes, DeviceFailed."""
    found = _any_changer(library)
    if found is not None:
        changer, address = found
        return changer.open(library, address)
    return _driver(library.driver).open_changer(library)


def cartridge_bytes(library: LibraryConfig, barcode: str) -> int | None:
    """Return the capacity of a cartridge wherever it lies; None where only a drive can tell.

    Raises ValueError for unknown names, DeviceFailed.
    """
    return _driver(library.driver).capacity_bytes(library, barcode)


def drive_name(number: int) -> str:
    """Return the name by which people call drive `number`, for instance drive0."""
    return f"drive{number}"
