"""Sizes and counts for people. Pure; any thread."""

from __future__ import annotations


def size(count_bytes: int) -> str:
    """Return a size for people, such as 1.5 GiB."""
    value = float(count_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} PiB"


def counted(count: int, noun: str, ending: str = "s", one: str = "") -> str:
    """Return a number with its noun, such as `1 frame` or `1,024 frames`; `one` is the ending of a single one."""
    return f"{count:,} {noun}{one if count == 1 else ending}"
