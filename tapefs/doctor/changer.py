"""What a library says of itself, without moving anything. Blocking; one thread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from drivers.errors import DriveError
from drivers.interface import Element, ElementKind
from drivers.scsi.changer import ScsiChanger
from drivers.scsi.transport import Transport
from tapefs.doctor.findings import Finding, Grade


def look_at_changer(transport: Transport, about: str, serials: Sequence[str], *, sg: str = "") -> Iterator[Finding]:
    """Yield what there is to say. `serials` are those of the drives that the settings name, none if they name none."""
    mtx = f"mtx -f {sg} status" if sg else ""
    try:
        changer = ScsiChanger(transport, serials)
        try:
            yield from _contents(changer, about, mtx)
        finally:
            changer.close()
    except DriveError as error:
        yield Finding(grade=Grade.PROBLEM, about=about, says=str(error), shows=mtx)


def _contents(changer: ScsiChanger, about: str, mtx: str) -> Iterator[Finding]:
    yield from look_at_elements(changer.inventory(), changer.name, about, mtx)
    yield from _drives(changer, about, mtx)


def look_at_elements(elements: Sequence[Element], name: str, about: str, shows: str) -> Iterator[Finding]:
    """Yield what there is to say of the places of a library; `shows` is a command that shows the same."""
    counts = ", ".join(f"{_count(elements, kind)} {kind.value}s" for kind in ElementKind if _count(elements, kind))
    full = [each for each in elements if each.full]
    yield Finding(grade=Grade.GOOD, about=about, says=f"{name}: {counts}, {len(full)} cartridges", shows=shows)
    unnamed = [each for each in full if not each.barcode]
    if unnamed:
        where = ", ".join(f"{each.kind.value} {each.number}" for each in unnamed)
        yield Finding(
            grade=Grade.WARNING, about=about, says=f"cartridges without a readable barcode in {where}",
            fix="put labels on them: a tape is known by its barcode", shows=shows,
        )  # fmt: skip


def _drives(changer: ScsiChanger, about: str, mtx: str) -> Iterator[Finding]:
    names = changer.drive_names()
    if not any(names.values()):
        yield Finding(
            grade=Grade.WARNING, about=about,
            says="does not tell the serial numbers of its drives: they are taken in the order of their addresses",
            fix="name the drives in that order in tapefs.toml, and check with one cartridge", shows=mtx,
        )  # fmt: skip
    for address, name in sorted(names.items()):
        if name:
            yield Finding(grade=Grade.GOOD, about=about, says=f"its drive at {address:#x} is {name}", shows=mtx)


def _count(elements: Sequence[Element], kind: ElementKind) -> int:
    return sum(each.kind is kind for each in elements)
