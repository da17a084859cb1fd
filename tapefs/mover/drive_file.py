"""The drive's newest state as a file, for `tapefs drives`.

Written by the thread that has the drive; while no mover has it, by the sidecar.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import msgspec

from drivers.interface import DriveStatus


def write_drive_file(
    folder: Path,
    name: str,
    state: str,
    status: DriveStatus,
    note: str = "",
    *,
    wants_cleaning: bool = False,
    encrypts: bool = False,
) -> None:
    """Replace `<name>.json` in `folder`. Not synced: after a power cut the next state comes soon enough."""
    record: dict[str, object] = {
        "name": name,
        "state": state,
        "note": note,
        "wants_cleaning": wants_cleaning,
        "encrypts": encrypts,
        "tape": status.barcode,
        "identity": status.identity,
        "generation": status.generation,
        "compresses": status.compresses,
        "counters": asdict(status.counters),
    }
    _replace(folder, name, record)


def write_failure(folder: Path, name: str, reason: str) -> None:
    """Say in the drive's file that it has failed; what is known of it otherwise stays. Raises OSError."""
    try:
        record = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=dict[str, object])
    except (FileNotFoundError, msgspec.DecodeError):
        record = {"name": name}
    _replace(folder, name, {**record, "state": "failed", "reason": reason})


def says_it_encrypts(folder: Path, name: str) -> bool:
    """Does its file say that the drive can encrypt? Without a file that can be read: no."""
    try:
        record = msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return False
    return record.get("encrypts") is True


def _replace(folder: Path, name: str, record: dict[str, object]) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    temporary = folder / f".{name}.json"
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.rename(folder / f"{name}.json")
