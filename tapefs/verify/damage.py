"""The file that says what is wrong with a damaged copy: one for each copy of a segment, replaced when it is read again.

JSON lines: a Damage, then a LostFile for every file of which content is lost, in tape order. Blocking; any thread.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path

import msgspec

from catalog.ids import SegmentId, SetId, VolumeId
from tapefs.durable import sync_folder
from tapefs.format.records import as_bytes, as_text
from tapefs.home import Home


class Damage(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a copy back has found."""

    segment: SegmentId
    set: SetId
    volume: VolumeId
    #: Label of the tape.
    tape: str
    found_at_ns: int
    #: Sentences for people: what of the segment is not as it was written.
    problems: list[str]
    #: Runs of damaged frames: the first, and how many.
    frames: list[tuple[int, int]]


class LostFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of which this copy does not hold all content; one of `path` and `path_b64` is there."""

    path: str = ""
    path_b64: bytes = b""

    @classmethod
    def of(cls, path: bytes) -> LostFile:
        """Make one."""
        text, raw = as_text(path)
        return cls(path=text, path_b64=raw)

    @property
    def raw(self) -> bytes:
        """The path as the kernel has it."""
        return as_bytes(self.path, self.path_b64)


def write_damage(home: Home, damage: Damage, paths: Iterable[bytes]) -> int:
    """Write the file, durably; return how many files it names. Raises OSError; then the older one is still there."""
    place = home.damage(damage.segment, damage.volume)
    place.parent.mkdir(mode=0o700, exist_ok=True)
    draft = place.with_suffix(".part")
    encode = msgspec.json.Encoder().encode
    count = 0
    try:
        with draft.open("wb") as file:
            file.write(encode(damage) + b"\n")
            for path in paths:
                file.write(encode(LostFile.of(path)) + b"\n")
                count += 1
            file.flush()
            os.fsync(file.fileno())
        draft.rename(place)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(place.parent)
    return count


def forget_damage(home: Home, segment_id: SegmentId, volume_id: VolumeId) -> None:
    """The copy is good: remove the file, if there is one."""
    home.damage(segment_id, volume_id).unlink(missing_ok=True)


def read_damage(path: Path) -> tuple[Damage, Generator[bytes, None, None]] | None:
    """Return what the file says, and the paths of lost files as a generator that keeps it open; None: no such file.

    Raises OSError, and ValueError when it is damaged.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        damage = msgspec.json.decode(file.readline(), type=Damage)
    except BaseException:
        file.close()
        raise

    def paths() -> Generator[bytes, None, None]:
        with file:
            yield b""  # Begun at once, so that `close` closes the file.
            for line in file:
                yield msgspec.json.decode(line, type=LostFile).raw

    begun = paths()
    next(begun)
    return damage, begun
