"""Which drive of a state folder's library cannot read or write which of its tapes, by their generations. Blocking.

What generation a drive is it has told its mover the last time that one had it; nothing is opened for this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing

import msgspec

from catalog.lmdb_ledger import LmdbLedger
from catalog.records import Volume, VolumeState
from drivers.lto import Use, use
from drivers.registry import drive_name
from drivers.virtual.layout import read_library
from tapefs.doctor.findings import Finding, Grade
from tapefs.home import Home
from tapefs.tape.barcodes import generation_of

#: Tapes that are named one by one.
_NAMED = 5
_SHOWS = "tapefs tapes"


class _DriveFile(msgspec.Struct, frozen=True):
    generation: int = 0


def look_at_generations(home: Home) -> Iterator[Finding]:
    """Yield what does not fit together of the drives and the tapes that the ledger knows. Raises catalog errors."""
    if not home.ledger.exists():
        return
    with closing(LmdbLedger.open(home.ledger, readonly=True)) as ledger:
        tapes = [each for each in ledger.volumes() if _is_known(each)]
    yield from findings_of(drive_generations(home), tapes)


def drive_generations(home: Home) -> dict[str, int]:
    """Return the LTO generation of each drive that is known."""
    names = [drive_name(number) for number in range(home.settings.library.drive_count)]
    if home.library_config.driver == "virtual":
        return {name: bay.generation for name, bay in zip(names, read_library(home.library).drives, strict=False)}
    told = {name: _told(home, name) for name in names}
    return {name: generation for name, generation in told.items() if generation}


def findings_of(drives: Mapping[str, int], tapes: Sequence[Volume]) -> Iterator[Finding]:
    """Yield a finding of each drive and what it cannot do, and one of tapes that no drive reads."""
    unreadable = set[str]()
    if drives:
        unreadable = {
            each.label for each in tapes if all(_use(drive, each) is Use.NOTHING for drive in drives.values())
        }
    for name, generation in drives.items():
        for wanted, verb, rest in (
            (Use.NOTHING, "neither reads nor writes", "another drive reads"),
            (Use.READING, "reads and does not write", ""),
        ):
            found = [each for each in tapes if each.label not in unreadable and _use(generation, each) is wanted]
            if found:
                says = f"is LTO-{generation} and {verb} {_names(found)}{f', which {rest}' if rest else ''}"
                yield Finding(grade=Grade.NOTE, about=name, says=says, shows=_SHOWS)
    if unreadable:
        yield Finding(
            grade=Grade.WARNING,
            about="tapes",
            says=f"no drive reads {_names([each for each in tapes if each.label in unreadable])}",
            fix="have a drive of their generation, or of the next one, read them",
            shows=_SHOWS,
        )
    elif drives and tapes and all(_use(drive, each) is Use.WRITING for drive in drives.values() for each in tapes):
        yield Finding(grade=Grade.GOOD, about="tapes", says="every drive reads and writes every tape", shows=_SHOWS)


def _is_known(volume: Volume) -> bool:
    """Does anybody know its generation? Of a blank tape without a telling barcode nobody does."""
    return volume.state is not VolumeState.BLANK or generation_of(volume.code) is not None


def _use(drive: int, volume: Volume) -> Use:
    return use(drive, volume.generation, is_type_m=volume.code.endswith("M8"))


def _told(home: Home, name: str) -> int:
    try:
        return msgspec.json.decode((home.drives / f"{name}.json").read_bytes(), type=_DriveFile).generation
    except (FileNotFoundError, msgspec.MsgspecError):
        return 0


def _names(tapes: Sequence[Volume]) -> str:
    named = ", ".join(f"{each.label} (LTO-{each.generation})" for each in tapes[:_NAMED])
    return named if len(tapes) <= _NAMED else f"{named} and {len(tapes) - _NAMED} more"
