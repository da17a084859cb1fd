"""Why a tape is SUSPECT, where nothing is wrong with the tape. Pure.

Either the ledger knows too little of it, as when the catalog was brought back from an old copy: reading the tape takes
in what is new and ends the doubt. Or another tape lay in its place: finding it there again does.
"""

from __future__ import annotations

from catalog.records import Volume

#: What every such reason says; before there was a command the other two.
_MARKS = ("`tapefs import ", "data behind block", "that the ledger does not know")

#: What every reason says that comes of another tape under its barcode.
CHECK_BARCODES = "check the barcodes"


def remedy(volume: Volume) -> str:
    """Return the command that ends the doubt, for a sentence."""
    return f"`tapefs import {volume.code}`"


def unknown_data(volume: Volume) -> str:
    """Return the sentence of a tape that goes on behind what the ledger knows."""
    return (
        f"tape {volume.label} has data behind block {volume.end_block} that the ledger does not know: "
        f"{remedy(volume)} takes in what is new; nothing is written to it meanwhile"
    )


def is_of_ledger(reason: str) -> bool:
    """Is the tape in doubt only because the ledger knows too little of it?"""
    return _MARKS[0] in reason or all(mark in reason for mark in _MARKS[1:])


def is_of_place(reason: str) -> bool:
    """Is the tape in doubt only because another one was found under its barcode?"""
    return CHECK_BARCODES in reason
