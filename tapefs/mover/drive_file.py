"""The drive's newest state as a file, for `tapefs drives`. Written by the thread that has the drive."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import msgspec

from drivers.interface import DriveStatus


def write_drive_file(folder: Path, name: str, state: str, status: DriveStatus) -> None:
    """Replace `<name>.json` in `folder`. Not synced: after a power cut the next state comes soon enough."""
    record = {
        "name": name,
        "state": state,
        "tape": status.barcode,
        "identity": status.identity,
        "compresses": status.compresses,
        "counters": asdict(status.counters),
    }
    folder.mkdir(mode=0o700, exist_ok=True)
    temporary = folder / f".{name}.json"
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.rename(folder / f"{name}.json")
