"""The devices themselves: those that the kernel knows, and those of the state folder's library. Blocking.

Nobody's device is asked while he uses it: who opens a device next is told what happened to it meanwhile, and must hear
that himself.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import closing

from drivers.config import LibraryConfig
from drivers.errors import DeviceFailed, DriveError, DriveInUse
from drivers.interface import Element, ElementKind
from drivers.registry import CHANGERS, drive_name, open_changer, open_drive
from drivers.scsi.device import Device
from drivers.scsi.transport import Transport
from drivers.st.device import TapeNode
from drivers.st.discovery import Found, System
from drivers.st.sg_io import SgIo
from drivers.virtual.layout import read_library
from tapefs.doctor.changer import look_at_changer, look_at_elements
from tapefs.doctor.drive import Asked, look_at_drive
from tapefs.doctor.findings import Finding, Grade
from tapefs.home import Home
from tapefs.sizes import counted


def look_at_kernels(system: System, block_bytes: int) -> Iterator[Finding]:
    """Yield what the drives and changers that the kernel knows say of themselves."""
    for found in system.tapes():
        if found.sg is not None:
            yield from _kernels_drive(found, Asked(str(found.node or found.sg), block_bytes, str(found.sg)))
    for found in system.changers():
        if found.sg is not None:
            yield from _kernels_changer(found)


def _kernels_drive(found: Found, asked: Asked) -> Iterator[Finding]:
    try:
        # st gives a drive to one process: whoever works with it is not disturbed.
        node = None if found.node is None else TapeNode(found.node)
    except OSError as error:
        yield _not_opened(asked.about, error)
        return
    try:
        transport = _locked(found)
        try:
            yield from look_at_drive(transport, asked)
        finally:
            transport.close()
    except DriveInUse as error:
        yield _in_use(asked.about, error)
    except DeviceFailed as error:
        yield asked.finding(Grade.PROBLEM, str(error))
    finally:
        if node is not None:
            node.close()


def _kernels_changer(found: Found) -> Iterator[Finding]:
    about = str(found.node or found.sg)
    try:
        yield from look_at_changer(_locked(found), about, (), sg=str(found.sg))
    except DriveInUse as error:
        yield _in_use(about, error)
    except DeviceFailed as error:
        yield Finding(grade=Grade.PROBLEM, about=about, says=str(error))


def _locked(found: Found) -> SgIo:
    if found.sg is None:
        raise AssertionError("a device without an sg node")
    transport = SgIo(found.sg)
    try:
        transport.lock()
    except BaseException:
        transport.close()
        raise
    return transport


def _not_opened(about: str, error: OSError) -> Finding:
    if error.errno == errno.EBUSY:
        return _in_use(about, error)
    return Finding(
        grade=Grade.PROBLEM, about=about, says=f"cannot be opened: {error.strerror}", shows=f"mt -f {about} status"
    )


def _in_use(about: str, error: Exception) -> Finding:
    words = error.strerror if isinstance(error, OSError) else str(error)
    return Finding(
        grade=Grade.NOTE, about=about, says=f"is in use, so it is not asked ({words})", shows=f"lsof {about}"
    )


# -- the library of a state folder -------------------------------------------------------------------------------------


def look_at_library(home: Home, system: System | None = None) -> Iterator[Finding]:
    """Yield what there is to say of the library that the settings name; the caller owns the state folder."""
    driver = home.library_config.driver
    if driver == "virtual":
        yield from _virtual(home)
    elif driver == "iscsi":
        yield from _iscsi(home)
    elif driver == "st":
        yield from _named(home, system or System())
    else:
        yield from _opened(home)
    yield from _other_changer(home.library_config)


def _other_changer(library: LibraryConfig) -> Iterator[Finding]:
    """Ask a changer that was not asked by SCSI commands: a human's shelf, by mtx, by itdt."""
    kind, _, address = library.changer.partition(":")
    if kind not in CHANGERS and library.driver != "itdt":
        return
    about, shows = library.changer, ""
    if kind == "mtx":
        shows = f"mtx -f {address.partition(',')[0]} status"
    elif kind == "human":
        shows = "tapefs prompts"
    else:
        shows = f"itdt -f {library.changer} inventory"
    try:
        with closing(open_changer(library)) as changer:
            elements = changer.inventory()
    except DriveError as error:
        yield Finding(grade=Grade.PROBLEM, about=about, says=str(error), shows=shows)
        return
    if kind == "human":
        yield from _shelf(elements, about, shows)
    else:
        yield from look_at_elements(elements, about, about, shows)


def _shelf(elements: Sequence[Element], about: str, shows: str) -> Iterator[Finding]:
    tapes = [each for each in elements if each.full]
    in_drives = [f"{each.barcode} in {drive_name(each.number)}" for each in tapes if each.kind is ElementKind.DRIVE]
    words = ", ".join([f"{len(tapes) - len(in_drives)} tapes on the shelf", *in_drives])
    yield Finding(
        grade=Grade.GOOD if tapes else Grade.WARNING, about=about, says=f"somebody puts the tapes in: {words}",
        fix="" if tapes else "say which tapes there are: tapefs tape add BARCODE ...", shows=shows,
    )  # fmt: skip


def _named(home: Home, system: System) -> Iterator[Finding]:
    """Does the kernel know what the settings name? How it is was told before."""
    for name in home.library_config.drives:
        try:
            found = system.tape(name)
        except DriveError as error:
            yield Finding(grade=Grade.PROBLEM, about=name, says=str(error), shows="ls -l /dev/tape/by-id; lsscsi -g")
        else:
            yield Finding(grade=Grade.GOOD, about=name, says=f"is {found.node}, {found.identity}")


def _opened(home: Home) -> Iterator[Finding]:
    library = home.library_config
    for number, name in enumerate(library.drives):
        try:
            drive = open_drive(library, number)
        except DriveError as error:
            yield Finding(grade=Grade.PROBLEM, about=name, says=str(error))
            continue
        try:
            status = drive.status()
            yield Finding(grade=Grade.GOOD, about=name, says=status.identity)
        except DriveError as error:
            yield Finding(grade=Grade.PROBLEM, about=name, says=str(error))
        finally:
            drive.close()


def _virtual(home: Home) -> Iterator[Finding]:
    try:
        layout = read_library(home.library)
    except DriveError as error:
        yield Finding(grade=Grade.PROBLEM, about=str(home.library), says=str(error))
        return
    status = os.statvfs(home.library)
    free_bytes = status.f_bavail * status.f_frsize
    yield Finding(
        grade=Grade.GOOD if free_bytes > 2**30 else Grade.WARNING, about=str(home.library),
        says=f"a virtual library of {counted(len(layout.drives), 'drive')} and {counted(len(layout.slots), 'slot')}; "
        f"{free_bytes / 1e9:,.1f} GB are free on the disk below it",
        fix="" if free_bytes > 2**30 else "make room: a virtual tape is full when the disk is",
        shows=f"df -h {home.library}",
    )  # fmt: skip


def _serial_of(transport: Transport) -> list[str]:
    """Return the serial number, nothing for a drive that does not answer, of which enough was said."""
    try:
        return [Device(transport).serial]
    except DriveError:
        return []


def _iscsi(home: Home) -> Iterator[Finding]:
    from drivers.iscsi.driver import open_transport

    library, block_bytes = home.library_config, home.settings.backup.block_size
    serials = []
    for url in library.drives:
        try:
            transport = open_transport(url, library.iscsi)
        except DriveError as error:
            yield Finding(grade=Grade.PROBLEM, about=url, says=str(error), shows="iscsi-ls iscsi://HOST:PORT")
            continue
        try:
            yield from look_at_drive(transport, Asked(url, block_bytes))
            serials += _serial_of(transport)
        finally:
            transport.close()
    if library.changer.startswith("iscsi://"):
        try:
            changer = open_transport(library.changer, library.iscsi)
        except DriveError as error:
            yield Finding(grade=Grade.PROBLEM, about=library.changer, says=str(error))
            return
        yield from look_at_changer(changer, library.changer, serials)
