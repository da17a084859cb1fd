"""The memory chip of a virtual cartridge: its use, and what hosts wrote into it. Blocking; belongs to its holder.

`memory.json` lies in the cartridge's folder. Counts are not waited for; what hosts write is. A torn file reads as an
empty chip.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from drivers.errors import DeviceFailed
from drivers.virtual.durable import replace_file

#: A chip remembers the drives of its last loads.
REMEMBERED_DRIVES = 4


class Attribute(msgspec.Struct, frozen=True):
    """What a host wrote under one attribute number."""

    #: 0 binary, 1 ASCII, 2 text, as SPC numbers them.
    kind: int
    value: bytes


class MemoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The content of `memory.json`."""

    version: int = 1
    loads: int = 0
    #: Of the whole life, and since the last load.
    written_bytes: int = 0
    read_bytes: int = 0
    last_written_bytes: int = 0
    last_read_bytes: int = 0
    #: Identities of the drives of the last loads, newest first.
    drives: list[str] = []
    #: Attribute number, four hexadecimal digits -> what a host wrote.
    attributes: dict[str, Attribute] = {}

    def loaded_by(self, identity: str) -> MemoryRecord:
        """Return the memory after one more load."""
        return msgspec.structs.replace(
            self,
            loads=self.loads + 1,
            last_written_bytes=0,
            last_read_bytes=0,
            drives=[identity, *self.drives][:REMEMBERED_DRIVES],
        )

    def used(self, *, written_bytes: int, read_bytes: int) -> MemoryRecord:
        """Return the memory when that many bytes were written and read since the load."""
        return msgspec.structs.replace(
            self,
            written_bytes=self.written_bytes - self.last_written_bytes + written_bytes,
            read_bytes=self.read_bytes - self.last_read_bytes + read_bytes,
            last_written_bytes=written_bytes,
            last_read_bytes=read_bytes,
        )

    def with_attribute(self, number: int, attribute: Attribute | None) -> MemoryRecord:
        """Return the memory with another attribute, or without it."""
        attributes = {key: each for key, each in self.attributes.items() if key != f"{number:04x}"}
        if attribute is not None:
            attributes[f"{number:04x}"] = attribute
        return msgspec.structs.replace(self, attributes=attributes)


def read_memory(cartridge: Path) -> MemoryRecord:
    """Read the chip of the cartridge in that folder. Raises DeviceFailed when it is out of reach."""
    path = cartridge / "memory.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=MemoryRecord)
    except (FileNotFoundError, msgspec.DecodeError):
        return MemoryRecord()
    except OSError as error:
        raise DeviceFailed(f"cannot read {path}: {error.strerror}") from error


def write_memory(cartridge: Path, memory: MemoryRecord, *, sync: bool) -> None:
    """Write the chip. Raises DeviceFailed."""
    path = cartridge / "memory.json"
    try:
        replace_file(path, msgspec.json.encode(memory), sync=sync)
    except OSError as error:
        raise DeviceFailed(f"cannot write {path}: {error.strerror}") from error
