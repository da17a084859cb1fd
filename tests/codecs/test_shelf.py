"""Outputs in memory that is used again: never while somebody has a view of it, and never too much of it."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tapefs.codecs import CODECS, MAX_FRAME_BYTES
from tapefs.codecs.shelf import Shelf

FRAME_BYTES = 4 << 20
SLAB_BYTES = FRAME_BYTES + FRAME_BYTES // 128 + 4096


def shelf(most_bytes: int = 64 << 20) -> Shelf:
    return Shelf(SLAB_BYTES, most_bytes)


@pytest.mark.parametrize("name", ["zstd", "tar"])
@pytest.mark.parametrize("size", [0, 1, 300_000, FRAME_BYTES, 2 * FRAME_BYTES])
def test_frames_on_a_shelf_are_those_of_an_encoder_without_one(name: str, size: int) -> None:
    """They are the same bytes, whether they compress or not, and longer frames than the shelf is made for too."""
    codec = CODECS[name]
    for plain in (os.urandom(size), b"tapefs" * (size // 6)):
        for level in (codec.levels[0], codec.default_level):
            assert codec.encoder(level, shelf())(plain) == codec.encoder(level)(plain)


def test_the_encoders_limit_holds_on_a_shelf() -> None:
    """A frame that no reader would take is not written."""
    with pytest.raises(ValueError, match="bytes"):
        CODECS["zstd"].encoder(1, shelf())(bytes(MAX_FRAME_BYTES + 1))


def test_an_output_cannot_be_changed() -> None:
    """Who keeps blocks for the drive takes what is read-only as it is, without a copy."""
    stored = CODECS["tar"].encoder(0, shelf())(os.urandom(FRAME_BYTES))
    assert memoryview(stored).readonly


def test_memory_is_not_used_again_while_there_is_a_view() -> None:
    """A slice of an output keeps all of it, as the blocks before a drive do when the frame is long gone."""
    encode = CODECS["tar"].encoder(0, shelf())
    plain = os.urandom(FRAME_BYTES)
    kept = memoryview(encode(plain))[1_000_000:1_100_000]
    gc.collect()
    others = [encode(bytes([number]) * FRAME_BYTES) for number in range(4)]
    assert kept == plain[1_000_000:1_100_000]
    assert [other[0] for other in others] == [0, 1, 2, 3]


def test_memory_is_used_again_when_the_last_view_is_gone() -> None:
    """However many outputs there have been, the memory is that of those that were there at once."""
    place = shelf()
    encode = CODECS["tar"].encoder(0, place)
    plain = os.urandom(FRAME_BYTES)
    for _ in range(20):
        first, second = encode(plain), encode(plain)
        assert first == second
        del first, second
    assert place.held_bytes == 2 * FRAME_BYTES


def test_free_memory_goes_when_there_is_too_much() -> None:
    """What a burst has taken does not stay."""
    place = shelf(most_bytes=6 * FRAME_BYTES)
    encode = CODECS["tar"].encoder(0, place)
    plain = os.urandom(FRAME_BYTES)
    burst = [encode(plain) for _ in range(12)]
    assert place.held_bytes == 12 * FRAME_BYTES
    burst.clear()
    kept = encode(plain)
    assert kept == plain
    assert place.held_bytes <= 6 * FRAME_BYTES


def test_a_short_output_does_not_hold_what_a_long_one_needed() -> None:
    """Frames that compress do not wait for the drive in as much memory as those that do not."""
    place = shelf()
    encode = CODECS["tar"].encoder(0, place)
    long = encode(os.urandom(FRAME_BYTES))
    del long
    short = os.urandom(FRAME_BYTES // 8)
    assert encode(short) == short
    assert place.held_bytes <= FRAME_BYTES // 8 + (1 << 20)


def test_threads_share_a_shelf() -> None:
    """Each output holds what its thread has put there, while others take and leave memory."""
    place = shelf(most_bytes=8 << 20)

    def work(number: int) -> int:
        encode = CODECS["zstd"].encoder(1, place)
        decode = CODECS["zstd"].decode
        kept = []
        for turn in range(12):
            plain = os.urandom(600_000 + 1000 * number + turn) + bytes(500_000 * (turn % 3))
            kept.append((plain, encode(plain)))
            if len(kept) > 3:
                expected, stored = kept.pop(0)
                assert decode(stored, len(expected)) == expected
        return sum(decode(stored, len(expected)) == expected for expected, stored in kept)

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(work, range(4))) == [3] * 4
