"""A small segment whose bytes are known everywhere and never zero, and what other processes do with it."""

import hashlib
import os
import random
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from catalog.ids import SegmentId
from catalog.index.model import FrameRow
from tapefs.staging import map_file
from tapefs.staging.stage import SegmentStage

SEGMENT = SegmentId("2f0c1d66-6d7c-4d8e-9a52-6f2f4e1a0b01")
OTHER = SegmentId("2f0c1d66-6d7c-4d8e-9a52-6f2f4e1a0b02")
#: No multiple of a block, so that neighbours share blocks.
FRAME_BYTES = 70_001
FRAMES = 16


def frame_rows(lengths: Sequence[int] = (FRAME_BYTES,) * FRAMES) -> list[FrameRow]:
    rows, at = [], 0
    for length in lengths:
        rows.append(FrameRow(at, length, at // 2, length // 2, bytes(16)))
        at += length
    return rows


def plain_stream(length: int = FRAME_BYTES * FRAMES) -> bytes:
    return bytes(value or 1 for value in random.Random(5).randbytes(length))


PLAIN = plain_stream()


def frame_content(stage: SegmentStage, frame: int) -> bytes:
    offset, length = stage.extent_of(frame)
    return PLAIN[offset : offset + length]


def publish_all(stage: SegmentStage) -> None:
    for frame in range(stage.frame_count):
        stage.publish(frame, frame_content(stage, frame))


@contextmanager
def opened(folder: Path, segment: SegmentId = SEGMENT) -> Iterator[SegmentStage]:
    stage = SegmentStage.create(folder, segment, frame_rows())
    try:
        yield stage
    finally:
        stage.close()


def reboot(monkeypatch: pytest.MonkeyPatch, later_s: int = 100) -> None:
    """Have it look as if the machine had been started again, so long after its last start."""
    booted_s = map_file.boot_time_s()
    identity = hashlib.md5(map_file.boot_id(), usedforsecurity=False).digest()
    monkeypatch.setattr(map_file, "boot_id", lambda: identity)
    monkeypatch.setattr(map_file, "boot_time_s", lambda: booted_s + later_s)


def as_of_an_earlier_boot(folder: Path) -> None:
    """Have all maps look, to every process, as if the machine had been started again since they were made."""
    for path in folder.glob("*.map"):
        content = bytearray(path.read_bytes())
        count = int.from_bytes(content[32:40], "little")
        content[48:64] = b"another boot id!"
        content[12:16] = bytes(4)
        content[12:16] = zlib.crc32(content[: 4096 + 16 * count]).to_bytes(4, "little")
        path.write_bytes(content)


def flip(folder: Path, segment: SegmentId, offset: int) -> None:
    """Change one bit of the plain stream behind everybody's back."""
    with open(folder / f"{segment}.plain", "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x20]))


def read_and_compare(folder: Path, seconds: float, seed: int) -> tuple[int, int, int]:
    """Return hits, cold reads, wrong reads."""
    chance = random.Random(seed)
    hits = cold = wrong = 0
    end_s = time.monotonic() + seconds
    with opened(folder) as stage:
        while time.monotonic() < end_s:
            length = chance.choice((100, 4096, 65536, 150_000))
            offset = chance.randrange(len(PLAIN) - length)
            content = stage.read(offset, length)
            if content is None:
                cold += 1
            elif content == PLAIN[offset : offset + length]:
                hits += 1
            else:
                wrong += 1
    return hits, cold, wrong


def keep_publishing(folder: Path, seconds: float) -> int:
    published = 0
    end_s = time.monotonic() + seconds
    with opened(folder) as stage:
        while time.monotonic() < end_s:
            for frame in stage.missing(range(FRAMES)):
                stage.publish(frame, frame_content(stage, frame))
                published += 1
            # Asked with nothing to do, the loop would only take time from the readers.
            time.sleep(0.0002)
    return published


def keep_evicting(folder: Path, seconds: float, seed: int) -> int:
    chance = random.Random(seed)
    freed = 0
    end_s = time.monotonic() + seconds
    with opened(folder) as stage:
        while time.monotonic() < end_s:
            first = chance.randrange(FRAMES)
            freed += stage.evict(range(first, min(FRAMES, first + chance.choice((1, 1, 4, 16)))))
            time.sleep(0.002)
    return freed


def keep_pinning(folder: Path, seconds: float, seed: int) -> tuple[int, int]:
    """Pin, read everything pinned several times, let go; return how many pins held and how many reads went wrong."""
    chance = random.Random(seed)
    held = wrong = 0
    end_s = time.monotonic() + seconds
    with opened(folder) as stage:
        while time.monotonic() < end_s:
            first = chance.randrange(FRAMES - 3)
            frames = range(first, first + chance.choice((1, 3)))
            pin = stage.pin(frames)
            if pin is None:
                continue
            held += 1
            offset, length = frames.start * FRAME_BYTES, len(frames) * FRAME_BYTES
            for _ in range(3):
                wrong += stage.read(offset, length) != PLAIN[offset : offset + length]
                time.sleep(0.001)
            pin.release()
    return held, wrong


def pin_for_ever(folder: Path, first: int, stop: int, ready: Path) -> None:
    with opened(folder) as stage:
        pin = stage.pin(range(first, stop))
        assert pin is not None
        ready.touch()
        time.sleep(60)


def create_and_publish(folder: Path, frame: int) -> int:
    """Create at the same moment as others, publish one frame; return the inode of the .plain file."""
    with opened(folder) as stage:
        stage.publish(frame, frame_content(stage, frame))
        return os.stat(folder / f"{SEGMENT}.plain").st_ino
