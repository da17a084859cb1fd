"""Tapes that go out of a robot's library through its ports, and come in. One trio run."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import trio

from catalog.records import Volume
from drivers.interface import Element, ElementKind
from drivers.registry import drive_name
from sidecar.tapes.library import Library
from tapefs.errors import NoTape, NotNow, UsageError

#: A drive that rests may take so long to give up its tape; one that does something is waited for no longer than this.
GIVE_UP_S, REST_S = 300.0, 5.0
LOOK_S = 0.1
#: Who waits for the tape in a drive: no other drive, each time somebody else.
_nobody = count(-1, -1)


async def send_out(library: Library, ring: Callable[[], None], volume: Volume) -> Element:
    """Bring a tape to a free port; return that. Raises UsageError, NoTape, NotNow while it is in use, DriveError.

    `ring` has the drives look what is to be done.
    """
    _check_robot(library)
    await library.refresh()
    place = library.place_of(volume.code)
    if place is None:
        raise NoTape(library.missing(volume))
    if place.kind is ElementKind.PORT:
        return place
    if library.free(ElementKind.PORT) is None:
        raise NoTape("no port of the library is free: take out what lies there, or `tapefs tape import` takes it in")
    if place.kind is ElementKind.DRIVE:
        await put_back(library, ring, volume, place.number)
    return await library.transfer(volume.code, ElementKind.PORT)


async def take_in(library: Library) -> list[Element]:
    """Bring what lies in the ports to free slots; return those. Raises UsageError, NoTape without any, DriveError."""
    _check_robot(library)
    await library.refresh()
    taken = []
    for port in [each for each in library.elements if each.kind is ElementKind.PORT and each.full]:
        if port.barcode is None:
            raise NoTape(f"what lies in port {port.number} has no barcode that can be read: take it out")
        taken.append(await library.transfer(port.barcode, ElementKind.SLOT))
    await library.refresh()
    return taken


async def put_back(library: Library, ring: Callable[[], None], volume: Volume, drive: int) -> None:
    """Have a drive that rests bring its tape to a slot. Raises NotNow when it works with it."""
    with trio.move_on_after(REST_S):
        while drive not in library.resting:
            await trio.sleep(LOOK_S)
    if drive not in library.resting:
        raise NotNow(f"tape {volume.label} is in {drive_name(drive)}, which works: try again when it rests")
    library.let_go(drive)  # It has done with it.
    waiter = next(_nobody)
    library.await_tape(volume.volume_id, waiter)
    ring()
    try:
        with trio.move_on_after(GIVE_UP_S):
            while not library.is_held(volume.volume_id):
                place = library.place_of(volume.code)
                if place is None or place.kind is not ElementKind.DRIVE:
                    return
                await trio.sleep(LOOK_S)
    finally:
        library.stop_awaiting(waiter)
    raise NotNow(f"tape {volume.label} does not come out of {drive_name(drive)}: see `tapefs drives`")


def _check_robot(library: Library) -> None:
    if library.human is not None:
        raise UsageError("people move the tapes of this library: see `tapefs tape add` and `remove`")
    if not any(each.kind is ElementKind.PORT for each in library.elements):
        raise UsageError("this library has no import/export port")
