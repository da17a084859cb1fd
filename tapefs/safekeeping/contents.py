"""What is in a copy of the catalog, and under which names. Pure.

A copy is a `.tar.zst`: plain files, and as the last one `MANIFEST.json`, which names all others with their SHA-256.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from catalog.ids import InstallationId

FORMAT = 1
MANIFEST = "MANIFEST.json"
LEDGER = "ledger/data.mdb"
#: Name of the job that takes copies to tape.
COPY_JOB = "tapefs-catalog"

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_NAMES = re.compile(
    rf"{re.escape(LEDGER)}|index/{_UUID}\.(?:lmdb|names)|trailers/{_UUID}\.zst|reports/[0-9A-Za-z][\w.-]*"
    rf"|keys/[0-9A-Za-z][\w.-]*|tapefs\.toml|recall\.json|{re.escape(MANIFEST)}"
)

_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Item(msgspec.Struct, frozen=True, array_like=True):
    """A file of the copy."""

    name: str
    bytes: _Natural
    #: Hexadecimal.
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a copy says of itself; unknown keys are ignored."""

    format: int
    software: str
    installation: InstallationId
    created_ns: int
    #: Complete sets in it.
    sets: _Natural
    #: Ids of complete sets that had no index when it was made.
    without_index: tuple[str, ...] = ()
    items: tuple[Item, ...]


def is_name(name: str) -> bool:
    """May a file of this name be in a copy? No such name leads out of the state folder."""
    return _NAMES.fullmatch(name) is not None
